"""The first step of a job with files: what it takes along gets to its place.

Each file is looked for where it costs least: it may be on this machine already, under its own or
another name, in Redis, or in the cache; else the file service has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from relayq.contents import Digest, hash_file
from relayq.errors import RelayqError, TransferFailed
from relayq.host import spool
from relayq.host.cache import Cache, copy
from relayq.host.stages import AWAY, FILES
from relayq.host.staging import TAKEN, Batch, Fault, Meter, Order, patiently, within
from relayq.model.files import FileIn, inside, mapped

#: Some shares keep times by two seconds.
_SAME_TIME = 2.0
_PIECE = 1 << 20
_INSTALL = "pip install 'relayq[files]'"


def take(order: Order, environ: Mapping[str, str]) -> None:
    """Put every input of the job into its place, or none of them; raises Fault."""
    if not os.path.isdir(order.cwd):
        return  # the start of the command says so, as it does without files
    meter = Meter(environ, "taking", sum(one.size for one in order.files_in))
    batch = Batch(order)
    taking = _Taking(order, meter, Cache(order.cache, order.cache_limit))
    seen = {}
    try:
        for one in order.files_in:
            path = _place(order, one)
            if order.is_resumed and os.path.exists(path):
                continue
            seen[inside(one.dest)] = path
            meter.begin(os.path.basename(one.dest))
            taking.take(one, batch.beside(path))
            meter.end(one.size)
        batch.commit()
    finally:
        batch.discard()
    looks = {name: _looks(path) for name, path in seen.items()}
    spool.write_new(os.path.join(order.directory, TAKEN), looks)


def _place(order: Order, one: FileIn) -> str:
    """Return the path that an input is to have, in a directory that is there."""
    name = inside(one.dest)
    parent = order.cwd
    for part in PurePosixPath(name).parent.parts:
        parent = os.path.join(parent, part)
        # Step by step: a link on the way must not have directories made elsewhere.
        within(order.cwd, os.path.relpath(os.path.join(parent, "x"), order.cwd))
        if not os.path.isdir(parent):
            os.mkdir(parent)
    path = within(order.cwd, name)
    if os.path.isdir(path) and not os.path.islink(path):
        raise Fault(FILES, f"{name} is to be a file, and is a directory in {order.cwd}")
    return path


def _looks(path: str) -> list[int | str]:
    """Return what tells an input from what a job made of it."""
    if os.path.islink(path):
        return [os.readlink(path)]
    seen = os.stat(path)
    return [seen.st_ino, seen.st_size, seen.st_mtime_ns]


def is_as_taken(path: str, seen: object) -> bool:
    """Whether an input is as it was when it was taken along."""
    return bool(seen) and _looks(path) == seen


@dataclass(slots=True)
class _Taking:
    """The inputs of one attempt, one after the other."""

    order: Order
    meter: Meter
    cache: Cache

    def take(self, one: FileIn, draft: str) -> None:
        """Have an input under its temporary name."""
        if one.is_url:
            _download(one, draft, self.meter)
            return
        here = self._here(one)
        if here is not None and not self._is_changeable(one):
            os.symlink(here, draft)
            return
        if here is not None:
            copy(here, draft)
        else:
            self._fetch(one, draft)
        os.chmod(draft, one.mode & 0o777)
        if one.mtime:
            os.utime(draft, (one.mtime, one.mtime))

    def _is_changeable(self, one: FileIn) -> bool:
        """Whether the job may be meant to change it: then it isn't to be the submitter's own."""
        return any(fnmatchcase(inside(one.dest), out.pattern) for out in self.order.files_out)

    def _here(self, one: FileIn) -> str | None:
        """Return the path of the submitter's own file, if this machine has it and as it was."""
        if one.at and one.at == self.order.install:
            path: str | None = one.source
        else:
            path = mapped(one.source, self.order.paths)
        if path is None or not os.access(path, os.R_OK):
            return None
        seen = os.stat(path)
        if seen.st_size != one.size or not os.path.isfile(path):
            return None
        is_same = abs(seen.st_mtime - one.mtime) <= _SAME_TIME
        return path if is_same or hash_file(path).sha256 == one.sha256 else None

    def _fetch(self, one: FileIn, draft: str) -> None:
        if one.size == 0:
            open(draft, "wb").close()
            return
        if not one.sha256:
            # Every host that may take the job was to have it: it was neither hashed nor sent.
            fault = FILES if one.at == self.order.install else AWAY
            raise Fault(fault, f"{self._named(one)} isn't on this host as it was at the submit")
        small = self.order.small(one.sha256)
        if os.path.exists(small):
            copy(small, draft)
        elif (kept := self._cached(one)) is not None:
            copy(kept, draft)
        else:
            self._get(one, draft)

    def _cached(self, one: FileIn) -> IO[bytes] | None:
        """Open a content in the cache, fetched if it isn't there."""
        if not self.cache.takes(one.size):
            return None
        return self.cache.have(one.sha256, one.size, lambda path: self._get(one, path))

    def _get(self, one: FileIn, path: str) -> None:
        from relayq.transfer import get  # what is here already needs no HTTP

        digest = Digest(one.sha256, one.size)
        try:
            patiently(self.order, self.meter, partial(get, digest=digest, path=path))
        except Fault as fault:
            if fault.fault == AWAY:
                raise Fault(AWAY, f"{self._named(one)} can't be had: {fault}") from fault
            raise
        except TransferFailed as error:
            raise Fault(FILES, f"{self._named(one)} can't be had: {error}") from error

    def _named(self, one: FileIn) -> str:
        """Return how an error calls an input, and whether it was changed since."""
        if one.at != self.order.install:
            return one.source
        try:
            seen = os.stat(one.source)
        except OSError:
            return f"{one.source}, which isn't there any more,"
        is_same = seen.st_size == one.size and abs(seen.st_mtime - one.mtime) <= _SAME_TIME
        return one.source if is_same else f"{one.source}, which was changed since the submit,"


def _download(one: FileIn, draft: str, meter: Meter) -> None:
    """Fetch what a URL names."""
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError as error:
        raise Fault(
            FILES, f"{one.source}: this host can't fetch URLs; install there: {_INSTALL}"
        ) from error
    try:
        with fsspec.open(one.source, "rb") as source:
            size = getattr(source, "size", None) or 0
            _pour(source.read, draft, lambda done: meter.progress(done, size or done))
    except (FileNotFoundError, ValueError, ImportError) as error:
        fault = AWAY if _is_unheard(error) else FILES
        raise Fault(fault, f"{one.source} can't be fetched: {_why(error)}") from error
    except (RelayqError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename == draft:
            raise
        # A library a scheme, each with its own errors: most are of the network.
        raise Fault(AWAY, f"{one.source} can't be fetched: {_why(error)}") from error


def _is_unheard(error: Exception) -> bool:
    """Tell whether nobody said that a file isn't there.

    fsspec's HTTP says FileNotFoundError of whatever goes wrong, because of what it was.
    """
    cause = error.__cause__
    known = cause is None or isinstance(cause, FileNotFoundError)
    return not known and not 400 <= getattr(cause, "status", 0) < 500


def _why(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None and str(cause):
        return str(cause)
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return str(error) or type(error).__name__


def _pour(read: Callable[[int], bytes], path: str, told: Callable[[int], None]) -> None:
    done = 0
    with open(path, "wb") as file:
        while piece := read(_PIECE):
            try:
                file.write(piece)
            except OSError as error:
                error.filename = path
                raise
            done += len(piece)
            told(done)
