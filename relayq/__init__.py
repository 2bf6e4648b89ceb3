"""relayq runs anything on any of your machines.

`from relayq import job` gives a ready client. Importing relayq connects to nothing, reads no file
and starts no thread: the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relayq.version import __version__

if TYPE_CHECKING:
    from relayq.client import Job, JobResult, Relay, job, worker_status
    from relayq.errors import (
        BrokerUnavailable,
        ConfigError,
        JobCancelled,
        JobError,
        JobFailed,
        JobTimedOut,
        NeedsHuman,
        NoSuchHost,
        NoSuchJob,
        OutputUnavailable,
        RelayqError,
        Unplaceable,
        WaitTimeout,
    )
    from relayq.gathering import as_completed, gather
    from relayq.workflows import flow

_ERRORS = (
    "BrokerUnavailable",
    "ConfigError",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobTimedOut",
    "NeedsHuman",
    "NoSuchHost",
    "NoSuchJob",
    "OutputUnavailable",
    "RelayqError",
    "Unplaceable",
    "WaitTimeout",
)
_GATHERING = ("as_completed", "gather")
_CLIENT = ("Job", "JobResult", "Relay", "job", "worker_status")

__all__ = [
    "BrokerUnavailable",
    "ConfigError",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobResult",
    "JobTimedOut",
    "NeedsHuman",
    "NoSuchHost",
    "NoSuchJob",
    "OutputUnavailable",
    "Relay",
    "RelayqError",
    "Unplaceable",
    "WaitTimeout",
    "__version__",
    "as_completed",
    "flow",
    "gather",
    "job",
    "worker_status",
]


def __getattr__(name: str) -> Any:
    if name in _ERRORS:
        return getattr(import_module("relayq.errors"), name)
    if name in _GATHERING:
        return getattr(import_module("relayq.gathering"), name)
    if name in _CLIENT:
        return getattr(import_module("relayq.client"), name)
    if name == "flow":
        return import_module("relayq.workflows").flow
    raise AttributeError(f"module 'relayq' has no attribute {name!r}")
