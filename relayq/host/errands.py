"""What a job may ask of its worker: to submit jobs, and all about those that it submitted.

A job sees itself and its descendants, and cancels these. What it submits is checked here as
whatever anybody sent, given its ancestors, its part of the root's budget and the rules of its own
grant and privacy, and then signed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relayq import clock, families, kinds, passage
from relayq.agentsections import PRIVATE
from relayq.config import Config
from relayq.dispatch import Dispatcher
from relayq.errors import NoSuchJob, RelayqError
from relayq.feeding import InputPiece, signed_piece
from relayq.host.delivery import Attempt
from relayq.identity import load_identity
from relayq.model.grants import granted, narrowed
from relayq.model.jobs import JobRecord, Spec, priority_number
from relayq.model.kin import Kin
from relayq.model.placement import constrain
from relayq.model.secrets import check_secrets, need_of
from relayq.model.selectors import check_group, check_labels, check_meta, check_name, check_text
from relayq.parsing import is_host_name
from relayq.privileges import as_owner
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.jobs import BATCH

#: Less than the store's own patience for an answer, and than what a job waits for ours.
_LONGEST_BLOCK = 2.5
#: With these a job waits for others.
_BLOCKING = frozenset({"jobs.wait", "logs.receive"})
#: Of up to 64 KiB each.
_PIECES = 16
#: What would have it read outcomes, or end jobs, that aren't its own.
_NOT_INSIDE = (
    "halts",
    "flow",
    "step",
    "uses",
    "is_template",
    "condition",
    "fans",
    "takes",
    "item_of",
)
_REPLY = re.compile(r"[0-9a-f]{16}")
#: An agent can do nothing with less than a cent.
_LEAST_BUDGET = 0.01


class Errands:
    """Runs what jobs ask, each as far as that job may."""

    def __init__(self, store: Store, signer: Signer, config: Config, host: str) -> None:
        self._store = store
        self._signer = signer
        self._config = config
        self._host = host
        # What is left of a budget mustn't be given out twice.
        self._submits = threading.Lock()

    def run(
        self, attempt: Attempt, verb: str, args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """Do what an attempt's job asks, and return what the store would; raises RelayqError."""
        part, _, name = verb.partition(".")
        if name not in passage.VERBS.get(part, ()):
            raise RelayqError(f"a job can't ask for {verb!r}")
        own = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        if verb in _BLOCKING:
            attempt.waited_at = clock.boottime()
        errand = _Errand(self, own)
        method: Callable[..., Any] = getattr(errand, f"{part}_{name}")
        try:
            return method(*args, **options)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise RelayqError(f"a job asked for {verb} in a wrong way: {error}") from error

    @property
    def store(self) -> Store:
        """The fleet's truth."""
        return self._store

    @property
    def signer(self) -> Signer:
        """What the fleet's key can do."""
        return self._signer

    def submit(self, parent: Spec, asked: Sequence[tuple[Any, str]]) -> list[str]:
        """Queue what a job asks for; returns the words of the store."""
        if len(asked) > BATCH:
            raise ValueError(f"at most {BATCH} jobs a call")
        for _, reply in asked:
            if reply:
                _check_reply(reply)
        # All are checked before the first is queued.
        specs = [self._child(parent, _checked(Spec.from_dict(raw))) for raw, _ in asked]
        with self._submits:
            pairs = zip(specs, asked, strict=True)
            return [self._submit(parent, spec, reply) for spec, (_, reply) in pairs]

    def _submit(self, parent: Spec, spec: Spec, reply: str) -> str:
        known = self._store.jobs.fetch_many([spec.id])
        if known:
            # Its answer was lost, and it asks again; or it made up an id that somebody has.
            mine = known[0].spec is not None and known[0].spec.ancestors == spec.ancestors
            return known[0].state.value if mine else "clash"
        spec = replace(spec, payload=self._within_budget(parent, spec))
        with as_owner():
            # Hosts that ask whose word it is take this host's, where they authorised it for that.
            own = load_identity(self._config.home)
        dispatcher = Dispatcher(self._store, self._signer.endorsing(own))
        specs, [*places] = dispatcher.locate(
            [spec],
            online_within=self._config.lease.length,
            balance=self._config.scheduler.balance,
            wait_for_host=True,
        )
        placed = dispatcher.submit(specs, replies=[reply], placements=places)[0]
        if placed.is_new:
            return placed.state.value
        found = self._store.jobs.fetch(placed.id)
        if not Kin(parent).has(found):
            raise RelayqError(
                f"another job has the unique key {spec.unique!r}, and isn't this one's"
            )
        return f"taken {placed.id} {placed.state.value}"

    def _child(self, parent: Spec, asked: Spec) -> Spec:
        """Return what was asked for as this parent may have it."""
        grant = granted(parent)
        grant.check(parent, asked)
        if asked.grant:
            raise RelayqError(
                f"what a job submits has the grant of that job, {parent.id}: it can't give another",
                hint="relayq run without --grant",
            )
        if beyond := [
            name for name in _NOT_INSIDE if getattr(asked, name) not in (None, False, (), {})
        ]:
            raise RelayqError(f"a job can't submit one with {beyond[0]}: only people can")
        if asked.files_in or asked.files_out:
            raise RelayqError(
                "files can't travel with a job that a job submits",
                hint="put them where both hosts see them, or have the output be the result",
            )
        if beyond := sorted({*asked.secrets} - {*parent.secrets}):
            raise RelayqError(
                f"{parent.id} wasn't given the secret {beyond[0]}, so it can't give it on",
                hint=f"relayq run --secret {beyond[0]}, for the job that submits",
            )
        kin = Kin(parent)
        others = [*asked.after, *asked.after_any, *([asked.with_job] if asked.with_job else [])]
        for other in others:
            if other != parent.id and not any(map(kin.has, self._store.jobs.fetch_many([other]))):
                raise _unknown(other)
        changes = narrowed(asked, grant.hosts, f"{parent.id} may submit to")
        own = [one for one in parent.labels if one.startswith(PRIVATE)]
        labels = tuple(dict.fromkeys([*asked.labels, *own]))
        for label in labels:
            if label.startswith(PRIVATE):
                so_far = replace(asked, **changes)
                changes |= self._kept_private(label.removeprefix(PRIVATE), so_far)
        return replace(
            asked,
            **changes,
            labels=labels,
            submitter=f"{parent.id}@{self._host}",
            ancestors=(*parent.ancestors, parent.id),
            grant=parent.grant,
            signed_at=int(clock.now()),
            timeout=self._config.defaults.timeout if asked.timeout is None else asked.timeout,
        )

    def _kept_private(self, label: str, asked: Spec) -> dict[str, Any]:
        """Return the changes that keep a job as private as the one that submits it."""
        kept = self._config.privacy.get(label)
        if kept is None:
            raise RelayqError(
                f"{self._host} doesn't know what is private as {label!r}: a job there can submit "
                "no such job",
                hint=f"privacy.{label} in the config.yml of {self._host}",
            )
        for account in asked.accounts if kept.agents else ():
            if account.partition("/")[0] not in kept.agents:
                raise RelayqError(
                    f"a job that is private as {label!r} is for {', '.join(kept.agents)} only, "
                    f"not for {account}"
                )
        return narrowed(asked, kept.hosts, f"a job that is private as {label!r} is for")

    def _within_budget(self, parent: Spec, asked: Spec) -> Mapping[str, Any]:
        """Return the payload of an agent with no more than is left of what its root may spend."""
        root = self._store.jobs.fetch(parent.root)
        budget = None if root.spec is None else root.spec.payload.get("budget")
        if not asked.accounts or not isinstance(budget, int | float):
            return asked.payload
        spent = (root.cost_usd or 0.0) + sum(map(_spends, families.descendants(self._store, root)))
        left = budget - spent
        if left < _LEAST_BUDGET:
            raise RelayqError(
                f"nothing is left of the budget of {root.id}: {spent:.2f} of {budget:.2f} USD are "
                "spent, or given to jobs that it submitted"
            )
        own = asked.payload.get("budget")
        return {**asked.payload, "budget": round(left if own is None else min(own, left), 4)}


