"""What a job writes comes back byte for byte, however much it is and whatever it says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from relayq.model.output import STDOUT, only
from tests.system.commands import Terminal, relayq, shown

pytestmark = pytest.mark.system

MB = 1_000_000
#: What a process may grow by while it passes 100 MB on.
ROOM = 40 * MB
ODD = (
    bytes(range(256))
    + b"\xff\xfe\xc3\x28 \x00 \xed\xa0\x80"
    + b"\x1b[2J\x1b[31mred\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x07\x9b5A"
    + b"</script><script>alert(1)</script> [red]markup[/red] [/] [link=x]"
    + "\u202eright to left".encode()
)


class Memory:
    """The most that the worker, its shims and the broker have grown by while this lasts."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._before = self._now()
        self.growth = 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._follow)

    def __enter__(self) -> Memory:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _follow(self) -> None:
        while not self._over.wait(0.02):
            for pid, size in self._now().items():
                self.growth = max(self.growth, size - self._before.get(pid, 0))

    def _now(self) -> dict[int, int]:
        sizes = {}
        for pid in self._pids:
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                try:
                    if process.pid in self._pids or "relayq" in process.name():
                        sizes[process.pid] = process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        return sizes


@pytest.fixture
def memory(shared_fleet):
    """The memory of everything between a job and who reads it."""
    return Memory(shared_fleet.worker.pid, shared_fleet.broker.pid)


def digest_of(frames) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.data)
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_100_mb_are_fetched_from_their_host_whole_and_in_little_memory(
    shared_fleet, memory, tmp_path
):
    with memory:
        result = shared_fleet.job.run(f"head -c {100 * MB} /dev/urandom | tee {tmp_path}/copy")
        result.wait(60)
        got = digest_of(result.logs())

    assert got == digest_of_file(tmp_path / "copy")
    assert memory.growth < ROOM
    # What the broker keeps is marked as what it is: pieces by position, with a gap.
    pieces = shared_fleet.relay.session().store.logs.read(result.id, 1)
    kept = sum(len(piece.frames) for piece in pieces)
    assert kept <= shared_fleet.config.defaults.max_log + 2 * 65_536
    assert pieces[-1].position + len(pieces[-1].frames) == result.outcome().output_bytes > kept


def test_a_line_of_50_mb_fills_no_memory_on_its_way(shared_fleet, memory):
    with memory:
        result = shared_fleet.job.run(f"head -c {50 * MB} /dev/zero | tr '\\0' x; echo end")
        frames = result.logs(follow=True)
        lengths = [len(frame.data) for frame in frames]

    assert sum(lengths) == 50 * MB + len("end\n")
    assert max(lengths) <= 65_536
    assert memory.growth < ROOM


def test_a_burst_of_lines_reaches_every_follower_whole(shared_fleet, memory):
    line = b"the quick brown fox\n"
    count = 2_000_000
    with memory, ThreadPoolExecutor(2) as pool:
        result = shared_fleet.job.run(f"yes the quick brown fox | head -n {count}")
        late = shared_fleet.job.fetch(result.id)
        got = list(pool.map(lambda one: digest_of(one.logs(follow=True)), [result, late]))

    assert got == [hashlib.sha256(line * count).hexdigest()] * 2
    assert memory.growth < ROOM


@pytest.mark.timeout(40)
def test_who_follows_while_the_job_is_being_claimed_isnt_forgotten(shared_fleet):
    # One that is forgotten asks again after 10 s, which is too late for this test's time limit.
    for number in range(40):
        result = shared_fleet.job.run(f"head -c 100000 /dev/zero; echo {number}")
        assert b"".join(f.data for f in result.logs(follow=True)).endswith(f"{number}\n".encode())


def test_both_channels_of_a_burst_are_told_apart(shared_fleet):
    result = shared_fleet.job.run("for i in $(seq 300); do seq 100; seq 100 >&2; done", follow=True)
    frames = list(result.logs(follow=True))

    each = "".join(f"{n}\n" for n in range(1, 101)) * 300
    assert only(frames, STDOUT).decode() == each
    assert only(frames, STDOUT + 1).decode() == each


@pytest.mark.parametrize("size", ["small", "large"])
def test_bytes_of_any_kind_come_back_exactly(shared_fleet, tmp_path, size):
    odd = ODD if size == "small" else ODD * 1000
    (tmp_path / "odd").write_bytes(odd)
    command = ["cat", str(tmp_path / "odd")]

    ran = relayq("run", "--", *command, text=False)
    result = shared_fleet.job.run(command)
    text = result.get(timeout=30)

    assert (ran.returncode, ran.stdout) == (0, odd)
    assert only(result.logs(), STDOUT) == odd
    assert relayq("logs", result.id, text=False).stdout == odd
    assert relayq("result", result.id, text=False).stdout == odd
    assert text == odd.decode(errors="replace")


def test_what_a_job_is_called_and_wrote_is_inert_wherever_it_is_listed(shared_fleet, tmp_path):
    script = tmp_path / "odd.sh"
    script.write_bytes(
        b"printf '%b' '" + rb"\033]52;c;ZXZpbA==\007\033[2J [red]x[/red]\n" + b"'>&2"
    )
    text = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e[red]bold[/red]"
    result = shared_fleet.job.run(f"sh {script}; exit 3 # {text}", name="odd-one")
    result.wait(20)

    for command in (["ps", "-a"], ["show", result.id], ["status"]):
        terminal = Terminal(*command, columns=200, NO_COLOR="1")
        assert terminal.finish() == 0
        assert "\x1b]" not in terminal.seen
        assert "\x1b[31m" not in terminal.seen
        assert "\x1b[2J" not in terminal.seen
        assert "\x9b" not in terminal.seen
        assert "\u202e" not in terminal.seen
    assert "[red]bold[/red]" in relayq("show", result.id).stdout
    # JSON is for programs: the text as it is, escaped.
    assert text in shown(result.id)["spec"]["payload"]["cmd"]


def test_a_reader_that_stops_reading_holds_up_neither_job_nor_worker(shared_fleet):
    result = shared_fleet.job.run(f"head -c {30 * MB} /dev/zero", follow=True)
    slow = subprocess.Popen(
        ["sh", "-c", f"{_relayq()} logs -f {result.id} | sleep 300"],
        env={**os.environ, "PYTHONPATH": shared_fleet.environ["PYTHONPATH"]},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert result.wait(30).state == "succeeded"
        assert shared_fleet.job.run("echo next").get(timeout=20) == "next"
        assert sum(len(frame.data) for frame in result.logs()) == 30 * MB
    finally:
        os.killpg(slow.pid, 9)
        slow.wait()


def _relayq() -> str:
    import sys

    return f"{sys.executable} -m relayq"
