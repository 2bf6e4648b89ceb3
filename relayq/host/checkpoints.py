"""What a job leaves for its next attempt: a file of its own that the worker brings to the broker.

Little is imported here, since programs inside jobs import it. What the file holds is a job's word,
and is only ever given back to that job.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from relayq import clock
from relayq.errors import BadSignature, BrokerFull, BrokerUnavailable, RelayqError

if TYPE_CHECKING:
    from relayq.host.delivery import Attempt
    from relayq.signing import Signer
    from relayq.store import Store

log = logging.getLogger(__name__)

#: The variable that tells a job where its file is.
VARIABLE = "RELAYQ_CHECKPOINT"
CHECKPOINT = "checkpoint"
LARGEST = 256 * 1024
#: How often, in seconds, a job's file is looked at while it runs.
_EVERY = 1.0
#: How long a broker is left alone that has no room for it.
_REST = 30.0


def write(path: str, content: bytes) -> None:
    """Replace a checkpoint whole, or not at all; OSError where it can't be written."""
    if len(content) > LARGEST:
        raise RelayqError(
            f"a checkpoint has at most {LARGEST >> 10} KiB, and this is more",
            hint="keep the rest in a file, and its name in the checkpoint",
        )
    draft = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            os.unlink(draft)
        raise


def read(path: str) -> bytes | None:
    """Return what a checkpoint has, at most a byte too much; None if there is none."""
    try:
        # Not to wait for ever where a job made a pipe of that name.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.debug("can't read %s: %s", path, error)
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with open(fd, "rb") as file:
        return file.read(LARGEST + 1) or None


@dataclass(slots=True)
class _Known:
    """What of an attempt's file was dealt with, and when it is looked at again."""

    version: tuple[int, int, int] | None = None
    due_at: float = 0.0


class Checkpoints:
    """Brings what this host's attempts leave for those after them."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._known: WeakKeyDictionary[Attempt, _Known] = WeakKeyDictionary()

    def look(self, attempt: Attempt) -> None:
        """Bring what is new, at most once a second; without a broker it is tried again."""
        known, now = self._of(attempt), clock.boottime()
        if now < known.due_at:
            return
        known.due_at = now + _EVERY
        try:
            self.bring(attempt)
        except BrokerUnavailable as error:
            log.debug("no broker for the checkpoint of %s: %s", attempt.token.id, error)

    def bring(self, attempt: Attempt) -> None:
        """Bring what is new; BrokerUnavailable where that can't be done now.

        A broker without room costs the checkpoint, and not the job's end.
        """
        known, path = self._of(attempt), os.path.join(attempt.directory, CHECKPOINT)
        version = _version(path)
        if version is None or version == known.version:
            return
        content = read(path) or b""
        if version != _version(path) or bool(content) != bool(version[2]):
            return  # it is being written, or can't be read
        if len(content) <= LARGEST:
            try:
                self._store.checkpoints.keep(attempt.token, self._signed(attempt, content))
            except BrokerFull as error:
                _say(attempt, f"isn't kept: {error}")
                known.due_at = clock.boottime() + _REST
                return
        else:
            _say(attempt, f"isn't kept: it has more than {LARGEST >> 10} KiB")
        known.version = version

    def _signed(self, attempt: Attempt, content: bytes) -> bytes:
        """Return what is kept: a program may well run what its checkpoint says."""
        masked = _masked(attempt, content)
        return self._signer.sign_note(_name(attempt.token.id), masked) if masked else b""

    def left(self, id: str) -> bytes | None:
        """Return what the attempts of a job left, None for nothing that a worker has signed."""
        signed = self._store.checkpoints.of(id)
        if signed is None:
            return None
        try:
            content = self._signer.check_note(signed, name=_name(id))
        except BadSignature as error:
            log.warning("the checkpoint of %s is refused: %s", id, error.message)
            return None
        return content if len(content) <= LARGEST else None

    def _of(self, attempt: Attempt) -> _Known:
        known = self._known.get(attempt)
        if known is None:
            known = self._known[attempt] = _Known()
        return known


def _name(id: str) -> str:
    return f"checkpoint {id}"


def _say(attempt: Attempt, said: str) -> None:
    log.warning("the checkpoint of %s %s", attempt.token.id, said, extra={"job": attempt.token.id})


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    # A file replaced within one tick of the file system's clock is another file.
    return found.st_mtime_ns, found.st_ino, found.st_size


def _masked(attempt: Attempt, content: bytes) -> bytes:
    from relayq.host import outputs  # programs inside jobs don't pay for it

    return outputs.masked(attempt.directory, content)
