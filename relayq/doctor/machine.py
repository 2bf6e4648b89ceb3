"""What may be wrong with this machine: its key, its directories, its disks, its worker."""

from __future__ import annotations

import os
import secrets
import stat
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relayq import clock, embedded
from relayq.config import Config
from relayq.doctor.findings import Finding, ok, problem, warning
from relayq.errors import RelayqError
from relayq.host import authorizing
from relayq.host.admission import FILE
from relayq.identity import check_installed, load_identity
from relayq.signing import Signer, load_key

_ROUNDS = 20
_SLOW_FSYNC = 0.005
_FAST_FSYNC = 0.002
#: Little and nearly no room, as a share of the disk and in bytes: both must be short.
_LITTLE = (0.15, 10e9)
_NONE = (0.03, 256e6)


@dataclass(frozen=True, slots=True)
class Room:
    """What is free of a file system; `files` is the share of inodes, 1 where none are counted."""

    path: Path
    free: int
    total: int
    files: float

    @property
    def share(self) -> float:
        """Which share of it is free."""
        return self.free / self.total if self.total else 1.0


def examine_key(config: Config, here: str, key_id: str | None) -> Iterator[Finding]:
    """Judge the fleet's key; `key_id` is that of the broker's data set, if it has one."""
    path = config.fleet_key_path
    if not path.exists():
        if key_id is not None:
            yield problem(
                here,
                f"the fleet's key {path} is missing, and the broker's jobs are signed with one",
                f"copy fleet.key from a machine that works, then chmod 600 '{path}'",
            )
        return
    if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        yield problem(
            here,
            f"others can read the fleet's key {path} (mode {mode:o}): who reads it runs anything",
            f"chmod 600 '{path}'",
            partial(path.chmod, 0o600),
        )
        return
    try:
        own = Signer(load_key(path)).key_id
    except RelayqError as error:
        yield problem(here, error.message, error.hint)
        return
    if key_id not in (None, own):
        yield problem(
            here,
            f"this machine's fleet key is {own}, the broker's jobs are signed with {key_id}",
            "copy fleet.key from a machine that works",
        )
    else:
        yield ok(here, f"fleet key {own}, readable by its owner only")


def examine_submitters(config: Config, here: str) -> Iterator[Finding]:
    """Judge the keys that say who submits from here, and whose jobs run here."""
    try:
        own = load_identity(config.home)
        known = authorizing.read(config.home)
        if own is not None or known is not None:
            check_installed()
    except RelayqError as error:
        yield problem(here, error.message, error.hint)
        return
    if own is not None:
        yield ok(here, f"what is submitted here is signed by {own.name} ({own.id})")
    if known is not None:
        names = ", ".join(one.name for one in known) or "nobody"
        yield ok(here, f"runs the jobs of {names} only, by its {FILE}")


def examine_directories(config: Config, here: str) -> Iterator[Finding]:
    """Judge the directories that relayq writes into."""
    for path in (config.home, config.spool):
        if not path.exists():
            yield warning(
                here,
                f"{path} is missing",
                f"mkdir -p -m 700 '{path}'",
                partial(path.mkdir, parents=True, exist_ok=True, mode=0o700),
            )
        elif not os.access(path, os.W_OK):
            yield problem(here, f"{path} can't be written", f"sudo chown -R \"$USER\" '{path}'")
        elif (mode := path.stat().st_mode) & 0o022:
            yield problem(
                here,
                f"others can write into {path}, and so have their own jobs run",
                f"chmod go-w '{path}'",
                partial(path.chmod, stat.S_IMODE(mode) & ~0o022),
            )


def examine_disks(config: Config, here: str, *, is_private: bool) -> Iterator[Finding]:
    """Judge the room where the home, the spool and the private broker's data are."""
    folders = [config.home, config.spool]
    if is_private:
        folders.append(embedded.broker_folder(config))
    seen = set()
    for path in folders:
        if path.exists() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            yield judge_room(room(path), here)


