"""Puts a backup in the place of the private broker's data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from relayq import clock
from relayq.config import Config
from relayq.embedded.broker import BrokerFacts, broker_folder, start_locked
from relayq.embedded.processes import is_held, locked
from relayq.errors import RelayqError

_MAGIC = b"REDIS"
#: Where each version of Redis has its data.
_DATA = ("appendonlydir", "appendonly.aof", "dump.rdb")


def restore_broker(config: Config, backup: Path) -> tuple[BrokerFacts, Path | None]:
    """Start the broker with the data of a backup; return its facts and where the old data are.

    The old data come back if Redis can't read the backup.
    """
    _check(backup)
    folder = broker_folder(config)
    with locked(folder / "start.lock"):
        if is_held(folder / "alive"):
            raise RelayqError(
                "the broker runs, and would overwrite what was restored",
                hint="relayq down (here), and stop the other hosts' workers",
            )
        aside = folder / f"data-before-{clock.now():.0f}"
        # Whoever is cut off while it copies, or has no room for it, has moved nothing yet.
        copy = _copied(backup, folder / "appendonly.aof.new")
        had = _move(folder, aside)
        try:
            copy.replace(folder / "appendonly.aof")
            return start_locked(folder), aside if had else None
        except (RelayqError, OSError) as error:
            for name in _DATA:
                _remove(folder / name)
            _move(aside, folder)
            raise RelayqError(
                f"the backup can't be restored, and the old data are back: {error}",
                hint="is it a backup of a newer Redis? RELAYQ_REDIS_SERVER names the one to use",
            ) from error


def _check(backup: Path) -> None:
    try:
        with backup.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except OSError as error:
        raise RelayqError(
            f"can't read the backup: {error}", hint="relayq broker backup FILE makes one"
        ) from error
    if begin != _MAGIC:
        raise RelayqError(
            f"{backup} is no backup of a broker", hint="relayq broker backup FILE makes one"
        )


def _move(source: Path, target: Path) -> bool:
    """Move the data from one directory to another; return whether there was something."""
    found = [source / name for name in _DATA if (source / name).exists()]
    if found:
        target.mkdir(exist_ok=True, mode=0o700)
    for path in found:
        path.replace(target / path.name)
    return bool(found)


def _copied(source: Path, target: Path) -> Path:
    target.unlink(missing_ok=True)
    try:
        with (
            source.open("rb") as begin,
            open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as end,
        ):
            shutil.copyfileobj(begin, end)
            end.flush()
            os.fsync(end.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise RelayqError(
            f"the backup can't be copied to {target.parent}, where nothing has changed: {error}"
        ) from error
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
