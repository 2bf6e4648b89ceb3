"""The plain connection of short commands: it connects, logs in and fails as redis-py does.

That it answers so is in the rest of this room, which runs on it too.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from relayq.errors import BrokerUnavailable
from relayq.store import connect
from relayq.store.direct import Address, Direct, Refused, Unreachable
from tests.conftest import RedisServer, directly


@pytest.fixture
def connection(redis7: RedisServer) -> Iterator[redis.Redis]:
    """What redis-py has for the same server."""
    with redis7.connect() as client:
        client.flushdb()
        yield client


@pytest.fixture
def direct(redis7: RedisServer) -> Iterator[Direct]:
    """A connection to an empty Redis."""
    connection = directly(redis7)
    connection.flushdb()
    yield connection
    connection.close()


@contextmanager
def answering(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listen, do that with each connection, and give the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    act(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", Address("", "localhost", 6379, 0, ())),
        ("redis://box:7000/3", Address("", "box", 7000, 3, ())),
        ("redis://:p%40ss@box:7000?db=2", Address("", "box", 7000, 2, ("p@ss",))),
        ("redis://ann:pass@[::1]:7000/0", Address("", "::1", 7000, 0, ("ann", "pass"))),
        ("unix:///run/a%20b.sock?db=1", Address("/run/a b.sock", "localhost", 6379, 1, ())),
        (
            "unix://:pass@/run/redis.sock",
            Address("/run/redis.sock", "localhost", 6379, 0, ("pass",)),
        ),
        (
            "rediss://box:7/0?ssl_cert_reqs=required&ssl_ca_certs=/my%20ca.crt",
            Address("", "box", 7, 0, (), "/my ca.crt"),
        ),
        ("rediss://box/1?ssl_cert_reqs=required", Address("", "box", 6379, 1, (), "")),
    ],
)
def test_an_address_is_read_as_redis_py_reads_it(url, expected):
    assert Address.parse(url) == expected
    theirs = redis.ConnectionPool.from_url(url).connection_kwargs
    assert theirs.get("path", "") == expected.path
    assert (theirs.get("db") or 0) == expected.database
    assert (theirs.get("password"),) == (expected.login[-1:] or (None,))


@pytest.mark.parametrize(
    "url",
    [
        "rediss://box:7000/0",
        "sentinel://box:26379",
        "redis://box/0?socket_timeout=3",
        "redis://box/first",
        "redis://box:port/0",
        "redis://ann@box/0",
    ],
)
def test_what_it_does_not_know_is_left_to_redis_py(url):
    assert Address.parse(url) is None


def test_a_connection_that_redis_closed_while_idle_is_replaced(direct, connection):
    direct.time()
    [mine] = [row for row in connection.client_list() if row["cmd"] == "time"]
    connection.client_kill_filter(_id=mine["id"])

    assert direct.exists("{test}:nothing") == 0


def test_a_script_that_redis_forgot_is_sent_again(direct, connection):
    script = direct.register_script("return ARGV[1]")
    script(keys=[], args=["a"])
    connection.script_flush()

    assert script(keys=[], args=["b"]) == b"b"


def test_what_redis_refuses_is_an_error_and_the_connection_goes_on(direct, connection):
    connection.set("{test}:text", "x")

    with pytest.raises(Refused, match="WRONGTYPE"):
        direct.hgetall("{test}:text")

    assert direct.get("{test}:text") == b"x"
    connection.delete("{test}:text")


def test_one_refused_command_of_several_leaves_no_answer_behind(direct, connection):
    connection.set("{test}:text", "x")
    pipe = direct.pipeline(transaction=False)

    with pytest.raises(Refused):
        pipe.hgetall("{test}:text").get("{test}:text").execute()

    assert direct.zcard("{test}:nothing") == 0
    connection.delete("{test}:text")


def test_several_threads_each_get_their_own_answer(direct, connection):
    connection.rpush("{test}:list", *range(500))
    wrong: list[Any] = []

    def ask(number: int) -> None:
        for _ in range(50):
            if direct.lrange("{test}:list", number, number) != [b"%d" % number]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
    connection.delete("{test}:list")


def test_a_signal_may_ask_in_the_middle_of_an_answer(direct, connection):
    connection.rpush("{test}:list", "x")
    heard: list[Any] = []

    def ask(number: int, frame: Any) -> None:
        heard.append(direct.lrange("{test}:list", 0, -1))

    before = signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        answers = [direct.hgetall("{test}:none") for _ in range(300)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert answers == [{}] * 300
    assert heard
    assert heard == [[b"x"]] * len(heard)


def test_commands_it_does_not_know_go_through_redis_py_with_those_before(direct, connection):
    pipe = direct.pipeline(transaction=False)

    answers = pipe.zcard("{test}:none").set("{test}:text", "x").get("{test}:text").execute()

    assert answers == [0, True, b"x"]
    assert direct.getrange("{test}:text", 0, 0) == b"x"
    connection.delete("{test}:text")


@pytest.mark.parametrize("secret", ["", "wrong"])
def test_a_refused_password_is_said(connection, redis7, secret):
    connection.config_set("requirepass", "right")
    try:
        login = f":{secret}@" if secret else ""
        store = connect(f"unix://{login}{redis7.socket}", is_brief=True)
        with pytest.raises(BrokerUnavailable, match="refuses the password"):
            store.jobs.count()
        store.close()
        store = connect(f"unix://:right@{redis7.socket}?db=1", is_brief=True)
        store.jobs.count()
        store.close()
    finally:
        connection.execute_command("AUTH", "right")
        connection.config_set("requirepass", "")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock"])
def test_a_broker_that_is_not_there_is_named(url):
    with pytest.raises(BrokerUnavailable, match="can't reach the broker: Error .* connecting to"):
        connect(url, is_brief=True).jobs.count()


def test_silence_is_not_waited_for_twice():
    asked = []

    def stay_silent(link: socket.socket) -> None:
        asked.append(link.recv(1 << 16))
        link.recv(1)

    with answering(stay_silent) as url:
        store = connect(url, patience=0.2, is_brief=True)
        with pytest.raises(BrokerUnavailable, match="can't reach the broker: Timeout"):
            store.jobs.count()
        store.close()

    assert len(asked) == 1


@pytest.mark.parametrize("said", [b"", b"*1\r\n$5\r\nab", b"-LOADING Redis is loading\r\n"])
def test_half_an_answer_is_an_outage(said):
    def cut_off(link: socket.socket) -> None:
        link.recv(1 << 16)
        link.sendall(said)

    with answering(cut_off) as url:
        store = connect(url, patience=1.0, is_brief=True)
        with pytest.raises(BrokerUnavailable, match="can't reach the broker"):
            store.hosts.names()
        store.close()


def test_what_may_come_from_a_stranger_is_not_taken_for_an_answer():
    with answering(lambda link: link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as url:
        direct = connect(url, is_brief=True).connection
        with pytest.raises(Unreachable, match="isn't Redis"):
            direct.time()


LOOKS = (["status"], ["hosts"], ["stats"], ["top"], ["ps"], ["ps", "--on", "mac"])


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_who_only_looks_does_not_import_redis_py(redis7, home: Path, arguments):
    program = (
        "import sys; from relayq.cli import main; main(sys.argv[1:]);"
        "print(sorted({'redis', 'asyncio', 'celery', 'rich', 'yaml'} & set(sys.modules)))"
    )
    env = {"RELAYQ_HOME": str(home), "RELAYQ_BROKER__URL": f"unix://{redis7.socket}?db=1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"
