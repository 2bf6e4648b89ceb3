"""The end of a process tree, that tries everything to stay."""

from __future__ import annotations

import os
import signal
from time import monotonic

import psutil
import pytest

from relayq.host.process import (
    Shim,
)
from relayq.model import output
from tests.system.shims.bench import CROWD, HOPPER, TREE, ended, frames, marked, number_in, python
from tests.waiting import until

pytestmark = pytest.mark.system


def test_a_cancel_leaves_nothing_of_a_tree_that_tries_everything(bench):
    mark = bench.mark()
    shim = bench.start(*python(TREE, mark))
    until(lambda: len(marked(mark)) == 5, what="the tree of five")
    asked = monotonic()

    shim.kill("cancel", 0.5)

    record, _, _ = ended(shim)
    assert monotonic() - asked < 0.5 + 2
    assert marked(mark) == []
    assert (record.status, record.signal, record.reason) == ("signaled", signal.SIGTERM, "cancel")


def test_a_cancel_ends_400_processes_within_its_grace_and_two_seconds(bench):
    mark = bench.mark()
    shim = bench.start(*python(CROWD, mark, 400))
    until(lambda: len(marked(mark)) == 401, within=20, what="the crowd")
    asked = monotonic()

    shim.kill("cancel", 0.3)

    record, _, _ = ended(shim)
    assert monotonic() - asked < 0.3 + 2
    assert marked(mark) == []
    assert record.reason == "cancel"


def test_a_process_that_hops_from_fork_to_fork_is_ended(bench):
    counter = bench.spool / "counter"
    shim = bench.start(*python(HOPPER, bench.spool, counter), linger=60.0)
    until(lambda: number_in(counter) > 10, what="ten hops")

    shim.kill("cancel", 0.1)

    assert shim.wait(5)
    counter.unlink()
    bench.run("sleep", "0.2")
    assert not counter.exists()


def test_a_cancel_does_not_wait_for_its_grace_when_all_is_gone(bench):
    shim = bench.start(
        "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    )
    until(lambda: frames(shim), what="the trap")
    asked = monotonic()

    shim.kill("cancel", 30)

    record, out, _ = ended(shim)
    assert monotonic() - asked < 5
    assert (record.status, record.code, record.reason) == ("exited", 3, "cancel")
    assert out == b"up\nbye\n"


def test_sigterm_reaches_each_process_once(bench):
    script = (
        "import os, signal, sys, time\n"
        "def count(*_): os.write(1, b'TERM\\n')\n"
        "signal.signal(signal.SIGTERM, count)\n"
        "if os.fork() == 0: os.setsid()\n"
        "os.write(1, b'up\\n')\n"
        "while True: time.sleep(60)\n"
    )
    shim = bench.start(*python(script))
    until(lambda: ended_lines(shim) == [b"up", b"up"], what="both processes")

    shim.kill("cancel", 0.5)

    _, out, _ = ended(shim)
    assert out.count(b"TERM") == 2


def ended_lines(shim: Shim) -> list[bytes]:
    return output.only(output.split((shim.directory / "output").read_bytes())[0], 1).split()


def test_a_second_cancel_may_shorten_the_grace(bench):
    shim = bench.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
    until(lambda: frames(shim), what="the trap")

    shim.kill("cancel", 60)
    shim.kill("cancel", 0)

    assert ended(shim, within=5)[0].signal == signal.SIGKILL


def test_a_time_limit_ends_the_job(bench):
    record, out, _ = bench.run(
        "sh", "-c", "trap 'echo late; exit 0' TERM; sleep 60 & wait", timeout=0.3
    )

    assert (record.reason, record.code, out) == ("timeout", 0, b"late\n")
    assert 0.3 <= record.run_time < 3


def test_what_a_leader_leaves_may_finish_its_output(bench):
    record, out, _ = bench.run(
        "bash", "-c", "echo told > >(sleep 0.2; cat; sleep 0.2; echo end)", linger=10.0
    )

    assert out == b"told\nend\n"
    assert record.code == 0
    assert record.ended_at - record.started_at < 5


def test_what_a_leader_leaves_is_ended_when_it_lingers(bench):
    mark = bench.mark()
    script = f"(trap '' TERM; exec sleep {mark}) & setsid sleep {mark} >/dev/null 2>&1 & exit 4"
    record, _, _ = bench.run("bash", "-c", script, linger=0.2)

    assert marked(mark) == []
    assert (record.status, record.code, record.reason) == ("exited", 4, "exit")


def test_a_cancel_cuts_the_lingering_short_and_leaves_the_result(bench):
    mark = bench.mark()
    shim = bench.start_running("bash", "-c", f"sleep {mark} & exit 5", linger=60.0)
    leader = shim.run_facts().leader
    until(lambda: not psutil.pid_exists(leader), what="the leader to end")

    shim.kill("cancel", 0.2)

    record, _, _ = ended(shim, within=5)
    assert (record.code, record.reason) == (5, "exit")
    assert marked(mark) == []


def test_ending_a_session_does_not_take_the_job_along(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.5; exit 6")
    pid = shim.run_facts().shim

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(pid, number)

    assert ended(shim)[0].code == 6
