"""What is tried again, by whom and how often: real jobs, real faults, real kills."""

from __future__ import annotations

import json
import os
import resource
import signal
from contextlib import contextmanager, suppress

import psutil
import pytest

from relayq import config, embedded
from relayq.errors import JobFailed, JobTimedOut, NeedsHuman
from relayq.host.process import Shim
from relayq.host.process import attempts as attempt_directories
from relayq.model.jobs import JobState
from tests.system.commands import relayq, submit
from tests.system.conftest import start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet whose worker may be killed if it is started again; two losses are the limit."""
    home = tmp_path_factory.mktemp("retries", numbered=True) / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAYQ_RETRY__BASE", "0.5s")
        patch.setenv("RELAYQ_RETRY__CRASH_LIMIT", "2")
        yield from start_fleet(home, patch)
        embedded.stop_broker(config.load())


def counting(directory, *codes: int) -> str:
    """Return a command that ends with the next of these codes at each start."""
    cases = " ".join(f"{n}) exit {code};;" for n, code in enumerate(codes, 1))
    return f"echo >> {directory}/starts; case $(wc -l < {directory}/starts) in {cases} esac"


def starts(directory) -> int:
    file = directory / "starts"
    return len(file.read_text()) if file.exists() else 0


# Failures of the command's own


def test_only_the_exit_codes_that_were_named_are_tried_again(fleet, tmp_path):
    command = counting(tmp_path, 75, 75, 3, 0)
    result = fleet.job.run(command, retries=5, retry_on="exit:75", backoff="0..0.1")

    with pytest.raises(JobFailed, match="exit 3"):
        result.get(timeout=30)

    assert (starts(tmp_path), result.record.failures) == (3, 2)


def test_a_retry_that_succeeds_is_a_success(fleet, tmp_path):
    result = fleet.job.run(counting(tmp_path, 1, 0), retries=5, backoff="0s..0s")

    assert result.get(timeout=30) == ""
    assert (result.record.attempt, result.record.exit_code) == (2, 0)


def test_a_time_limit_is_tried_again_only_if_that_was_asked(fleet, tmp_path):
    line = f"echo >> {tmp_path}/starts; sleep 60"
    asked = fleet.job.run(line, timeout=0.3, retries=1, retry_on=["timeout"], backoff="0s..0s")
    with pytest.raises(JobTimedOut):
        asked.get(timeout=30)
    assert starts(tmp_path) == 2

    unasked = fleet.job.run(line, timeout=0.3, retries=1, backoff="0s..0s")
    with pytest.raises(JobTimedOut):
        unasked.get(timeout=30)
    assert starts(tmp_path) == 3


@pytest.mark.parametrize(
    ("command", "options", "reason"),
    [
        ("true", {"cwd": "/nowhere/at/all"}, "spawn"),
        (["no-such-command"], {}, "exit"),
        ("kill -9 $$", {}, "signal"),
    ],
)
def test_nothing_of_the_commands_own_is_tried_again_unasked(fleet, command, options, reason):
    record = fleet.job.run(command, **options).wait(20)

    assert (record.state, record.reason, record.attempt) == (JobState.FAILED, reason, 1)
    assert (record.failures, record.losses) == (0, 0)


def test_a_job_that_waits_for_its_retry_says_which_it_is_and_why(fleet):
    id = submit("--retries", "3", "--backoff", "1h..1h", "--retry-on", "exit:75,111", "exit 75")
    result = fleet.job.fetch(id)
    until(lambda: result.state == "scheduled", within=15, what="the retry to be scheduled")

    record = result.record
    details = relayq("show", id).stdout

    assert (record.reason, record.exit_code, record.failures) == ("exit", 75, 1)
    assert "retry 1/3 in " in details
    assert "(exit 75)" in details
    assert "after 1h to 1h on exit:75, exit:111" in details
    assert result.cancel() == "cancelled"


def test_input_that_went_to_the_first_attempt_is_not_asked_for_again(fleet):
    done = relayq("run", "--retries", "3", "cat; exit 4", stdin=None, input="hello\n")

    assert (done.returncode, done.stdout) == (4, "hello\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backoff", "60s..1s"], "such as 1s..60s"),
        (["--retry-on", "lost"], "exit, signal, timeout, all"),
        (["--retry-on", "exit:0"], "1 to 255"),
        (["--retries", "-1"], "--retries"),
        (["--on-lost", "hope"], "--on-lost"),
    ],
)
def test_a_policy_that_cannot_be_is_a_mistake_of_typing(fleet, arguments, said):
    done = relayq("run", *arguments, "true")

    assert done.returncode == 2
    assert said in done.stderr


# Faults of the host


@contextmanager
def without_descriptors(fleet):
    """Let the worker's fork server, and the shims that it has ready, open nothing more."""
    [server] = [
        child
        for child in psutil.Process(fleet.worker.pid).children()
        if child.name() == "relayq-shims"
    ]
    pids = [server.pid, *(shim.pid for shim in server.children())]
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    _limit(pids, (3, limits[1]))
    try:
        yield
    finally:
        _limit(pids, limits)


