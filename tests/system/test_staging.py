"""Files that travel with jobs, on a host that shares nothing with the submitter but the broker."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from relayq import JobFailed, config, embedded
from relayq.model.files import FileOut
from relayq.signing import Signer, load_key
from tests.system.apart import Apart, Gate, start_apart
from tests.waiting import until

pytestmark = pytest.mark.system

LARGE = os.urandom(1 << 20) * 3


@pytest.fixture
def apart(home, tmp_path, monkeypatch):
    """A client here, a worker there."""
    yield from start_apart(home, tmp_path / "there", monkeypatch)


@pytest.fixture(scope="module")
def apart_shared(tmp_path_factory):
    """A client here, a worker there, for tests that leave both alone."""
    directory = tmp_path_factory.mktemp("apart", numbered=True)
    home = directory / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAYQ_HOME", str(home))
        yield from start_apart(home, directory / "there", patch)
        embedded.stop_broker(config.load())


@pytest.fixture
def gate(apart):
    """The only way of the worker to the file service; all passes but the most of a large file."""
    apart.start_service()
    made = Gate(embedded.files_place(apart.config)[1], passes=1 << 20)
    apart.end_worker()
    apart.start_apart(RELAYQ_SERVE__URL=made.url)
    try:
        yield made
    finally:
        made.open()
        made.close()


@pytest.fixture
def large(tmp_path):
    """A file that is too large for Redis."""
    path = tmp_path / "large.bin"
    path.write_bytes(LARGE)
    return path


def stepping(fleet: Apart) -> list[psutil.Process]:
    """Return the processes that take files in or out."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(fleet.there) in " ".join(words) and "relayq.host.stage" in " ".join(words):
            found.append(process)
    return found


def test_a_small_file_goes_there_and_back_without_a_file_service(apart, tmp_path):
    source = tmp_path / "in.sh"
    source.write_text("tr a-z A-Z")
    source.chmod(0o755)

    result = apart.job.run(
        "mkdir sub; echo one | ./in.sh > sub/out.txt; pwd",
        files_in=[source],
        files_out=["sub/*.txt"],
    )

    scratch = result.get(timeout=30)
    assert [(one.name, one.size, one.place) for one in result.files] == [
        ("sub/out.txt", 4, "inline")
    ]
    (got,) = result.fetch(f"{tmp_path}/got/")
    assert Path(got).read_text() == "ONE\n"
    assert str(apart.there) in scratch
    assert not apart.attempts()


def test_a_large_file_goes_by_the_service_and_stays_in_the_cache(apart, large, tmp_path):
    apart.start_service()

    first = apart.job.run(
        "cp large.bin a/b.bin", files_in=[large, (large, "a/x")], files_out=["a/b.bin"]
    )
    first.get(timeout=60)
    (got,) = first.fetch(tmp_path / "got.bin")
    apart.end_worker()
    second = apart.job.run("sha256sum < large.bin", files_in=[large])
    embedded.stop_files(apart.config)
    apart.start_apart()

    digest = hashlib.sha256(LARGE).hexdigest()
    assert [(one.sha256, one.place) for one in first.files] == [(digest, "service")]
    assert Path(got).read_bytes() == LARGE
    assert second.get(timeout=60).split()[0] == digest


