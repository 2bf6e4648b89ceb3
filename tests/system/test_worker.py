"""A real worker process on a real Redis: jobs, their ends, and what a worker survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from relayq import JobCancelled, JobFailed, JobTimedOut
from relayq.errors import OutputUnavailable, RelayqError
from relayq.model.jobs import Spec, new_id
from relayq.model.output import STDOUT, only
from relayq.store.jobs import Submission
from tests.waiting import until

pytestmark = pytest.mark.system

LARGE = "head -c 3000000 /dev/urandom | tee {0}/large"


def test_a_command_comes_back_with_its_text(shared_fleet):
    result = shared_fleet.job.run("echo test; echo warning >&2")

    assert result.get(timeout=20) == "test"
    assert result.stderr == "warning\n"
    assert result.exit_code == 0
    assert result.host == "here"
    assert result.ready()
    assert result.successful()


def test_a_failure_brings_the_commands_own_code_and_the_end_of_its_errors(shared_fleet):
    result = shared_fleet.job.run("echo no good >&2; exit 3")

    with pytest.raises(JobFailed) as caught:
        result.get(timeout=20)

    assert caught.value.exit_code == 3
    assert caught.value.log_tail == "no good\n"
    assert (result.state, result.reason) == ("failed", "exit")


def test_a_signal_is_told_from_an_exit(shared_fleet):
    result = shared_fleet.job.run("kill -9 $$")

    with pytest.raises(JobFailed) as caught:
        result.get(timeout=20)

    assert caught.value.exit_code == 137
    assert result.reason == "signal"


def test_the_time_limit_ends_a_job(shared_fleet):
    result = shared_fleet.job.run("sleep 60", timeout=0.5)

    with pytest.raises(JobTimedOut):
        result.get(timeout=20)

    assert result.reason == "timeout"


def test_a_list_is_run_without_a_shell(shared_fleet):
    awkward = "two  words 'and' \"quotes\" $HOME\nnext line"

    assert shared_fleet.job.run(["printf", "%s", awkward]).get(timeout=20) == awkward


def test_a_job_gets_its_own_environment_and_none_of_relayqs(shared_fleet, monkeypatch):
    result = shared_fleet.job.run("env", env={"ASKED": "for"})

    lines = result.get(timeout=20).splitlines()

    assert "ASKED=for" in lines
    assert f"RELAYQ_JOB_ID={result.id}" in lines
    ours = [line for line in lines if line.startswith("RELAYQ_")]
    names = {line.partition("=")[0] for line in ours}
    own = {"RELAYQ_JOB_ID", "RELAYQ_ATTEMPT", "RELAYQ_REPORT", "RELAYQ_DESK", "RELAYQ_OUTPUT"}
    assert names == {*own, "RELAYQ_CHECKPOINT", "RELAYQ_SOCKET", "RELAYQ_TOKEN"}


def test_a_job_runs_in_the_workers_home_or_where_it_was_asked_to(shared_fleet, tmp_path):
    assert shared_fleet.job.run("pwd").get(timeout=20) == os.path.expanduser("~")
    assert shared_fleet.job.run("pwd", cwd=str(tmp_path)).get(timeout=20) == str(tmp_path)

    missing = shared_fleet.job.run("pwd", cwd=str(tmp_path / "nowhere"))

    with pytest.raises(JobFailed, match="nowhere"):
        missing.get(timeout=20)
    assert missing.reason == "spawn"


def test_standard_input_is_fed_and_ends(shared_fleet):
    assert (
        shared_fleet.job.run("cat; echo end", stdin="some text\n").get(timeout=20)
        == "some text\nend"
    )


def test_bytes_of_any_kind_survive(shared_fleet, tmp_path):
    odd = bytes(range(256)) * 40 + b"\xff\xfe\x00"
    (tmp_path / "odd").write_bytes(odd)

    result = shared_fleet.job.run(["cat", str(tmp_path / "odd")])
    result.wait(20)

    assert only(result.logs(), STDOUT) == odd


def test_a_line_of_50_mb_comes_back_whole(shared_fleet):
    result = shared_fleet.job.run("head -c 50000000 /dev/zero | tr '\\0' x; echo")

    assert result.get(timeout=60) == "x" * 50_000_000


def test_a_large_output_is_fetched_from_its_host_after_the_end(shared_fleet, tmp_path):
    result = shared_fleet.job.run(LARGE.format(tmp_path))
    result.wait(20)

    assert only(result.logs(), STDOUT) == (tmp_path / "large").read_bytes()


def test_a_large_output_is_never_shortened_when_its_host_is_gone(fleet, tmp_path, monkeypatch):
    monkeypatch.setattr("relayq.following._GIVE_UP", 2.0)
    monkeypatch.setattr("relayq.following._ASK_AGAIN", 1.0)
    result = fleet.job.run(LARGE.format(tmp_path))
    result.wait(20)
    fleet.end_worker()

    with pytest.raises(OutputUnavailable):
        only(result.logs(), STDOUT)

    pieces = fleet.relay.session().store.logs.read(result.id, 1)
    assert pieces[0].position == 0
    assert pieces[-1].position + len(pieces[-1].frames) > 3_000_000


def test_output_is_followed_while_the_job_runs(shared_fleet, tmp_path):
    gate = tmp_path / "gate"
    result = shared_fleet.job.run(
        f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo last", follow=True
    )
    frames = result.logs(follow=True)

    first = next(frames)
    assert first.data == b"first\n"
    assert not result.ready()
    gate.touch()

    assert b"".join(f.data for f in frames) == b"last\n"


def test_a_late_follower_gets_everything_from_the_first_byte(shared_fleet, tmp_path):
    gate = tmp_path / "gate"
    result = shared_fleet.job.run(
        f"seq 100000; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    )
    until(lambda: result.state == "running", what="the job to run")
    frames = shared_fleet.job.fetch(result.id).logs(follow=True)

    seen = next(frames).data
    gate.touch()
    seen += b"".join(f.data for f in frames)

    assert seen == b"".join(b"%d\n" % n for n in range(1, 100_001)) + b"end\n"


def test_a_queued_job_waits_for_those_it_comes_after(shared_fleet, tmp_path):
    first = shared_fleet.job.run(f"sleep 0.3; echo one >> {tmp_path}/order")
    second = shared_fleet.job.run(f"echo two >> {tmp_path}/order", after=[first])

    second.get(timeout=20)

    assert (tmp_path / "order").read_text() == "one\ntwo\n"


def test_a_failed_job_is_tried_again_as_often_as_was_asked(shared_fleet, tmp_path):
    result = shared_fleet.job.run(f"echo start >> {tmp_path}/starts; exit 5", retries=1)

    with pytest.raises(JobFailed):
        result.get(timeout=30)

    assert (tmp_path / "starts").read_text() == "start\n" * 2
    assert result.record.attempt == 2


def test_cancel_ends_everything_that_a_job_started(shared_fleet, tmp_path):
    mark = f"mark-{new_id()}"
    result = shared_fleet.job.run(
        f"(trap '' TERM; setsid sh -c 'sleep 300; : {mark}' &) ; "
        f"echo $$ > {tmp_path}/up; sh -c 'sleep 300; : {mark}'"
    )
    until((tmp_path / "up").exists, what="the job to run")

    assert result.cancel() == "asked"
    with pytest.raises(JobCancelled):
        result.get(timeout=20)

    assert not commands_with(mark)


def test_a_job_cancelled_while_its_worker_is_down_never_runs(mended_fleet, tmp_path):
    mended_fleet.end_worker()
    result = mended_fleet.job.run(f"touch {tmp_path}/ran")
    assert result.cancel() == "cancelled"

    mended_fleet.start_worker()
    mended_fleet.job.run("true").get(timeout=20)

    assert not (tmp_path / "ran").exists()


def test_a_cancel_reaches_a_job_whose_worker_was_down(mended_fleet, tmp_path):
    result = mended_fleet.job.run(f"touch {tmp_path}/up; sleep 300")
    until((tmp_path / "up").exists, what="the job to run")
    mended_fleet.end_worker(signal.SIGKILL)

    assert result.cancel() == "asked"
    mended_fleet.start_worker()

    with pytest.raises(JobCancelled):
        result.get(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_outlives_its_worker_and_is_adopted(mended_fleet, tmp_path, number):
    command = f"echo start >> {tmp_path}/starts; sleep 1.5; seq 30000"
    result = mended_fleet.job.run(command)
    until((tmp_path / "starts").exists, what="the job to run")

    mended_fleet.end_worker(number)
    mended_fleet.start_worker()

    assert result.get(timeout=20) == "\n".join(str(n) for n in range(1, 30_001))
    assert result.record.attempt == 1
    assert (tmp_path / "starts").read_text() == "start\n"


def test_a_job_that_ended_while_no_worker_was_up_is_delivered_by_the_next(mended_fleet, tmp_path):
    result = mended_fleet.job.run(f"touch {tmp_path}/up; sleep 0.5; echo done")
    until((tmp_path / "up").exists, what="the job to run")
    mended_fleet.end_worker(signal.SIGKILL)
    (attempt,) = [p for p in mended_fleet.config.spool.iterdir() if p.name.startswith(result.id)]
    until((attempt / "exit").exists, what="the job to end")

    mended_fleet.start_worker()

    assert result.get(timeout=20) == "done"
    assert result.record.attempt == 1


def test_a_job_whose_shim_died_with_its_worker_is_run_again(mended_fleet, tmp_path):
    result = mended_fleet.job.run(
        f"echo start >> {tmp_path}/starts; [ -e {tmp_path}/go ] || sleep 300"
    )
    until((tmp_path / "starts").exists, what="the job to run")
    (attempt,) = [p for p in mended_fleet.config.spool.iterdir() if p.name.startswith(result.id)]
    shim = json.loads((attempt / "run.json").read_text())["shim"]

    mended_fleet.end_worker(signal.SIGKILL)
    os.kill(shim, signal.SIGKILL)
    (tmp_path / "go").touch()
    mended_fleet.start_worker()

    assert result.get(timeout=20) == ""
    assert result.record.attempt == 2
    assert (tmp_path / "starts").read_text() == "start\n" * 2


def test_the_job_of_a_hung_worker_is_frozen_until_the_worker_is_back(fleet, tmp_path):
    ticks = tmp_path / "ticks"
    result = fleet.job.run(f"while [ ! -e {tmp_path}/go ]; do echo >> {ticks}; sleep 0.05; done")
    until(ticks.exists, what="the job to run")
    assert fleet.worker is not None

    fleet.worker.send_signal(signal.SIGSTOP)
    until(lambda: stands_still(ticks), within=15, what="the job to be frozen")
    fleet.worker.send_signal(signal.SIGCONT)
    size = ticks.stat().st_size
    until(lambda: ticks.stat().st_size > size, within=15, what="the job to go on")
    (tmp_path / "go").touch()

    assert result.get(timeout=20) == ""
    assert result.record.attempt == 1


def test_jobs_go_on_and_are_delivered_when_the_broker_dies(fleet, tmp_path):
    from relayq import embedded

    result = fleet.job.run(f"echo start >> {tmp_path}/starts; sleep 2; echo done")
    until((tmp_path / "starts").exists, what="the job to run")

    os.kill(fleet.broker.pid, signal.SIGKILL)
    (attempt,) = [p for p in fleet.config.spool.iterdir() if p.name.startswith(result.id)]
    until((attempt / "exit").exists, what="the job to end without a broker")
    embedded.start_broker(fleet.config)

    assert result.get(timeout=20) == "done"
    assert (tmp_path / "starts").read_text() == "start\n"


def test_nudges_still_wake_the_worker_after_the_broker_was_restarted(idle_fleet):
    from relayq import embedded

    idle_fleet.end_worker()
    idle_fleet.start_worker(RELAYQ_LEASE__PULL="600")
    os.kill(idle_fleet.broker.pid, signal.SIGKILL)
    until(lambda: "can't reach" in idle_fleet.log(), within=20, what="the worker to notice")
    embedded.start_broker(idle_fleet.config)
    until(lambda: "answers again" in idle_fleet.log(), within=20, what="the worker to be back")

    # A nudge may have been lost with the connection, and nothing is pulled in this test.
    results = [idle_fleet.job.run("true") for _ in range(3)]
    until(lambda: any(r.ready() for r in results), within=20, what="a nudge to be taken")
    rest = idle_fleet.job.submit_many(["true"] * 60)

    for result in rest[:-3]:
        result.get(timeout=30)


def test_a_lost_nudge_delays_a_job_and_loses_nothing(mended_fleet):
    mended_fleet.end_worker()
    result = mended_fleet.job.run("echo pulled")
    mended_fleet.relay.session().store.connection.delete("{rq}:k:any")

    mended_fleet.start_worker()

    assert result.get(timeout=20) == "pulled"


@pytest.mark.parametrize(
    "garbage",
    [b"garbage", b"1", b"[]", b"{}", b'{"body": "x"}', b'{"headers": {}}', b"\xff\xfe", b"null"],
)
def test_garbage_in_a_queue_does_not_hurt_the_worker(shared_fleet, garbage):
    shared_fleet.relay.session().store.connection.lpush("{rq}:k:any", garbage)

    assert shared_fleet.job.run("echo fine").get(timeout=20) == "fine"
    assert shared_fleet.worker is not None
    assert shared_fleet.worker.poll() is None


def test_a_forged_job_is_refused(shared_fleet, tmp_path):
    session = shared_fleet.relay.session()
    spec = Spec(new_id(), "run_command", {"cmd": f"touch {tmp_path}/ran"})
    signed = session.signer.sign_spec(spec).replace(b"touch", b"t\\u006fuch")
    copied = session.signer.sign_spec(Spec(new_id(), "run_command", {"cmd": "true"}))
    submissions = [Submission(spec, signed), Submission(Spec(new_id(), "run_command", {}), copied)]
    from relayq.dispatch import TEMPLATE

    session.store.jobs.submit(submissions, template=TEMPLATE, key_id=session.signer.key_id)

    for submission in submissions:
        record = shared_fleet.job.fetch(submission.spec.id).wait(20)
        assert (record.state, record.reason) == ("failed", "refused")
    assert not (tmp_path / "ran").exists()


def test_a_second_worker_on_the_same_directory_is_refused(shared_fleet):
    second = subprocess.run(
        [sys.executable, "-m", "relayq", "worker", "start"],
        env=shared_fleet.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert second.returncode != 0
    assert str(shared_fleet.worker.pid) in second.stderr


def test_celerys_own_command_starts_a_full_worker(idle_fleet):
    idle_fleet.end_worker()
    arguments = "-A relayq.tasks worker --loglevel=info --concurrency=2".split()
    idle_fleet.start_worker("-m", "celery", *arguments)

    code = "from relayq.tasks import run_command; print(run_command.delay('echo hi').id)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=idle_fleet.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert idle_fleet.job.fetch(ran.stdout.strip()).get(timeout=20) == "hi"


def test_once_runs_what_is_queued_and_ends(fleet, tmp_path):
    fleet.end_worker()
    results = fleet.job.submit_many([f"echo {n} >> {tmp_path}/out" for n in range(5)])

    ran = subprocess.run(
        [sys.executable, "-m", "relayq", "worker", "once"],
        env=fleet.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    assert all(result.successful() for result in results)


def test_an_unknown_host_is_refused_at_once(shared_fleet):
    with pytest.raises(RelayqError, match="no such host: nowhere"):
        shared_fleet.job.run_on("nowhere", "true")


def test_worker_status_says_who_is_online(shared_fleet):
    status = shared_fleet.job.worker_status()

    assert status["online"]
    assert status["total_workers"] == 1
    here = status["workers"]["here"]
    assert here["online"]
    assert {"type", "active_jobs", "queued_jobs", "total_jobs"} <= set(here)


def test_importing_relayq_connects_to_nothing():
    code = (
        "import sys, relayq; print(sorted(m for m in sys.modules if m in"
        " {'redis', 'celery', 'click', 'rich', 'yaml', 'socket', 'threading'}))"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert ran.stdout.strip() == "[]"


def commands_with(mark: str) -> list[int]:
    """Return the pids of processes with `mark` on their command line."""
    import psutil

    return [p.pid for p in psutil.process_iter(["cmdline"]) if mark in str(p.info["cmdline"])]


def stands_still(path) -> bool:
    """Whether a file that grows all the time hasn't grown for half a second."""
    from relayq import clock

    size = path.stat().st_size
    clock.sleep(0.5)
    return path.stat().st_size == size
