"""A claimed step of a workflow: what the steps before it came to is worked into its own spec.

Whatever it uses of other jobs is what their workers signed. A record that says something else, or
an outcome that is another job's, is refused.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

from relayq.errors import BadSignature, RelayqError
from relayq.host.fans import Fans
from relayq.kinds import Verdict, find
from relayq.model import steps
from relayq.model.batches import KIND as BATCH
from relayq.model.fans import is_child, parse_fans
from relayq.model.files import FileIn, FileOut, Kept, inside
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason, Spec
from relayq.model.steps import Ended
from relayq.signing import Signer, UnknownKey
from relayq.store import Store
from relayq.store.leases import Claim

log = logging.getLogger(__name__)

#: How many outcomes are asked for at once: each may have some hundred kilobytes.
_AT_ONCE = 100


def is_step(spec: Spec) -> bool:
    """Whether anything of a job is to be worked out."""
    return bool(spec.is_template or spec.condition or spec.fans or spec.takes)


class Steps:
    """Works out the steps that this host claims."""

    def __init__(self, store: Store, signer: Signer, fans: Fans) -> None:
        self._store = store
        self._signer = signer
        self._fans = fans

    def work_out(self, spec: Spec, claim: Claim) -> Spec | Verdict:
        """Return a step's spec with all that is known now, or what became of it already.

        Raises RelayqError for what can't be worked out, BadSignature for what nobody signed.
        """
        try:
            return self._worked_out(spec, claim)
        except UnknownKey as error:
            # Its own spec was signed with this host's key: no other host could do better.
            raise BadSignature(error.message) from error

    def _worked_out(self, spec: Spec, claim: Claim) -> Spec | Verdict:
        if claim.fanned:
            return self._collect(spec, claim.fanned)
        condition = steps.condition_of(spec.condition) if spec.condition else None
        fans = parse_fans(spec.fans) if spec.fans else None
        # With a list its payload is worked out by the jobs that it becomes.
        own = fans.parts if fans is not None else spec.payload if spec.is_template else None
        names = self._names(spec, [condition, own])
        if condition is not None:
            ends = self._load(spec.after) if steps.asks_status(condition) else {}
            if not steps.holds(condition, names, steps.status_functions(ends.values())):
                return Verdict(JobState.SUCCEEDED, Reason.SKIPPED)
        if fans is not None:
            return self._fans.out(spec, fans.combinations(names))
        return self._filled(spec, names)

    def _filled(self, spec: Spec, names: steps.Names) -> Spec | Verdict:
        payload = spec.payload
        if spec.is_template:
            if spec.kind == BATCH:
                raise RelayqError("the commands of a batch have no expressions: use one command")
            types = {f.name: str(f.type) for f in fields(find(spec.kind).kind.Payload)}
            payload = steps.filled(payload, types, names)
        try:
            taken = self._taken(spec)
        except _NoFiles as error:
            return Verdict(JobState.FAILED, Reason.FILES, error=error.message)
        return replace(spec, payload=payload, files_in=(*spec.files_in, *taken))

    def _names(self, spec: Spec, uses: Sequence[Any]) -> steps.Names:
        """Return what expressions can ask for: of the steps before only what these do ask for."""
        wanted = [steps.used(one) for one in uses]
        asked = {step for some in wanted for step in some or ()}
        named = {
            step: list(map(_id_of, ids))
            for step, ids in spec.uses.items()
            if None in wanted or step in asked
        }
        ended = self._load([id for ids in named.values() for id in ids], deeply=True)
        table = steps.Table(
            {step: steps.facts_of([ended[id] for id in ids]) for step, ids in named.items()}
        )
        flow = {"id": spec.flow}
        return {**dict.fromkeys(steps.STEPS, table), "matrix": dict(spec.matrix), "flow": flow}

    def _load(self, ids: Iterable[str], *, deeply: bool = False) -> dict[str, Ended]:
        """Return what these jobs came to; with `deeply`, also those that they became."""
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Ended] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            records = {record.id: record for record in self._store.jobs.fetch_many(some)}
            signed = self._store.jobs.signed_specs(some)
            outcomes = self._store.jobs.outcomes(some)
            for id, text, outcome in zip(some, signed, outcomes, strict=True):
                found[id] = self._ended(id, records.get(id), text, outcome, deeply=deeply)
        return found

    def _ended(
        self,
        id: str,
        record: JobRecord | None,
        signed: bytes | None,
        outcome: bytes | None,
        *,
        deeply: bool,
    ) -> Ended:
        if record is None or signed is None:
            raise RelayqError(f"it uses what {id} came to, and that was forgotten")
        try:
            spec = self._signer.check_spec(signed, id=id)
            ended = None if outcome is None else self._signer.check_outcome(outcome, id=id)
        except BadSignature as error:
            raise BadSignature(f"it uses what {id} came to: {error.message}") from error
        result = steps.result_of(record, ended)
        own = ended if ended is not None and ended.attempt == record.attempt else None
        return Ended(
            id=id,
            kind=spec.kind,
            result=result,
            counts_as=steps.meaning_of(result, record.reason, is_lenient=spec.is_lenient),
            outcome=own,
            matrix=spec.matrix,
            jobs=self._became(spec, own) if deeply and spec.fans else (),
        )

    def _became(self, spec: Spec, outcome: Outcome | None) -> tuple[Ended, ...]:
        """Return the jobs that a step became, as its signed outcome names them."""
        if outcome is None or not isinstance(outcome.result, Mapping):
            return ()
        ids = [str(one["id"]) for one in outcome.result.get("jobs", ())]
        return self._children(spec, ids)

    def _children(self, spec: Spec, ids: Collection[str]) -> tuple[Ended, ...]:
        """Return what the jobs came to that a step became; BadSignature for any other job."""
        self._check_children(spec.id, list(ids))
        return tuple(self._load(ids).values())

    def _check_children(self, parent: str, ids: Sequence[str]) -> None:
        for number, (id, signed) in enumerate(
            zip(ids, self._store.jobs.signed_specs(ids), strict=True)
        ):
            if signed is None:
                raise RelayqError(f"it uses what {id} came to, and that was forgotten")
            if not is_child(self._signer.check_spec(signed, id=id), parent, number):
                raise BadSignature(f"{id} is none of the jobs that {parent} became")

    def _collect(self, spec: Spec, ids: Sequence[str]) -> Verdict:
        """Return what a step came to whose jobs have ended."""
        records = self._store.jobs.fetch_many(ids)
        if not all(record.state.is_final for record in records):
            # Somebody had one run again meanwhile.
            return self._fans.waits(ids)
        return self._fans.collected(self._children(spec, ids))

    def _taken(self, spec: Spec) -> list[dict[str, Any]]:
        """Return the files that other jobs brought back, as files that this one takes along."""
        found: dict[str, dict[str, Any]] = {}
        for take in spec.takes:
            of = str(take["from"])
            job = self._load([of], deeply=True)[of]
            is_met = bool(take.get("optional"))
            for number, one in enumerate(job.jobs or [job]):
                # Several jobs may have made files of the same name.
                within = str(number) if job.jobs else ""
                for kept in _kept(one, str(take.get("files", "*"))):
                    is_met = True
                    file = self._file(one.id, kept, str(take.get("to", "")), within)
                    if file.dest in found:
                        raise _NoFiles(f"two files that it takes are to be {file.dest}")
                    found[file.dest] = file.as_dict()
            if not is_met:
                raise _NoFiles(f"{of} brought back no file that matches {take.get('files', '*')}")
        if found:
            sha256s = [str(one["sha256"]) for one in found.values()]
            self._store.artifacts.refer(spec.id, sha256s)
        return list(found.values())

    def _file(self, id: str, kept: Kept, to: str, within: str) -> FileIn:
        if kept.place == "host":
            raise _NoFiles(f"{kept.name} of {id} still lies on its host: {kept.error}")
        at = self._place(id) if kept.place == "placed" else ""
        dest = inside(posixpath.join(to, within, kept.name))
        source = kept.dest if kept.place == "placed" else f"{kept.name} of {id}"
        return FileIn(dest, source, kept.sha256, kept.size, kept.mode, at=at)

    def _place(self, id: str) -> str:
        """Return which submitter's disk has the files that a job placed."""
        spec = self._signer.check_spec(self._store.jobs.signed_spec(id), id=id)
        outs = (FileOut.from_dict(one) for one in spec.files_out)
        return next((one.at for one in outs if one.dest), "")


class _NoFiles(RelayqError):
    """A file that a step is to take along isn't to be had."""


def _id_of(used: object) -> str:
    return str(used["id"]) if isinstance(used, Mapping) else str(used)


def _kept(job: Ended, pattern: str) -> list[Kept]:
    """Return the files that a job brought back and whose names match."""
    if job.outcome is None:
        return []
    kept = [Kept.from_dict(one) for one in job.outcome.files]
    return [one for one in kept if fnmatchcase(inside(one.name), pattern)]
