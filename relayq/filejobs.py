"""Files that travel with jobs, for who submits: found, checked, hashed and sent ahead.

A file that every host which could take the job reads where it lies isn't sent at all. How a file is
moved is in `relayq.transfer` and `relayq.artifacts`; what a job brought back, in `relayq.fetching`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from relayq.config import Config, install_id
from relayq.errors import FileChanged, RelayqError
from relayq.model.files import (
    INLINE,
    FileIn,
    FileOut,
    file_in,
    file_out,
    mapped,
    parse_in,
    parse_out,
)
from relayq.model.jobs import Spec
from relayq.model.placement import LONGEST_QUEUE, facts_of, lacks
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.artifacts import Digest
    from relayq.client import Relay
    from relayq.model.hosts import Host

#: What a file of a job may be given as: text as on the command line, a path, or both of its names.
Asked = str | os.PathLike[str] | tuple[str | os.PathLike[str], str] | FileIn | FileOut
_IS_PATTERN = frozenset("*?[")
#: So many small files, or so many bytes of them, go to Redis in one go: one at a time each would
#: wait for the broker's disk.
_TOGETHER = 200
_TOGETHER_BYTES = 2**21


class OfFiles:
    """What a `Job` does with files."""

    relay: Relay

    def _sent(
        self, specs: Sequence[Spec], locate: Callable[[Sequence[Spec]], Any], *, waits: bool
    ) -> Sequence[Spec]:
        """Return the specs with the hashes of their files, which are where the hosts find them.

        Nothing is sent for a job that `locate` refuses, unless it `waits` for its host.
        """
        if not any(spec.files_in for spec in specs):
            return specs
        hosts = self.relay.hosts()
        sending = _Sending(self.relay)
        done = []
        for spec in specs:
            takers = [host for host in hosts if not lacks(spec.constraints, facts_of(host))]
            if not takers and not waits:
                locate([spec])
            done.append(sending.send(spec, takers))
        sending.flush()
        return done

    def _refer(self, specs: Sequence[Spec]) -> None:
        """Have the files of queued jobs kept until these have ended."""
        if not any(spec.files_in for spec in specs):
            return
        from relayq.artifacts import Digest

        used = []
        for spec in specs:
            files = map(FileIn.from_dict, spec.files_in)
            used.append((spec.id, [Digest(one.sha256, one.size) for one in files if one.sha256]))
        for start in range(0, len(used), _TOGETHER):
            self.relay.session().artifacts.refer_inputs(used[start : start + _TOGETHER])


def files_fields(
    config: Config, files_in: Iterable[Asked], files_out: Iterable[Asked], *, overwrite: bool
) -> dict[str, Any]:
    """Return a spec's fields for the files that were asked for, checked as far as they are here."""
    try:
        inputs = [_input(one) for one in _each(files_in, "files_in")]
        outputs = [_output(one, overwrite=overwrite) for one in _each(files_out, "files_out")]
    except RelayqError as error:
        error.hint = error.hint or "relayq run --help (FILE[:DEST], PATTERN[:DEST])"
        raise
    if not inputs and not outputs:
        return {}
    _check_apart([one.dest for one in inputs], "two inputs would be")
    _check_apart([one.dest for one in outputs if not one.dest.endswith("/")], "two outputs go to")
    at = install_id(config.home)
    return {
        "files_in": tuple((one if one.is_url else replace(one, at=at)).as_dict() for one in inputs),
        "files_out": tuple((replace(one, at=at) if one.dest else one).as_dict() for one in outputs),
    }


def _each(asked: Any, name: str) -> Iterable[Any]:
    if isinstance(asked, str | os.PathLike):
        raise RelayqError(f"{name} is a list of files, not {os.fspath(asked)!r}")
    return asked or ()


def _input(asked: Any) -> FileIn:
    """Return an input with all that can be said of it without reading it."""
    if isinstance(asked, FileIn):
        read = asked
    elif isinstance(asked, tuple | list):
        source, dest = _pair(asked)
        read = file_in(source, dest)
    elif isinstance(asked, os.PathLike):
        read = file_in(os.fspath(asked))
    elif isinstance(asked, str):
        read = parse_in(asked)
    else:
        raise RelayqError(f"an input is a path, or a pair of paths, not {asked!r:.80}")
    if read.is_url:
        return read
    source = os.path.abspath(os.path.expanduser(read.source))
    found = _looked_at(source)
    return replace(
        read,
        source=source,
        size=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        mtime=found.st_mtime,
    )


