"""`relayq map` and `job.map`, with real workers, batches and outages."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from relayq import JobFailed, WaitTimeout, as_completed, embedded, gather
from relayq.model import batches
from relayq.model.jobs import JobState
from tests.system.commands import begin, relayq, until_exists
from tests.waiting import until

pytestmark = pytest.mark.system

NASTY = [
    "a b",
    "it's",
    'q"q',
    "$(id)",
    "`id`",
    "x\ny",
    "-n",
    "--on",
    "\\",
    "a;b|c",
    b"\xff\xfe",
    ":",
]


def lines_in(file: Path) -> Counter[str]:
    return Counter(file.read_text().split()) if file.exists() else Counter()


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes whose command line has a mark."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        if mark in (one.info["cmdline"] or ()):
            found.append(one)
    return found


@pytest.mark.parametrize(
    "command", [["printf", "%s|"], ['printf "%s|" "{}"']], ids=["argv", "line"]
)
def test_nasty_inputs_arrive_as_they_are_and_in_order(shared_fleet, command):
    done = relayq("map", "-q", "-k", *command, ":::", *NASTY, text=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == b"".join(os.fsencode(one) + b"|" for one in NASTY)
    assert done.stderr == b""


def test_failures_are_told_and_run_again_alone(shared_fleet, tmp_path):
    ran, mended = tmp_path / "ran", tmp_path / "mended"
    line = f"echo {{}} >> {ran}; test {{}} -gt 2 || test -e {mended}"

    first = relayq("map", "--batch", "3", "--group", "mended", line, ":::", *"123456")
    mended.touch()
    again = relayq("map", "--resume-failed", "mended")

    assert first.returncode == 1
    assert "mended #2 failed: exit 1 on here  2" in first.stderr
    assert "relayq map --resume-failed mended" in first.stderr
    assert again.returncode == 0, again.stderr
    assert lines_in(ran) == Counter("11223456")
    assert relayq("map", "--resume-failed", "mended").stderr.count("nothing failed") == 1


@pytest.mark.parametrize(("way", "running"), [("now", "cancelled"), ("soon", "succeeded")])
def test_a_halt_cancels_what_is_left(shared_fleet, tmp_path, way, running):
    go = tmp_path / "go"
    # The first waits until the second has failed and the third is cancelled by that.
    line = f"case {{}} in 1) {until_exists(go)};; 2) sleep 0.5; exit 7;; *) sleep 30;; esac"
    run = shared_fleet.job.map(line, "1234", halt=f"{way},fail=1", batch="off", concurrency=2)
    until(lambda: run.take(0.1) and 2 in run.ended, within=20, what="the second to fail")
    go.touch()

    states = {one.number: one.state.value for one in run.wait(timeout=20).as_completed()}

    assert states == {1: running, 2: "failed", 3: "cancelled", 4: "cancelled"}


def test_files_travel_with_each_item_and_come_back_beside_them(shared_fleet, tmp_path):
    folder = tmp_path / "some where"
    folder.mkdir()
    for name in ("a 1", "b"):
        (folder / f"{name}.txt").write_text(f"text of {name}")
    line = "tr a-z A-Z < {} > {.}.up"
    inputs = [f"some where/{name}.txt" for name in ("a 1", "b")]

    done = relayq("map", "--in", "{}", "--out", "{.}.up", line, ":::", *inputs, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (folder / "a 1.up").read_text() == "TEXT OF A 1"
    assert (folder / "b.up").read_text() == "TEXT OF B"


def test_no_more_run_at_a_time_than_was_asked(shared_fleet, tmp_path):
    line = f"mkdir {tmp_path}/busy && sleep 0.05 && rmdir {tmp_path}/busy && : {{}}"

    run = shared_fleet.job.map(line, range(6), concurrency=1)

    assert not [one.why for one in run.wait(timeout=30).failed]


def test_an_item_that_takes_long_holds_up_no_other(shared_fleet, tmp_path):
    go = tmp_path / "go"
    line = f"test {{}} != 2 || {until_exists(go)}; echo {{}}"
    run = shared_fleet.job.map(line, range(1, 7), batch=6)

    ends = run.as_completed(timeout=30)
    early = [next(ends).number for _ in range(5)]
    go.touch()

    assert sorted(early) == [1, 3, 4, 5, 6]
    assert run.results() == [str(number) for number in range(1, 7)]
    assert Counter(one.record.kind for one in run.jobs) == {"run_batch": 1, "run_command": 4}
    assert shared_fleet.job.map_of(run.group).results() == run.results()


def test_a_cancelled_batch_leaves_no_process(shared_fleet, tmp_path):
    mark = f"mark-{tmp_path.name}-{os.getpid()}"
    line = f"touch {tmp_path}/begun; sh -c 'sleep 61; true' {mark} & sleep 62; true"
    run = shared_fleet.job.map(line, range(4), batch=2)
    until((tmp_path / "begun").exists, within=15, what="a batch to run")

    run.cancel()

    assert {one.state for one in run.as_completed(timeout=20)} == {JobState.CANCELLED}
    assert not marked(mark)


def test_a_terminated_map_takes_its_jobs_along(shared_fleet, tmp_path):
    client = begin("map", f"touch {tmp_path}/{{}}; sleep 60", ":::", "1", "2")
    until((tmp_path / "1").exists, within=15, what="an item to run")

    client.send_signal(signal.SIGTERM)
    _, said = client.communicate(timeout=30)

    assert client.returncode == 130, said
    assert "2 jobs cancelled" in said


def test_results_are_json_and_a_detached_map_is_found_again(shared_fleet):
    group = relayq("map", "-d", "-q", "echo out-{}; exit {}", ":::", "0", "3").stdout.strip()

    done = relayq("map", "--attach", group, "--json")

    assert done.returncode == 1
    told = json.loads(done.stdout)
    items = {one["item"]: one for one in told["items"]}
    assert (told["group"], told["failed"], told["cancelled"]) == (group, 1, 0)
    assert (items[1]["stdout"], items[1]["exit_code"]) == ("out-0\n", 0)
    assert (items[2]["state"], items[2]["exit_code"]) == ("failed", 3)


def test_jobs_are_gathered_in_order_and_taken_as_they_end(shared_fleet, tmp_path):
    job, go = shared_fleet.job, tmp_path / "go"
    late = job.run(f"{until_exists(go)}; echo late")
    rest = job.submit_many([f"echo {number}" for number in range(20)])
    ends = as_completed([late, *rest, rest[0]], timeout=30)

    early = [next(ends) for _ in rest]
    with pytest.raises(WaitTimeout):
        gather(late, timeout=0.1)
    go.touch()

    assert {one.id for one in early} == {one.id for one in rest}
    assert next(ends).id == late.id
    assert gather(late, *rest) == ["late", *map(str, range(20))]
    bad = job.run("exit 4")
    with pytest.raises(JobFailed, match="exit 4"):
        gather(late, bad)
    assert isinstance(gather(late, bad, return_exceptions=True)[1], JobFailed)


def test_a_batch_outlives_its_worker(fleet, tmp_path):
    ran, go = tmp_path / "ran", tmp_path / "go"
    line = f"echo {{}} >> {ran}; test {{}} != 3 || {until_exists(go)}"
    run = fleet.job.map(line, range(1, 9), batch=4)
    until(lambda: lines_in(ran)["3"], within=15, what="the batch to be in its middle")

    fleet.end_worker(signal.SIGKILL)
    go.touch()
    fleet.start_worker()

    assert not run.wait(timeout=40).failed
    assert lines_in(ran) == Counter(map(str, range(1, 9)))


@pytest.mark.timeout(120)
def test_ten_thousand_items_outlive_the_broker(fleet, tmp_path):
    ran = tmp_path / "ran"
    run = fleet.job.map(f"echo {{}} >> {ran}", range(10_000), timeout="20s")
    until(lambda: len(lines_in(ran)) > 2_000, within=40, what="the map to be in its middle")

    os.kill(embedded.running_broker(fleet.config).pid, signal.SIGKILL)

    assert not run.wait(timeout=80).failed
    assert len(run.ended) == 10_000
    assert lines_in(ran) == Counter(map(str, range(10_000)))
    assert any(batches.numbers_of(one.record.spec)[1:] for one in run.jobs)