#: Commands whose end and output must be the same with files as without.
ENDS = {
    "success": ("echo out; echo err >&2; exit 0", {}),
    "a code": ("exit 7", {}),
    "a signal": ("kill -SEGV $$", {}),
    "a time limit": ("sleep 60", {"timeout": 1}),
    "no such command": (["nosuchcommand"], {}),
    "no such directory": ("pwd", {"cwd": "/nosuch"}),
    "an input": ("cat; readlink /proc/self/fd/0 | grep -c input", {"stdin": "text"}),
    "no input": ("cat; readlink /proc/self/fd/0", {}),
    "an output limit": ("yes", {"max_output": 1000}),
    "a session of its own": ("ps -o pid=,sid=,pgid= -p $$ | awk '{print $1==$2, $1==$3}'", {}),
    "what it leaves behind": ("(sleep 0.3; echo late) & echo early", {}),
    "its descriptors": ("ls /proc/self/fd | wc -l", {}),
    "its mask": ("umask; ulimit -c", {}),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_job_with_files_ends_and_says_what_it_does_without(apart_shared, tmp_path, name):
    command, options = ENDS[name]
    (tmp_path / "in.txt").write_text("in")
    plain = apart_shared.job.run(command, **options)
    carried = apart_shared.job.run(
        command,
        files_in=[tmp_path / "in.txt"] if "cwd" not in options else [(tmp_path / "in.txt", "x")],
        files_out=[FileOut("nothing*", is_optional=True)],
        **options,
    )

    ended = [one.wait(timeout=40) for one in (plain, carried)]

    said = [
        (
            one.record.state,
            one.record.reason,
            one.record.exit_code,
            one.record.signal,
            one.stdout,
            one.stderr,
        )
        for one in (plain, carried)
    ]
    assert ended
    assert said[0] == said[1]


def test_a_job_with_files_has_a_terminal_and_is_fed(apart_shared, tmp_path):
    (tmp_path / "in.txt").write_text("in\n")
    carried = {"files_in": [tmp_path / "in.txt"]}

    fed = apart_shared.job.run("cat in.txt -", feed=True, **carried)
    fed.feed(iter([b"fed\n", b""]).__next__)
    screen = apart_shared.job.run("tty >/dev/null && stty size && cat in.txt", tty=True, **carried)
    screen.feed(iter([b""]).__next__)

    assert fed.get(timeout=30) == "in\nfed"
    assert screen.get(timeout=30).split() == ["24", "80", "in"]


def test_the_token_of_the_file_service_shows_nowhere(apart, large):
    apart.start_service()

    result = apart.job.run(
        "env; cat /proc/*/cmdline | tr '\\0' ' '; cp large.bin out.bin",
        files_in=[large],
        files_out=["out.bin"],
    )

    said = result.get(timeout=60)
    tokens = Signer(load_key(apart.config.fleet_key_path)).bearer("files", 60.0)
    assert "RELAYQ_JOB_ID" in said
    assert tokens.partition(".")[0][:12] not in said
    assert "Bearer" not in said


def test_what_a_success_did_not_bring_back_makes_it_a_failure(apart_shared):
    result = apart_shared.job.run("echo made > x", files_out=["out/*.mov", "x"])

    with pytest.raises(JobFailed, match=r"no file matches out/\*.mov") as raised:
        result.get(timeout=30)

    assert (raised.value.exit_code, result.record.reason) == (125, "files")
    assert [one.name for one in result.files] == ["x"]


def test_a_failure_brings_back_what_there_is(apart_shared):
    result = apart_shared.job.run("echo part > part.txt; exit 3", files_out=["part.txt", "whole"])

    with pytest.raises(JobFailed) as raised:
        result.get(timeout=30)

    assert raised.value.exit_code == 3
    assert [one.name for one in result.files] == ["part.txt"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ln -s /etc/passwd out.txt", "out.txt leads out of the job's directory, to /etc/passwd"),
        ("ln -s /etc out.txt", "out.txt leads out of the job's directory, to /etc"),
        ("mkdir out.txt", "out.txt is a directory: its files are out.txt/*"),
        ("mkfifo out.txt", "out.txt is no regular file"),
    ],
)
def test_an_output_that_is_no_file_of_the_jobs_is_refused(apart_shared, command, said):
    result = apart_shared.job.run(command, files_out=["out.txt"])

    with pytest.raises(JobFailed, match=said):
        result.get(timeout=30)

    assert not result.files


def test_an_input_does_not_follow_a_link_out_of_the_directory(apart_shared, tmp_path):
    (tmp_path / "in.txt").write_text("in")
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    elsewhere.mkdir()
    (there / "link").symlink_to(elsewhere)

    result = apart_shared.job.run(
        "true", cwd=str(there), files_in=[(tmp_path / "in.txt", "link/new/in.txt")]
    )

    with pytest.raises(JobFailed, match="leads out of the job's directory"):
        result.get(timeout=30)
    assert not list(elsewhere.iterdir())


def test_without_a_service_a_large_output_stays_on_its_host_and_the_error_says_where(apart):
    result = apart.job.run("head -c 3000000 /dev/zero > out.bin", files_out=["out.bin"])

    with pytest.raises(JobFailed, match="relayq serve"):
        result.get(timeout=40)

    (kept,) = result.files
    assert kept.place == "host"
    assert Path(kept.path).stat().st_size == kept.size == 3_000_000
    assert result.record.exit_code == 0


def test_a_worker_may_be_killed_while_a_file_comes(apart, gate, large, tmp_path):
    result = apart.job.run(
        "sha256sum large.bin; echo x >> times; cat times > copy; cat large.bin times > out.bin",
        files_in=[large],
        files_out=["out.bin"],
    )
    until(gate.is_held.is_set, within=30, what="half the file to come")

    apart.end_worker(signal.SIGKILL)
    gate.open()
    apart.start_apart(RELAYQ_SERVE__URL=gate.url)

    assert result.get(timeout=60).split()[0] == hashlib.sha256(LARGE).hexdigest()
    (got,) = result.fetch(tmp_path / "out.bin")
    assert Path(got).read_bytes() == LARGE + b"x\n"
    assert result.record.attempt == 1


def test_a_worker_may_be_killed_while_a_file_goes(apart, gate, tmp_path):
    result = apart.job.run("echo once; head -c 3000000 /dev/zero > out.bin", files_out=["out.bin"])
    until(gate.is_held.is_set, within=30, what="half the file to go")

    apart.end_worker(signal.SIGKILL)
    gate.open()
    apart.start_apart(RELAYQ_SERVE__URL=gate.url)

    assert result.get(timeout=60) == "once"
    (got,) = result.fetch(tmp_path / "out.bin")
    assert Path(got).read_bytes() == bytes(3_000_000)
    assert result.record.attempt == 1


