"""Job records: submit, fetch, list, wait, cancel, retry, resolve, move, forget.

Specs and outcomes pass through as the signed bytes they are: signing is above the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.grants import granted
from relayq.model.jobs import FINAL, JobRecord, JobState, Spec, normal_id
from relayq.model.moves import MOVES
from relayq.model.placement import queue_of
from relayq.store.keys import Keys
from relayq.store.reading import Reader
from relayq.store.records import record
from relayq.store.scripts import Scripts, broker_errors, executed

if TYPE_CHECKING:
    import redis

#: How many jobs one call of `submit` may store: a script holds up every other client.
BATCH = 1000
#: How many records are looked at in one go for those of one host.
_PAGE = 500
#: Of how many Redis is asked for the queue in one go: 3 to 5 ms in which it serves no one else.
_SCANNED = 5000
#: States before a claim: a host's own index doesn't have them.
_UNCLAIMED = (JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED)
_SOME_HOST = "0some-host0"


@dataclass(frozen=True, slots=True)
class Submission:
    """A spec with its signed form; `reply` names a follower that wants the live output.

    `first` is the queue that it waits in before the spec's own, for `overflow` seconds.
    """

    spec: Spec
    signed: bytes
    reply: str = ""
    first: str = ""
    overflow: float = 0.0


class Jobs:
    """The records."""

    def __init__(
        self, connection: redis.Redis, keys: Keys, scripts: Scripts, reader: Reader
    ) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts
        self._reader = reader
        #: Who acts here, for the audit trail: user@host.
        self.who = ""

    def submit(self, submissions: Sequence[Submission], *, template: str, key_id: str) -> list[str]:
        """Store up to `BATCH` new jobs and push their nudges in one round trip.

        Returns the words of `send`.
        """
        return self.send(submissions, template=template, key_id=key_id)()

    def send(
        self,
        submissions: Sequence[Submission],
        *,
        template: str,
        key_id: str,
        common: str = "",
        turn: Mapping[str, Any] | None = None,
    ) -> Callable[[], list[str]]:
        """Begin to `submit`; the function that is returned waits until it is done.

        That gives a word for each: the state it is in, "exists" for the same spec under the same
        id, "clash" for another, "no_parent" for an unknown `after`, "taken <id> <state>" when that
        job has its unique key and isn't ended; "orphan" when a job above it has ended or is to,
        "many" or "crowded" when its root has room for no further job below it; or ["wrong_key"].
        `common` is what `common_of` gave for them, `turn` that of a schedule whose jobs they are:
        then `recur` does it, which says ["changed"] or ["gone"] if somebody else was first.
        """
        if len(submissions) > BATCH:
            raise ValueError(f"at most {BATCH} jobs a call")
        rest = [part for one in submissions for part in (_packed(one), one.signed)]
        answer = self._scripts.send(
            "submit" if turn is None else "recur",
            rest,
            template=template,
            key_id=key_id,
            who=submissions[0].spec.submitter if submissions else "",
            also=common,
            **(turn or {}),
        )
        return lambda: [word.decode() for word in answer()]

    def fetch(self, id: str) -> JobRecord:
        """Return one record by its whole id; raises Unreadable where it makes no sense."""
        rows = self._raw([id])
        if not rows:
            raise NoSuchJob(f"no such job: {id}", hint="relayq ps -a")
        return self._reader.one("job", record, rows[0])

    def fetch_many(self, ids: Iterable[str]) -> list[JobRecord]:
        """Return the records of those ids that exist, in their order, but none that is unreadable.

        Who must know whether there is one asks `known`.
        """
        return self._reader.all("job", record, self._raw(list(ids)))

    def _raw(self, ids: Sequence[str]) -> list[tuple[str, Any, Any]]:
        """Return those of the ids that exist, each with its fields and its signed spec."""
        pipe = self._connection.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(self._keys("job", id))
            pipe.get(self._keys("spec", id))
        answers = executed(pipe)
        rows = zip(ids, answers[::2], answers[1::2], strict=True)
        return [row for row in rows if row[1]]

    def known(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that have a record, whether it can be read or not."""
        wanted = list(ids)
        pipe = self._connection.pipeline(transaction=False)
        for id in wanted:
            pipe.exists(self._keys("job", id))
        with broker_errors():
            found = pipe.execute()
        return {id for id, is_there in zip(wanted, found, strict=True) if is_there}

    def find(self, text: str) -> str:
        """Return the id that `text` is, or that only it begins."""
        prefix = normal_id(text)
        low, high = f"[{prefix}".encode(), f"[{prefix}\xff".encode("latin-1")
        with broker_errors():
            found: Any = self._connection.zrangebylex(self._keys("ids"), low, high, 0, 20)
        matches: list[str] = [id.decode(errors="replace") for id in found] if prefix else []
        if not matches:
            raise NoSuchJob(f"no such job: {text}", hint="relayq ps -a")
        if len(matches) > 1 and matches[0] != prefix:
            raise AmbiguousId(text, matches)
        return matches[0]

    def list(
        self,
        *,
        states: Iterable[JobState] | None = None,
        host: str | None = None,
        limit: int = 50,
    ) -> Sequence[JobRecord]:
        """Return up to `limit` records, the newest first: of these states, of this host."""
        wanted = list(states) if states is not None else list(JobState)
        if host is None:
            ids = [self._newest(self._keys("state", state), limit) for state in wanted]
        else:
            ids = [self._newest(self._keys("by_host", host), limit)]
            ids += [self._meant_for(host, state) for state in _UNCLAIMED if state in wanted]
        found: dict[str, JobRecord] = {}
        for some in ids:
            fitting = (record for record in self._records(some, limit) if record.state in wanted)
            found |= {record.id: record for record in islice(fitting, limit)}
        records = list(found.values())
        records.sort(key=lambda r: r.finished_at or r.claimed_at or r.created_at, reverse=True)
        return records[:limit]

    def recent(self, limit: int) -> Sequence[JobRecord]:
        """Return up to `limit` of the newest records of each state, in two round trips."""
        pipe = self._connection.pipeline(transaction=False)
        for state in JobState:
            pipe.zrange(self._keys("state", state), 0, limit - 1, desc=True)
        with broker_errors():
            indices = pipe.execute()
        return self.fetch_many(id.decode(errors="replace") for index in indices for id in index)

    def _records(self, ids: Iterator[str], page: int) -> Iterator[JobRecord]:
        """Yield the records of these ids, a page at a time."""
        while some := list(islice(ids, min(page, _PAGE))):
            yield from self.fetch_many(some)

    def _newest(self, index: str, page: int) -> Iterator[str]:
        """Yield the ids of an index, its highest scores first, a page at a time."""
        page = min(page, _PAGE)
        for start in count(0, page):
            with broker_errors():
                ids = self._connection.zrange(index, start, start + page - 1, desc=True)
            yield from (id.decode(errors="replace") for id in ids)
            if len(ids) < page:
                return

    def _meant_for(self, host: str, state: JobState) -> Iterator[str]:
        """Yield the ids of the unclaimed jobs that wait for this one host, the newest first.

        No index has them: Redis looks at the queue of each record of the state.
        """
        for start in count(0, _SCANNED):
            looked_at, *ids = self._scripts.call(
                "meant", state=state, host=host, start=start, count=_SCANNED
            )
            yield from (id.decode(errors="replace") for id in ids)
            if looked_at < _SCANNED:
                return

    def count(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""
        pipe = self._connection.pipeline(transaction=False)
        for state in JobState:
            pipe.zcard(self._keys("state", state))
        with broker_errors():
            return dict(zip(JobState, pipe.execute(), strict=True))

    def family(self, *roots: str) -> Sequence[str]:
        """Return the ids of all jobs below roots: those that they submitted, and that these did."""
        if not roots:
            return []
        with broker_errors():
            found = self._connection.sunion([self._keys("family", root) for root in roots])
        return [id.decode(errors="replace") for id in found]

    def outcome(self, id: str) -> bytes | None:
        """Return the signed outcome of the last attempt that ended, or None."""
        with broker_errors():
            answer = self._connection.get(self._keys("outcome", id))
        return answer if answer is None else bytes(answer)

    def outcomes(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """Return the signed outcome of each job's last attempt that ended, or None."""
        if not ids:
            return []
        with broker_errors():
            return list(self._connection.mget([self._keys("outcome", id) for id in ids]))

    def signed_specs(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """Return these specs as they were signed, None for one that isn't there."""
        if not ids:
            return []
        with broker_errors():
            return list(self._connection.mget([self._keys("spec", id) for id in ids]))

    def wait(self, ids: Sequence[str], *, patience: float) -> dict[str, bytes | None]:
        """Block up to `patience` seconds until one of the jobs ends or parks.

        Returns what has ended by then: id -> its signed outcome if that was small, else None.
        An end that is more than a minute old isn't seen: fetch the record first.
        """
        streams = {self._keys("done", id): "0" for id in ids}
        return {id: entry.get(b"outcome") for id, entry in self._read(streams, patience)}

    def _read(
        self, streams: Mapping[str, str], patience: float
    ) -> Sequence[tuple[str, Mapping[bytes, bytes]]]:
        block = max(1, int(patience * 1000))
        with broker_errors():
            answer: Any = self._connection.xread(dict(streams), count=1, block=block)
        rows = answer.items() if isinstance(answer, dict) else (answer or [])
        start = len(self._keys("done"))
        return [(key.decode()[start:], entries[0][1]) for key, entries in rows]

    def cancel(self, id: str) -> tuple[str, str | None]:
        """Cancel a job, durably.

        Returns ("cancelled", None), ("asked", host) for a running one, or the final state that
        it already has.
        """
        word, host = self.cancel_all([id])[0]
        if word == "gone":
            raise NoSuchJob(f"no such job: {id}", hint="relayq ps -a")
        return word, host

    def cancel_all(self, ids: Sequence[str]) -> Sequence[tuple[str, str | None]]:
        """Cancel jobs as `cancel` does, `BATCH` of them at a time; "gone" is the word for none.

        Within a batch nothing starts in the room that another one of it leaves.
        """
        said: list[tuple[str, str | None]] = []
        for start in range(0, len(ids), BATCH):
            answer = self._scripts.call("cancel", ids[start : start + BATCH], who=self.who)
            words = [word.decode() for word in answer]
            said += [(word, host or None) for word, host in zip(*[iter(words)] * 2, strict=True)]
        return said

    def retry(
        self,
        id: str,
        *,
        template: str,
        force: bool = False,
        note: str = "",
        consent: bytes = b"",
    ) -> tuple[str, str | None]:
        """Queue an ended or parked job again, with a person's remark and their signed consent.

        Returns ("queued", None), ("unfit", state), ("orphan", host) while an attempt that was
        judged lost may still run there, ("taken", id) while that job has its unique key, or
        ("fanned", None) for one that became others: `Flows.rerun` runs these again.
        """
        forced = "1" if force else ""
        word, *rest = self._words(
            "retry", id, template=template, force=forced, note=note, consent=consent, who=self.who
        )
        return word, rest[0] if rest else None

    def resolve(self, id: str, state: JobState, *, template: str, note: str = "") -> str:
        """Close a job that waits for a person as succeeded or failed; returns its state."""
        if state not in MOVES[JobState.NEEDS_HUMAN] & FINAL:
            raise ValueError(f"can't resolve as {state}")
        word, *rest = self._words(
            "resolve", id, template=template, state=state, note=note, who=self.who
        )
        return rest[0] if word == "unfit" else word

    def consent(self, id: str) -> bytes | None:
        """Return a person's word that a job may run again, as it was signed; nobody checked it."""
        with broker_errors():
            found = self._connection.hget(self._keys("job", id), "consent")
        return bytes(found) if found else None

    def signed_spec(self, id: str) -> bytes:
        """Return the spec as it was signed; nobody has checked it."""
        with broker_errors():
            answer = self._connection.get(self._keys("spec", id))
        if answer is None:
            raise NoSuchJob(f"no such job: {id}", hint="relayq ps -a")
        return bytes(answer)

    def move(
        self, spec: Spec, *, before: bytes, signed: bytes, template: str, stays: bool = False
    ) -> tuple[str, str]:
        """Put a job that hasn't started where its new spec says, if `before` is still stored.

        With `stays` it keeps its queue, and only gets the new priority.

        Returns ("moved", ""), ("changed", "") when it isn't, or ("unfit", state).
        """
        word, *rest = self._words(
            "move",
            spec.id,
            template=template,
            queue="" if stays else spec.queue,
            priority=spec.priority,
            before=before,
            spec=signed,
            who=self.who,
        )
        return word, rest[0] if rest else ""

    def forget(self, ids: Sequence[str], *, before: float | None = None) -> Sequence[str]:
        """Delete all that is known of these ended jobs, if they ended before an instant.

        Returns a word for each: "forgotten", "younger", "gone", or the state that it is in.
        """
        limit = "" if before is None else f"{before:.6f}"
        answers = [
            self._scripts.call("forget", ids[start : start + _PAGE], before=limit, who=self.who)
            for start in range(0, len(ids), _PAGE)
        ]
        return [word.decode() for words in answers for word in words]

    def prune(self, states: Iterable[JobState], *, older_than: float, keep: int) -> int:
        """Forget the jobs that ended so long ago, but not the newest `keep` of all states.

        Returns how many those were.
        """
        indices = [self._keys("state", state) for state in states]
        pipe = self._connection.pipeline(transaction=False)
        pipe.time()
        for index in indices if keep else []:
            pipe.zrange(index, 0, keep - 1, desc=True, withscores=True)
        with broker_errors():
            (seconds, micros), *newest = pipe.execute()
        before = seconds + micros / 1e6 + self._scripts.offset() - older_than
        ends = sorted((score for rows in newest for _, score in rows), reverse=True)
        if len(ends) >= keep > 0:
            before = min(before, ends[keep - 1])
        elif keep:
            return 0
        return sum(self._forget_index(index, before) for index in indices)

    def _forget_index(self, index: str, before: float) -> int:
        """Forget the jobs of one index that ended before an instant."""
        total = 0
        while True:
            with broker_errors():
                ids = self._connection.zrangebyscore(index, "-inf", f"({before:.6f}", 0, _PAGE)
            forgotten = self.forget(
                [id.decode(errors="replace") for id in ids], before=before
            ).count("forgotten")
            total += forgotten
            if not forgotten:
                return total

    def _words(self, script: str, id: str, **arguments: Any) -> Sequence[str]:
        answer = self._scripts.call(script, id=id, **arguments)
        words = [word.decode() for word in answer]
        if words[0] == "gone":
            raise NoSuchJob(f"no such job: {id}", hint="relayq ps -a")
        return words

    def next_turn(self) -> int:
        """Count the jobs whose hosts are chosen in turn; returns how many came before this one."""
        with broker_errors():
            return int(self._connection.hincrby(self._keys("meta"), "turns", 1)) - 1

    def nudge(self, queue: str, message: str) -> None:
        """Push one Celery message again: its job is still queued, but this worker is full."""
        with broker_errors():
            self._connection.rpush(self._keys("nudges", queue), message)


def _packed(one: Submission) -> str:
    """Return what `submit` needs to know of a job."""
    spec = one.spec
    due = "" if spec.due_at is None else f"{spec.due_at:.6f}"
    said = [spec.id, spec.kind, spec.queue, str(spec.priority), due, spec.on_lost]
    said += [str(spec.retries), one.reply, " ".join(spec.after)]
    said += [spec.name or "", spec.group or "", spec.unique or ""]
    return json.dumps([*said, _asked(one) or ""])


def _asked(one: Submission) -> dict[str, str]:
    """Return where and until when it waits, beyond its queue."""
    asked: dict[str, str] = {}
    if one.first:
        asked |= {"first": one.first, "overflow": f"{one.overflow:.6f}"}
    if one.spec.with_job is not None:
        asked |= {"with": one.spec.with_job, "narrow": _queue_on_a_host(one.spec)}
    if one.spec.expires is not None:
        asked["expires"] = f"{one.spec.expires:.6f}"
    if one.spec.ancestors:
        grant = granted(one.spec)
        asked |= {"ancestors": " ".join(one.spec.ancestors)}
        asked |= {"most": str(grant.most), "at_once": str(grant.at_once)}
    return asked | _among_others(one.spec)


def _among_others(spec: Spec) -> dict[str, str]:
    """Return what the scripts must know of it when another job ends; of most jobs nothing."""
    asked: dict[str, str] = {}
    if spec.after_any:
        asked["any"] = " ".join(spec.after_any)
    if spec.when != "success":
        asked["when"] = spec.when
    if spec.is_lenient:
        asked["lenient"] = "1"
    if spec.halts:
        asked["halts"] = " ".join(spec.halts)
    return asked


def _queue_on_a_host(spec: Spec) -> str:
    """Return the queue of this job on a host that isn't known yet, with HOST for its name."""
    return queue_of(replace(spec.constraints, on=(_SOME_HOST,))).replace(_SOME_HOST, "HOST")
