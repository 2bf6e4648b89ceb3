"""A spec becomes a signed record on a queue, with a nudge for a worker.

The only module that knows the Celery message. The store's scripts fill the template, so record
and nudge are one atomic write, and nobody needs Celery to submit. The message is a lean form of
Celery's protocol 2: a stock worker reads body, content-type, task, id, properties and
delivery_tag. It is never trusted: the claim decides what runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from relayq import clock
from relayq.errors import (
    BadSignature,
    Conflict,
    NoSuchHost,
    NoSuchJob,
    RelayqError,
    Unplaceable,
    WrongFleetKey,
)
from relayq.model.consents import new_consent
from relayq.model.grants import granted
from relayq.model.halts import Halt
from relayq.model.jobs import JobState, Spec
from relayq.model.placement import (
    Constraints,
    HostFacts,
    Placement,
    facts_of,
    lacks,
    place,
    queue_of,
)
from relayq.model.questions import Reply
from relayq.model.reviews import VERDICTS
from relayq.signing import Signer, UnknownKey
from relayq.store import Store
from relayq.store.flows import FlowRecord, Rerun, common_of
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

    def submit(
        self,
        specs: Sequence[Spec],
        *,
        replies: Iterable[str] = (),
        placements: Iterable[Placement] = (),
        halts: Sequence[Halt] = (),
        flow: FlowRecord | None = None,
    ) -> list[Placed]:
        """Store and queue these jobs, `BATCH` a round trip; returns what became of each.

        When this returns, the jobs are as durable as the broker's fsync makes them. A repeat of
        the same spec is harmless. `replies`, if given, names a follower for each job, `placements`
        what `locate` gave for it. `halts` are those that the specs name and that may be new; `flow`
        tells of the workflow whose run they are. Both are stored with the first jobs of theirs.
        """
        names, places = [*replies], [*placements]
        try:
            words = self._send(specs, names, places, halts, flow)
        except WrongFleetKey:
            if not self.signer.ring.renew():
                raise
            words = self._send(specs, names, places, halts, flow)
        return [_placed(spec, word) for spec, word in zip(specs, words, strict=True)]

    def _send(
        self,
        specs: Sequence[Spec],
        replies: Sequence[str],
        placements: Sequence[Placement],
        halts: Sequence[Halt],
        flow: FlowRecord | None,
    ) -> list[str]:
        submissions = self.prepared(specs, replies=replies, placements=placements)
        words: list[str] = []
        answer: Callable[[], list[str]] | None = None
        try:
            # Each batch is signed while Redis stores the one before, and goes when that is heard.
            while batch := list(islice(submissions, BATCH)):
                last, answer = answer, None
                words += self._heard(last)
                common = common_of([one.spec for one in batch], halts, flow)
                answer = self.store.jobs.send(
                    batch, template=TEMPLATE, key_id=self.signer.key_id, **common
                )
        finally:
            words += self._heard(answer)
        return words

    def prepared(
        self,
        specs: Sequence[Spec],
        *,
        replies: Iterable[str] = (),
        placements: Iterable[Placement] = (),
    ) -> Iterator[Submission]:
        """Yield these jobs as the store takes them, signed one by one; the rest as for `submit`."""
        names = list(replies) or [""] * len(specs)
        places: Sequence[Placement | None] = list(placements) or [None] * len(specs)
        for spec, reply, placement in zip(specs, names, places, strict=True):
            yield self._submission(spec, reply, placement)

    def _submission(self, spec: Spec, reply: str, placement: Placement | None) -> Submission:
        signed = self.signer.sign_spec(spec)
        if placement is None or placement.wide is None:
            return Submission(spec, signed, reply)
        return Submission(spec, signed, reply, placement.queue, placement.overflow or 0.0)

    def locate(
        self,
        specs: Sequence[Spec],
        *,
        online_within: float,
        balance: str = "pull",
        wait_for_host: bool = False,
    ) -> tuple[Sequence[Spec], Sequence[Placement]]:
        """Decide where jobs are to wait; returns their specs with hosts called by their own names.

        NoSuchHost for a named host that never registered, Unplaceable for a job that no known host
        could ever run, unless `wait_for_host`. Jobs that may run anywhere cost no question.
        """
        asks = [_strategy(spec, balance) != "pull" or spec.is_constrained for spec in specs]
        if not any(asks) and all(spec.host is None for spec in specs):
            return specs, ()
        locator = _Locator(self.store, online_within, wait_for_host=wait_for_host)
        named = [locator.named(spec) for spec in specs]
        return named, [locator.place(spec, _strategy(spec, balance)) for spec in named]

    def _heard(self, answer: Callable[[], list[str]] | None) -> list[str]:
        """Wait for what was sent, if anything was."""
        words = [] if answer is None else answer()
        if words == ["wrong_key"]:
            raise wrong_key()
        return words

    def rerun(self, ids: Sequence[str], *, flow: str = "", force: bool = False) -> Sequence[str]:
        """Run again what failed or was cancelled of these jobs, and what comes after that.

        The ids are in an order in which each comes after those that it waits for; `flow` is the
        workflow's run that all of them are. Returns the ids of those that run again.
        """
        run = flow
        if not flow and len(ids) == 1:
            spec = self.store.jobs.fetch(ids[0]).spec
            run = "" if spec is None else spec.flow or ""
        found: Rerun = self.store.flows.rerun(
            ids,
            template=TEMPLATE,
            flow=flow,
            force=force,
            # What steps became is known to the script alone.
            consent=self._consent("", flow=run) if run else b"",
            consents=() if run else [self._consent(id) for id in ids],
        )
        if found.word == "unfit":
            raise Conflict(
                f"{found.id} is {found.fact}; only what has ended can run again",
                hint=f"relayq wait {found.id}",
            )
        if found.word == "orphan":
            raise _orphaned(found.id, found.fact, "retry")
        if found.word == "taken":
            raise _taken(found.id, found.fact)
        return found.ids

    def retry(self, id: str, *, force: bool = False, note: str = "") -> None:
        """Queue an ended or parked job again, for a person, and with a remark of theirs."""
        word, fact = self.store.jobs.retry(
            id, template=TEMPLATE, force=force, note=note, consent=self._consent(id)
        )
        if word == "fanned" and not self.rerun([id], force=force):
            raise Conflict(
                f"{id} has succeeded, and so have the jobs that it became",
                hint=f"relayq show {id}",
            )
        if word == "unfit":
            raise Conflict(
                f"{id} is {fact}; only an ended job can be retried", hint=f"relayq show {id}"
            )
        if word == "orphan":
            raise _orphaned(id, fact, "retry")
        if word == "taken":
            raise _taken(id, fact)

    def answer(
        self,
        id: str,
        text: str,
        *,
        allow: Iterable[str] = (),
        at: float = 0.0,
        force: bool = False,
    ) -> str:
        """Sign a person's reply to what a job asks, and give it to the job.

        Returns "queued", or "told" for a job that asks while it runs; Conflict when it asks nothing
        or something else by now.
        """
        record = self.store.jobs.fetch(id)
        who = self.store.jobs.who
        reply = Reply(id, record.attempt, record.asks or "", text, tuple(allow), who, at)
        word, fact = self.store.questions.answer(
            reply, self.signer.sign_answer(reply), template=TEMPLATE, force=force
        )
        if word == "orphan":
            raise _orphaned(id, fact, "answer")
        if word == "unfit":
            raise Conflict(f"{id} is {fact}; it asks nothing", hint=f"relayq show {id}")
        if word == "changed":
            raise Conflict(
                f"{id} asks something else by now, or somebody has answered it",
                hint=f"relayq show {id}",
            )
        return word

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

    def move(
        self,
        id: str,
        *,
        host: str | None = None,
        priority: int | None = None,
        online_within: float = 60.0,
        **constraints: Any,
    ) -> None:
        """Send a job that hasn't started elsewhere, or reprioritise it; None leaves it.

        `host` "any" lets every host take it; `constraints` are the spec's fields, such as `needs`.
        With either, nothing stays of where it was to run. The spec is signed anew, after it was
        checked: this machine lends its key to no spec that the fleet didn't sign.
        """
        stays = host is None and not constraints
        for _ in range(_TRIES):
            before = self.store.jobs.signed_spec(id)
            spec = self._checked(id, before)
            if not stays:
                named = None if host == "any" else host
                spec = replace(spec, **{**_ANYWHERE, "host": named, **constraints})
                if named is not None or constraints:
                    [spec], _ = self.locate([spec], online_within=online_within)
            if priority is not None:
                spec = replace(spec, priority=priority)
            word, state = self.store.jobs.move(
                spec,
                before=before,
                signed=self.signer.sign_spec(spec),
                template=TEMPLATE,
                stays=stays,
            )
            if word == "unfit":
                raise Conflict(
                    f"{id} is {state}; only a job that hasn't started can be moved",
                    hint=f"relayq show {id}",
                )
            if word == "moved":
                return
        raise Conflict(f"somebody else moves {id} as well", hint=f"relayq show {id}")

    def _consent(self, id: str, *, flow: str = "") -> bytes:
        """Return a person's signed word that this job, or this run's jobs, may run again."""
        return self.signer.sign_consent(new_consent(id, flow=flow, at=clock.now()))

    def _checked(self, id: str, signed: bytes) -> Spec:
        try:
            return self.signer.check_spec(signed, id=id)
        except UnknownKey as error:
            raise wrong_key() from error
        except BadSignature as error:
            raise Conflict(
                f"{id} can't be moved: {error.message}", hint=f"relayq cancel {id}"
            ) from error


class _Locator:
    """Places jobs on the hosts as they are known now, each job counted for those after it."""

    def __init__(self, store: Store, online_within: float, *, wait_for_host: bool) -> None:
        known = store.hosts.list(online_within=online_within)
        self._store = store
        self._waits = wait_for_host
        self._hosts = {host.name: facts_of(host) for host in known}
        self._slots = {host.name: max(1, host.slots) for host in known}
        self._pulled: dict[str, Placement] = {}

    def named(self, spec: Spec) -> Spec:
        """Return the spec with the own name of its host, of which it may have an alias."""
        if spec.host is None or spec.host in self._hosts:
            return spec
        for host in self._hosts.values():
            if spec.host in host.aliases:
                return replace(spec, host=host.name)
        if self._waits:
            return spec
        names = ", ".join(sorted(self._hosts)) or "none yet"
        raise NoSuchHost(
            f"no such host: {spec.host} (known hosts: {names})",
            hint="start a worker there, or queue it anyway with --wait-for-host",
        )

    def place(self, spec: Spec, strategy: str) -> Placement:
        """Return where a job is to wait, and remember that it does."""
        constraints = spec.constraints
        if spec.with_job is not None and not self._waits:
            self._check_beside(spec.with_job, constraints)
        if strategy == "pull" and spec.prefer is None:
            wide = queue_of(constraints)
            if wide not in self._pulled:
                self._pulled[wide] = self._placed(constraints, strategy)
            return self._pulled[wide]
        placement = self._placed(constraints, strategy)
        if placement.host is not None:
            chosen = self._hosts[placement.host]
            load = chosen.load + 1 / self._slots[chosen.name]
            self._hosts[chosen.name] = replace(chosen, load=load)
        return placement

    def _check_beside(self, leader: str, constraints: Constraints) -> None:
        """Unplaceable when the host of the job to be with is known, and can't take this one."""
        host = self._hosts.get(self._store.jobs.fetch(leader).host or "")
        if host is not None and (missing := lacks(constraints, host)):
            raise Unplaceable(
                f"it is to run where {leader} does, and {host.name} {' and '.join(missing)}",
                missing={host.name: missing},
                hint="relayq run without --with",
            )

    def _placed(self, constraints: Constraints, strategy: str) -> Placement:
        hosts: Mapping[str, HostFacts] = self._hosts
        import random

        cursor = self._store.jobs.next_turn() if strategy == "round-robin" else 0
        try:
            return place(
                constraints, hosts.values(), strategy, randomness=random.random(), cursor=cursor
            )
        except Unplaceable:
            if not self._waits:
                raise
            return Placement(queue_of(constraints))


