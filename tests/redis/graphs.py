"""A plain model of jobs that come after each other, and random things done to a graph of them.

The model says in Python what the scripts are to do; `Story` does the same to both, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from relayq.errors import Conflict
from relayq.model.halts import Halt
from relayq.model.jobs import JobState, Spec, Token
from relayq.model.moves import MOVES
from relayq.store.flows import FlowRecord, group_of
from relayq.store.leases import Claim
from tests.redis.fleet import CRASH_LIMIT, Fleet

WAITING, QUEUED, RUNNING = JobState.WAITING, JobState.QUEUED, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
SCHEDULED, NEEDS_HUMAN = JobState.SCHEDULED, JobState.NEEDS_HUMAN
FLOW = "storyflow000"


@dataclass
class Known:
    """What the model knows of one job."""

    spec: Spec
    state: JobState = QUEUED
    reason: str | None = None
    #: Who wants a running one to end: "user", "halted" or nobody.
    cancel: str | None = None
    #: Parent -> how its end counts here; None while it is awaited.
    parents: dict[str, str | None] = field(default_factory=dict)
    fanned: tuple[str, ...] = ()
    losses: int = 0
    #: Ran again for a person, alone: what came after it did so for its end before.
    is_retried: bool = False

    @property
    def stands(self) -> str:
        """How its end counts for what comes after it."""
        if self.state is SUCCEEDED:
            return "skipped" if self.reason == "skipped" else "good"
        is_forgiven = self.spec.is_lenient and self.reason != "upstream"
        return "good" if is_forgiven else self.state.value


@dataclass
class Counted:
    """What the model knows of one halt."""

    halt: Halt
    count: int = 0
    fired: bool = False


class Graph:
    """The model."""

    def __init__(self) -> None:
        self.jobs: dict[str, Known] = {}
        self.halts: dict[str, Counted] = {}
        self.is_cancelled = False

    def submit(self, spec: Spec) -> None:
        one = Known(spec)
        self.jobs[spec.id] = one
        spared = spec.when != "success"
        if self.is_cancelled:
            self._end(one, CANCELLED, "user")
        elif not spared and any(self.halts[name].fired for name in spec.halts):
            self._end(one, CANCELLED, "halted")
        else:
            self._look_at_parents(one)
            self._decide(one)

    def end(self, id: str, state: JobState, reason: str) -> None:
        """End an attempt, or a job that a person closes."""
        one = self.jobs[id]
        if one.cancel:
            state, reason = CANCELLED, one.cancel
        self._end(one, state, reason)
        self._run_down()
        for name in one.spec.halts:
            if self._counts(name, one):
                self.halts[name].count += 1
                self._fire(name)
        self._run_down()

    def cancel(self, *ids: str) -> None:
        """Cancel jobs; nothing is released before all of them are."""
        for id in ids:
            self._call_off(self.jobs[id], "user")
        self._run_down()

    def expand(self, id: str, children: Sequence[str]) -> None:
        one = self.jobs[id]
        one.fanned = tuple(children)
        if one.cancel:
            self._end(one, CANCELLED, one.cancel)
        else:
            one.state = WAITING
            self._look_at_parents(one)
            self._decide(one)
        self._run_down()

    def retry(self, id: str) -> None:
        one = self.jobs[id]
        self._reset(one, QUEUED)
        one.is_retried = True
        self._recount(one.spec.halts)
        self.is_cancelled = False

    def rerun(self, ids: Iterable[str]) -> list[str] | None:
        """Return what runs again; None where that is refused."""
        chosen: list[str] = []
        gone: set[str] = set()
        for id in [*ids]:
            if id not in gone and not self._choose(id, chosen, gone):
                return None
        for id in gone:
            del self.jobs[id]
        for id in chosen:
            one = self.jobs[id]
            one.fanned = tuple(child for child in one.fanned if child not in gone)
            self._reset(one, WAITING)
        self._recount({name for id in chosen for name in self.jobs[id].spec.halts})
        for id in chosen:
            self._look_at_parents(self.jobs[id])
            self._decide(self.jobs[id])
        self.is_cancelled = False
        return chosen

    def _choose(self, id: str, chosen: list[str], gone: set[str]) -> bool:
        one = self.jobs[id]
        if id in chosen:
            return True
        again = any(parent in chosen for parent in (*one.spec.after, *one.spec.after_any))
        children = one.fanned
        if again and children:
            gone |= set(children)
            if any(not self.jobs[child].state.is_final for child in children):
                return False
            children = ()
        for child in children:
            if not self._choose(child, chosen, gone):
                return False
            again = again or child in chosen
        if not again and one.state not in (FAILED, CANCELLED):
            return True
        stands = {
            self.jobs[parent].stands
            for parent in one.spec.after
            if parent not in chosen and self.jobs[parent].state.is_final
        }
        if one.spec.when == "success" and not children and stands & {"failed", "cancelled"}:
            return True
        chosen.append(id)
        return one.state.is_final

    def _look_at_parents(self, one: Known) -> None:
        parents = one.fanned or (*one.spec.after, *one.spec.after_any)
        one.parents = {}
        for parent in parents:
            known = self.jobs[parent]
            one.parents[parent] = self._as(one, known) if known.state.is_final else None

    def _as(self, one: Known, parent: Known) -> str:
        is_watched = parent.spec.id in one.spec.after and not one.fanned
        return parent.stands if is_watched else "good"

    def _decide(self, one: Known) -> None:
        """Have a job without an attempt do what its parents' ends say."""
        ends, when = set(one.parents.values()), one.spec.when
        if when == "success" and ends & {"failed", "cancelled"} and not one.fanned:
            self._end(one, FAILED, "upstream")
        elif None in ends:
            one.state = WAITING
        elif one.fanned or when == "always":
            one.state = QUEUED
        elif when == "failure":
            if "failed" in ends:
                one.state = QUEUED
            else:
                self._end(one, SUCCEEDED, "skipped")
        elif "skipped" in ends:
            self._end(one, SUCCEEDED, "skipped")
        else:
            one.state = QUEUED

    def _run_down(self) -> None:
        """Have all that waits for what has ended go on, as far as that goes."""
        is_changed = True
        while is_changed:
            is_changed = False
            for one in self.jobs.values():
                for parent, known in [*one.parents.items()]:
                    its = self.jobs.get(parent)
                    if known is None and its and its.state.is_final and one.state is WAITING:
                        one.parents[parent] = self._as(one, its)
                        self._decide(one)
                        is_changed = True

    def _end(self, one: Known, state: JobState, reason: str) -> None:
        one.state, one.reason, one.cancel = state, reason, None
        if state in (FAILED, CANCELLED):
            for child in one.fanned:
                self._call_off(self.jobs[child], "halted" if reason == "halted" else "user")

    def _call_off(self, one: Known, reason: str) -> None:
        if one.state is RUNNING:
            one.cancel = one.cancel or reason
        elif not one.state.is_final:
            self._end(one, CANCELLED, reason)

    def _counts(self, name: str, one: Known) -> bool:
        is_good = one.stands == "good" and one.state is not CANCELLED
        is_bad = one.stands == "failed" and one.reason != "upstream"
        if not one.state.is_final:
            return False
        return {"fail": is_bad, "success": is_good, "done": is_good or is_bad}[
            self.halts[name].halt.counted
        ]

    def _fire(self, name: str) -> None:
        known = self.halts[name]
        if known.fired or known.count < known.halt.limit:
            return
        known.fired = True
        for one in self.jobs.values():
            if name not in one.spec.halts or one.spec.when != "success":
                continue
            has_begun = bool(one.fanned) or one.state in (RUNNING, NEEDS_HUMAN)
            if known.halt.way == "now" or not has_begun:
                self._call_off(one, "halted")

    def _recount(self, names: Iterable[str]) -> None:
        for name in names:
            known = self.halts[name]
            members = [one for one in self.jobs.values() if name in one.spec.halts]
            known.count = sum(self._counts(name, one) for one in members)
            known.fired = known.fired and known.count >= known.halt.limit

    def _reset(self, one: Known, state: JobState) -> None:
        one.state, one.reason, one.cancel, one.losses = state, None, None, 0
        one.parents = {}
        one.is_retried = False


