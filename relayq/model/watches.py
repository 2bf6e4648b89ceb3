"""Files that appear in a directory: which are wanted, when each is whole, which job it gets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from relayq.model.jobs import ALPHABET, ID_LENGTH
from relayq.model.maps import Command


@dataclass(frozen=True, slots=True)
class Version:
    """What a file's content is told by, without reading it."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched: a directory of a machine, and which of its files are for this command.

    `machine` is the installation, `directory` the real path there.
    """

    machine: str
    directory: str
    command: Command
    pattern: str = "*"
    is_deep: bool = False

    @property
    def group(self) -> str:
        """The group of its jobs, unless somebody asked for another one."""
        return f"watch-{self._id('group')[:6]}"

    def id_for(self, path: str, version: Version) -> str:
        """Return the job's id for one version of a file, by its path below the directory.

        Who watches again, or after an outage of the broker, comes to the same one.
        """
        return self._id("job", path, version.size, version.mtime_ns)

    def wants(self, path: str) -> bool:
        """Whether a file at this path below the directory is for the command.

        A pattern with a "/" is for the whole path. Hidden files are drafts of what is on its way,
        as of rsync, and wanted only by a pattern that says so.
        """
        if "/" in path and not self.is_deep:
            return False
        name = path.rpartition("/")[2]
        if name.startswith(".") and not self.pattern.rpartition("/")[2].startswith("."):
            return False
        return fnmatchcase(path if "/" in self.pattern else name, self.pattern)

    def _id(self, *parts: str | int) -> str:
        # JSON escapes what of a name is no UTF-8.
        text = json.dumps([self.machine, self.directory, self.command, *parts])
        digest = hashlib.sha256(b"relayq watch\0" + text.encode()).digest()
        return "".join(ALPHABET[byte & 31] for byte in digest[:ID_LENGTH])


class Settling:
    """Tells which files have stood still long enough to be whole, each version once."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._since: dict[str, tuple[Version, float]] = {}
        self._taken: dict[str, Version] = {}

    def look(self, found: Mapping[str, Version], now: float) -> dict[str, Version]:
        """Return what is whole by now and not taken; `found` is all that is there."""
        self._taken = {path: one for path, one in self._taken.items() if path in found}
        since: dict[str, tuple[Version, float]] = {}
        for path, version in found.items():
            if self._taken.get(path) == version:
                continue
            before = self._since.get(path)
            since[path] = before if before and before[0] == version else (version, now)
        self._since = since
        return {path: version for path, (version, at) in since.items() if now - at >= self._settle}

    def take(self, path: str, version: Version) -> None:
        """Let this version be told no more."""
        self._since.pop(path, None)
        self._taken[path] = version

    def __len__(self) -> int:
        """How many files were there at the last look, and are not taken."""
        return len(self._since)


def version_of(found: os.stat_result) -> Version:
    """Return the version that a file's facts tell of."""
    return Version(found.st_size, found.st_mtime_ns)
