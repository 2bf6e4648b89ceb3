"""Four machines, as far as relayq can tell: a broker, two workers and a client, all real commands.

Nothing here reads Redis or relayq's files: what a user can't see isn't tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import missing
from tests.system import fleet as fleets
from tests.system.fleet import GRACE, ROOT, Command, Fleet, Host
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.root]

MB = 1_000_000

# Every process of a tree that is hard to end: the leader, one that ignores SIGTERM, one in a
# session of its own, and a daemon without environment that ignores SIGTERM. All show the mark.
TREE = """
import os, signal, sys
def start(prepare, environment=os.environ):
    if os.fork() == 0:
        prepare()
        os.execve("/bin/sleep", ["sleep", sys.argv[1]], environment)
def deafen():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def daemonise():
    os.setsid()
    deafen()
    if os.fork():
        os._exit(0)
start(deafen)
start(os.setsid)
start(daemonise, {})
signal.pause()
"""
TREE_SIZE = 4


@pytest.fixture(scope="module")
def built() -> Iterator[Fleet]:
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    with fleets.fleet() as fleet:
        fleet.add("mini", "worker: {name: mini, max_concurrent: 2}\n").start_worker()
        # Named after its hostname.
        fleet.add("pi4", "worker: {max_concurrent: 2}\n").start_worker()
        fleet.add("client")
        yield fleet


@pytest.fixture
def fleet(built: Fleet, request: pytest.FixtureRequest) -> Fleet:
    """The fleet, with both of its hosts online."""
    built.note(f"# {request.node.name.removeprefix('test_').replace('_', ' ')}")
    if not built.broker.pids():
        built.start_broker()
    built.host("client").set_link("up")
    for name in ("mini", "pi4"):
        built.host(name).repair()
    until(lambda: online(built) == {"mini", "pi4"}, within=30, what="both hosts to be online")
    return built


@pytest.fixture
def mini(fleet: Fleet) -> Host:
    return fleet.host("mini")


@pytest.fixture
def pi4(fleet: Fleet) -> Host:
    return fleet.host("pi4")


@pytest.fixture
def client(fleet: Fleet) -> Host:
    return fleet.host("client")


def online(fleet: Fleet) -> set[str]:
    """Return the names of the hosts that `relayq status` calls online."""
    asked = fleet.host("client").start_relayq("status", "--json").finish(noted=False)
    hosts = json.loads(asked.out)["hosts"]
    return {host["name"] for host in hosts if host["online"]}


class Story:
    """A job that counts aloud and keeps a journal of its own starts and ends, told to a client."""

    PAUSE = 0.5

    def __init__(self, client: Host, host: Host, *, lines: int = 16) -> None:
        self.client = client
        self.lines = lines
        self.journal = host.home / f"journal-{secrets.token_hex(4)}"
        script = (
            f"exec 3>>{self.journal.name}; echo start $RELAYQ_JOB_ID >&3; "
            f"for i in $(seq {lines}); do "
            f"echo line $i; echo warning $i >&2; echo $i >&3; sleep {self.PAUSE}; "
            "done; echo end >&3"
        )
        self.told = client.start_relayq("run", "--on", host.name, script)
        self.reach(3)

    def written(self) -> list[str]:
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    def has_reached(self, line: int) -> bool:
        return str(line) in self.written()

    def reach(self, line: int) -> None:
        """Wait until the job itself, whoever knows of it, is at this line."""
        within = 20 + line * self.PAUSE
        until(lambda: self.has_reached(line), within=within, what=f"line {line}")

    def ends_well(self) -> None:
        """Check that it was told whole, by one process, in one attempt."""
        told = self.told.finish(90)

        numbers = [str(i) for i in range(1, self.lines + 1)]
        start, *written = self.written()
        assert written == [*numbers, "end"]
        assert told.status == 0
        assert told.out.splitlines() == [f"line {i}" for i in numbers]
        remarks = [line for line in told.err.splitlines() if not line.startswith("relayq: ")]
        assert remarks == [f"warning {i}" for i in numbers]
        record = json.loads(self.client.relayq("show", "--json", start.split()[1]).out)
        assert (record["state"], record["attempt"]) == ("succeeded", 1)


def test_status_shows_both_hosts_online(client: Host) -> None:
    status = client.relayq("status")

    assert status.status == 0
    lines = status.out.splitlines()
    assert "2 of 2 hosts online" in lines[0]
    for name in ("mini", "pi4"):
        (row,) = [line.split() for line in lines if line.split()[:1] == [name]]
        assert "online" in row


def test_a_job_runs_where_it_was_sent(client: Host, mini: Host, pi4: Host) -> None:
    for host in (mini, pi4):
        assert client.relayq("run", "--on", host.name, "uname -n; echo $HOME").out == (
            f"{host.name}\n{host.home}\n"
        )


def test_a_test_suite_runs_on_a_host(client: Host, mini: Host) -> None:
    copy_checkout(mini.home / "project")
    suite = ["tests/unit/test_jobs.py", "tests/unit/test_hosts.py"]

    done = client.relayq(
        *["run", "--on", "mini", "--cwd", "~/project", "--"],
        *[sys.executable, "-m", "pytest", "-q", *suite],
    )

    assert done.status == 0
    assert " passed" in done.out


def test_a_failing_test_suite_fails_the_command(client: Host, mini: Host) -> None:
    (mini.home / "wrong").mkdir()
    (mini.home / "wrong" / "test_wrong.py").write_text("def test_wrong():\n    assert 1 == 2\n")

    done = client.relayq(
        "run", "--on", "mini", "--cwd", "wrong", "--", sys.executable, "-m", "pytest", "-q"
    )

    assert done.status == 1
    assert "1 failed" in done.out


@pytest.mark.media
def test_a_video_is_encoded_on_a_host(client: Host, pi4: Host) -> None:
    source = "testsrc=duration=60:size=320x180:rate=10"

    encoded = client.relayq(
        *["run", "--on", "pi4", "--", "ffmpeg", "-nostdin", "-v", "error"],
        *["-f", "lavfi", "-i", source, "-y", "video.mp4"],
    )

    assert encoded.status == 0
    asked = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
    probed = client.relayq("run", "--on", "pi4", "--", "ffprobe", *asked, "video.mp4")
    assert float(probed.out) == pytest.approx(60, abs=0.2)
    assert (pi4.home / "video.mp4").exists()


def test_100_mb_of_output_are_followed_live_in_little_memory(client: Host, mini: Host) -> None:
    half = "head -c 50000000 /dev/urandom"
    script = f"{{ {half}; until test -e go; do sleep 0.02; done; {half}; }} | tee copy"
    worker, (broker,) = running_worker(mini), client.fleet.broker.pids("redis-server")
    before = {pid: reset_peak(pid) for pid in (worker.pid, broker)}
    # What a client needs for a line of output.
    small = client.start_relayq("run", "--on", "mini", "sleep 0.5; echo done")
    needed = peak_until_end(small)

    told = client.start_relayq("run", "--on", "mini", "--", "sh", "-c", script)
    # The second half doesn't begin before all of the first has arrived.
    until(
        lambda: told.stdout_file.stat().st_size == 50 * MB or told.status is not None,
        within=40,
        what="the first half",
    )
    (mini.home / "go").touch()
    peak = peak_until_end(told)

    assert told.status == 0
    assert digest(told.stdout_file) == digest(mini.home / "copy")
    assert told.stdout_file.stat().st_size == 100 * MB
    client_grew = peak - needed
    worker_grew, broker_grew = (peak_memory(pid) - used for pid, used in before.items())
    client.fleet.note(
        f"# 100 MB in {told.seconds:.1f} s; peaks above what stood before: client "
        f"{client_grew // MB} MB, worker {worker_grew // MB} MB, broker {broker_grew // MB} MB"
    )
    assert max(client_grew, worker_grew, broker_grew) < 40 * MB


def test_a_cancelled_tree_leaves_nothing(client: Host, mini: Host) -> None:
    mark = str(10**9 + secrets.randbelow(10**9))
    script = [sys.executable, "-I", "-S", "-c", TREE, mark]
    id = client.relayq("submit", "--on", "mini", "--", *script).out.strip()
    until(lambda: len(marked(mini, mark)) == TREE_SIZE, within=10, what="the whole tree to run")

    cancelled = client.relayq("cancel", id)

    assert marked(mini, mark) == []
    assert cancelled.status == 0
    assert cancelled.seconds < GRACE + 4
    assert client.relayq("wait", id).status == 130


@pytest.mark.parametrize("what", ["worker", "worker and fork server"])
def test_a_job_outlives_the_death_of_its(what: str, client: Host, mini: Host) -> None:
    story = Story(client, mini)
    (forks,) = [p for p in children(running_worker(mini).pid) if "forkserver" in cmdline(p)]

    if "fork server" in what:
        os.kill(forks, signal.SIGKILL)
    mini.end_worker(signal.SIGKILL)
    until(lambda: forks not in mini.pids(), what="the fork server to be gone")
    story.reach(7)
    mini.start_worker()

    story.ends_well()


def test_a_job_outlives_a_restart_of_its_worker(client: Host, mini: Host) -> None:
    story = Story(client, mini)

    mini.end_worker(signal.SIGTERM)
    story.reach(7)
    mini.start_worker()

    story.ends_well()


def test_a_directory_comes_over_byte_for_byte(client: Host, mini: Host) -> None:
    tree = mini.home / "tree"
    plant(tree)
    fixed = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]
    pack = ["tar", "c", *fixed, "-C", str(tree), "."]

    told = client.relayq("run", "--on", "mini", "--", *pack)

    assert told.status == 0
    assert told.stdout == subprocess.run(pack, capture_output=True, check=True).stdout
    assert told.err == ""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("echo out; echo error >&2; exit 7", 7),
        ("echo out; echo error >&2; kill -KILL $$", 137),
        ("echo out; echo error >&2; relayq-no-such-command", 127),
    ],
)
def test_streams_and_exit_codes_come_back(line: str, status: int, client: Host) -> None:
    done = client.relayq("run", "--on", "pi4", line)

    assert done.status == status
    assert done.out == "out\n"
    assert done.err.splitlines()[0] == "error"
    assert "out" not in done.err.splitlines()


def test_a_program_that_is_not_there_is_127(client: Host) -> None:
    done = client.relayq("run", "--on", "pi4", "--", "relayq-no-such-command", "now")

    assert done.status == 127
    assert "relayq-no-such-command: command not found" in done.err


def test_a_host_off_the_network_for_10_s_shows_nothing(client: Host, mini: Host) -> None:
    story = Story(client, mini, lines=26)

    mini.set_link("down")
    # Off the network the job goes on.
    story.reach(24)
    mini.set_link("up")

    story.ends_well()
    assert "relayq: " not in story.told.err


def test_a_client_off_the_network_for_13_s_is_told_the_whole_story(
    client: Host, mini: Host
) -> None:
    story = Story(client, mini, lines=31)

    client.set_link("down")
    story.reach(29)
    client.set_link("up")

    story.ends_well()


@pytest.mark.parametrize("away", [3, 13])
def test_the_broker_is_killed_and_is_back_after_some_seconds(
    away: int, fleet: Fleet, client: Host, mini: Host
) -> None:
    lines = int(away / Story.PAUSE) + 3
    story = Story(client, mini, lines=lines + 4)

    fleet.kill_broker()
    story.reach(lines)
    assert fleet.start_broker().status == 0

    story.ends_well()


def test_a_clone_of_a_host_is_refused(fleet: Fleet, client: Host, mini: Host) -> None:
    clone = fleet.add("clone", "worker: {name: mini, max_concurrent: 2}\n")

    with working(clone) as worker:
        until(
            lambda: "another machine is already called mini" in worker.err,
            within=20,
            what="the clone to say that it was refused",
        )
        names = {client.relayq("run", "--on", "mini", "uname -n").out for _ in range(5)}

    assert names == {"mini\n"}


def test_a_worker_with_another_fleet_key_takes_nothing(fleet: Fleet, client: Host) -> None:
    stranger = fleet.add("stranger", key=secrets.token_hex(32))

    with working(stranger) as worker:
        until(
            lambda: "this machine's fleet key isn't the broker's" in worker.err,
            within=20,
            what="the stranger to say that its key is wrong",
        )
        names = {client.relayq("run", "uname -n").out for _ in range(5)}
        id = client.relayq("submit", "--on", "stranger", "--wait-for-host", "uname -n").out.strip()
        # Longer than an idle worker waits before it looks for jobs.
        waited = client.relayq("wait", "--timeout", "7s", id)

    assert names <= {"mini\n", "pi4\n"}
    assert waited.status == 75
    assert client.relayq("cancel", id).status == 0
    assert "stranger" not in online(fleet)


def running_worker(host: Host) -> Command:
    assert host.worker is not None
    assert host.worker.status is None
    return host.worker


@contextmanager
def working(host: Host) -> Iterator[Command]:
    """Run a host's worker for as long as a block lasts."""
    host.start_worker()
    try:
        yield running_worker(host)
    finally:
        host.end_worker()