class Story:
    """Does the same to the store and to the model."""

    def __init__(self, fleet: Fleet, specs: Sequence[Spec], halts: Sequence[Halt]) -> None:
        self.fleet, self.graph = fleet, Graph()
        self.host = fleet.host()
        self.graph.halts = {one.name: Counted(one) for one in halts}
        self.halts = halts
        self.left = list(specs)
        self.fans: dict[str, int] = {}
        self.tokens: dict[str, Token] = {}
        self.stale: list[Token] = []
        self.told: list[str] = []
        self.before: dict[str, JobState] = {}
        self.submit(len(specs) // 2)

    def submit(self, n: int) -> None:
        some, self.left = self.left[: n + 1], self.left[n + 1 :]
        if not some:
            return
        record = FlowRecord(FLOW, "story")
        self.fleet.dispatcher.submit(some, halts=self.halts, flow=record)
        for one in some:
            self.graph.submit(one)

    def pick(self, n: int, *states: JobState) -> Known | None:
        found = [one for one in self.graph.jobs.values() if one.state in states]
        return found[n % len(found)] if found else None

    def claim(self, n: int) -> None:
        answer = self.host.ask()
        queued = {id for id, one in self.graph.jobs.items() if one.state is QUEUED}
        if not isinstance(answer, Claim):
            assert not queued, answer
            return
        id = answer.token.id
        assert id in queued
        one = self.graph.jobs[id]
        assert answer.fanned == one.fanned
        for parent in (*one.spec.after, *one.spec.after_any):
            its = self.graph.jobs[parent]
            assert its.state.is_final or its.is_retried or one.is_retried, f"{id} before {parent}"
        assert self.host.beat(answer.token) == ["ok"]
        one.state = RUNNING
        self.tokens[id] = answer.token

    def finish(self, n: int) -> None:
        """End an attempt: mostly well, else as one of the other ends."""
        one = self.pick(n // 8, RUNNING)
        if one is None:
            return
        ends = [(SUCCEEDED, "exit")] * 3 + [(FAILED, "exit")] * 2
        ends += [(SUCCEEDED, "skipped"), (NEEDS_HUMAN, "exit"), (SCHEDULED, "exit")]
        state, reason = ends[n % 8]
        token = self.tokens.pop(one.spec.id)
        self.stale.append(token)
        self.host.finish(token, state, reason=reason)
        if one.cancel or state not in (NEEDS_HUMAN, SCHEDULED):
            self.graph.end(one.spec.id, state, reason)
        else:
            one.state, one.reason = state, reason

    def finish_again(self, n: int) -> None:
        """Say once more what was said: nothing comes of it."""
        for token in self.stale[-3:]:
            if self.tokens.get(token.id) != token:
                assert self.host.finish(token, FAILED) in ("already", "stale", "gone")
                self.host.release(token)

    def fan_out(self, n: int) -> None:
        found = [
            one
            for one in self.graph.jobs.values()
            if one.state is RUNNING and one.spec.id in self.fans and not one.fanned
        ]
        if not found:
            return
        one = found[n % len(found)]
        id = one.spec.id
        when = "success" if one.spec.when == "success" else "always"
        children = [
            replace(one.spec, id=f"{id[:10]}{i:02}", after=(), after_any=(), when=when, fans=None)
            for i in range(self.fans[id])
        ]
        self.fleet.dispatcher.submit(children, halts=self.halts)
        for child in children:
            if child.id not in self.graph.jobs:
                self.graph.submit(child)
        token = self.tokens.pop(id)
        self.stale.append(token)
        ids = [child.id for child in children]
        self.fleet.store.leases.expand(token, ids, template="")
        self.graph.expand(id, ids)
        assert self.fleet.store.leases.expand(token, ids, template="") in ("already", "stale")

    def lose(self, n: int) -> None:
        one = self.pick(n, RUNNING)
        if one is None:
            return
        token = self.tokens.pop(one.spec.id)
        self.stale.append(token)
        self.host.lose(token)
        one.losses += 0 if one.cancel else 1
        if one.cancel or one.losses >= CRASH_LIMIT:
            self.graph.end(one.spec.id, FAILED, "lost")
        else:
            one.state = QUEUED

    def release(self, n: int) -> None:
        one = self.pick(n, RUNNING)
        if one is None:
            return
        self.host.release(self.tokens.pop(one.spec.id))
        if one.cancel:
            self.graph.end(one.spec.id, CANCELLED, one.cancel)
        else:
            one.state = QUEUED

    def cancel(self, n: int) -> None:
        one = self.pick(n, *JobState)
        if one is not None:
            self.fleet.cancel(one.spec.id)
            self.graph.cancel(one.spec.id)

    def stop(self, n: int) -> None:
        if n % 4 == 0:
            self.fleet.store.flows.cancel(FLOW)
            self.graph.is_cancelled = True
            self.graph.cancel(*self.graph.jobs)
            assert self.host.ask() == "none"

    def resolve(self, n: int) -> None:
        one = self.pick(n // 2, NEEDS_HUMAN)
        if one is not None:
            state = (SUCCEEDED, FAILED)[n % 2]
            self.fleet.resolve(one.spec.id, state)
            self.graph.end(one.spec.id, state, "user")

    def retry(self, n: int) -> None:
        one = self.pick(n, SUCCEEDED, FAILED, CANCELLED)
        if one is None:
            return
        if one.fanned:
            self._rerun([one.spec.id], flow="")
        else:
            self.fleet.retry(one.spec.id)
            self.graph.retry(one.spec.id)

    def rerun(self, n: int) -> None:
        self._rerun(self.fleet.store.flows.members(FLOW), flow=FLOW)

    def _rerun(self, ids: Sequence[str], *, flow: str) -> None:
        before = self.graph.is_cancelled
        expected = self.graph.rerun([id for id in ids])
        if not flow:
            self.graph.is_cancelled = before
        try:
            found: Any = list(self.fleet.dispatcher.rerun(ids, flow=flow))
        except Conflict:
            found = None
        assert found == expected

    def submit_more(self, n: int) -> None:
        self.submit(n % 3)

    def wait(self, n: int) -> None:
        self.fleet.clock.advance(2)
        self.fleet.tick(None)
        for one in self.graph.jobs.values():
            if one.state is SCHEDULED:
                one.state = QUEUED

    def do(self, act: str, n: int) -> None:
        self.told.append(f"{act} {n}")
        getattr(self, act)(n)
        self.compare()

    def compare(self) -> None:
        """Look whether the store agrees with the model, and made none but its moves."""
        records = {one.id: one for one in self.fleet.store.jobs.fetch_many(self.graph.jobs)}
        wrong = []
        for id, known in self.graph.jobs.items():
            record = records[id]
            reason = record.reason if record.state.is_final else known.reason
            if (record.state, reason) != (known.state, known.reason):
                wrong.append(f"{id} is {record.state} ({reason}), not {known.state} {known.reason}")
            before = self.before.get(id)
            if record.state is not before and record.state not in MOVES[before]:
                wrong.append(f"{id}: {before} -> {record.state}")
            self.before[id] = record.state
        assert not wrong, "\n".join([*wrong, *self.told])

    def end_all(self) -> None:
        """Have the hosts run what there is, without trouble, until nothing is left."""
        while self.left:
            self.do("submit_more", 2)
        for _ in range(20 * len(self.graph.jobs) + 20):
            if all(one.state.is_final for one in self.graph.jobs.values()):
                return
            self.do("wait", 0)
            self.do("resolve", 0)
            self.do("claim", 0)
            self.do("finish", 0)
        raise AssertionError("it doesn't end\n" + "\n".join(self.told))


def in_flow(spec: Spec) -> Spec:
    """Return the spec of a job of the story's workflow."""
    return replace(spec, group=group_of(FLOW), flow=FLOW)
