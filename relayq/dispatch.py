"""A spec becomes a signed record on a queue, with a nudge for a worker.

The only module that knows the Celery message. The store's scripts fill the template, so record
and nudge are one atomic write, and nobody needs Celery to submit. The message is a lean form of
Celery's protocol 2: a stock worker reads body, content-type, task, id, properties and
delivery_tag. It is never trusted: the claim decides what runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from relayq.errors import (
    BadSignature,
    Conflict,
    NoSuchHost,
    NoSuchJob,
    RelayqError,
    WrongFleetKey,
)
from relayq.model.jobs import JobState, Spec
from relayq.model.reviews import VERDICTS
from relayq.signing import Signer, UnknownKey
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

#: How often a move that another one overtook is tried.
_TRIES = 3


def message(id: str, kind: str, queue: str) -> str:
    """Return the nudge for one job."""
    return TEMPLATE.replace("@id", id).replace("@kind", kind).replace("@queue", queue)


@dataclass(frozen=True, slots=True)
class Placed:
    """What a submit came to: a new job, or the one that already has its unique key."""

    id: str
    state: JobState
    is_new: bool = True


class Dispatcher:
    """Puts jobs on their queues."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self.store = store
        self.signer = signer

    def submit(self, specs: Sequence[Spec], *, replies: Iterable[str] = ()) -> list[Placed]:
        """Store and queue these jobs, `BATCH` a round trip; returns what became of each.

        When this returns, the jobs are as durable as the broker's fsync makes them. A repeat of
        the same spec is harmless. `replies`, if given, names a follower for each job.
        """
        names = list(replies) or [""] * len(specs)
        submissions = (
            Submission(spec, self.signer.sign_spec(spec), reply)
            for spec, reply in zip(specs, names, strict=True)
        )
        words: list[str] = []
        answer: Callable[[], list[str]] | None = None
        try:
            # Each batch is signed while Redis stores the one before, and goes when that is heard.
            while batch := list(islice(submissions, BATCH)):
                last, answer = answer, None
                words += self._heard(last)
                answer = self.store.jobs.send(batch, template=TEMPLATE, key_id=self.signer.key_id)
        finally:
            words += self._heard(answer)
        return [_placed(spec, word) for spec, word in zip(specs, words, strict=True)]

    def _heard(self, answer: Callable[[], list[str]] | None) -> list[str]:
        """Wait for what was sent, if anything was."""
        words = [] if answer is None else answer()
        if words == ["wrong_key"]:
            raise wrong_key()
        return words

    def retry(self, id: str, *, force: bool = False, note: str = "") -> None:
        """Queue an ended or parked job again, for a person, and with a remark of theirs."""
        word, fact = self.store.jobs.retry(id, template=TEMPLATE, force=force, note=note)
        if word == "unfit":
            raise Conflict(
                f"{id} is {fact}; only an ended job can be retried", hint=f"relayq show {id}"
            )
        if word == "orphan":
            raise Conflict(
                f"{id} may still run on {fact}, which was lost and hasn't come back",
                hint=f"if you know that it is gone: relayq retry --force {id}",
            )
        if word == "taken":
            raise Conflict(
                f"{id} can't be queued again while {fact} has the same unique key",
                hint=f"relayq wait {fact}",
            )

    def resolve(self, id: str, verdict: str, *, notes: str = "", force: bool = False) -> None:
        """Move a job that waits for a person on: "done", "pending" (queued again) or "failed"."""
        state = VERDICTS.get(verdict)
        if state is None:
            raise RelayqError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
        before = self.store.jobs.fetch(id).state
        if before is JobState.NEEDS_HUMAN:
            if state is JobState.QUEUED:
                self.retry(id, force=force, note=notes)
                return
            before = JobState(self.store.jobs.resolve(id, state, template=TEMPLATE, note=notes))
            if before is state:
                return
        raise Conflict(
            f"{id} is {before}; only a job that waits for a person can be resolved",
            hint=f"relayq show {id}",
        )

    def move(self, id: str, *, host: str | None = None, priority: int | None = None) -> None:
        """Send a job that hasn't started to another host, or reprioritise it; None leaves it.

        `host` "any" lets every host take it. The spec is signed anew, after it was checked: this
        machine lends its key to no spec that the fleet didn't sign.
        """
        if host is not None and host != "any":
            self.check_host(host)
        for _ in range(_TRIES):
            before = self.store.jobs.signed_spec(id)
            spec = self._checked(id, before)
            if host is not None:
                spec = replace(spec, host=None if host == "any" else host)
            if priority is not None:
                spec = replace(spec, priority=priority)
            word, state = self.store.jobs.move(
                spec, before=before, signed=self.signer.sign_spec(spec), template=TEMPLATE
            )
            if word == "unfit":
                raise Conflict(
                    f"{id} is {state}; only a job that hasn't started can be moved",
                    hint=f"relayq show {id}",
                )
            if word == "moved":
                return
        raise Conflict(f"somebody else moves {id} as well", hint=f"relayq show {id}")

    def check_host(self, host: str) -> None:
        """Raise NoSuchHost for a host that never registered."""
        known = self.store.hosts.names()
        if host not in known:
            names = ", ".join(sorted(known)) or "none yet"
            raise NoSuchHost(
                f"no such host: {host} (known hosts: {names})",
                hint="start a worker there, or queue it anyway with --wait-for-host",
            )

    def _checked(self, id: str, signed: bytes) -> Spec:
        try:
            return self.signer.check_spec(signed, id=id)
        except UnknownKey as error:
            raise wrong_key() from error
        except BadSignature as error:
            raise Conflict(
                f"{id} can't be moved: {error.message}", hint=f"relayq cancel {id}"
            ) from error


def wrong_key() -> WrongFleetKey:
    """Return the error for a data set that was made with another fleet key."""
    return WrongFleetKey(
        "this machine's fleet key isn't the broker's",
        hint="copy ~/.relayq/fleet.key from a machine that works",
    )


def _placed(spec: Spec, word: str) -> Placed:
    if word == "no_parent":
        raise NoSuchJob(f"no such job among those to come after: {', '.join(spec.after)}")
    if word == "clash":
        raise RelayqError(f"another job already has the id {spec.id}")
    if word.startswith("taken "):
        _, id, state = word.split()
        return Placed(id, JobState(state), is_new=False)
    return Placed(spec.id, JobState.QUEUED if word == "exists" else JobState(word))
