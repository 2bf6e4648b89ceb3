"""Rows 21 and 23: a broker whose disk or memory is full takes nothing new and harms nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relayq.errors import BrokerUnavailable
from tests.conftest import missing
from tests.system.faults import scene as scenes
from tests.system.faults.journal import Journal, check_invariants
from tests.system.faults.scene import Scene
from tests.waiting import until

DISK = 12 * 1024 * 1024
FILLER = "{rq}:filler"


class SmallDisk:
    """A file system of a few megabytes that a test can fill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)]
        if subprocess.run(words, capture_output=True).returncode != 0:
            missing("needs the right to mount a tmpfs", excused=True)
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no free byte."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 65_536):
                pass

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk")
    yield made
    made.close()


def on_disk(redis7, disk: SmallDisk, fsync: str) -> Iterator[Scene]:
    with scenes.scene(redis7.binary, fsync=fsync, broker_directory=disk.path) as scene:
        scene.add("one")
        yield scene


@pytest.fixture
def everysec(redis7, disk) -> Iterator[Scene]:
    yield from on_disk(redis7, disk, "everysec")


@pytest.fixture
def always(redis7, disk) -> Iterator[Scene]:
    yield from on_disk(redis7, disk, "always")


@pytest.mark.system
@pytest.mark.root
def test_a_full_disk_with_fsync_every_second_refuses_work_and_heals(everysec, disk, journal):
    running = [journal.submit(everysec.job, seconds, lines=200) for seconds in (2, 7)]
    for result in running:
        journal.started(result)
    disk.fill()
    fill_up(everysec)

    with pytest.raises(BrokerUnavailable, match="takes no new work") as refused:
        everysec.job.run("true")
    assert refused.value.hint is not None
    assert "disk" in refused.value.hint
    done = everysec.relayq("submit", "true")
    assert done.returncode == 125
    assert "takes no new work" in done.stderr
    until(lambda: journal.notes("end", id=running[0].id), within=15, what="a job to end meanwhile")
    # Reading goes on.
    assert everysec.relayq("ps").returncode == 0
    disk.free()

    until(lambda: takes_work(everysec), within=10, what="the broker to take work")
    everysec.broker.connection.delete(FILLER)
    records = check_invariants(journal, everysec.job, ["one"], starts=1)
    assert {record.state for record in records.values()} == {"succeeded"}


@pytest.mark.system
@pytest.mark.root
def test_a_full_disk_with_fsync_always_ends_the_broker_and_loses_nothing(always, disk, journal):
    over = [journal.submit(always.job) for _ in range(10)]
    for result in over:
        result.wait(15)
    running = journal.submit(always.job, 6, lines=200)
    journal.started(running)
    disk.fill()
    until(lambda: not submits(journal, always), within=60, what="the end of the room")
    until(lambda: not always.broker.is_alive, within=10, what="the broker to end")

    # What a service manager does; in vain as long as there is no room.
    always.broker.start(wait=False)
    disk.free()
    until(lambda: started_again(always), within=20, what="the broker to be back")

    records = check_invariants(journal, always.job, ["one"], starts=1, within=60)
    assert {record.state for record in records.values()} == {"succeeded"}


@pytest.mark.system
def test_a_broker_out_of_memory_takes_nothing_new_and_lets_all_end(scene, journal):
    running = [journal.submit(scene.job, 7, lines=500) for _ in range(3)]
    for result in running:
        journal.started(result)
    queued = [journal.submit(scene.job) for _ in range(20)]
    cancelled = journal.submit(scene.job, gate=journal.gate)
    used = int(scene.broker.connection.info("memory")["used_memory"])
    scene.broker.set(maxmemory=used // 2)

    with pytest.raises(BrokerUnavailable, match="takes no new work") as refused:
        scene.job.run("true")
    assert "memory" in str(refused.value.hint)
    done = scene.relayq("submit", "true")
    assert done.returncode == 125
    assert "takes no new work" in done.stderr
    assert journal.cancel(cancelled) in ("cancelled", "asked")
    # Longer than a lease: they are renewed, and end.
    for result in running:
        assert result.wait(20).state == "succeeded"
    assert {result.record.attempt for result in running} == {1}
    scene.broker.set(maxmemory=0)

    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert {records[result.id].state for result in queued} == {"succeeded"}


def fill_up(scene: Scene) -> None:
    """Write until Redis notices that its disk is full; what it took until then is acknowledged."""

    def is_refused() -> bool:
        try:
            scene.broker.connection.set(FILLER, b"x" * 100_000)
        except Exception as error:
            return "MISCONF" in str(error)
        return False

    until(is_refused, within=20, what="Redis to notice")


def submits(journal: Journal, scene: Scene) -> bool:
    """Submit a job; False when that was refused."""
    try:
        journal.submit(scene.job)
    except BrokerUnavailable:
        return False
    return True


def takes_work(scene: Scene) -> bool:
    try:
        scene.job.run("true")
    except BrokerUnavailable:
        return False
    return True


def started_again(scene: Scene) -> bool:
    """Start the broker as often as it ends, as a service manager does."""
    if not scene.broker.is_alive:
        scene.broker.start(wait=False)
    try:
        return bool(scene.broker.connection.ping())
    except Exception:
        return False
