"""The second step of a job with files: what it is to bring back is found, and sent or placed.

What leads out of the job's directory is refused. Files that this host can write straight to where
their submitter wants them get there all together, under temporary names first; the others are
sent, or lie ready for the worker. What can't be sent stays here, and the report says where.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from relayq.contents import Digest, hash_file
from relayq.errors import RelayqError
from relayq.host import spool
from relayq.host.cache import copy
from relayq.host.staging import KEPT, TAKEN, Batch, Meter, Order, is_file, patiently, within
from relayq.host.taking import is_as_taken
from relayq.model.changes import Changes
from relayq.model.files import INLINE, FileOut, Kept, inside, mapped

#: How often a file is read again that is written to meanwhile.
_READS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A file to bring back: its name in the job's directory, and where it is to be, if anywhere."""

    name: str
    path: str
    dest: str
    out: FileOut


@dataclass(slots=True)
class Search:
    """What was found, the patterns of which nothing was, and what was refused."""

    found: list[Found] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def collect(
    order: Order,
    environ: Mapping[str, str],
    changes: Changes | None = None,
    errors: Sequence[str] = (),
) -> None:
    """Bring back what there is, and leave the report on it for the worker.

    `changes` are those in the job's worktree, `errors` what went wrong with them.
    """
    search = find(order)
    search.errors += errors
    if changes is not None and changes.patch:
        patch = os.path.join(order.directory, changes.patch)
        search.found.append(Found(changes.patch, patch, "", FileOut(changes.patch)))
    meter = Meter(environ, "sending", sum(os.path.getsize(one.path) for one in search.found))
    batch = Batch(order)
    collecting = _Collecting(order, meter, batch, "" if changes is None else changes.patch)
    try:
        kept = []
        for one in search.found:
            meter.begin(os.path.basename(one.name))
            kept.append(collecting.bring(one))
            meter.end(kept[-1].size)
        batch.commit(lasting=True)
    finally:
        batch.discard()
    report = {
        "files": [one.as_dict() for one in kept],
        "missing": search.missing,
        "errors": search.errors,
        "git": None if changes is None else changes.as_dict(),
    }
    spool.replace(os.path.join(order.directory, KEPT), report)


def find(order: Order) -> Search:
    """Return what the patterns of a job match; inputs that it left alone only by their names."""
    search = Search()
    taken = spool.load(os.path.join(order.directory, TAKEN)) or {}
    for out in order.files_out:
        matches = _matches(order.cwd, out.pattern)
        is_exact = matches == [out.pattern]
        own = Search()
        for name in matches:
            _look(order, out, name, taken=None if is_exact else taken, search=own)
        if not own.found and not own.errors and not out.is_optional:
            search.missing.append(out.pattern)
        if len(own.found) > 1 and out.dest and not out.dest.endswith("/"):
            many = f"{out.pattern} matches {len(own.found)} files, and {out.dest} is one"
            search.errors.append(f"{many}: end it with /")
            own.found = [replace(one, dest="") for one in own.found]
        search.found += [one for one in own.found if one not in search.found]
        search.errors += own.errors
    return search


def _matches(cwd: str, pattern: str) -> list[str]:
    pattern = inside(pattern)
    if os.path.lexists(os.path.join(cwd, pattern)):
        return [pattern]  # whatever signs are in its name
    return sorted(glob.glob(pattern, root_dir=cwd, recursive=True))


def _look(
    order: Order, out: FileOut, name: str, *, taken: Mapping[str, Any] | None, search: Search
) -> None:
    """Add one match to what was found, if it is a file of the job's."""
    path = os.path.join(order.cwd, name)
    try:
        within(order.cwd, name)
        if os.path.islink(path):
            own = taken or spool.load(os.path.join(order.directory, TAKEN)) or {}
            if is_as_taken(path, own.get(name)):
                if taken is None:
                    search.found.append(Found(name, path, _dest(out, name), out))
                return
            root, target = os.path.realpath(order.cwd), os.path.realpath(path)
            if not target.startswith(root.rstrip("/") + "/"):
                raise RelayqError(f"{name} leads out of the job's directory, to {target}")
    except RelayqError as error:
        search.errors.append(str(error))
        return
    if os.path.isdir(path):
        if taken is None:
            search.errors.append(f"{name} is a directory: its files are {name}/* or {name}/**/*")
    elif not is_file(os.path.realpath(path)):
        search.errors.append(f"{name} is no regular file")
    elif taken is None or not is_as_taken(path, taken.get(name)):
        search.found.append(Found(name, path, _dest(out, name), out))


