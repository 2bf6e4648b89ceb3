"""What a job brought back: where its result files are, and how they get here."""

from __future__ import annotations

import os
import shlex
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import TYPE_CHECKING

from relayq.config import install_id
from relayq.errors import Conflict, NoRoom, OutputUnavailable, RelayqError
from relayq.filejobs import check_free
from relayq.model.files import FileOut, Kept, inside
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.model.jobs import JobRecord, Outcome
    from relayq.session import Session
    from relayq.transfer import Progress

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """Where a result file is to be here, and whether it is there already."""

    path: str
    replaces: bool = False
    is_there: bool = False


class WithFiles:
    """What a `JobResult` knows of files."""

    id: str
    _session: Session
    outcome: Callable[[], Outcome | None]

    @property
    @abstractmethod
    def record(self) -> JobRecord:
        """The record, which JobResult reads."""

    @property
    def files(self) -> Sequence[Kept]:
        """What its last attempt brought back, and where that is; empty before its end."""
        spec = self.record.spec
        if self.record.state.is_waitable or (spec is not None and not spec.files_out):
            return ()
        outcome = self.outcome()
        if outcome is None:
            return ()
        # Of a repository there is a patch besides, for who asks for that.
        patch = (outcome.git or {}).get("patch")
        return [k for k in map(Kept.from_dict, outcome.files) if k.name != patch]

    def fetch(
        self,
        dest: str | os.PathLike[str] | None = None,
        *,
        names: Iterable[str] = (),
        overwrite: bool = False,
    ) -> Sequence[str]:
        """Bring its result files here and return their paths; goes on where a cut left it.

        `dest` is a directory, or of one file its new name. Without it each goes where its submitter
        said, else into the current directory. `names` are patterns of those that are wanted. What
        is there already with another content is replaced with `overwrite` only, and told before
        anything is fetched.
        """
        ways = self.ways(dest, names=names, overwrite=overwrite)
        for kept, way in ways.items():
            if not way.is_there:
                self._bring(kept, way)
        return [way.path for way in ways.values()]

    def ways(
        self,
        dest: str | os.PathLike[str] | None = None,
        *,
        names: Iterable[str] = (),
        overwrite: bool = False,
    ) -> Mapping[Kept, Way]:
        """Return where `fetch` would put each file, or raise why it can't."""
        files = self._chosen(list(names))
        to = None if dest is None else os.fspath(dest)
        spec = self.record.spec
        asked = [FileOut.from_dict(one) for one in spec.files_out] if spec is not None else []
        into = to is not None and (len(files) > 1 or to.endswith("/") or os.path.isdir(to))
        ways: dict[Kept, Way] = {}
        for kept in files:
            if to is None:
                path, replaces = _asked_for(kept, asked)
            else:
                path = os.path.abspath(os.path.join(to, _short(kept, asked)) if into else to)
                replaces = False
            if path in {way.path for way in ways.values()}:
                raise RelayqError(f"two files would be {path}", hint=f"relayq get --list {self.id}")
            ways[kept] = self._way(kept, path, replaces=overwrite or replaces)
        return ways

    def _way(self, kept: Kept, path: str, *, replaces: bool) -> Way:
        """Return the way of one file to its path; raise if something else is there."""
        if kept.place == "placed" and path == kept.dest:
            self._check_placed(kept)
            return Way(path, is_there=True)
        if _is_there(path, kept):
            return Way(path, is_there=True)
        check_free(path, overwrite=replaces)
        return Way(path, replaces=replaces)

    def _chosen(self, names: Sequence[str]) -> Sequence[Kept]:
        """Return the files that are meant, or raise why there are none."""
        record, files = self.record, self.files
        if record.state.is_waitable:
            raise Conflict(
                f"{self.id} is {record.state.value}: its files come at its end",
                hint=f"relayq wait {self.id}",
            )
        if not files:
            asked = record.spec is not None and record.spec.files_out
            why = "none was there" if asked else "none was asked for (--out)"
            raise OutputUnavailable(
                f"{self.id} brought back no files: {why}", hint=f"relayq show {self.id}"
            )
        for name in names:
            if not any(fnmatchcase(kept.name, name) for kept in files):
                raise OutputUnavailable(
                    f"{self.id} has no file {name}; it has {', '.join(k.name for k in files)}",
                    hint=f"relayq get --list {self.id}",
                )
        return [k for k in files if not names or any(fnmatchcase(k.name, one) for one in names)]

    def bring(self, kept: Kept, path: str) -> None:
        """Bring one file to a path at which nothing is."""
        self._bring(kept, Way(path))

    def _bring(self, kept: Kept, way: Way) -> None:
        """Bring one file to its path."""
        os.makedirs(os.path.dirname(way.path), exist_ok=True)
        # What comes to be there meanwhile isn't replaced either.
        draft = way.path if way.replaces else f"{way.path}.{kept.sha256[:8]}"
        _check_room(way.path, kept, begun=_part(draft, kept))
        with self._session.shows("fetching", way.path, kept.size) as progress:
            if kept.place in ("inline", "service"):
                from relayq.artifacts import Digest

                digest, mode = Digest(kept.sha256, kept.size), kept.mode & 0o777
                self._session.artifacts.fetch(
                    digest,
                    draft,
                    mode=mode,
                    progress=progress,
                    remark=lambda text: self._session.say(text.replace(draft, way.path)),
                )
            else:
                _copy(self._near(kept), draft, kept, progress)
        if draft != way.path:
            _settle(draft, way.path)

    def _near(self, kept: Kept) -> str:
        """Return where a file lies that was sent nowhere, if this machine can read it there."""
        if kept.place == "placed":
            self._check_placed(kept)
            return kept.dest
        record = self.record
        is_here = (record.boot or "").partition("/")[0] == install_id(self._session.config.home)
        if is_here and os.access(kept.path, os.R_OK):
            return kept.path
        name = shlex.quote(os.path.basename(kept.name))
        raise OutputUnavailable(
            f"{kept.name} ({size_text(kept.size)}) is still on {record.host}, at {kept.path}: "
            f"{kept.error or 'it could not be sent'}",
            hint=f"relayq run --on {record.host} -- cat {shlex.quote(kept.path)} > {name}",
            host=record.host or "",
        )

    def _check_placed(self, kept: Kept) -> None:
        if not _has_size(kept.dest, kept.size):
            raise OutputUnavailable(
                f"{kept.name} was put at {kept.dest} by {self.record.host}, and isn't there "
                "as it was, seen from here",
                hint=f"ls -l {shlex.quote(kept.dest)}",
            )


