"""What both steps of a job with files share: their order, their drafts, and patience.

The order lies in the attempt's directory, where the worker renews it while the job lives: the file
service may move, and a token for it doesn't last as long as a job may. Standard library and what
runs in a job's own process tree only.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, Self

from relayq import clock
from relayq.errors import NoRoom, RelayqError, ServiceAway
from relayq.host.progress import tell
from relayq.host.stages import AWAY, FILES, ORDER
from relayq.model.files import FileIn, FileOut
from relayq.model.progress import Progress
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.transfer import Service

#: Contents that the worker brings to Redis or had from there, by their sha256.
SMALL = "files"
#: Of the first step: its inputs as they were, by name.
TAKEN = "taken.json"
#: Of the second step: the result files.
KEPT = "kept.json"
#: A service that isn't announced for so long is away.
_NO_SERVICE = 30.0
_SLICE = 60.0
#: What a job can't help: a full or a bad disk, no memory or descriptor to be had.
_HOSTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM)
_LOOK = 0.5


class Fault(RelayqError):
    """The files can't be had: FILES for good, AWAY for now, or by the "host"'s own fault."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Order:
    """What the steps of an attempt are to do.

    `directory` is the attempt's, `cwd` the job's: one that `is_scratch` goes with the attempt. One
    that is `resumed` goes on with what an earlier attempt made of its inputs. `install` is this
    host's, `paths` are its names for others' directories. A transfer may stand still for `patience`
    seconds. `git` is the worktree that the job is to have (`Tree` of relayq.host.worktrees).
    """

    directory: str
    job: str
    attempt: int
    cwd: str
    is_scratch: bool
    is_resumed: bool
    install: str
    paths: Mapping[str, str]
    cache: str
    cache_limit: int
    patience: float
    files_in: Sequence[FileIn]
    files_out: Sequence[FileOut]
    git: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, directory: str) -> Self:
        """Return the order that the worker wrote."""
        with open(os.path.join(directory, ORDER), "rb") as file:
            raw: dict[str, Any] = json.load(file)
        raw.pop("service", None)
        files_in = [FileIn.from_dict(one) for one in raw.pop("files_in")]
        files_out = [FileOut.from_dict(one) for one in raw.pop("files_out")]
        return cls(directory=directory, files_in=files_in, files_out=files_out, **raw)

    def service(self) -> Service | None:
        """Return the file service as the worker knows it by now, None without one."""
        try:
            with open(os.path.join(self.directory, ORDER), "rb") as file:
                found = json.load(file).get("service")
        except FileNotFoundError:
            return None
        if not found:
            return None
        from relayq.transfer import Service  # HTTP is a third of a step's start

        return Service(found["url"], found["token"])

    def small(self, sha256: str) -> str:
        """Return where the worker lays or expects a small content."""
        return os.path.join(self.directory, SMALL, sha256)


class Batch:
    """New files under temporary names beside their final ones, which they get all together.

    What hasn't got its name by the end is removed.
    """

    def __init__(self, order: Order) -> None:
        self._job = order.job
        self._made: dict[str, str] = {}
        self._count = 0

    def beside(self, path: str) -> str:
        """Return the temporary name of the file that is to be `path`."""
        # The next attempt of this job on this host finds what one that was killed left there.
        draft = os.path.join(os.path.dirname(path), f".relayq-{self._job}-{self._count}")
        self._count += 1
        _remove(draft)
        self._made[draft] = path
        return draft

    def drop(self, draft: str) -> None:
        """Remove one draft."""
        del self._made[draft]
        _remove(draft)

    def commit(self, *, lasting: bool = False) -> None:
        """Give every file its name, in place of what has it; `lasting`: on the disk as well."""
        directories = set()
        for draft in list(self._made):
            os.rename(draft, self._made[draft])
            del self._made[draft]
            directories.add(os.path.dirname(draft))
        for directory in directories if lasting else ():
            fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with suppress(OSError):  # not on every share
                    os.fsync(fd)
            finally:
                os.close(fd)

    def discard(self) -> None:
        """Remove the drafts that are left."""
        for draft in self._made:
            _remove(draft)


