"""Jobs that other jobs submitted: who descends from whom, and a cancel that takes all along."""

from __future__ import annotations

from relayq.model.jobs import JobRecord
from relayq.store import Store

#: How often a cancel looks for further descendants: none can be made after the second time.
_LOOKS = 5


def descendants(store: Store, record: JobRecord) -> list[JobRecord]:
    """Return the records of all jobs that a job submitted, and that those did."""
    if record.spec is None:
        return []
    members = store.jobs.fetch_many(store.jobs.family(record.spec.root))
    return [one for one in members if one.spec is not None and record.id in one.spec.ancestors]


def cancel(store: Store, id: str, *, alone: bool = False) -> str:
    """Cancel a job and, unless `alone`, all that it submitted; returns the word for the job.

    Once a job is asked to end, the store takes no child of it any more.
    """
    word, _ = store.jobs.cancel(id)
    for _ in range(0 if alone else _LOOKS):
        left = [
            one
            for one in descendants(store, store.jobs.fetch(id))
            if not one.state.is_final and one.cancel_at is None
        ]
        for one in left:
            store.jobs.cancel(one.id)
        if not left:
            break
    return word