def _looked_at(path: str) -> os.stat_result:
    """Return a file's facts; raise unless it is one that can be read."""
    hint = f"ls -l {os.path.dirname(path)}"
    try:
        found = os.stat(path)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise RelayqError(f"{path} can't be taken along: {reason}", hint=hint) from error
    if stat.S_ISDIR(found.st_mode):
        name = os.path.basename(path) or "files"
        raise RelayqError(
            f"{path} is a directory, and files travel one by one", hint=f"tar czf {name}.tgz {path}"
        )
    if not stat.S_ISREG(found.st_mode):
        raise RelayqError(f"{path} can't be taken along: it isn't a regular file", hint=hint)
    if not os.access(path, os.R_OK):
        raise RelayqError(f"{path} can't be taken along: permission denied", hint=hint)
    return found


def _output(asked: Any, *, overwrite: bool) -> FileOut:
    """Return an output with an absolute destination, at which nothing is in the way."""
    if isinstance(asked, FileOut):
        read = asked
    elif isinstance(asked, tuple | list):
        read = file_out(*_pair(asked))
    elif isinstance(asked, os.PathLike):
        read = file_out(os.fspath(asked))
    elif isinstance(asked, str):
        read = parse_out(asked)
    else:
        raise RelayqError(f"an output is a pattern, or a pattern and a path, not {asked!r:.80}")
    overwrite = overwrite or read.overwrite
    if not read.dest:
        return replace(read, overwrite=overwrite)
    given = os.path.expanduser(read.dest)
    dest = os.path.abspath(given)
    if given.endswith("/") or os.path.isdir(dest):
        dest = os.path.join(dest, "")
    elif _IS_PATTERN & set(read.pattern):
        raise RelayqError(
            f"{read.pattern} may be several files, and {read.dest} is no directory",
            hint=f"--out '{read.pattern}:{read.dest}/'",
        )
    into = dest.endswith("/") and not _IS_PATTERN & set(read.pattern)
    name = os.path.basename(read.pattern)
    check_free(os.path.join(dest, name) if into else dest, overwrite=overwrite)
    return replace(read, dest=dest, overwrite=overwrite)


def check_free(path: str, *, overwrite: bool) -> None:
    """Raise unless a file could be put there; nothing is made."""
    if os.path.isdir(path) and not path.endswith("/"):
        raise RelayqError(f"{path} is a directory, so no file can be put there")
    if os.path.lexists(path) and not path.endswith("/") and not overwrite:
        raise RelayqError(f"{path} exists", hint="to replace it: --overwrite")
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise RelayqError(f"{path} can't be written: {above} is no directory")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RelayqError(
            f"{path} can't be written: permission denied in {above}", hint=f"ls -ld {above}"
        )


def _pair(asked: Sequence[Any]) -> tuple[str, str]:
    if len(asked) != 2 or not all(isinstance(one, str | os.PathLike) for one in asked):
        raise RelayqError(f"a file with two names is a pair of paths, not {asked!r:.80}")
    first, second = asked
    return os.fspath(first), os.fspath(second)


def _check_apart(paths: Sequence[str], what: str) -> None:
    """Raise if two files have one path, or one file is where another needs a directory."""
    known = set()
    for path in filter(None, paths):
        if path in known:
            raise RelayqError(f"{what} {path}", hint="give one of them another: FILE:DEST")
        known.add(path)
    for path in known:
        above = os.path.dirname(path)
        while above not in ("", "/"):
            if above in known:
                raise RelayqError(f"{above} can't be both a file and the directory of {path}")
            above = os.path.dirname(above)