def _asked_for(kept: Kept, asked: Sequence[FileOut]) -> tuple[str, bool]:
    """Return where the submitter wanted a file, and whether it may replace what is there.

    A destination that the spec doesn't have is a host's own idea, and isn't followed.
    """
    for out in asked:
        if not out.dest or not kept.dest:
            continue
        if kept.dest == out.dest and not out.dest.endswith("/"):
            return kept.dest, out.overwrite
        if out.dest.endswith("/") and kept.dest.startswith(out.dest):
            rest = kept.dest.removeprefix(out.dest) or kept.name
            return os.path.join(out.dest, inside(rest)), out.overwrite
    return os.path.abspath(_short(kept, asked)), False


def _short(kept: Kept, asked: Sequence[FileOut]) -> str:
    """Return a file's name from the first star of its pattern on, as it gets in a directory."""
    name = inside(kept.name)
    fixed = [_before_star(out.pattern) for out in asked]
    longest = max((one for one in fixed if name.startswith(one)), key=len, default="")
    return name.removeprefix(longest)


def _before_star(pattern: str) -> str:
    """Return the directories at a pattern's beginning that are named in full."""
    parts = inside(pattern).split("/")[:-1]
    whole = takewhile(lambda part: not set("*?[") & set(part), parts)
    return "".join(f"{part}/" for part in whole)


def _has_size(path: str, size: int) -> bool:
    try:
        return os.path.isfile(path) and os.path.getsize(path) == size
    except OSError:
        return False


def _is_there(path: str, kept: Kept) -> bool:
    """Tell whether a file is at its path with its content."""
    if not kept.sha256 or not _has_size(path, kept.size):
        return False
    from relayq.transfer import hash_file

    return hash_file(path).sha256 == kept.sha256


def _check_room(path: str, kept: Kept, *, begun: str) -> None:
    """Raise if a file doesn't fit: a disk that it fills up would hurt more than the file."""
    disk = os.statvfs(os.path.dirname(path))
    free = disk.f_bavail * disk.f_frsize
    needed = kept.size - (os.path.getsize(begun) if os.path.exists(begun) else 0)
    if needed > free:
        raise NoRoom(
            f"{path} needs {size_text(needed)}, and there is room for {size_text(free)}",
            hint=f"df -h {shlex.quote(os.path.dirname(path))}, or fetch it elsewhere: "
            "relayq get JOB DIR",
        )


def _settle(draft: str, path: str) -> None:
    """Give a file its name, unless something has it by now."""
    try:
        os.link(draft, path)
    except FileExistsError as error:
        raise RelayqError(f"{path} exists by now", hint="to replace it: --overwrite") from error
    except OSError:
        # A file system without links: then by looking first.
        check_free(path, overwrite=False)
        os.replace(draft, path)
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)


def _part(path: str, kept: Kept) -> str:
    return f"{path}.{kept.sha256[:8]}.part"


def _copy(source: str, path: str, kept: Kept, progress: Progress | None) -> None:
    """Copy a file that this machine can read; it appears whole, or not at all."""
    import hashlib  # OpenSSL takes longer to load than most commands have to do

    draft, sha256, done = _part(path, kept), hashlib.sha256(), 0
    try:
        with open(source, "rb") as reader, open(draft, "wb") as writer:
            while piece := reader.read(_PIECE):
                writer.write(piece)
                sha256.update(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, kept.size)
            writer.flush()
            os.fsync(writer.fileno())
        if kept.sha256 and sha256.hexdigest() != kept.sha256:
            raise OutputUnavailable(
                f"{source} isn't what the job wrote: it was changed since", hint=f"ls -l {source}"
            )
        os.chmod(draft, kept.mode & 0o777)
        os.replace(draft, path)
    except OSError as error:
        raise NoRoom(
            f"{path} can't be written: {os.strerror(error.errno or 0).lower()}",
            hint=f"df -h {shlex.quote(os.path.dirname(path))}",
        ) from error
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
