"""The audit trail on the disk: what a crash, a full disk and a clock do to it, and what is told."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relayq import clock, ledger
from relayq.ledger import Ledger
from relayq.model.audit import Finding, Head
from tests.waiting import until

ROOT = Path(__file__).parents[2]
NOVEMBER = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC).timestamp()
#: Appends until it is killed; says after each entry that it was written.
WRITER = """
import pathlib, sys
from relayq.ledger import Ledger
trail = Ledger(pathlib.Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    assert trail.append("started", job=f"{sys.argv[2]}-{number}", text="x" * (number % 700))
    print(number, flush=True)
"""


@pytest.fixture
def trail(tmp_path):
    made = Ledger(tmp_path / "audit")
    yield made
    made.close()


def filled(trail: Ledger, count: int) -> None:
    for number in range(count):
        assert trail.append("started", job=f"job-{number}")


def jobs(trail: Ledger) -> list[str]:
    return [str(entry.facts["job"]) for entry in trail.entries() if "job" in entry.facts]


def only_file(trail: Ledger) -> Path:
    [path] = trail.files()
    return path


def found_anew(trail: Ledger) -> Finding:
    """Return what somebody finds who reads it for the first time."""
    return Ledger(trail.folder).verify()


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_trail_is_whole_and_says_what_was_written(trail):
    filled(trail, 3)

    found = found_anew(trail)

    assert found.is_whole
    assert not found.cuts
    assert jobs(trail) == ["job-0", "job-1", "job-2"]
    assert (found.first, found.head.number) == (1, 4)  # the first one opens the file
    assert only_file(trail).stat().st_mode & 0o777 == 0o600
    assert trail.folder.stat().st_mode & 0o777 == 0o700


def test_a_trail_that_was_never_written_is_whole(trail):
    assert trail.verify().is_whole
    assert not trail.folder.exists()


@pytest.mark.parametrize("change", ["a letter", "out", "twice", "swapped", "its own hash"])
def test_a_line_that_was_changed_taken_out_or_put_in_is_found(trail, change):
    filled(trail, 6)
    trail.close()
    path = only_file(trail)
    lines = path.read_bytes().splitlines(keepends=True)
    match change:
        case "a letter":
            lines[3] = lines[3].replace(b"job-2", b"job-9")
        case "out":
            del lines[3]
        case "twice":
            lines.insert(3, lines[3])
        case "swapped":
            lines[3], lines[4] = lines[4], lines[3]
        case "its own hash":
            # Made anew with a hash that fits it, but not what comes after it.
            from relayq.model.audit import line, parsed

            before = parsed(lines[2])
            assert before is not None
            lines[3] = line(before.head, before.at, "started", {"job": "job-9"}).raw
    path.write_bytes(b"".join(lines))

    broken = found_anew(trail).broken

    assert broken is not None
    assert broken.after in (3, 4)
    assert broken.place.startswith(path.name)


def test_lines_that_are_gone_from_the_end_are_missed(trail):
    filled(trail, 6)
    trail.close()
    path = only_file(trail)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))

    broken = found_anew(trail).broken

    assert broken is not None
    assert "2 entries were written after it" in broken.why


def test_what_was_written_anew_as_a_whole_is_found_by_a_head_that_is_known(trail, tmp_path):
    filled(trail, 4)
    known = trail.verify().head
    filled(trail, 2)
    anew = Ledger(tmp_path / "anew")
    for number in range(6):
        anew.append("started", job=f"job-{9 if number == 2 else number}")

    assert trail.verify(known).is_whole
    assert anew.verify().is_whole
    assert not anew.verify(known).is_whole
    assert not anew.verify(Head(99, known.hash)).is_whole
    anew.close()


@pytest.mark.parametrize("left", [1, 30, 100])
def test_a_line_that_a_crash_cut_off_is_told_and_the_chain_goes_on(trail, left):
    filled(trail, 3)
    trail.close()
    path = only_file(trail)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:left])

    before = found_anew(trail)
    filled(trail, 2)
    after = found_anew(trail)

    assert before.is_whole
    assert [cut.torn for cut in before.cuts] == [left]
    assert after.is_whole
    assert [(cut.after, cut.torn) for cut in after.cuts] == [(4, left)]
    assert jobs(trail) == ["job-0", "job-1", "job-2", "job-0", "job-1"]


@pytest.mark.parametrize("fact", ["Infinity", "NaN", "null", "[" * 20_000])
def test_what_only_looks_like_an_entry_keeps_nobody_from_writing(trail, fact):
    filled(trail, 1)
    with only_file(trail).open("a") as file:
        file.write(f'{{"n":{fact},"at":1,"what":"x","hash":"{"0" * 64}"}}\n')

    filled(trail, 1)
    found = found_anew(trail)

    assert found.is_whole
    assert [cut.torn > 0 for cut in found.cuts] == [True]


def test_entries_that_a_power_cut_took_are_told_by_their_number(trail):
    filled(trail, 6)
    trail.close()
    path = only_file(trail)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]) + lines[-3][:20])

    filled(trail, 1)
    found = found_anew(trail)

    assert found.is_whole
    assert [(cut.after, cut.lost, cut.torn) for cut in found.cuts] == [(4, 3, 20)]
    assert found.head.number == 9  # no number is given twice


def test_without_its_files_a_trail_says_that_there_were_some(trail):
    filled(trail, 3)
    trail.close()
    only_file(trail).unlink()

    assert not found_anew(trail).is_whole
    filled(trail, 1)
    found = found_anew(trail)

    assert found.is_whole
    assert [(cut.reason, cut.lost) for cut in found.cuts] == [("its first files are gone", 4)]


def test_a_month_has_a_file_of_its_own_and_the_chain_goes_through(trail, monkeypatch):
    now = NOVEMBER
    monkeypatch.setattr(clock, "now", lambda: now)
    filled(trail, 2)
    now += 20
    filled(trail, 2)

    assert [path.name for path in trail.files()] == ["00001-2026-11.jsonl", "00002-2026-12.jsonl"]
    found = found_anew(trail)
    assert (found.is_whole, found.files, found.entries) == (True, 2, 6)


def test_a_clock_that_steps_to_and_fro_is_told_and_breaks_nothing(trail, monkeypatch):
    now = NOVEMBER
    monkeypatch.setattr(clock, "now", lambda: now)
    for step in (0, 3 * 365 * 86_400, -3 * 365 * 86_400, 60, -7200):
        now += step
        filled(trail, 2)

    found = found_anew(trail)

    assert found.is_whole
    assert not found.cuts
    assert found.steps_back == 2
    assert found.furthest_back == pytest.approx(3 * 365 * 86_400)
    assert len(jobs(trail)) == 10
    months = [path.stem.partition("-")[2] for path in trail.files()]
    assert months == ["2026-11", "2029-11", "2026-11", "2026-12", "2026-11"]


def test_old_files_go_and_the_trail_says_up_to_where(trail, monkeypatch):
    now = NOVEMBER
    monkeypatch.setattr(clock, "now", lambda: now)
    for _ in range(4):
        filled(trail, 3)
        now += 31 * 86_400
    for path in trail.files():
        os.utime(path, (now, now - 100 * 86_400 * (path.name < "00003")))

    assert trail.prune(older_than=50 * 86_400) == 2
    assert trail.prune(older_than=50 * 86_400) == 0

    found = found_anew(trail)
    assert found.is_whole
    assert not found.cuts
    assert found.first == 9
    trail.files()[0].unlink()
    assert [cut.reason for cut in found_anew(trail).cuts] == ["its first files are gone"]


class FullDisk:
    """A disk that has room for so many bytes more in the files of a trail."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        patch.setattr(ledger.os, "write", self.write)

    def write(self, descriptor: int, raw: bytes) -> int:
        if os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).endswith(".jsonl"):
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raw = raw[: self.room]
            self.room -= len(raw)
        return self._write(descriptor, raw)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file is written")
