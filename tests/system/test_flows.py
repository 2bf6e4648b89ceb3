"""Workflows from a file and from Python, on a real worker."""

from __future__ import annotations

import json
import signal

import psutil
import pytest

from relayq.workflows import Flows
from tests.system.commands import Terminal, begin, relayq, until_exists
from tests.waiting import until

pytestmark = pytest.mark.system

RELEASE = """
name: release
inputs: {version: "1.2", greeting: hello}
jobs:
  build:
    run: |
      echo "version=${{ inputs.version }}" >> $GITHUB_OUTPUT
      echo 'sizes=["small", "large; $(exit 9)"]' >> $GITHUB_OUTPUT
      echo built > out.txt
    out: [out.txt]
    outputs: [version, sizes]
  test:
    needs: build
    strategy: {matrix: {py: [3.11, 3.12], os: [linux]}}
    run: echo "py ${{ matrix.py }} of ${{ needs.build.outputs.version }}"
  each:
    needs: build
    strategy: {matrix: {size: "${{ fromJSON(steps.build.outputs.sizes) }}"}}
    run: echo "<${{ matrix.size }}>"
  never:
    needs: build
    if: steps.build.outputs.version == '9'
    run: exit 9
  ship:
    needs: [test, each, build]
    beside: build
    in: [{from: build, files: "*.txt"}]
    run: cat out.txt; echo "${{ inputs.greeting }} ${{ steps.build.outputs.version }}"
  told:
    needs: [ship, never]
    if: always()
    run: echo "ship ${{ steps.ship.result }} never ${{ steps.never.result }}"
"""


@pytest.fixture
def flow(shared_fleet):
    """What makes workflows for this fleet."""
    return Flows(shared_fleet.relay)


def written(tmp_path, text: str) -> str:
    file = tmp_path / "flow.yml"
    file.write_text(text)
    return str(file)


def attempts(run) -> dict[str, int]:
    return {one.name: one.record.attempt for one in run.jobs()}


def sleepers() -> list[int]:
    found = psutil.process_iter(["cmdline"])
    return [one.pid for one in found if one.info["cmdline"] == ["sleep", "87.5"]]


def test_a_file_is_run_to_its_end_and_told_as_it_goes(flow, tmp_path):
    file = written(tmp_path, RELEASE)

    checked = relayq("flow", "check", file)
    done = relayq("flow", "run", file, "-i", "greeting=it's $HOME")

    assert checked.returncode == 0, checked.stderr
    assert "6 steps, 7 jobs" in checked.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert "relayq: build succeeded on here" in done.stderr
    run = flow.fetch("release")
    assert run["ship"].text == "built\nit's $HOME 1.2"
    assert run["told"].text == "ship success never skipped"
    assert [one.text for one in run.steps["test"]] == ["py 3.11 of 1.2", "py 3.12 of 1.2"]
    assert sorted(one.text for one in run.steps["each"][1:]) == ["<large; $(exit 9)>", "<small>"]
    assert (run.state, run.progress) == ("succeeded", 100.0)
    shown = json.loads(relayq("flow", "show", run.id, "--json").stdout)
    assert {one["step"]: one["state"] for one in shown["jobs"]}["never"] == "skipped"
    assert "●  told  succeeded" in relayq("flow", "graph", run.id).stdout
    [first, *_] = json.loads(relayq("flow", "ls", "--json").stdout)["flows"]
    assert (first["id"], first["state"]) == (run.id, "succeeded")


def test_what_is_wrong_is_said_before_anything_is_queued(flow, tmp_path):
    file = written(tmp_path, "jobs:\n  a: {run: x, runs-on: nosuch}\n  b: {run: x, needs: c}\n")
    before = len(flow.list())

    done = relayq("flow", "run", file)
    file = written(tmp_path, "jobs:\n  a: {run: x, runs-on: nosuch}\n  b: {run: x, on: nohost}\n")
    checked = relayq("flow", "check", file)

    assert done.returncode == checked.returncode == 125
    assert f"{file}:3:22: b names c, which is no step" in done.stderr
    assert f"{file}:2:24: no known host can take it: here lacks nosuch" in checked.stderr
    assert f"{file}:3:19: no such host: nohost" in checked.stderr
    assert len(flow.list()) == before