def test_a_broker_may_be_away_while_files_travel(apart, gate, large, tmp_path):
    result = apart.job.run("cp large.bin out.bin", files_in=[large], files_out=["out.bin"])
    until(gate.is_held.is_set, within=30, what="half the file to come")

    os.kill(apart.broker.pid, signal.SIGKILL)
    gate.open()
    until(lambda: not stepping(apart), within=30, what="the files to be taken in and out")
    embedded.start_broker(apart.config)

    result.get(timeout=90)
    (got,) = result.fetch(tmp_path / "got.bin")
    assert Path(got).read_bytes() == LARGE


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_cancel_ends_a_transfer_at_once_and_leaves_nothing(apart, gate, large, tmp_path, way):
    own = tmp_path / "own"
    own.mkdir()
    files = {"in": {"files_in": [large]}, "out": {"files_out": ["out.bin"]}}[way]
    result = apart.job.run("head -c 3000000 /dev/zero > out.bin", cwd=str(own), **files)
    until(gate.is_held.is_set, within=30, what="half the file")
    assert stepping(apart)

    result.cancel()

    until(lambda: result.record.state == "cancelled", within=10, what="the cancel")
    assert not stepping(apart)
    assert [one.name for one in own.iterdir()] == ([] if way == "in" else ["out.bin"])
    until(lambda: not apart.attempts(), what="the attempt's directory to go")


def test_a_paused_transfer_stands_still(apart, gate, large):
    result = apart.job.run("sha256sum < large.bin", files_in=[large])
    until(gate.is_held.is_set, within=30, what="half the file")
    (step,) = stepping(apart)

    result.pause()
    until(lambda: step.status() == psutil.STATUS_STOPPED, within=10, what="the step to stop")
    gate.open()
    result.resume()

    assert result.get(timeout=60).split()[0] == hashlib.sha256(LARGE).hexdigest()


def test_a_time_limit_counts_the_command_alone(apart, gate, large):
    result = apart.job.run("sleep 0.1", files_in=[large], timeout=1)
    until(gate.is_held.is_set, within=30, what="half the file")
    until(lambda: result.record.progress is not None, within=10, what="its progress")
    said = result.record.progress
    threading.Event().wait(1.5)

    gate.open()

    result.get(timeout=30)
    assert said.text == "taking large.bin"


def test_a_service_that_is_away_is_waited_for_and_then_counts_as_a_loss(apart, large):
    apart.start_service()
    apart.end_worker()
    result = apart.job.run("sha256sum < large.bin", files_in=[large])
    embedded.stop_files(apart.config)
    apart.start_apart()
    until(lambda: result.record.losses == 1, within=30, what="the attempt to give up")
    assert result.record.failures == 0

    apart.start_service()

    assert result.get(timeout=60).split()[0] == hashlib.sha256(LARGE).hexdigest()


def test_a_file_that_the_host_knows_by_another_name_is_not_copied(apart, large, tmp_path):
    share, mount = tmp_path / "share", tmp_path / "mount"
    share.mkdir()
    mount.symlink_to(share)
    large.rename(share / "large.bin")
    apart.end_worker()
    apart.start_apart(RELAYQ_WORKER__PATHS=f"{share}={mount}")

    result = apart.job.run(
        "readlink large.bin; cp large.bin out.bin",
        files_in=[share / "large.bin"],
        files_out=[("out.bin", str(share / "out.bin"))],
    )

    assert result.get(timeout=30) == str(mount / "large.bin")
    assert [(one.place, one.path) for one in result.files] == [("placed", str(mount / "out.bin"))]
    assert (share / "out.bin").read_bytes() == LARGE
    assert sorted(one.name for one in share.iterdir()) == ["large.bin", "out.bin"]


def test_on_the_submitters_own_machine_nothing_is_copied(shared_fleet, large, tmp_path):
    result = shared_fleet.job.run(
        "readlink large.bin; cp large.bin out.bin; pwd",
        files_in=[large],
        files_out=[("out.bin", f"{tmp_path}/results/")],
    )

    link, scratch = result.get(timeout=30).split()
    assert link == str(large)
    assert [(one.place, one.dest) for one in result.files] == [
        ("placed", f"{tmp_path}/results/out.bin")
    ]
    assert (tmp_path / "results" / "out.bin").read_bytes() == LARGE
    until(lambda: not Path(scratch).exists(), within=10, what="the scratch directory to go")


def test_an_input_that_is_an_output_as_well_is_a_copy(shared_fleet, large, tmp_path):
    result = shared_fleet.job.run(
        "echo more >> large.bin",
        files_in=[large],
        files_out=[("large.bin", str(tmp_path / "changed.bin"))],
    )

    result.get(timeout=30)
    assert large.read_bytes() == LARGE
    assert (tmp_path / "changed.bin").read_bytes() == LARGE + b"more\n"


def test_an_input_that_changed_since_is_not_taken(shared_fleet, large):
    result = shared_fleet.job.run("true", files_in=[large], delay=2)
    large.write_bytes(b"other")

    with pytest.raises(JobFailed, match="changed since the submit"):
        result.get(timeout=40)

    assert (result.record.reason, result.record.attempt) == ("files", 1)
