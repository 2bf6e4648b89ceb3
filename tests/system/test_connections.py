"""What is seen of a program's talk with its API: real sockets, real processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from relayq.clock import boottime
from relayq.host.connections import Watch
from relayq.host.silence import Silence
from tests.waiting import until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform != "linux", reason="needs sock_diag and /proc"),
]

#: Sends a request, and does then what its standard input says.
PROGRAM = """
import socket, subprocess, sys
port, size = map(int, sys.argv[1:])
api = socket.create_connection(("127.0.0.1", port))
api.sendall(b"x" * size)
for line in sys.stdin:
    if line == "tool\\n":
        tool = subprocess.Popen(["sleep", "600"], start_new_session=True)
    elif line == "busy\\n":
        while True: pass
    print("done", flush=True)
"""


class Talk:
    """A program that has sent its request, and the API's end of the connection."""

    def __init__(self, api: socket.socket, program: subprocess.Popen[str]) -> None:
        self.api = api
        self.program = program
        self.watch = Watch(program.pid)

    def look(self):
        return self.watch.look(boottime())

    def tell(self, word, *, waits=True):
        self.program.stdin.write(f"{word}\n")
        self.program.stdin.flush()
        if waits:
            self.program.stdout.readline()


@contextmanager
def talk(size=4000):
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = [sys.executable, "-c", PROGRAM, str(server.getsockname()[1]), str(size)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(argv, start_new_session=True, **pipes) as program:
            api, _ = server.accept()
            with api:
                received = 0
                while received < size:
                    received += len(api.recv(65536))
                made = Talk(api, program)
                # The kernel counts what was acknowledged, which may be a moment later.
                seen = made.watch
                until(lambda: size < 512 or seen.look(0).unanswered is not None, what="the request")
                seen.begin()
                try:
                    yield made
                finally:
                    for tool in psutil.Process(program.pid).children():
                        tool.kill()
                    program.kill()


def test_a_request_without_an_answer_is_seen_until_there_is_one():
    with talk() as made:
        assert made.look().unanswered is not None
        made.api.sendall(b"{}")
        until(lambda: made.look().unanswered is None, what="the answer to be seen")


def test_what_arrives_is_news_once():
    with talk() as made:
        made.look()
        made.api.sendall(b"x" * 100)
        until(lambda: made.look().arrived, what="the answer to be seen")

        seen = made.look()
        assert (seen.arrived, seen.flows, seen.is_at_work) == (False, False, False)


def test_a_long_answer_flows_and_a_short_one_is_perhaps_an_error():
    with talk() as made:
        made.look()
        made.api.sendall(b"x" * 2000)
        until(lambda: made.look().arrived, what="the beginning to be seen")
        made.api.sendall(b"x" * 30_000)

        until(lambda: made.look().flows, what="an answer to be seen")


def test_what_keeps_a_connection_going_is_no_request():
    with talk(size=40) as made:
        assert made.look().unanswered is None


@pytest.mark.parametrize("word", ["tool", "busy"])
def test_a_tool_at_work_is_seen(word):
    with talk() as made:
        assert not made.look().is_at_work
        made.tell(word, waits=word == "tool")

        until(lambda: made.look().is_at_work, what="the work to be seen")


def test_silence_is_counted_from_the_request_on_and_ends_with_its_answer():
    with talk() as made:
        silence = Silence(made.program.pid)
        asked = {"is_retrying": False, "is_using_tools": False}
        first = silence.waited(100.0, **asked)
        later = silence.waited(160.0, **asked)
        assert (first.answer < 30, later.answer > 30, later.access) == (True, True, 0)
        assert silence.waited(161.0, is_retrying=False, is_using_tools=True).answer == 0

        made.api.sendall(b"x" * 100)
        silence.heard(200.0)
        until(lambda: made.look().unanswered is None, what="the answer to arrive")
        assert silence.waited(300.0, **asked) == (0, 0)


def test_a_wait_that_is_said_is_counted_until_an_answer_flows():
    with talk() as made:
        silence = Silence(made.program.pid)
        asked = {"is_retrying": True, "is_using_tools": False}
        silence.waited(100.0, **asked)
        assert silence.waited(130.0, **asked).access == 30
        assert not silence.is_answered

        made.api.sendall(b"x" * 30_000)
        until(lambda: made.look().unanswered is None, what="the answer to arrive")
        silence.waited(140.0, **asked)

        assert silence.is_answered