#: What a job that goes elsewhere loses of where it was to go.
_ANYWHERE: Mapping[str, Any] = {
    "on": (),
    "needs": (),
    "excluded": (),
    "resources": {},
    "prefer": None,
    "overflow": None,
    "strategy": None,
    "with_job": None,
}


def _strategy(spec: Spec, balance: str) -> str:
    """Return how a job's host is chosen; beside another job there is nothing to choose."""
    if spec.with_job is not None or spec.host is not None:
        return "pull"
    return balance if spec.strategy is None else spec.strategy


def _orphaned(id: str, host: str | None, verb: str) -> Conflict:
    return Conflict(
        f"{id} may still run on {host}, which was lost and hasn't come back",
        hint=f"if you know that it is gone: relayq {verb} --force {id}",
    )


def _taken(id: str, other: str | None) -> Conflict:
    return Conflict(
        f"{id} can't be queued again while {other} has the same unique key",
        hint=f"relayq wait {other}",
    )


def wrong_key() -> WrongFleetKey:
    """Return the error for a data set that was made with another fleet key."""
    return WrongFleetKey(
        "this machine's fleet key isn't the broker's",
        hint="copy ~/.relayq/fleet.key from a machine that works",
    )


#: Why a job can't submit a further one.
_NO_CHILD = {
    "orphan": "{parent}, or a job above it, has ended or is to end: it can submit nothing more",
    "many": "{root} and the jobs below it have submitted {grant.most} jobs, which is all they may",
    "crowded": "{grant.at_once} jobs that {root}, or jobs below it, submitted aren't ended; "
    "that many may be at a time",
}


def _placed(spec: Spec, word: str) -> Placed:
    if word == "no_parent":
        those = [*spec.after, *spec.after_any, *([spec.with_job] if spec.with_job else [])]
        raise NoSuchJob(f"no such job among those to come after, or to be with: {', '.join(those)}")
    if word in _NO_CHILD:
        grant = granted(spec)
        raise RelayqError(
            _NO_CHILD[word].format(parent=spec.ancestors[-1], root=spec.root, grant=grant),
            hint="relayq wait for some of them" if word == "crowded" else None,
        )
    if word == "clash":
        raise RelayqError(f"another job already has the id {spec.id}")
    if word.startswith("taken "):
        _, id, state = word.split()
        return Placed(id, JobState(state), is_new=False)
    return Placed(spec.id, JobState.QUEUED if word == "exists" else JobState(word))
