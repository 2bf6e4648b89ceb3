"""The private broker on a disk that fills up: real Redis, a real worker, a small tmpfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relayq import config as configuration
from relayq import embedded
from relayq.errors import RelayqError
from tests.system.commands import begin
from tests.system.conftest import SCALED, Fleet
from tests.waiting import until

pytestmark = pytest.mark.system
needs_root = pytest.mark.root

BALLAST = 4 << 20


@pytest.fixture
def disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The private broker's directory, on a file system of 40 MB of its own."""
    for name, value in SCALED.items():
        monkeypatch.setenv(f"RELAYQ_LEASE__{name}", value)
    folder = home / "broker"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    embedded.start_broker(configuration.load(), ballast=BALLAST)
    yield folder
    embedded.stop_worker(configuration.load())
    embedded.stop_broker(configuration.load())
    subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def worker_beside() -> Iterator[Fleet]:
    fleet = Fleet(Path(os.environ["RELAYQ_HOME"]))
    fleet.start_worker()
    try:
        yield fleet
    finally:
        fleet.close()


def fill(disk: Path, name: str) -> Path:
    """Leave not one block free."""
    path = disk / name
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


@needs_root
def test_the_ballast_takes_its_room_on_the_disk_and_only_its_owner_reads_it(disk):
    ballast = (disk / "ballast").stat()

    assert ballast.st_size == BALLAST
    assert ballast.st_blocks * 512 >= BALLAST
    assert ballast.st_mode & 0o777 == 0o600


@needs_root
def test_a_start_on_a_nearly_full_disk_gives_up_the_ballast(disk):
    config = configuration.load()
    embedded.stop_broker(config)
    fill(disk, "filler")

    facts = embedded.start_broker(config)

    assert not (disk / "ballast").exists()
    assert embedded.running_broker(config) == facts


@needs_root
def test_a_start_on_a_disk_without_any_room_says_so(disk):
    config = configuration.load()
    embedded.stop_broker(config)
    (disk / "ballast").unlink()
    filler = fill(disk, "filler")

    with pytest.raises(RelayqError, match="is full, and the broker couldn't write"):
        embedded.start_broker(config)

    filler.unlink()
    embedded.start_broker(config)
    assert (disk / "ballast").stat().st_size == BALLAST


@needs_root
def test_a_worker_brings_the_broker_through_a_full_disk(disk, tmp_path):
    config = configuration.load()
    with worker_beside() as fleet:
        before = fleet.job.run(
            f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo whole"
        )
        until((tmp_path / "begun").exists, within=10, what="the job to begin")

        fill(disk, "first")
        until(lambda: not (disk / "ballast").exists(), within=15, what="the ballast to go")
        meanwhile = until(lambda: accepted(fleet), within=20, what="the broker to take jobs")
        assert meanwhile.get(timeout=20) == "taken"

        second = fill(disk, "second")
        until(lambda: broken(fleet, config), within=20, what="a full disk to end Redis")
        (tmp_path / "go").touch()
        until(lambda: "couldn't write" in fleet.log(), within=15, what="the worker to say why")

        second.unlink()
        (disk / "first").unlink()
        assert before.get(timeout=30) == "whole"
        assert before.record.attempt == 1
        until(lambda: (disk / "ballast").exists(), within=15, what="the ballast to come back")


def accepted(fleet: Fleet):
    try:
        return fleet.job.run("echo taken")
    except RelayqError:
        return None


def broken(fleet: Fleet, config: configuration.Config) -> bool:
    accepted(fleet)
    return embedded.running_broker(config) is None


def test_a_worker_starts_a_broker_that_died_and_is_not_as_nice_as_itself(home, monkeypatch):
    for name, value in SCALED.items():
        monkeypatch.setenv(f"RELAYQ_LEASE__{name}", value)
    config = configuration.load()
    with worker_beside() as fleet:
        os.kill(fleet.broker.pid, 9)

        again = until(lambda: embedded.running_broker(config), within=20, what="a new broker")

        assert again.pid != fleet.broker.pid
        assert fleet.job.run("echo on").get(timeout=20) == "on"
        assert os.getpriority(os.PRIO_PROCESS, again.pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_the_second_look_at_a_dead_broker_starts_it(home):
    config = configuration.load()
    keeper = embedded.Keeper(config)
    os.kill(embedded.start_broker(config).pid, 9)
    until(lambda: embedded.is_dead(config), what="the broker to die")

    keeper.look()
    assert embedded.running_broker(config) is None
    keeper.look()
    assert embedded.running_broker(config) is not None


def test_a_broker_that_was_stopped_stays_stopped(home):
    config = configuration.load()
    keeper = embedded.Keeper(config)
    for _ in range(3):
        keeper.look()
    embedded.start_broker(config)
    embedded.stop_broker(config)

    for _ in range(3):
        keeper.look()

    assert not embedded.is_dead(config)
    assert embedded.running_broker(config) is None


def test_a_broker_that_died_and_was_stopped_then_stays_stopped(home):
    config = configuration.load()
    os.kill(embedded.start_broker(config).pid, 9)
    until(lambda: embedded.is_dead(config), what="the broker to die")

    assert not embedded.stop_broker(config)

    assert not embedded.is_dead(config)


def test_a_broker_that_a_service_manager_runs_is_its_to_start_again(home):
    process = begin("broker", "start", "--foreground")
    config = configuration.load()
    keeper = embedded.Keeper(config)
    until(lambda: embedded.running_broker(config), within=15, what="the broker")
    process.kill()
    process.communicate(timeout=10)

    for _ in range(3):
        keeper.look()

    assert embedded.is_dead(config)
    embedded.start_broker(config)
    assert not embedded.is_dead(config)