def _limit(pids, limits) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_what_its_host_could_not_start_is_tried_again_unasked(fleet):
    with without_descriptors(fleet):
        result = fleet.job.run("echo hi")
        until(lambda: result.state == "scheduled", within=15, what="the host to fail")
        record = result.record

    assert (record.reason, record.failures, record.losses) == ("host", 0, 1)
    assert result.get(timeout=30) == "hi"
    assert (result.record.attempt, result.record.failures) == (2, 0)


def test_a_host_that_can_start_nothing_fails_a_job_at_the_crash_limit(fleet):
    with without_descriptors(fleet):
        result = fleet.job.run("echo hi", on_lost="ask", retries=7, priority="high")
        others = [fleet.job.run("true") for _ in range(8)]
        record = result.wait(30)
        spared = [one for one in others if one.record.losses == 0]

    assert (record.state, record.reason) == (JobState.FAILED, "host")
    assert spared  # a host that fails rests, and leaves the others in their queue
    assert {one.wait(30).state for one in spared} == {JobState.SUCCEEDED}
    assert (record.losses, record.failures, record.attempt) == (2, 0, 2)
    told = json.loads(relayq("failures", "--dead", "--json").stdout)["jobs"]
    [row] = [one for one in told if one["id"] == record.id]
    assert row["is_dead"]
    assert "too many open files" in row["why"].lower()


# Losses


def kill_with_worker(fleet, id: str) -> None:
    """Kill the worker and the job's shim, so that nothing of the attempt can be told."""
    [directory] = [
        one for one in attempt_directories(fleet.config.spool) if one.name.startswith(id)
    ]
    facts = until(Shim(directory).run_facts, within=10, what="the job to run")
    fleet.end_worker(signal.SIGKILL)
    os.kill(facts.shim, signal.SIGKILL)
    fleet.start_worker()


def test_a_job_that_takes_its_host_along_is_a_dead_letter_at_the_crash_limit(fleet, tmp_path):
    result = fleet.job.run(f"echo >> {tmp_path}/starts; [ -e {tmp_path}/cured ] || sleep 300")
    for n in (1, 2):
        until(lambda n=n: starts(tmp_path) == n, within=20, what=f"attempt {n} to run")
        kill_with_worker(fleet, result.id)

    record = result.wait(20)

    assert (record.state, record.reason, record.losses) == (JobState.FAILED, "lost", 2)
    listed = relayq("failures").stdout
    assert "lost x2 (dead)" in listed
    assert f"retry --dead {result.id[:4]}" in listed
    (tmp_path / "cured").touch()
    retried = relayq("retry", "--dead", result.id)
    assert (retried.returncode, retried.stdout) == (0, f"{result.id}\n")
    assert fleet.job.fetch(result.id).wait(20).state is JobState.SUCCEEDED
    assert starts(tmp_path) == 3


@pytest.mark.parametrize(
    ("on_lost", "state"), [("fail", JobState.FAILED), ("ask", JobState.NEEDS_HUMAN)]
)
def test_a_lost_job_that_must_not_run_twice_does_not(fleet, tmp_path, on_lost, state):
    result = fleet.job.run(f"echo >> {tmp_path}/starts; sleep 300", on_lost=on_lost, retries=3)
    until(lambda: starts(tmp_path) == 1, within=15, what="the job to run")

    kill_with_worker(fleet, result.id)

    record = result.wait(20)
    assert (record.state, record.reason, record.attempt) == (state, "lost", 1)
    assert starts(tmp_path) == 1
    result.cancel()


# A person's word


@pytest.fixture
def lost(fleet, tmp_path):
    """A job that waits for a person because it was lost, after it had written a line."""
    result = fleet.job.run(
        f"echo epoch 12; [ -e {tmp_path}/go ] || sleep 300", on_lost="ask", name="training"
    )
    logs = fleet.relay.session().store.logs
    until(lambda: logs.read(result.id, 1), within=20, what="the line to reach the broker")
    kill_with_worker(fleet, result.id)
    assert result.wait(20).state is JobState.NEEDS_HUMAN
    return result