def room(path: Path) -> Room:
    """Return what is free where the path is."""
    said = os.statvfs(path)
    files = said.f_favail / said.f_files if said.f_files else 1.0
    return Room(path, said.f_bavail * said.f_frsize, said.f_blocks * said.f_frsize, files)


def judge_room(has: Room, here: str) -> Finding:
    """Judge what is free."""
    text = f"disk {100 * (1 - has.share):.0f}% full at {has.path}, {has.free / 1e6:.0f} MB free"
    fix = f"relayq prune; du -xh '{has.path}' | sort -h | tail"
    if has.files <= _NONE[0]:
        return problem(here, f"no inodes are left at {has.path}", fix)
    if has.share <= _NONE[0] and has.free <= _NONE[1]:
        return problem(here, text, fix)
    if has.share <= _LITTLE[0] and has.free <= _LITTLE[1]:
        return warning(here, text, fix)
    return ok(here, text)


def examine_ballast(config: Config, here: str) -> Iterator[Finding]:
    """Judge whether the private broker has something to give up when its disk is full."""
    size = embedded.wanted_ballast(config)
    if size and not (embedded.broker_folder(config) / "ballast").exists():
        yield warning(
            here,
            "the private broker has no ballast: a full disk will end it, and keep it from coming "
            "back",
            "free some disk; the worker or the next start of the broker makes it again",
        )


def examine_fsync(folder: Path, here: str, fsync: str | None) -> Iterator[Finding]:
    """Measure how long the disk takes to keep something, which each answer of the broker costs."""
    taken = measure_fsync(folder)
    text = f"the broker's disk keeps a write in {taken * 1000:.2f} ms (median of {_ROUNDS})"
    if taken > _SLOW_FSYNC and fsync == "always":
        yield warning(
            here,
            f"{text}: everysec would be wiser, and a power cut may then cost the last second",
            "relayq broker stop, then relayq broker start --fsync everysec",
        )
    elif taken < _FAST_FSYNC and fsync == "everysec":
        yield ok(here, f"{text}: fsync always would cost little (relayq broker start --fsync)")
    else:
        yield ok(here, text)


def measure_fsync(folder: Path) -> float:
    """Return the median seconds that a small write takes to be on the disk."""
    path = folder / f".fsync.{secrets.token_hex(4)}"
    taken = []
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for _ in range(_ROUNDS):
                began = clock.boottime()
                file.write(b"\0" * 512)
                file.flush()
                os.fsync(file.fileno())
                taken.append(clock.boottime() - began)
    finally:
        path.unlink(missing_ok=True)
    return statistics.median(taken)


def examine_worker(config: Config, here: str, online: Sequence[str]) -> Iterator[Finding]:
    """Judge whether this machine's worker runs."""
    pid = embedded.worker_pid(config)
    if pid is None and config.worker.name in online:
        yield warning(
            here,
            f"another home or machine works as {config.worker.name}; no worker of this home runs",
            "relayq status",
        )
    elif pid is None:
        yield warning(
            here, "no worker runs here: this machine takes no jobs", "relayq worker start"
        )
    elif config.worker.name not in online:
        yield problem(
            here,
            f"this machine's worker (pid {pid}) runs, and the broker doesn't hear of it",
            f"tail '{config.logging.file}', then relayq worker stop and relayq up",
        )
    else:
        yield ok(here, f"worker {config.worker.name} runs (pid {pid})")


def examine_port(config: Config, here: str) -> Iterator[Finding]:
    """Say who has the private broker's port while it is down."""
    port = embedded.wanted_port(config)
    if port is None:
        return
    with suppress(RelayqError):
        embedded.check_free("127.0.0.1", port)
        return
    yield problem(
        here,
        f"another program listens on the private broker's port {port}",
        "relayq up --port N takes another one",
    )
