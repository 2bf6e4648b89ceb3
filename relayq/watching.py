"""A directory that is watched: what is in it, and the job for each of its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayq.config import install_id
from relayq.errors import RelayqError
from relayq.mapplans import files_for
from relayq.model.files import FileOut
from relayq.model.jobs import Spec
from relayq.model.maps import Command, Item, command_for, with_placeholder
from relayq.model.watches import Version, Watched, version_of

if TYPE_CHECKING:
    from relayq.client import Job

_OF_ONE = ("files_in", "files_out")


class Watch:
    """A directory, the command for its files, and the options of their jobs."""

    def __init__(
        self,
        job: Job,
        directory: str,
        cmd: Command,
        *,
        pattern: str = "*",
        is_deep: bool = False,
        wait_for_host: bool = False,
        **asked: Any,
    ) -> None:
        if not os.path.isdir(directory):
            what = "isn't a directory" if os.path.lexists(directory) else "isn't there"
            raise RelayqError(f"{directory} {what}", hint=f"mkdir -p {directory}")
        home = job.relay.config.home
        template = with_placeholder(cmd)
        real = os.path.realpath(directory)
        self.watched = Watched(install_id(home), real, template, pattern, is_deep)
        self.group: str = asked.get("group") or self.watched.group
        #: Whose files are here, or are left where they are.
        self.brought = Ledger(home / "watches" / self.watched.group)
        self._job = job
        self._directory = directory
        self._asked = {**asked, "group": self.group}
        self._waits = wait_for_host
        # What is wrong with the options shows now, and not at the first file.
        job.plan("run_command", cmd=template, wait_for_host=True, **self._common())

    @property
    def brings(self) -> bool:
        """Whether its jobs bring files here."""
        return bool(self._asked.get("files_out"))

    def scan(self, trouble: Callable[[OSError], None]) -> dict[str, Version] | None:
        """Return the files that are wanted, by their paths below the directory.

        None if the directory itself can't be read; `trouble` is told of that, and of others below.
        """
        try:
            os.scandir(self._directory).close()
        except OSError as error:
            trouble(error)
            return None
        return dict(self._below("", trouble))

    def _below(
        self, above: str, trouble: Callable[[OSError], None]
    ) -> Iterator[tuple[str, Version]]:
        watched = self.watched
        try:
            with os.scandir(os.path.join(self._directory, above)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            # It went away since the directory above was read.
            return
        except OSError as error:
            trouble(error)
            return
        for entry in found:
            path = f"{above}{entry.name}"
            # What vanishes meanwhile is forgotten.
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    if watched.is_deep and not entry.name.startswith("."):
                        yield from self._below(f"{path}/", trouble)
                elif watched.wants(path) and entry.is_file():
                    yield path, version_of(entry.stat())

    def shown(self, path: str) -> str:
        """Return a file's path as it stands for {}."""
        return os.path.normpath(os.path.join(self._directory, path))

    def is_still(self, path: str, version: Version) -> bool:
        """Whether this version of a file is what is there."""
        try:
            return version_of(os.stat(os.path.join(self._directory, path))) == version
        except OSError:
            return False

    def command(self, path: str, number: int) -> Command:
        """Return the command for one file."""
        return command_for(self.watched.command, Item(number, (self.shown(path),)))

    def plan(self, path: str, version: Version, number: int) -> Spec:
        """Return the job for one version of a file, with the id that only this one has."""
        item = Item(number, (self.shown(path),))
        files = {name: files_for(self._asked.get(name, ()), item) for name in _OF_ONE}
        files["files_in"] = [_below_the_job(one) for one in files["files_in"]]
        spec = self._job.plan(
            "run_command",
            cmd=self.command(path, number),
            wait_for_host=True,
            **self._common(),
            **files,
        )
        return replace(spec, id=self.watched.id_for(path, version))

    def check_ends(self, spec: Spec) -> None:
        """Raise if what a job brings back would be taken for a further file."""
        for one in map(FileOut.from_dict, spec.files_out):
            name = os.path.basename(one.pattern if one.dest.endswith("/") else one.dest)
            place = os.path.realpath(os.path.dirname(one.dest)) if one.dest else ""
            path = os.path.relpath(os.path.join(place, name), self.watched.directory)
            if place and not path.startswith("../") and self.watched.wants(path):
                raise RelayqError(
                    f"{os.path.join(place, name)} would be watched as well, and so on for ever",
                    hint="give a --glob that results don't match, or have them elsewhere "
                    "(--out PATTERN:DIR/)",
                )

    def submit(self, spec: Spec) -> None:
        """Queue a job; again is harmless."""
        self._job._submit([spec], wait_for_host=self._waits)

    def _common(self) -> Mapping[str, Any]:
        return {name: value for name, value in self._asked.items() if name not in _OF_ONE}


def _below_the_job(asked: Any) -> Any:
    """Return an input that goes by its bare name, if its path can't be one in a job's directory."""
    if not isinstance(asked, tuple):
        return asked
    source, dest = asked
    is_elsewhere = os.path.isabs(dest) or ".." in dest.split("/")
    return (source, os.path.basename(dest)) if is_elsewhere else asked


class Ledger:
    """The jobs whose files need no bringing any more, kept over restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = set(path.read_text().split()) if path.exists() else set()

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def add(self, id: str) -> None:
        """Note one."""
        self._ids.add(id)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._path, "a") as ledger:
            ledger.write(f"{id}\n")
