"""What a person can say of a job that waits for one, and what is known to say it by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState
from relayq.model.output import Frame

#: What a person says, and the state that the job gets by it.
VERDICTS: Mapping[str, JobState] = {
    "done": JobState.SUCCEEDED,
    "pending": JobState.QUEUED,
    "failed": JobState.FAILED,
}


def has_rebooted(record: JobRecord, host: Host | None) -> bool | None:
    """Whether the host has started anew since the job's last attempt; None if nobody can know.

    Only a boot of the same installation proves that nothing of the attempt is left.
    """
    install, _, boot = (record.boot or "").partition("/")
    if host is None or not boot or host.install != install:
        return None
    return host.boot != boot


def may_still_run(record: JobRecord, host: Host | None) -> bool:
    """Whether an attempt that was given up as lost may go on where nobody sees it."""
    return record.may_run and not has_rebooted(record, host)


def last_line(frames: Iterable[Frame]) -> str:
    """Return the last line of an output that isn't blank; of a progress line its last form."""
    text = b"".join(frame.data for frame in frames).decode(errors="replace")
    lines = (line.strip() for line in reversed(text.replace("\r", "\n").split("\n")))
    return next((line for line in lines if line), "")