def _dest(out: FileOut, name: str) -> str:
    """Return where a match is to be: in a directory, by its name from the first star on."""
    if not out.dest.endswith("/"):
        return out.dest
    fixed = []
    for part in out.pattern.split("/")[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return out.dest + os.path.relpath(name, "/".join(fixed) or ".")


@dataclass(slots=True)
class _Collecting:
    """The result files of one attempt, one after the other."""

    order: Order
    meter: Meter
    batch: Batch
    patch: str

    def bring(self, one: Found) -> Kept:
        """Bring one file to where it is meant to be, or as far as it gets."""
        before = os.stat(one.path)
        digest = self._digest(one.path)
        kept = Kept(
            one.name,
            digest.sha256,
            digest.size,
            mode=before.st_mode & 0o777,
            dest=one.dest,
        )
        why = ""
        if (local := self._local(one)) is not None:
            why = self._refusal(one, local, digest)
            if not why and self._place(one, local, before):
                return replace(kept, place="placed", path=local)
        try:
            return replace(self._send(one, kept, digest), error=why)
        except (RelayqError, OSError) as error:
            return replace(kept, place="host", path=os.path.realpath(one.path), error=str(error))

    def _digest(self, path: str) -> Digest:
        for _ in range(_READS - 1):
            try:
                return hash_file(path, self.meter.check)
            except RelayqError:
                continue  # something that the command left behind still writes to it
        return hash_file(path, self.meter.check)

    def _local(self, one: Found) -> str | None:
        """Return the path by which this host can write where the submitter wants a file."""
        if not one.dest:
            return None
        if one.out.at and one.out.at == self.order.install:
            local: str | None = one.dest
        else:
            local = mapped(one.dest, self.order.paths)
        if local is None or os.path.isdir(local):
            return None
        parent = os.path.dirname(local)
        if one.out.dest.endswith("/") and self._is_there(os.path.dirname(one.out.dest)):
            try:
                os.makedirs(parent, exist_ok=True)
            except OSError:
                return None
        return local if os.path.isdir(parent) and os.access(parent, os.W_OK) else None

    def _is_there(self, directory: str) -> bool:
        """Whether a directory of the submitter's is here, or can be made in one that is."""
        here = mapped(directory, self.order.paths) or directory
        return os.path.isdir(here) or os.path.isdir(os.path.dirname(here))

    def _refusal(self, one: Found, local: str, digest: Digest) -> str:
        """Say why a file isn't placed: another one has its name, and isn't this job's."""
        if one.out.overwrite or self.order.attempt > 1 or not os.path.lexists(local):
            return ""
        try:
            if os.path.getsize(local) == digest.size and hash_file(local) == digest:
                return ""
        except (OSError, RelayqError):
            pass
        return f"{one.dest} exists by now (--overwrite would replace it)"

    def _place(self, one: Found, local: str, before: os.stat_result) -> bool:
        """Have a file ready beside its destination, if it is still as it was before it was read.

        False when there is no room or no right.
        """
        draft = self.batch.beside(local)
        try:
            self._draw(one.path, draft)
            os.chmod(draft, before.st_mode & 0o777)
            fd = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            self.batch.drop(draft)
            return False
        after = os.stat(one.path)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            self.batch.drop(draft)
            return False
        return True

    def _draw(self, path: str, draft: str) -> None:
        """Have a file under another name, without a copy if its own one is to go anyway."""
        if self.order.is_scratch and not os.path.islink(path):
            with suppress(OSError):  # another file system
                os.link(path, draft)
                return
        copy(path, draft)

    def _send(self, one: Found, kept: Kept, digest: Digest) -> Kept:
        if digest.size <= INLINE:
            with open(one.path, "rb") as file:
                content = file.read(INLINE + 1)
            if hashlib.sha256(content).hexdigest() != digest.sha256:
                raise RelayqError(f"{one.name} is still written to")
            small = self.order.small(digest.sha256)
            os.makedirs(os.path.dirname(small), mode=0o700, exist_ok=True)
            with open(small, "wb") as file:
                file.write(content)
            return replace(kept, place="inline")
        if one.name == self.patch and self.order.service() is None:
            # Nothing is lost: its branch has all of it.
            raise RelayqError("there is no file service (relayq serve)")
        from relayq.transfer import put  # what is small needs no HTTP

        patiently(self.order, self.meter, partial(put, path=one.path, digest=digest))
        return replace(kept, place="service")
