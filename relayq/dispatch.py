"""A spec becomes a signed record on a queue, with a nudge for a worker.

The only module that knows the Celery message. The store's scripts fill the template, so record
and nudge are one atomic write, and nobody needs Celery to submit. The message is a lean form of
Celery's protocol 2: a stock worker reads body, content-type, task, id, properties and
delivery_tag. It is never trusted: the claim decides what runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from relayq.errors import Conflict, NoSuchJob, RelayqError, WrongFleetKey
from relayq.model.jobs import JobState, Spec
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.jobs import BATCH, Submission

#: `@id`, `@kind` and `@queue` are filled in by the scripts. Kind and Celery task share a name.
TEMPLATE = json.dumps(
    {
        "body": '[["@id"],{},{}]',
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "relayq.@kind", "id": "@id"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "@queue"},
            "priority": 0,
            "delivery_tag": "@id",
        },
    },
    separators=(",", ":"),
)


def message(id: str, kind: str, queue: str) -> str:
    """Return the nudge for one job."""
    return TEMPLATE.replace("@id", id).replace("@kind", kind).replace("@queue", queue)


class Dispatcher:
    """Puts jobs on their queues."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self.store = store
        self.signer = signer

    def submit(self, specs: Sequence[Spec], *, replies: Iterable[str] = ()) -> list[JobState]:
        """Store and queue these jobs, `BATCH` a round trip; returns the state of each.

        When this returns, the jobs are as durable as the broker's fsync makes them. A repeat of
        the same spec is harmless. `replies`, if given, names a follower for each job.
        """
        names = list(replies) or [""] * len(specs)
        states: list[JobState] = []
        for start in range(0, len(specs), BATCH):
            part = specs[start : start + BATCH]
            submissions = [
                Submission(spec, self.signer.sign_spec(spec), reply)
                for spec, reply in zip(part, names[start : start + BATCH], strict=True)
            ]
            words = self.store.jobs.submit(
                submissions, template=TEMPLATE, key_id=self.signer.key_id
            )
            if words == ["wrong_key"]:
                raise wrong_key()
            states += [_state(spec, word) for spec, word in zip(part, words, strict=True)]
        return states

    def retry(self, id: str, *, force: bool = False) -> None:
        """Queue an ended or parked job again, for a person."""
        word, fact = self.store.jobs.retry(id, template=TEMPLATE, force=force)
        if word == "unfit":
            raise Conflict(
                f"{id} is {fact}; only an ended job can be retried", hint=f"relayq show {id}"
            )
        if word == "orphan":
            raise Conflict(
                f"{id} may still run on {fact}, which was lost and hasn't come back",
                hint=f"if you know that it is gone: relayq retry --force {id}",
            )


def wrong_key() -> WrongFleetKey:
    """Return the error for a data set that was made with another fleet key."""
    return WrongFleetKey(
        "this machine's fleet key isn't the broker's",
        hint="copy ~/.relayq/fleet.key from a machine that works",
    )


def _state(spec: Spec, word: str) -> JobState:
    if word == "no_parent":
        raise NoSuchJob(f"no such job among those to come after: {', '.join(spec.after)}")
    if word == "clash":
        raise RelayqError(f"another job already has the id {spec.id}")
    return JobState.QUEUED if word == "exists" else JobState(word)