def test_a_lost_job_waits_for_a_persons_word(lost, fleet, tmp_path):
    after = fleet.job.run(f"touch {tmp_path}/after", after=[lost])
    with pytest.raises(NeedsHuman):
        lost.get(timeout=5)

    shown_now = relayq("review").stdout
    [one] = json.loads(relayq("review", "--json").stdout)["jobs"]

    assert lost.id[:4] in shown_now
    assert "host has rebooted since: no" in shown_now
    assert "last line: epoch 12" in shown_now
    assert f"relayq resolve {lost.id[:4]} done" in shown_now
    assert one["choices"] == ["done", "pending", "failed"]
    assert (one["host_rebooted"], one["may_run"], one["last_line"]) == (False, False, "epoch 12")
    typed = one["next"][0].split()[1:]
    assert relayq(*typed, "--notes", "the model is there").returncode == 0
    assert lost.wait(5).state is JobState.SUCCEEDED
    assert after.wait(20).state is JobState.SUCCEEDED
    assert "the model is there" in relayq("show", lost.id).stdout
    assert relayq("review").stdout == "nothing waits for a person\n"


def test_pending_runs_it_again(lost, tmp_path):
    (tmp_path / "go").touch()

    done = relayq("resolve", lost.id, "pending", "--notes", "again")

    assert (done.returncode, done.stdout) == (0, f"{lost.id}  queued\n")
    record = lost.wait(20)
    assert (record.state, record.attempt, record.note) == (JobState.SUCCEEDED, 2, "again")


def test_all_is_asked_about_and_ends_all(lost, fleet, tmp_path):
    other = fleet.job.run(f"echo >> {tmp_path}/starts; sleep 300", on_lost="ask")
    until(lambda: starts(tmp_path) == 1, within=20, what="the other job to run")
    kill_with_worker(fleet, other.id)
    assert other.wait(20).state is JobState.NEEDS_HUMAN

    refused = relayq("resolve", "all")
    assert refused.returncode == 2
    assert "this would resolve as done 2 jobs" in refused.stderr
    done = relayq("resolve", "all", "failed", "-y", "--notes", "too late", "--json")

    assert done.returncode == 0
    said = json.loads(done.stdout)["jobs"]
    assert {one["id"]: one["state"] for one in said} == {lost.id: "failed", other.id: "failed"}
    for one in (lost, other):
        assert (one.record.state, one.record.note) == (JobState.FAILED, "too late")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resolve"], 2, "which job?"),
        (["resolve", "last"], 2, "as what? done, pending, failed"),
        (["resolve", "done"], 2, "which job?"),
        (["resolve", "nosuchjob", "done"], 125, "nosuchjob"),
    ],
)
def test_a_verdict_that_cannot_be_says_what_is_missing(fleet, arguments, code, said):
    done = relayq(*arguments)

    assert done.returncode == code
    assert said in done.stderr


def test_a_job_that_asks_nobody_is_not_resolved(fleet):
    result = fleet.job.run("true")
    result.wait(20)

    done = relayq("resolve", result.id, "done")

    assert done.returncode == 125
    assert "is succeeded; only a job that waits for a person can be resolved" in done.stderr


# What failed, in bulk


def test_failures_shows_the_end_of_the_output_made_harmless(fleet):
    result = fleet.job.run("printf '\\033[2Jone\\nboom \\033]0;title\\007\\n' >&2; exit 9")
    result.wait(20)

    listed = relayq("failures", "--since", "1h")
    [row] = [line for line in listed.stdout.splitlines() if line.startswith(result.id[:4])]

    assert "\033" not in listed.stdout
    assert "exit 9" in row
    assert "boom" in row
    assert f"retry {result.id[:4]}" in row
    told = json.loads(relayq("failures", "--json").stdout)["jobs"]
    assert {one["id"]: one["next"] for one in told}[result.id] == f"relayq retry {result.id}"


def test_failed_jobs_are_retried_in_bulk(fleet, tmp_path):
    bad = [fleet.job.run(f"[ -e {tmp_path}/go ]", group="bulk") for _ in range(2)]
    good = fleet.job.run("true", group="bulk")
    for one in (*bad, good):
        one.wait(20)

    refused = relayq("retry", "--failed", "@bulk")
    assert refused.returncode == 2
    assert "this would retry 2 jobs" in refused.stderr
    (tmp_path / "go").touch()
    retried = relayq("retry", "--failed", "@bulk", "-y")

    assert sorted(retried.stdout.split()) == sorted(one.id for one in bad)
    again = [fleet.job.fetch(one.id).wait(20) for one in (*bad, good)]
    assert [(one.state, one.attempt) for one in again] == [
        (JobState.SUCCEEDED, 2),
        (JobState.SUCCEEDED, 2),
        (JobState.SUCCEEDED, 1),
    ]
    assert relayq("retry", "--dead", "@bulk", "-y").stdout == ""


def test_a_retry_begins_when_it_is_due_and_not_at_the_next_regular_tick(fleet):
    fleet.end_worker()
    fleet.start_worker(RELAYQ_LEASE__TICK="600")
    try:
        result = fleet.job.run("test $RELAYQ_ATTEMPT = 2", retries=1, backoff=(0.2, 0.2))

        assert result.wait(timeout=20).state == "succeeded"
    finally:
        fleet.end_worker()
        fleet.start_worker()