@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_full_disk_had_no_room_for_is_counted(trail, monkeypatch, is_killed):
    filled(trail, 3)
    with monkeypatch.context() as patch:
        FullDisk(patch, room=50)
        assert not trail.append("started", job="missing")
        assert not trail.append("ended", job="missing")
    if is_killed:
        # The next process knows it from `head`, whose room is its own.
        trail = Ledger(trail.folder)

    assert found_anew(trail).is_whole
    filled(trail, 1)
    found = found_anew(trail)

    assert found.is_whole
    assert [(cut.after, cut.lost, cut.torn) for cut in found.cuts] == [(4, 2, 0)]
    assert "missing" not in jobs(trail)
    assert len(jobs(trail)) == 4
    trail.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file is written")
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_month_that_began_on_a_full_disk_stands_alone_once_those_before_it_are_gone(
    trail, monkeypatch, is_killed
):
    now = NOVEMBER
    monkeypatch.setattr(clock, "now", lambda: now)
    filled(trail, 2)
    now += 20
    with monkeypatch.context() as patch:
        FullDisk(patch, room=0)
        assert not trail.append("started", job="missing")
    if is_killed:
        trail.close()
        trail = Ledger(trail.folder)
    filled(trail, 2)
    now += 31 * 86_400
    filled(trail, 2)
    os.utime(trail.files()[0], (now, now - 100 * 86_400))

    assert trail.prune(older_than=50 * 86_400) == 1

    found = found_anew(trail)
    assert found.is_whole, found.broken
    assert [cut.lost for cut in found.cuts] == [1]
    trail.close()