class _Sending:
    """The files of the jobs of one submit; one that several jobs take along is sent once.

    Small ones are gathered: `flush` sends the last of them.
    """

    def __init__(self, relay: Relay) -> None:
        self._session = relay.session()
        self._artifacts = self._session.artifacts
        self._digests: dict[str, Digest] = {}
        self._gathered: list[tuple[FileIn, str, str, bytes | None]] = []
        self._bytes = 0

    def send(self, spec: Spec, takers: Sequence[Host]) -> Spec:
        """Hash and send what a job takes along, as far as no host reads it where it lies."""
        files = [_as_known(FileIn.from_dict(one), takers) for one in spec.files_in]
        left = {one.source for one in files if takers and _is_read_in_place(one, takers)}
        if left and spec.host is None and spec.with_job is None:
            # A host that comes later may not see these files, and would take the job all the same.
            bound = replace(spec, on=tuple(sorted(host.name for host in takers)))
            spec, left = (bound, left) if len(bound.queue) <= LONGEST_QUEUE else (spec, set())
        sent = [one if one.is_url or one.source in left else self._send(one, spec) for one in files]
        return replace(spec, files_in=tuple(one.as_dict() for one in sent))

    def flush(self) -> None:
        """Send what was gathered."""
        gathered, size = self._gathered, self._bytes
        self._gathered, self._bytes = [], 0
        if not gathered:
            return
        sources = {file.source for file, _, _, _ in gathered}
        name = gathered[0][0].source if len(sources) == 1 else f"{len(sources)} files"
        with self._session.shows("sending", name, size) as progress:
            self._artifacts.keep_inputs([(sha256, job, some) for _, sha256, job, some in gathered])
            if progress is not None:
                progress(size, size)
        for file, _, _, _ in gathered:
            _check_same(file)

    def _send(self, file: FileIn, spec: Spec) -> FileIn:
        is_small = file.size <= INLINE
        digest = self._gather(file, spec) if is_small else self._send_large(file, spec)
        return replace(file, sha256=digest.sha256, size=digest.size)

    def _gather(self, file: FileIn, spec: Spec) -> Digest:
        """Read a small file, unless that was done for a job before."""
        from relayq.artifacts import read_file

        digest, content = self._digests.get(file.source), None
        if digest is None:
            digest, content = read_file(file.source, limit=INLINE)
            self._digests[file.source] = digest
        self._gathered.append((file, digest.sha256, spec.id, content))
        self._bytes += len(content or b"")
        if len(self._gathered) >= _TOGETHER or self._bytes >= _TOGETHER_BYTES:
            self.flush()
        return digest

    def _send_large(self, file: FileIn, spec: Spec) -> Digest:
        from relayq.artifacts import hash_file

        keep = partial(self._artifacts.keep, file.source, job=spec.id, remark=self._session.say)
        digest = self._digests.get(file.source)
        if digest is None:
            # Before minutes are spent on it.
            self._artifacts.needed(os.path.basename(file.source), file.size)
            with self._session.shows("reading", file.source, file.size) as progress:
                digest = hash_file(file.source, progress)
        with self._session.shows("sending", file.source, file.size) as progress:
            digest = self._digests[file.source] = keep(digest=digest, progress=progress)
        _check_same(file)
        return digest


def _check_same(file: FileIn) -> None:
    """Raise if a file isn't what it was when the job was asked for."""
    found = os.stat(file.source)
    if (found.st_size, found.st_mtime) != (file.size, file.mtime):
        raise FileChanged(
            f"{file.source} was changed while it was sent "
            f"({size_text(file.size)}, then {size_text(found.st_size)}); nothing was queued",
            hint="wait until nobody writes it, then submit again",
        )


def _is_read_in_place(file: FileIn, takers: Sequence[Host]) -> bool:
    """Tell whether every host that could take the job reads a file without a copy of it.

    A small one travels anyway: that costs nothing, and needs no luck.
    """
    return file.size > INLINE and all(
        host.install == file.at or _is_mapped(file.source, host) for host in takers
    )


def _as_known(file: FileIn, takers: Sequence[Host]) -> FileIn:
    """Return a file by the name that the hosts' path maps know: links may lead to their share."""
    if file.is_url or all(_is_mapped(file.source, host) for host in takers):
        return file
    real = replace(file, source=os.path.realpath(file.source))
    return real if any(_is_mapped(real.source, host) for host in takers) else file


def _is_mapped(source: str, host: Host) -> bool:
    paths = host.facts.get("paths") or ()
    return mapped(source, {str(prefix): "/" for prefix in paths}) is not None
