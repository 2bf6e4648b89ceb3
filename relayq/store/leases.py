"""Leases: claim, beat, finish, release, lose, and the tick that lets time pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from relayq.model.accounts import AccountPause, Usage
from relayq.model.jobs import JobState, Token
from relayq.model.moves import ENDS
from relayq.model.sessions import Session
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Registration:
    """Who speaks for a host: its name, the install's uuid, the boot's id.

    `session` is new at each registration: a claim that a cut link delivers late is refused by it.
    """

    host: str
    install: str
    boot: str
    session: str = ""


@dataclass(frozen=True, slots=True)
class Times:
    """The lease's times for the whole fleet.

    After `gap` seconds in which nobody ticked, nothing expires for one lease-length.
    """

    lease: float
    lost_min: float
    lost_max: float
    crash_limit: int
    gap: float


@dataclass(frozen=True, slots=True)
class Keep:
    """How long ended jobs are kept, and how many of them."""

    age: float
    jobs: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that was given to a slot; `replies` are followers that want its live output.

    `failures` and `losses` are the record's counts of the attempts before this one. `account` is
    what an agent's job is to use, empty for others. `fanned` are the jobs that it became: they have
    ended, and it is claimed to collect what they did. `answer` is a person's signed reply to what
    the job asked, and `outcome` then that of the last attempt that ended: a reply older than that
    was heard already. Nothing of it but what is signed can be trusted.
    """

    token: Token
    signed: bytes
    failures: int
    losses: int
    replies: tuple[str, ...]
    queue: str = ""
    account: str = ""
    answer: bytes | None = None
    outcome: bytes | None = None
    fanned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Further:
    """What else the end of an attempt says.

    The job goes on in `queue`, if one is given, and after `overflow` seconds in the queue `wide`.
    `question` and `choices` are for the person that it waits for. `pause` is of the account that it
    used; `usage` and `session` are what this attempt adds.
    """

    queue: str = ""
    wide: str = ""
    overflow: float | None = None
    question: str = ""
    choices: Sequence[str] = ()
    pause: AccountPause | None = None
    usage: Usage | None = None
    session: Session | None = None

    def as_json(self, due_at: float | None) -> str:
        """Return it as the script takes it, "" for nothing."""
        said: dict[str, Any] = {}
        if due_at is not None:
            said["due_at"] = due_at
        if self.queue:
            said["queue"] = self.queue
            if self.overflow is not None and self.wide not in ("", self.queue):
                said |= {"wide": self.wide, "overflow": f"{self.overflow:.6f}"}
        if self.question:
            said |= {"question": self.question, "choices": json.dumps([*self.choices])}
        if self.pause is not None:
            said["pause"] = _pause(self.pause)
        if self.usage is not None:
            said["usage"] = {
                "cost": micro(self.usage.cost_usd),
                "has_cost": self.usage.cost_usd is not None,
                "input": self.usage.input,
                "output": self.usage.output,
            }
        if self.session is not None:
            said["session"] = packed(self.session)
        return json.dumps(said) if said else ""


def micro(cost: float | None) -> int:
    """Return a cost in whole millionths: sums of these don't drift."""
    return 0 if cost is None else round(cost * 1_000_000)


def packed(session: Session) -> dict[str, Any]:
    """Return a session as the scripts take it."""
    return asdict(session) | {"cost": micro(session.cost_usd)}


def _pause(pause: AccountPause) -> dict[str, Any]:
    if (pause.until is None) == (pause.seconds is None):
        raise ValueError("a pause has either an end or a length")
    ends = {"ends": pause.until} if pause.seconds is None else {"seconds": pause.seconds}
    slows = {"slows": True} if pause.slows else {}
    return {"account": pause.account, "reason": pause.reason, **ends, **slows}


_NOTHING = Further()


@dataclass(frozen=True, slots=True)
class Registry:
    """The queues of needs at a version; what the fleet says of a host, and its former names.

    `labels` and `capabilities` are overlays over what the host itself says: `+heavy,-slow`.
    """

    version: str
    queues: tuple[str, ...]
    labels: str
    names: tuple[str, ...] = ()
    capabilities: str = ""


