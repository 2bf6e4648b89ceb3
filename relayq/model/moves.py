"""What may follow what: the one table of a job's states and the moves between them."""

from __future__ import annotations

from collections.abc import Mapping

from relayq.model.jobs import JobState

_AGAIN = frozenset({JobState.QUEUED, JobState.WAITING, JobState.SUCCEEDED})

#: What may follow what. Each arrow is made by one script of the store; `None` is before submit (a
#: job is final at once if one that it comes after has failed or was skipped, if others of its halt
#: have failed, or if its workflow was cancelled).
MOVES: Mapping[JobState | None, frozenset[JobState]] = {
    None: frozenset(
        {
            JobState.WAITING,
            JobState.SCHEDULED,
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.WAITING: frozenset(
        {
            JobState.QUEUED,
            JobState.SCHEDULED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.SCHEDULED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.NEEDS_HUMAN,
            JobState.SCHEDULED,
            JobState.QUEUED,
            JobState.WAITING,
            JobState.LOST,
        }
    ),
    JobState.LOST: frozenset(
        {
            JobState.RUNNING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.QUEUED,
            JobState.SCHEDULED,
            JobState.WAITING,
            JobState.NEEDS_HUMAN,
        }
    ),
    JobState.NEEDS_HUMAN: frozenset(
        {JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    # A retry queues a job; a rerun of many may have it wait, or skip it.
    JobState.SUCCEEDED: _AGAIN - {JobState.SUCCEEDED},
    JobState.FAILED: _AGAIN,
    JobState.CANCELLED: _AGAIN,
}

#: What an attempt may end as: the states that `finish` accepts.
ENDS = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.NEEDS_HUMAN,
        JobState.SCHEDULED,
    }
)
