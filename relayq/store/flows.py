"""Runs of workflows: what is kept of each, its jobs, a cancel and a rerun of all of them at once.

A run is the jobs of one group, whose name says so; no process has to live for it to go on. Its
record is stored with the first of these jobs, and goes with the last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.halts import Halt
from relayq.model.jobs import JobState, Spec, normal_id
from relayq.store.keys import Keys
from relayq.store.reading import Reader, instant, texts
from relayq.store.scripts import Scripts, broker_errors, executed

if TYPE_CHECKING:
    import redis

    from relayq.store.jobs import Jobs

#: The states as records have them.
STATES = {state.value.encode(): state for state in JobState}
#: What the group of a run's jobs is called, before its id.
GROUP = "flow-"


def group_of(id: str) -> str:
    """Return the group of a run's jobs."""
    return f"{GROUP}{id}"


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """What is known of a workflow's run, beside its jobs.

    `source` is the text that it was made of, `graph` its steps. The broker says when it was
    `created_at`, and when it was `cancelled_at` a person's word.
    """

    id: str
    name: str
    source: str = ""
    graph: Mapping[str, Any] = field(default_factory=dict)
    submitter: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    cancelled_at: float | None = None


@dataclass(frozen=True, slots=True)
class Rerun:
    """What a rerun came to: "ok" with the jobs that run again, or of which job it was refused, why.

    "unfit": it is in a state that isn't final; "orphan": it may still run on that host; "taken":
    that job has its unique key.
    """

    word: str
    ids: tuple[str, ...] = ()
    id: str = ""
    fact: str = ""


def common_of(
    specs: Iterable[Spec], halts: Sequence[Halt], flow: FlowRecord | None
) -> dict[str, Any]:
    """Return what goes with these jobs' submit, as an argument of `Jobs.send`; for most nothing."""
    said: dict[str, Any] = {}
    if halts:
        named = {name for spec in specs for name in spec.halts}
        kept = [one for one in halts if one.name in named]
        said["halts"] = [[one.name, one.counted, one.limit, one.way] for one in kept]
    if flow is not None:
        fields = {"name": flow.name, "source": flow.source, "who": flow.submitter}
        fields |= {"graph": json.dumps(flow.graph), "inputs": json.dumps(flow.inputs)}
        pairs = [part for pair in fields.items() for part in pair]
        said["flow"] = {"id": flow.id, "fields": pairs}
    return {"common": json.dumps(said)} if said else {}