class Leases:
    """The right of running attempts to their jobs."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def claim(
        self,
        who: Registration,
        queues: Sequence[str],
        *,
        uid: str,
        lease: float,
        nudged: bool = False,
        wants: Sequence[str] = (),
        registry: str = "",
        max_running: int = 0,
        patience: float | None = None,
        key_id: str = "",
    ) -> Claim | str:
        """Take the first job of these queues, or say why there is none.

        "none"; "replaced"; "barred": the host is drained or paused; "full": the whole fleet runs
        `max_running` jobs; "queues": there are other queues of needs than in version `registry`;
        "key": the fleet's key isn't the one called `key_id`, if that is said.
        `wants` has for each queue what its jobs take of the host, after a "!" if that isn't free;
        after `patience` seconds, by default a lease, others no longer get it before such a job.
        `nudged` says that a nudge was taken off a queue for this claim.
        """
        rest = [part for pair in zip_longest(queues, wants, fillvalue="") for part in pair]
        word = b"again"
        while word in (b"again", b"unfit"):
            answer = self._scripts.call(
                "claim",
                rest,
                host=who.host,
                install=who.install,
                boot=who.boot,
                session=who.session,
                uid=uid,
                lease=lease,
                nudged="1" if nudged else "",
                registry=registry,
                max_running=max_running,
                patience=lease if patience is None else patience,
                key_id=key_id,
            )
            word = answer[0]
            if word == b"unfit":
                self._scripts.call("give_up", answer[1:])
        if word != b"claimed":
            return str(word.decode())
        _, id, attempt, signed, failures, losses, *told = answer
        queue, account, reply, outcome, fanned, *replies = told
        return Claim(
            token=Token(id.decode(), int(attempt), uid),
            signed=signed or b"",
            failures=int(failures),
            losses=int(losses),
            replies=tuple(one.decode(errors="replace") for one in replies),
            queue=queue.decode(),
            account=account.decode(),
            answer=reply or None,
            outcome=outcome or None,
            fanned=tuple(fanned.decode(errors="replace").split()),
        )

    def registry(self, host: str) -> Registry:
        """Return the queues of needs that there are, and what the fleet says of this host."""
        pipe = self._connection.pipeline(transaction=False)
        # The version first: what is newer is heard of by the next claim.
        pipe.hget(self._keys("meta"), "queues")
        pipe.zrange(self._keys("queues"), 0, -1)
        pipe.hmget(self._keys("host", host), "labels", "was", "caps")
        with broker_errors():
            version, queues, (labels, names, capabilities) = pipe.execute()
        return Registry(
            version=(version or b"0").decode(),
            queues=tuple(queue.decode(errors="replace") for queue in queues),
            labels=(labels or b"").decode(),
            names=tuple(names.decode().split(",")) if names else (),
            capabilities=(capabilities or b"").decode(),
        )

    def beat(
        self,
        who: Registration,
        tokens: Iterable[tuple[Token, str]],
        *,
        lease: float,
        load: str = "",
    ) -> tuple[str, list[str]]:
        """Renew the leases of these (token, phase) pairs; with `load`, the host's heartbeat too.

        `load` is JSON: what changes from beat to beat.

        Returns "ok", "replaced" or "unregistered", and for each token "ok", "cancel" or "stale".
        A phase "started" marks the attempt as started: its process may start once that was
        answered "ok".
        """
        rest: list[str | int] = []
        for token, phase in tokens:
            rest += [token.id, token.attempt, token.uid, phase]
        answer = self._scripts.call(
            "beat",
            rest,
            host=who.host,
            install=who.install,
            boot=who.boot,
            lease=lease,
            load=load,
        )
        word, *words = (part.decode() for part in answer)
        return word, words

    def park(
        self, who: Registration, tokens: Iterable[Token], *, duration: float
    ) -> tuple[str, list[str]]:
        """Lengthen the leases of a worker that stops on purpose.

        Returns "ok" or "replaced", and for each token "ok", "cancel" or "stale": what isn't ok
        must be ended before the permit is made longer.
        """
        rest: list[str | int] = []
        for token in tokens:
            rest += [token.id, token.attempt, token.uid]
        answer = self._scripts.call(
            "park", rest, host=who.host, install=who.install, duration=duration
        )
        word, *words = (part.decode() for part in answer)
        return word, words

    def finish(
        self,
        token: Token,
        state: JobState,
        *,
        reason: str,
        outcome: bytes,
        template: str,
        exit_code: int | None = None,
        signal: int | None = None,
        delay: float | None = None,
        until: float | None = None,
        counts: str = "",
        further: Further = _NOTHING,
    ) -> str:
        """End an attempt; for the state scheduled its retry is due in `delay` seconds, or `until`.

        `counts` names the count of the record that it adds to: "failures", "losses", or none.

        Returns the state that the job now has (cancelled if that was asked first), "already"
        for a repeat, "stale" when the lease moved on (the outcome is kept beside the record),
        or "gone".
        """
        if state not in ENDS:
            raise ValueError(f"an attempt can't end as {state}")
        if state is JobState.SCHEDULED and (delay is None) == (until is None):
            raise ValueError("a retry has either a delay or an instant")
        answer = self._scripts.call(
            "finish",
            template=template,
            id=token.id,
            attempt=token.attempt,
            uid=token.uid,
            state=state,
            reason=reason,
            exit="" if exit_code is None else exit_code,
            signal="" if signal is None else signal,
            due="" if delay is None else delay,
            counts=counts,
            outcome=outcome,
            further=further.as_json(until),
        )
        return str(answer.decode())

    def expand(self, token: Token, children: Sequence[str], *, template: str) -> str:
        """Have a running job wait for jobs that it has become: until they have ended, however.

        Then it is queued again, and its claim says which those are.

        Returns "waiting"; "queued" when they have ended already; "cancelled", if that was asked
        first, with all of them; "already" for a repeat; "no_child" when one of them isn't stored;
        "stale" or "gone".
        """
        if not children:
            raise ValueError("a job that becomes no other ones has nothing to wait for")
        answer = self._scripts.call(
            "expand",
            list(children),
            template=template,
            id=token.id,
            attempt=token.attempt,
            uid=token.uid,
        )
        return str(answer.decode())

    def release(self, token: Token, *, template: str) -> str:
        """Give a claimed job back to its queue, uncounted; nothing of it may be left."""
        answer = self._scripts.call(
            "release", template=template, id=token.id, attempt=token.attempt, uid=token.uid
        )
        return str(answer.decode())

    def lose(self, token: Token, *, template: str, crash_limit: int) -> str:
        """Report that nothing is left of an attempt: the verdict falls at once."""
        answer = self._scripts.call(
            "lose",
            template=template,
            id=token.id,
            attempt=token.attempt,
            uid=token.uid,
            crash_limit=crash_limit,
        )
        return str(answer.decode())

    def tick(
        self,
        times: Times | None = None,
        *,
        template: str,
        keep: Keep | None = None,
        limit: int = 100,
    ) -> list[tuple[str, str]]:
        """Do what time asks for; returns (word, id) pairs.

        Words are expired, judged, due, widened, unclaimed, pruned, and given_up: its record allows
        nothing else; of schedules whose turn it
        is "recurs" with the name, and "comes" with the seconds until the next one's within 60 s.

        Without `times` those count that a worker used last: who only waits mustn't change them.
        Without `keep` nothing is pruned. Each sort of thing is done for `limit` jobs at most.
        """
        answer = self._scripts.call(
            "tick",
            template=template,
            lease="" if times is None else times.lease,
            lost_min="" if times is None else times.lost_min,
            lost_max="" if times is None else times.lost_max,
            crash_limit="" if times is None else times.crash_limit,
            gap="" if times is None else times.gap,
            keep="" if keep is None else keep.age,
            keep_jobs="" if keep is None else keep.jobs,
            limit=limit,
        )
        words = [part.decode(errors="replace") for part in answer]
        return list(zip(words[::2], words[1::2], strict=True))