def _remove(draft: str) -> None:
    """Remove a draft, and what of it had arrived."""
    directory, name = os.path.split(draft)
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.listdir(directory):
            if entry == name or (entry.startswith(f"{name}.") and entry.endswith(".part")):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory, entry))


class Meter:
    """Tells how far a step is, over all its files."""

    def __init__(self, environ: Mapping[str, str], verb: str, total: int) -> None:
        self._environ = environ
        self._verb = verb
        self._total = total
        self._before = 0
        self._name = ""
        self._moved = 0
        self._since = monotonic()

    def begin(self, name: str) -> None:
        """Another file is next."""
        self._name = name

    def end(self, size: int) -> None:
        """A file is done."""
        self._before += size

    def progress(self, done: int, total: int) -> None:
        """Tell that so much of the present file is done."""
        moved = self._before + done
        passed = monotonic() - self._since
        speed = moved / passed if passed > 1 else 0.0
        whole = max(self._total, self._before + total)
        tell(
            self._environ,
            Progress(
                # The end of this step isn't the job's.
                fraction=min(moved / whole, 0.999) if whole else None,
                text=f"{self._verb} {self._name}",
                eta=(whole - moved) / speed if speed else None,
                rate=f"{size_text(speed)}/s" if speed else "",
                at=clock.now(),
            ),
        )

    def check(self, done: int, total: int) -> None:
        """Tell that the present file is read to know what it holds."""
        tell(self._environ, Progress(None, text=f"checking {self._name}", at=clock.now()))

    def wait(self, what: str) -> None:
        """Tell what is waited for."""
        tell(
            self._environ, Progress(None, text=f"waiting for {what}", at=clock.now()), at_once=True
        )


class Transfer(Protocol):
    """Part of `get` or `put` of relayq.transfer."""

    def __call__(
        self,
        service: Service,
        *,
        progress: Callable[[int, int], None],
        remark: Callable[[str], None],
        patience: float,
    ) -> None:
        """Transfer a file."""


def patiently(order: Order, meter: Meter, act: Transfer) -> None:
    """Have a transfer done by the file service of the moment; raises Fault AWAY without success.

    `act` gets the service, and what `get` and `put` of relayq.transfer take besides.
    """
    moved_at, most = monotonic(), 0

    def told(done: int, total: int) -> None:
        nonlocal moved_at, most
        # A new connection says where it begins: that is no progress.
        if done > most:
            moved_at, most = monotonic(), done
            meter.progress(done, total)

    def remark(line: str) -> None:
        meter.wait("the file service")

    while True:
        service = _awaited(order, meter)
        try:
            act(service, progress=told, remark=remark, patience=min(_SLICE, order.patience))
        except ServiceAway as error:
            if monotonic() - moved_at >= order.patience:
                raise Fault(AWAY, error.message) from error
        else:
            return


def _awaited(order: Order, meter: Meter) -> Service:
    deadline = monotonic() + min(_NO_SERVICE, order.patience)
    while (service := order.service()) is None:
        if monotonic() >= deadline:
            raise Fault(
                AWAY, "there is no file service; start it on the broker machine: relayq serve"
            )
        meter.wait("the file service")
        clock.sleep(_LOOK)
    return service


def within(cwd: str, name: str) -> str:
    """Return the path of a name in the job's directory; raises Fault when a link leads outside."""
    root, path = os.path.realpath(cwd), os.path.join(cwd, name)
    parent = os.path.realpath(os.path.dirname(path))
    if parent != root and not parent.startswith(root.rstrip("/") + "/"):
        raise Fault(FILES, f"{name} leads out of the job's directory, to {parent}")
    return path


def is_file(path: str) -> bool:
    """Whether that is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def fault_of(error: Exception) -> Fault:
    """Return what an error of a step means for its attempt."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, NoRoom):
        return Fault("host", _said(error))
    if isinstance(error, OSError) and error.errno in _HOSTS:
        return Fault("host", _said(error))
    return Fault(FILES, _said(error))


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    hint = getattr(error, "hint", None)
    return f"{error} ({hint})" if hint else str(error)
