"""Jobs that other jobs submitted: who descends from whom, and a cancel that takes all along."""

from __future__ import annotations

from collections.abc import Sequence

from relayq.model.jobs import JobRecord
from relayq.store import Store

#: How often a cancel looks for further descendants: none can be made after the second time.
_LOOKS = 5


def descendants(store: Store, *records: JobRecord) -> list[JobRecord]:
    """Return the records of all jobs that these jobs submitted, and that those did."""
    roots = {one.spec.root for one in records if one.spec is not None}
    above = {one.id for one in records}
    members = store.jobs.fetch_many(store.jobs.family(*roots))
    return [one for one in members if one.spec is not None and above & {*one.spec.ancestors}]


def cancel(store: Store, ids: Sequence[str], *, alone: bool = False) -> Sequence[str]:
    """Cancel jobs and, unless `alone`, all that they submitted; returns a word for each job.

    The word is "cancelled", "asked", the final state that it had, or "gone". Once a job is asked to
    end, the store takes no child of it any more.
    """
    said = [word for word, _ in store.jobs.cancel_all(ids)]
    for _ in range(0 if alone else _LOOKS):
        left = [
            one.id
            for one in descendants(store, *store.jobs.fetch_many(ids))
            if not one.state.is_final and one.cancel_at is None
        ]
        if not left:
            break
        store.jobs.cancel_all(left)
    return said