def test_only_what_failed_and_what_comes_after_it_runs_again(flow, tmp_path):
    fixed = tmp_path / "fixed"
    made = flow("mending")
    good = made.add("good", "true")
    bad = made.add("bad", f"test -e {fixed}", needs=[good])
    made.add("after", "echo ok", needs=[bad])
    made.add("beside", "echo ok", needs=[good])
    run = made.run()

    assert run.wait(30) == "failed"
    assert attempts(run) == {"good": 1, "bad": 1, "after": 0, "beside": 1}
    told = relayq("flow", "show", run.id)
    assert f"hint: relayq logs {run['bad'].id}; then relayq flow retry {run.id}" in told.stderr

    fixed.touch()
    done = relayq("flow", "retry", run.id)

    assert done.returncode == 0, done.stderr
    assert f"2 jobs of {run.id} to run again" in done.stderr
    assert attempts(run) == {"good": 1, "bad": 2, "after": 1, "beside": 1}
    assert run.state == "succeeded"


def test_the_first_failure_ends_a_run_that_is_to_fail_fast(flow, tmp_path):
    made = flow("fast", fail_fast=True)
    slow = made.add("slow", f"touch {tmp_path}/on; exec sleep 87.5")
    made.add("bad", f"{until_exists(tmp_path / 'on')}; exit 3")
    made.add("later", "true", needs=[slow])
    made.add("at_the_end", "echo tidy", needs=[slow], if_="always()")
    run = made.run()

    assert run.wait(30) == "failed"

    states = {one.name: one.state for one in run.jobs()}
    assert states == {
        "slow": "cancelled",
        "bad": "failed",
        "later": "cancelled",
        "at_the_end": "succeeded",
    }
    assert not sleepers()


def test_cancelling_a_run_leaves_no_process(flow, tmp_path):
    made = flow("endless", env={"X": "1"})
    first = made.add("first", f"sleep 87.5 & touch {tmp_path}/on; wait")
    made.add("second", "exec sleep 87.5", needs=[first])
    made.add("tidy", "true", needs=[first], if_="always()")
    run = made.run()
    until((tmp_path / "on").exists, within=20, what="the first step to start")

    done = relayq("flow", "cancel", run.id)

    assert done.returncode == 0, done.stderr
    assert run.state == "cancelled"
    assert {one.state for one in run.jobs()} == {"cancelled"}
    assert not sleepers()


def test_an_interrupted_run_is_cancelled_without_a_terminal_and_left_with_one(flow, tmp_path):
    file = written(tmp_path, f"jobs: {{a: {{run: 'touch {tmp_path}/on; exec sleep 87.5'}}}}")

    command = begin("flow", "run", file)
    until((tmp_path / "on").exists, within=20, what="the step to start")
    command.send_signal(signal.SIGINT)

    said = command.communicate(timeout=30)
    assert command.returncode == 130, said
    assert flow.fetch("last").state == "cancelled"

    (tmp_path / "on").unlink()
    terminal = Terminal("flow", "run", file)
    until((tmp_path / "on").exists, within=20, what="the step to start")
    terminal.sees("running")
    terminal.type("\x03")
    terminal.sees("detached")
    assert terminal.finish() == 130
    run = flow.fetch("last")
    assert run.state == "running"
    run.cancel()
    assert run.wait(20) == "cancelled"


def test_single_jobs_come_after_others_in_the_same_way(shared_fleet):
    first = relayq("submit", "exit 3").stdout.strip()
    never = relayq("submit", "--after", first, "true").stdout.strip()
    after = relayq("submit", "--after-any", first, "echo ended").stdout.strip()

    assert shared_fleet.job.fetch(after).get(timeout=20) == "ended"
    assert shared_fleet.job.fetch(never).wait(20).reason == "upstream"
