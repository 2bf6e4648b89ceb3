"""The permit: without one nothing starts and nothing runs on."""

from __future__ import annotations

import json
import os
import signal

import pytest

from relayq import clock
from relayq.host.process import (
    Permit,
    Shim,
)
from tests.system.shims.bench import COUNTER, TREE, ended, is_stopped, marked, number_in, python
from tests.waiting import until

pytestmark = pytest.mark.system


def test_a_permit_is_extended_or_ended_early_as_it_is_told(tmp_path):
    permit = Permit(tmp_path / "permit")

    permit.extend_to(100.0)
    permit.extend_to(50.0)
    assert permit.deadline() == 100.0

    permit.end_by(200.0)
    assert permit.deadline() == 100.0
    permit.end_by(60.0)
    assert permit.deadline() == 60.0


def test_without_a_permit_a_job_is_not_started(bench):
    bench.withdraw_permit()
    shim = bench.start("true")

    assert not shim.wait(0.4)
    assert shim.run_facts() is None
    bench.permit.extend_to(clock.boottime() + 60)

    assert ended(shim)[0].code == 0


def test_a_permit_of_another_boot_or_of_the_past_is_none(bench):
    bench.withdraw_permit()
    permit = bench.spool / "permit"
    permit.write_text('{"boot": "another", "deadline": 1e12}')
    shim = bench.start("true")
    assert not shim.wait(0.3)
    passed = {"boot": clock.boot_id(), "deadline": clock.boottime() - 1}
    permit.write_text(json.dumps(passed))

    assert not shim.wait(0.3)
    assert shim.run_facts() is None


def test_a_kill_before_the_start_leaves_the_job_unstarted(bench):
    bench.withdraw_permit()
    shim = bench.start("true")

    shim.kill("cancel", 10)

    record, _, _ = ended(shim)
    assert (record.status, record.reason, record.code) == ("unstarted", "cancel", None)
    assert shim.run_facts() is None


def test_a_kill_before_the_fork_of_the_shim_counts_as_well(bench):
    directory = bench.prepare("true")
    Shim(directory).kill("cancel", 10)

    bench.forks.spawn(directory)

    assert ended(Shim(directory))[0].reason == "cancel"


def test_a_job_is_frozen_while_there_is_no_permit_and_its_limit_stands_still(bench):
    counter = bench.spool / "counter"
    shim = bench.start_running(*python(COUNTER, counter), timeout=1.5)
    until(lambda: number_in(counter) > 5, what="the job to count")
    leader = shim.run_facts().leader

    bench.withdraw_permit()
    until(lambda: is_stopped(leader), what="the freeze")
    before = number_in(counter)
    assert not shim.wait(2.0)
    assert number_in(counter) == before
    bench.permit.extend_to(clock.boottime() + 60)
    until(lambda: number_in(counter) > before, what="the thaw")

    record, _, _ = ended(shim)
    assert record.reason == "timeout"
    assert 1.5 <= record.run_time < 1.9
    assert record.ended_at - record.started_at > 3.4


def test_a_permit_that_runs_out_freezes_at_once(bench):
    bench.withdraw_permit()
    deadline = clock.boottime() + 0.7
    bench.permit.extend_to(deadline)
    shim = bench.start_running("sleep", "60", check=30.0)
    leader = shim.run_facts().leader

    until(lambda: is_stopped(leader), what="the freeze")

    assert abs(clock.boottime() - deadline) < 0.3


def test_a_whole_tree_is_frozen_and_killed_frozen(bench):
    mark = bench.mark()
    shim = bench.start(*python(TREE, mark))
    until(lambda: len(marked(mark)) == 5, what="the tree of five")

    bench.withdraw_permit()
    until(lambda: all(map(is_stopped, marked(mark))), what="the freeze of all")
    shim.kill("cancel", 0.3)

    assert ended(shim)[0].reason == "cancel"
    assert marked(mark) == []


def test_a_person_may_freeze_a_job_and_thaw_it(bench):
    counter = bench.spool / "counter"
    shim = bench.start_running(*python(COUNTER, counter))
    until(lambda: number_in(counter) > 5, what="the job to count")
    leader = shim.run_facts().leader

    shim.freeze()
    until(lambda: is_stopped(leader), what="the freeze")
    os.kill(leader, signal.SIGCONT)
    until(lambda: is_stopped(leader), what="the freeze to be kept up")
    shim.thaw()
    until(lambda: not is_stopped(leader), what="the thaw")
    shim.kill("cancel", 0.2)
    shim.freeze()

    assert ended(shim)[0].reason == "cancel"


def test_what_a_leader_leaves_has_its_time_after_a_freeze_as_well(bench):
    script = "sleep 0.3; { sleep 0.6; sleep 0.6; echo end; } & exit 5"
    shim = bench.start_running("bash", "-c", script, linger=2.0)
    leader = shim.run_facts().leader
    until(lambda: not os.path.exists(f"/proc/{leader}"), what="the leader's end")

    shim.freeze()
    end = clock.boottime() + 3.0
    until(lambda: clock.boottime() > end, what="more than its time to pass")
    assert shim.is_alive()
    shim.thaw()

    record, out, _ = ended(shim)
    assert (record.code, out) == (5, b"end\n")


def test_a_permit_is_never_shortened(bench):
    before = bench.permit.deadline()

    bench.permit.extend_to(before - 100)

    assert bench.permit.deadline() == before
    assert Permit(bench.spool / "none").deadline() is None