class Flows:
    """The runs."""

    def __init__(
        self,
        connection: redis.Redis,
        keys: Keys,
        scripts: Scripts,
        jobs: Jobs,
        reader: Reader,
    ) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts
        self._jobs = jobs
        self._reader = reader

    def fetch(self, id: str) -> FlowRecord:
        """Return one run by its whole id."""
        rows = self._raw([id])
        if not rows:
            raise _unknown(id)
        return self._reader.one("flow", _record, rows[0])

    def list(self, limit: int = 50) -> Sequence[FlowRecord]:
        """Return up to `limit` runs, the newest first."""
        with broker_errors():
            ids = self._connection.zrange(self._keys("flows"), 0, limit - 1, desc=True)
        return self._fetch_many([id.decode(errors="replace") for id in ids])

    def find(self, text: str) -> str:
        """Return the id that `text` is or that only it begins, else of the newest run of that name.

        "last" is the newest of all.
        """
        with broker_errors():
            ids = self._connection.zrange(self._keys("flows"), 0, -1, desc=True)
        known: list[str] = [id.decode(errors="replace") for id in ids]
        prefix = normal_id(text)
        matches = [id for id in known if prefix and id.startswith(prefix)]
        if prefix in matches or len(matches) == 1:
            return prefix if prefix in matches else matches[0]
        if text == "last" and known:
            return known[0]
        for one in self._fetch_many(known):
            if one.name == text:
                return one.id
        if matches:
            raise AmbiguousId(text, matches)
        raise _unknown(text)

    def members(self, id: str) -> Sequence[str]:
        """Return the ids of a run's jobs, in the order of their submission."""
        with broker_errors():
            ids = self._connection.zrange(self._keys("group", group_of(id)), 0, -1)
        return [one.decode(errors="replace") for one in ids]

    def cancel(self, id: str) -> Sequence[tuple[str, str]]:
        """Cancel all jobs of a run: when this returns, nothing of it starts any more.

        Returns for each "cancelled", "asked" of one that runs, or the final state that it has.
        """
        words = [part.decode() for part in self._scripts.call("stop", flow=id, who=self._jobs.who)]
        if not words:
            raise _unknown(id)
        return list(zip(words[::2], words[1::2], strict=True))

    def rerun(
        self,
        ids: Sequence[str],
        *,
        template: str,
        flow: str = "",
        force: bool = False,
        consent: bytes = b"",
        consents: Sequence[bytes] = (),
    ) -> Rerun:
        """Run again what failed or was cancelled of these jobs, and what comes after that.

        All of it is done in one step, or nothing. The ids are in an order in which each comes after
        those that it waits for, as `members` are; jobs that one of them became need not be named.
        `consents` are a person's signed words for each of them, `consent` that for all.
        """
        word, *said = self._scripts.call(
            "rerun",
            [part for pair in zip_longest(ids, consents, fillvalue=b"") for part in pair],
            template=template,
            flow=flow,
            force="1" if force else "",
            consent=consent,
            who=self._jobs.who,
        )
        texts = tuple(part.decode() for part in said)
        if word == b"ok":
            return Rerun("ok", texts)
        return Rerun(word.decode(), (), *texts)

    def forget(self, id: str) -> int:
        """Forget the ended jobs of a run, with the last of them its record; returns how many."""
        members = self.members(id)
        if not members:
            raise _unknown(id)
        return self._jobs.forget(members).count("forgotten")

    def states(self, id: str) -> Mapping[str, JobState]:
        """Return the state of each job of a run, in the order of their submission."""
        members = self.members(id)
        pipe = self._connection.pipeline(transaction=False)
        for one in members:
            pipe.hget(self._keys("job", one), "state")
        pairs = zip(members, executed(pipe), strict=True)
        return {one: STATES[state] for one, state in pairs if state in STATES}

    def _fetch_many(self, ids: Sequence[str]) -> Sequence[FlowRecord]:
        return self._reader.all("flow", _record, self._raw(ids))

    def _raw(self, ids: Sequence[str]) -> Sequence[tuple[str, Any]]:
        """Return those of the ids that exist, each with its fields."""
        pipe = self._connection.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(self._keys("flow", id))
        return [row for row in zip(ids, executed(pipe), strict=True) if row[1]]


def _record(id: str, raw: Mapping[bytes, bytes]) -> FlowRecord:
    fields = texts(raw)
    graph, inputs = (json.loads(fields.get(name, "{}")) for name in ("graph", "inputs"))
    if not isinstance(inputs, dict) or not isinstance(graph, dict):
        raise ValueError("its graph or its inputs are no objects")
    for name, step in graph.get("steps", {}).items():
        if not _is_step(step):
            raise ValueError(f"{name} is no step")
    return FlowRecord(
        id=id,
        name=fields.get("name", ""),
        source=fields.get("source", ""),
        graph=graph,
        submitter=fields.get("who", ""),
        inputs=inputs,
        created_at=instant(fields.get("created", "0")),
        cancelled_at=instant(fields["cancelled"]) if "cancelled" in fields else None,
    )


def _is_step(step: Any) -> bool:
    """Whether this is what `workflowspecs` says of a step."""
    lists = [step[name] for name in ("needs", "jobs")]
    labels = step.get("labels", {})
    return isinstance(labels, dict) and all(
        isinstance(some, list) and all(isinstance(one, str) for one in some)
        for some in (*lists, [*labels.values()])
    )


def _unknown(text: str) -> NoSuchJob:
    return NoSuchJob(f"no such run of a workflow: {text}", hint="relayq flow ls")