class _Errand:
    """One question of one job; its methods are named as what they ask of the store."""

    def __init__(self, errands: Errands, own: Spec) -> None:
        self._errands = errands
        self._store = errands.store
        self._own = own
        self._kin = Kin(own)

    def _family(self) -> list[JobRecord]:
        return self._kin.among(self._store.jobs.fetch_many(self._store.jobs.family(self._own.root)))

    def _seen(self, id: str, *, itself: bool = True) -> str:
        """Return an id that this job may know, or raise as for one that doesn't exist."""
        if isinstance(id, str) and re.fullmatch(r"[0-9a-z]{12}", id):
            if id == self._own.id and itself:
                return id
            if any(map(self._kin.has, self._store.jobs.fetch_many([id]))):
                return id
        raise _unknown(id)

    def jobs_send(self, asked: Sequence[tuple[Any, str]]) -> list[str]:
        return self._errands.submit(self._own, asked)

    def jobs_fetch(self, id: str) -> JobRecord:
        return self._store.jobs.fetch(self._seen(id))

    def jobs_fetch_many(self, ids: Sequence[str]) -> list[JobRecord]:
        found = self._store.jobs.fetch_many([str(id) for id in ids])
        return [one for one in found if one.id == self._own.id or self._kin.has(one)]

    def jobs_find(self, text: str) -> str:
        return self._kin.find(str(text), self._family())

    def jobs_list(
        self, *, states: Any = None, host: str | None = None, limit: int = 50
    ) -> list[JobRecord]:
        wanted = None if states is None else {str(state) for state in states}
        return [
            one
            for one in self._family()
            if (wanted is None or one.state in wanted) and host in (None, one.host)
        ][:limit]

    def jobs_recent(self, limit: int) -> list[JobRecord]:
        return self._family()[:limit]

    def jobs_family(self, *roots: str) -> list[str]:
        return [one.id for one in self._family()] if self._own.root in roots else []

    def jobs_wait(self, ids: Sequence[str], *, patience: float) -> dict[str, bytes | None]:
        ids = [self._seen(id) for id in ids]
        return self._store.jobs.wait(ids, patience=min(patience, _LONGEST_BLOCK))

    def jobs_outcome(self, id: str) -> bytes | None:
        signed = self._store.jobs.outcome(self._seen(id))
        if signed is not None:
            self._errands.signer.check_outcome(signed, id=id)
        return signed

    def jobs_outcomes(self, ids: Sequence[str]) -> list[bytes | None]:
        return [self.jobs_outcome(id) for id in ids]

    def jobs_cancel(self, id: str) -> tuple[str, str | None]:
        return self._store.jobs.cancel(self._seen(id, itself=False))

    def jobs_cancel_all(self, ids: Sequence[str]) -> Sequence[tuple[str, str | None]]:
        return self._store.jobs.cancel_all([self._seen(id, itself=False) for id in ids])

    def lookup_select(self, texts: Sequence[str]) -> list[str]:
        return self._kin.select([str(text) for text in texts], self._family())

    def lookup_all(self, filters: Mapping[str, str]) -> list[str]:
        return self._kin.passing(filters, self._family())

    def lookup_narrow(self, ids: Sequence[str], filters: Mapping[str, str]) -> list[str]:
        return self._kin.passing(filters, self.jobs_fetch_many(ids))

    def logs_follow(self, id: str, reply: str) -> None:
        self._store.logs.follow(self._seen(id), _check_reply(reply))

    def logs_unfollow(self, id: str, reply: str) -> None:
        self._store.logs.unfollow(self._seen(id), _check_reply(reply))

    def logs_ack(self, reply: str, position: int) -> None:
        self._store.logs.ack(_check_reply(reply), int(position))

    def logs_receive(
        self, id: str, reply: str, *, patience: float, count: int = 16, **options: Any
    ) -> Any:
        return self._store.logs.receive(
            self._seen(id),
            _check_reply(reply),
            patience=min(patience, _LONGEST_BLOCK),
            count=min(count, _PIECES),
            **options,
        )

    def logs_read(self, id: str, attempt: int) -> Any:
        return self._store.logs.read(self._seen(id), int(attempt))

    def logs_ends(self, ids: Sequence[str]) -> Any:
        return self._store.logs.ends([self._seen(id) for id in ids])

    def inputs_send(self, id: str, piece: InputPiece) -> int:
        # A job has no key; that it may do this was looked at here.
        asked = self._seen(id, itself=False)
        return self._store.inputs.send(asked, signed_piece(self._errands.signer, asked, piece))

    def inputs_taken(self, id: str) -> int:
        return self._store.inputs.taken(self._seen(id, itself=False))

    def hosts_list(self, *, online_within: float) -> Any:
        return self._store.hosts.list(online_within=float(online_within))

    def hosts_ask(self, host: str, message: Mapping[str, Any]) -> None:
        if message.get("op") != "follow" or not is_host_name(host):
            raise RelayqError("a job may ask a host for an output, and for nothing else")
        self._seen(message["job"])
        _check_reply(message["reply"])
        self._store.hosts.ask(host, dict(message))

    def events_read(self, *, job: str, since: float | None = None, count: int | None = None) -> Any:
        return self._store.events.read(job=self._seen(job), since=since, count=count)


