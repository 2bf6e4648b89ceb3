"""Every error that relayq raises, the tree on top.

RelayqError                  125  relayq itself failed
├─ ConfigError                    a configuration can't be used
├─ BrokerUnavailable              the broker can't be reached (also a ConnectionError)
│  └─ BrokerFull                  it has no room for new work; what it has goes on
├─ NoSuchJob, NoSuchHost, NoSuchSession, NoSuchAnalysis  a name that relayq doesn't know
├─ AmbiguousId                    a prefix that several jobs share
├─ Unreadable                     a record that isn't what this relayq knows
├─ Conflict                       the job's state doesn't allow what was asked
├─ Unplaceable                    no known host could ever take the job
├─ WrongFleetKey                  this machine's fleet key isn't the broker's
├─ JoinRefused                    the broker's machine lets this one not in by this token
├─ OutputUnavailable              part of an output can't be had
├─ TransferFailed                 a file didn't get to the file service, or from there
│  ├─ ServiceAway                 the file service couldn't be reached for long enough
│  └─ FileChanged                 it was written to while it was sent
├─ NoRoom                         a disk or the file service's quota is full
├─ NoFileService                  a large file, and no file service is there to take it
├─ JobError                       a job ended without success, or waits for a person
│  ├─ JobFailed                   the command's own exit code
│  │  └─ JobTimedOut         124  the job's own time limit ended it
│  ├─ JobCancelled           130
│  └─ NeedsHuman              80
├─ WaitTimeout                75  the caller's patience ended; the job lives on
└─ BadSignature                   worker only

`exit_code` is what the command line exits with. A message says what happened, why, and
`hint` the next command to type.
"""

from __future__ import annotations

from typing import Any


class RelayqError(Exception):
    """relayq itself could not do what was asked."""

    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(RelayqError):
    """A configuration file, variable or key can't be used; the message begins with the place.

    `place` is that `file:line:column`, file or variable by itself, None where there is none.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, place: object | None = None
    ) -> None:
        super().__init__(message if place is None else f"{place}: {message}", hint=hint)
        self.place = None if place is None else str(place)


class BrokerUnavailable(RelayqError, ConnectionError):
    """The broker can't be reached, or refuses to answer."""


class BrokerFull(BrokerUnavailable):
    """The broker has no memory or disk for new work; what it has goes on."""


class NoSuchJob(RelayqError):
    """No job has this id or prefix."""


class NoSuchSession(RelayqError):
    """No session of an agent has this id or prefix."""


class NoSuchSchedule(RelayqError):
    """No schedule has this name."""


class NoSuchAnalysis(RelayqError):
    """No run of an analysis has this id or prefix."""


class AmbiguousId(RelayqError):
    """Several jobs, or sessions, share this prefix; `.matches` lists some of them."""

    def __init__(
        self, prefix: str, matches: list[str], *, what: str = "jobs", where: str = "relayq ps -a"
    ) -> None:
        shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
        super().__init__(
            f"{prefix!r} matches several {what}: {shown}", hint=f"type more of the id: {where}"
        )
        self.matches = matches


class Unreadable(RelayqError):
    """A record in Redis can't be read: something else wrote it, or another version did."""


class NoSuchHost(RelayqError):
    """No host with this name has ever registered."""


class Conflict(RelayqError):
    """The job's state doesn't allow what was asked."""


class Unplaceable(RelayqError):
    """No known host could ever take the job; `.missing` says what each host lacks."""

    def __init__(
        self, message: str, *, missing: dict[str, list[str]], hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing


class WrongFleetKey(RelayqError):
    """This machine's fleet key isn't the one that the broker's data set was made with."""


class JoinRefused(RelayqError):
    """The broker's machine doesn't let this one in; `reason` is one word for why."""

    def __init__(self, message: str, *, hint: str | None = None, reason: str = "refused") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class OutputUnavailable(RelayqError):
    """Part of a job's output can't be had; the message says which part and where it is.

    `missing` bytes, if not 0, are lost for good: the disk of `host` was full.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, missing: int = 0, host: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing
        self.host = host


class TransferFailed(RelayqError):
    """A file didn't get to the file service, or not from there."""


class ServiceAway(TransferFailed):
    """The file service couldn't be reached, or did nothing, for as long as there was patience."""


class FileChanged(TransferFailed):
    """A file was written to while it was sent."""


class NoRoom(RelayqError):
    """A disk, or what the file service may use, is full."""


class NoFileService(RelayqError):
    """A file is too large for Redis, and no file service is there to take it."""


class JobError(RelayqError):
    """A job ended without success, or waits for a person; `.record` is its record."""

    def __init__(self, message: str, *, record: Any, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.record = record


class JobFailed(JobError):
    """The job failed; `.exit_code` is the command's own, `.log_tail` the end of its output."""

    def __init__(
        self,
        message: str,
        *,
        record: Any,
        exit_code: int = 125,
        log_tail: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, record=record, hint=hint)
        self.exit_code = exit_code
        self.log_tail = log_tail


class JobTimedOut(JobFailed):
    """The job was ended by its own time limit."""


class JobCancelled(JobError):
    """The job was cancelled."""

    exit_code = 130


class NeedsHuman(JobError):
    """The job waits for a person; `.question` says for what."""

    exit_code = 80

    def __init__(self, message: str, *, record: Any, question: str = "") -> None:
        super().__init__(message, record=record, hint="relayq review")
        self.question = question


class WaitTimeout(RelayqError, TimeoutError):
    """The caller's patience ended; the job lives on."""

    exit_code = 75


class BadSignature(RelayqError):
    """A spec or an outcome that the fleet's key didn't sign."""