def test_two_processes_write_one_chain(trail):
    both = [writer(trail.folder, name, 150) for name in ("a", "b")]
    for process in both:
        process.communicate(timeout=30)
        assert process.returncode == 0
    filled(trail, 1)

    found = found_anew(trail)

    assert found.is_whole
    assert not found.cuts
    assert sorted(jobs(trail)) == sorted(
        ["job-0", *(f"{name}-{number}" for name in "ab" for number in range(150))]
    )


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(trail):
    told: list[str] = []
    for name in ("first", "second", "third"):
        with writer(trail.folder, name, 100_000) as process:
            assert process.stdout is not None
            written = [process.stdout.readline() for _ in range(40)]
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
        numbers = "".join([*written, rest]).split("\n")[:-1]
        told += [f"{name}-{number}" for number in numbers]
    filled(trail, 1)

    found = found_anew(trail)

    assert found.is_whole
    assert not any(cut.lost for cut in found.cuts)
    assert set(told) <= set(jobs(trail))


def test_a_long_text_is_shortened_and_a_line_has_no_line_break(trail):
    trail.append("refused", why="line\nbreak " + "x" * 100_000)

    [*_, entry] = trail.entries()

    assert len(entry.body) < 2000
    assert json.loads(only_file(trail).read_bytes().splitlines()[-1])["why"].startswith("line\n")


def test_a_folder_that_is_removed_under_a_writer_is_made_again(trail):
    filled(trail, 2)
    for path in trail.folder.iterdir():
        path.unlink()
    trail.folder.rmdir()

    filled(trail, 1)

    assert jobs(trail) == ["job-0"]
    until(lambda: found_anew(trail).is_whole, what="a whole trail")


def spoil(trail: Ledger, chance: random.Random, now: list[float]) -> Ledger:
    """Do to a trail what happens to machines; return what the next process has of it."""
    what = chance.choice(("killed", "cut off", "garbage", "full", "clock", "another process"))
    files = trail.files()
    match what:
        case "cut off" if files:
            size = files[-1].stat().st_size
            os.truncate(files[-1], max(0, size - chance.randint(0, 600)))
        case "garbage" if files:
            with files[-1].open("ab") as file:
                file.write(chance.randbytes(chance.randint(1, 300)))
        case "full" if sys.platform == "linux":
            with pytest.MonkeyPatch.context() as patch:
                FullDisk(patch, room=chance.randint(0, 200))
                for _ in range(chance.randint(1, 4)):
                    trail.append("ended")
            return trail
        case "clock":
            now[0] += chance.choice((-4e6, 4e6, -50.0, 1e5))
            return trail
        case "another process":
            other = Ledger(trail.folder)
            filled(other, 1)
            other.close()
            return trail
    trail.close()
    return Ledger(trail.folder)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_a_trail_the_chain_goes_on(tmp_path, monkeypatch, seed):
    chance, now = random.Random(seed), [NOVEMBER]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    trail = Ledger(tmp_path / "audit")
    for _ in range(12):
        filled(trail, chance.randint(0, 3))
        trail = spoil(trail, chance, now)
    filled(trail, 1)

    found = found_anew(trail)

    assert found.is_whole, found.broken
    trail.close()