def _unknown(id: object) -> NoSuchJob:
    return NoSuchJob(
        f"no such job: {id} (a job knows those that it submitted)", hint="relayq ps, in this job"
    )


def _check_reply(reply: str) -> str:
    if not isinstance(reply, str) or not _REPLY.fullmatch(reply):
        raise RelayqError("a reply's name has 16 digits")
    return reply


def _spends(record: JobRecord) -> float:
    """Return what a job of an agent has cost, and while it isn't ended what it still may."""
    cost = record.cost_usd or 0.0
    budget = None if record.spec is None else record.spec.payload.get("budget")
    if record.state.is_final or not isinstance(budget, int | float):
        return cost
    return max(cost, float(budget))


def _checked(spec: Spec) -> Spec:
    """Return a spec in canonical order, or raise for one that `relayq.specs` would never make."""
    read = kinds.find(spec.kind).read_payload(spec.payload)
    if spec.accounts != tuple(getattr(read, "accounts", ())):
        raise RelayqError("a job's accounts are those of its agents")
    needed = {*getattr(read, "needs", ()), *map(need_of, check_secrets(spec.secrets))}
    if spec.git is not None:
        needed.add("git")
        if not spec.git or spec.git.startswith("-") or not spec.git.isprintable():
            raise RelayqError(f"not a commit, a branch or a tag: {spec.git!r}")
    if not needed <= {*spec.needs}:
        raise RelayqError("a job needs what its kind needs")
    if not re.fullmatch(r"[0-9a-hjkmnp-tv-z]{12}", spec.id):
        raise RelayqError("a job's id has 12 letters")
    for texts in (spec.after, spec.on, spec.needs, spec.excluded, spec.retry_on, spec.labels):
        if not all(isinstance(one, str) for one in texts):
            raise RelayqError("a spec's lists have texts")
    if spec.host is not None and not is_host_name(spec.host):
        raise RelayqError(f"no such host: {spec.host}")
    priority_number(spec.priority)
    check_labels(spec.labels)
    check_meta(spec.meta)
    for value, check in ((spec.name, check_name), (spec.group, check_group)):
        if value is not None:
            check(value)
    if spec.unique is not None:
        check_text("a unique key", spec.unique)
    found = constrain(
        on=spec.on,
        needs=spec.needs,
        excluded=spec.excluded,
        resources=spec.resources,
        prefer=spec.prefer,
        overflow=spec.overflow,
    )
    if "all" in (spec.host, *found.on):
        raise RelayqError("a job runs on one host")
    return replace(
        spec,
        on=found.on,
        needs=found.needs,
        excluded=found.excluded,
        resources=dict(found.resources),
        prefer=found.prefer,
        overflow=found.overflow,
    )