def copy_checkout(target: Path) -> None:
    """Give a host this project: a clone of the repository, or of an unpacked release a copy."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        subprocess.run(["git", "clone", "-q", ROOT, target], check=True)
    else:
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))


def plant(tree: Path) -> None:
    """Make some hundred files, of every sort of name and content."""
    names = ["with space", "-rf", "new\nline", "quote'\"$(x)", "ünïcödé", "*?[a]", "%s\\n", ".dot"]
    for i in range(40):
        folder = tree / f"folder {i % 5}" / str(i)
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(os.urandom(i * 97))
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("nowhere/at all")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\xfe")).write_bytes(bytes(range(256)))


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def marked(host: Host, mark: str) -> list[int]:
    """Return the processes of a host that have this argument, whoever their parents are."""
    return [pid for pid in host.pids() if mark in cmdline(pid).split("\0")]


def cmdline(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reset_peak(pid: int) -> int:
    """Begin to measure anew, and return the memory that the process has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory(pid)


def peak_memory(pid: int) -> int:
    """Return the most memory that a process had, in bytes; 0 when it is over."""
    with suppress(OSError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def peak_until_end(command: Command) -> int:
    """Return the most memory that a command ever had, measured up to its end."""
    peak = 0

    def has_ended() -> bool:
        nonlocal peak
        peak = max(peak, peak_memory(command.pid))
        return command.status is not None

    until(has_ended, within=60, what="the command's end")
    command.finish()
    return peak
