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
    "job",
    "worker_status",
]


def __getattr__(name: str) -> Any:
    if name in _ERRORS:
        return getattr(import_module("relayq.errors"), name)
    if name in _CLIENT:
        return getattr(import_module("relayq.client"), name)
    raise AttributeError(f"module 'relayq' has no attribute {name!r}")
