"""Why a job is where it is, host by host, as values: what `relayq why` says.

Pure: the caller has looked (`Place` and the rest), and says how a duration reads (`span`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from relayq.model.accounts import Account, lines
from relayq.model.answers import WITH, Asked, HostAnswer, amount, answer
from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason
from relayq.model.placement import constraints_of
from relayq.parsing import size_text

#: An idle slot claims every few seconds: a job that waits longer is worth a remark.
_PATIENCE = 15.0
_NAMED = 3
_SIGKILL = 9
_PRIORITIES = {2: "low", 5: "normal", 8: "high", 10: "urgent"}
_SHELL_SAYS = {
    126: "which to a shell means: found, but not executable",
    127: "which to a shell means: command not found",
    137: "which to a shell means: killed by signal 9, often for want of memory",
    143: "which to a shell means: ended by a TERM signal",
}

_WHEN = {
    "failure": "it runs if one of them fails, else it is skipped",
    "always": "it runs however they end",
}

Span = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Place:
    """What the store knows around a job, at the instant `now` of its clock.

    `ahead` counts the jobs that are before it in its queue; `first` are some of them, the first
    one first. `deadline` is the end of a running job's lease or the instant of a lost one's
    verdict. `orphan` names the host where an attempt that was judged lost may still run.
    `accounts` are those that an agent's job may use.
    """

    now: float
    ahead: int = 0
    first: tuple[str, ...] = ()
    deadline: float | None = None
    orphan: str | None = None
    accounts: tuple[Account, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What else bears on a job: the hosts and what they run, the jobs that it comes after."""

    hosts: Sequence[Host] = ()
    running: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parents: Sequence[JobRecord] = ()
    outcome: Outcome | None = None
    crash_limit: int = 3
    #: The jobs that run on each host, where their kinds and resources count.
    taken: Mapping[str, Sequence[JobRecord]] = field(default_factory=dict)
    #: Why the whole fleet takes nothing more now, "" when it does.
    fleet: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is: a sentence, what bears on it, the hosts, what one may type."""

    summary: str
    facts: tuple[str, ...] = ()
    hosts: tuple[HostAnswer, ...] = ()
    options: tuple[str, ...] = ()


def _in_utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def explain(
    record: JobRecord, place: Place, scene: Scene, *, span: Span, when: Span = _in_utc
) -> Explanation:
    """Say why a job is where it is; `span` puts a duration into words, `when` an instant."""
    match record.state:
        case JobState.QUEUED:
            return _queued(record, place, scene, span, when)
        case JobState.WAITING:
            return _waiting(record, place, scene, span)
        case JobState.SCHEDULED:
            return _scheduled(record, place, scene, span, when)
        case JobState.RUNNING:
            return _running(record, place, scene, span)
        case JobState.LOST:
            return _lost(record, place, scene, span)
        case JobState.NEEDS_HUMAN:
            return _needs_human(record, place, scene)
    return _ended(record, place, scene, span)


# Not yet running


def _queued(record: JobRecord, place: Place, scene: Scene, span: Span, when: Span) -> Explanation:
    waits = place.now - record.created_at
    priority = _PRIORITIES.get(record.priority, str(record.priority))
    facts = [_position(place)]
    if record.losses:
        facts.append(
            f"its hosts were lost {_times(record.losses)}; the limit is {scene.crash_limit}"
        )
    if record.failures:
        facts.append(f"{_times(record.failures)} it failed, and was due for another attempt")
    closed = lines(place.accounts, place.now, when)
    facts += closed
    asked = Asked(
        record,
        place.now,
        place.ahead,
        running=scene.running,
        taken=scene.taken,
        fleet=scene.fleet or (closed[0] if closed else ""),
    )
    answers = tuple(answer(host, asked, span) for host in scene.hosts)
    serving = [answer for answer in answers if answer.answer != "no"]
    return Explanation(
        summary=f"is queued for {span(waits)} (priority {priority}, for {_target(record)})",
        facts=tuple([*facts, *_expiry(record, place, span), *_nobody(record, scene)]),
        hosts=answers,
        options=tuple(_queued_options(record, place, serving, waits)),
    )


def _position(place: Place) -> str:
    if not place.ahead:
        return "it is the first in its queue"
    named = ", ".join(place.first[:_NAMED]) + (", ..." if place.ahead > _NAMED else "")
    return f"{_number(place.ahead, 'job')} ahead of it, by priority and time: {named}"


def _nobody(record: JobRecord, scene: Scene) -> Iterator[str]:
    if not scene.hosts:
        yield "no host has ever registered with this broker"
        return
    known = {name for host in scene.hosts for name in (host.name, *host.aliases)}
    if record.queue.startswith("host.") and _meant(record) not in known:
        yield f"no host called {_meant(record)} has ever registered"


def _expiry(record: JobRecord, place: Place, span: Span) -> Iterator[str]:
    if record.expires_at is not None and not record.attempt:
        yield f"it fails if nobody takes it in {span(max(0.0, record.expires_at - place.now))}"


def _queued_options(
    record: JobRecord, place: Place, serving: Sequence[HostAnswer], waits: float
) -> Iterator[str]:
    by = {answer.answer for answer in serving}
    if record.queue.startswith(WITH):
        yield f"relayq why {record.queue.removeprefix(WITH)}"
    elif "takes it" not in by and "busy" not in by:
        yield from _remedies(serving)
        if record.queue != "any":
            yield f"relayq move {record.id} HOST"
    if place.ahead:
        yield f"relayq move {record.id} --prio urgent"
    if "takes it" in by and not place.ahead and waits > _PATIENCE:
        yield "relayq doctor"
    yield f"relayq cancel {record.id}"


def _remedies(serving: Sequence[HostAnswer]) -> Iterator[str]:
    """Say what would have one of the hosts take the job that could, but don't now."""
    offline = [one.host for one in serving if one.answer == "offline"]
    barred = [one for one in serving if one.answer == "not now"]
    for one in barred[:_NAMED]:
        if one.why.startswith("drain"):
            yield f"relayq hosts undrain {one.host}"
    if offline or not barred:
        on = f" (on {' or '.join(offline[:_NAMED])})" if offline else ""
        yield f"relayq worker start{on}"


def _waiting(record: JobRecord, place: Place, scene: Scene, span: Span) -> Explanation:
    known = {parent.id: parent for parent in scene.parents}
    spec = record.spec
    named = () if spec is None else (*spec.after, *spec.after_any)
    after = tuple(dict.fromkeys(record.fanned or named or tuple(known)))
    open_ones = [id for id in after if id not in known or not known[id].state.is_final]
    facts = [
        f"{id} is {known[id].state.value}{_on(known[id])}" if id in known else f"{id} is forgotten"
        for id in open_ones
    ]
    of = f"{len(open_ones)} of {_number(len(after), 'job')}"
    them = "became" if record.fanned else "comes after"
    if spec is not None and spec.when != "success" and not record.fanned:
        facts.append(_WHEN[spec.when])
    return Explanation(
        summary=f"waits for {of} that it {them}, since {span(place.now - record.created_at)}",
        facts=tuple(facts),
        options=tuple(
            [*(f"relayq why {id}" for id in open_ones[:_NAMED]), f"relayq cancel {record.id}"]
        ),
    )


def _scheduled(
    record: JobRecord, place: Place, scene: Scene, span: Span, when: Span
) -> Explanation:
    due = "soon" if record.due_at is None else f"in {span(record.due_at - place.now)}"
    cancel = f"relayq cancel {record.id}"
    if not record.attempt:
        return Explanation(
            summary=f"has a start time: due {due}, for {_target(record)}", options=(cancel,)
        )
    why = in_words(record, scene.outcome, span)
    retries = record.spec.retries if record.spec else 0
    if record.reason in (Reason.HOST, Reason.LOST):
        number = f"after {_times(record.losses)} of {scene.crash_limit} that a host couldn't"
    elif record.account is not None:
        number = f"{record.account} goes on then"
    else:
        number = f"retry {record.failures} of {retries}"
    return Explanation(
        summary=f"is tried again {due}: {number}",
        facts=(
            f"attempt {record.attempt}{_on(record)} ended: {why}",
            *lines(place.accounts, place.now, when),
        ),
        options=(f"relayq logs {record.id}", cancel),
    )


# Running or lost


def _running(record: JobRecord, place: Place, scene: Scene, span: Span) -> Explanation:
    is_started = record.phase == "started"
    since = (record.started_at if is_started else record.claimed_at) or record.created_at
    doing = "runs" if is_started else "was claimed, and starts with the first answered beat,"
    facts = list(_heard(record, place, scene, span))
    if record.question is not None:
        facts.insert(0, f"it asks a person: {record.question}")
    if place.deadline is not None:
        facts.append(f"its lease ends in {span(place.deadline - place.now)}; each beat renews it")
    if record.spec and record.spec.timeout and is_started:
        facts.append(f"its time limit is {span(record.spec.timeout)}")
    options = [f"relayq logs -f {record.id}", f"relayq cancel {record.id}"]
    if record.question is not None:
        options.insert(0, f"relayq answer {record.id} TEXT")
    if record.paused is not None:
        doing = "stands still"
        since = record.paused_at or since
        facts.insert(0, f"its processes stand still: {record.paused}")
        facts.append("its time limit's clock stands still, too, and its lease goes on")
        options.insert(0, f"relayq resume {record.id}" if record.pause_at else "relayq status")
    elif record.pause_at is not None:
        facts.append("somebody asked for a pause; its host obeys at its next beat")
    if record.cancel_at is not None:
        facts.append(
            f"it was cancelled {span(place.now - record.cancel_at)} ago; its host obeys "
            "at its next beat at the latest"
        )
        options = [f"relayq wait {record.id}"]
    return Explanation(
        summary=f"{doing}{_on(record)} for {span(place.now - since)}, attempt {record.attempt}",
        facts=tuple(facts),
        options=tuple(options),
    )


def _lost(record: JobRecord, place: Place, scene: Scene, span: Span) -> Explanation:
    rule = record.spec.on_lost if record.spec else "retry"
    verdict = {
        "retry": "queued again" if record.losses + 1 < scene.crash_limit else "failed",
        "ask": "a question to you (relayq review)",
        "fail": "failed",
    }[rule]
    if record.cancel_at is not None:
        verdict = "cancelled, as was asked"
    when = "soon" if place.deadline is None else f"in {span(place.deadline - place.now)}"
    return Explanation(
        summary=f"is lost: its lease{_on(record)} ran out",
        facts=(
            *_heard(record, place, scene, span),
            f"the verdict falls {when}: {verdict} (on lost: {rule}, lost {_times(record.losses)} "
            f"before, limit {scene.crash_limit})",
            "if its host is heard of before that, the job goes on as if nothing had been",
        ),
        options=("relayq status", f"relayq cancel {record.id}"),
    )


def _heard(record: JobRecord, place: Place, scene: Scene, span: Span) -> Iterator[str]:
    for host in scene.hosts:
        if host.name == record.host:
            word = "online" if host.is_online else "offline"
            yield f"{host.name} is {word}, last heard of {span(place.now - host.seen_at)} ago"


# Parked or ended


def _needs_human(record: JobRecord, place: Place, scene: Scene) -> Explanation:
    facts = []
    options = ["relayq review"]
    if record.question is not None:
        facts.append(f"it asks: {record.question}")
        facts += [f"choice {n}: {choice}" for n, choice in enumerate(record.choices, 1)]
        options.append(f"relayq answer {record.id} TEXT")
    if record.reason == Reason.LOST:
        facts.append(f"its host was lost{_on(record)}, and the job says: on lost, ask")
        if place.orphan:
            facts.append(f"an attempt may still run on {place.orphan}, which hasn't reported since")
    elif scene.outcome is not None and scene.outcome.error:
        facts.append(scene.outcome.error)
    if record.note:
        facts.append(record.note)
    return Explanation(
        summary=f"waits for a person ({record.reason})",
        facts=tuple(facts),
        options=(
            *options,
            f"relayq logs {record.id}",
            f"relayq resolve {record.id} done|pending|failed --notes TEXT",
            f"relayq cancel {record.id}",
        ),
    )


def _ended(record: JobRecord, place: Place, scene: Scene, span: Span) -> Explanation:
    ran = f" after {span(record.duration)}" if record.duration is not None else ""
    ago = "" if record.finished_at is None else f", {span(place.now - record.finished_at)} ago"
    facts = []
    if record.state is JobState.CANCELLED and record.reason != Reason.HALTED:
        facts.append(f"a person cancelled it{ago}")
    else:
        facts.append(in_words(record, scene.outcome, span) + ago)
    facts += [f"{p.id} {p.state.value}" for p in scene.parents if p.state != JobState.SUCCEEDED]
    if record.losses:
        facts.append(f"its hosts were lost {_times(record.losses)} of {scene.crash_limit}")
    if place.orphan:
        facts.append(f"an attempt may still run on {place.orphan}, which hasn't reported since")
    if scene.outcome is not None and scene.outcome.dropped_bytes:
        facts.append(
            f"{scene.outcome.dropped_bytes} bytes of its output were lost: the disk of "
            f"{scene.outcome.host} was full"
        )
    if scene.outcome is not None:
        facts += scene.outcome.remarks
    if record.note:
        facts.append(f"note: {record.note}")
    look = "logs" if record.attempt else "show"
    return Explanation(
        summary=f"{record.state.value}{ran}{_on(record)}",
        facts=tuple(facts),
        options=(f"relayq {look} {record.id}", f"relayq retry {record.id}"),
    )


def in_words(record: JobRecord, outcome: Outcome | None, span: Span) -> str:
    """Say how the last attempt ended, in the words that a person would use."""
    error = outcome.error if outcome is not None and outcome.error else ""
    match record.reason:
        case Reason.EXIT:
            said = _SHELL_SAYS.get(record.exit_code or 0)
            return (
                f"its command ended with exit code {record.exit_code}{said and f', {said}' or ''}"
            )
        case Reason.SIGNAL if record.signal == _SIGKILL:
            return (
                "signal 9 ended its command, and relayq didn't send it: often the kernel, for want "
                f"of memory (journalctl -k{_on(record)})"
            )
        case Reason.SIGNAL:
            return f"signal {record.signal} ended its command, and relayq didn't send it"
        case Reason.TIMEOUT:
            limit = record.spec.timeout if record.spec else None
            return "its time limit ended it" + (f", {span(limit)}" if limit else "")
        case Reason.OOM:
            memory = record.spec.memory if record.spec else None
            of = f" of {size_text(memory)}" if memory else ""
            return f"it needed more than its memory limit{of} (--memory)"
        case Reason.OUTPUT:
            most = record.spec.max_output if record.spec else None
            of = f" of {size_text(most)}" if most else ""
            return f"its output passed its limit{of} (--max-output), up to which it is kept"
        case Reason.LOST:
            return "its host went away while it ran, and its policy allows no further attempt"
        case Reason.REFUSED:
            return f"{error or 'its spec was refused'} (see relayq doctor)"
        case Reason.UPSTREAM:
            return "a job that it comes after didn't succeed"
        case Reason.SKIPPED:
            return "it was skipped: its condition wasn't true, or a job before it was skipped"
        case Reason.HALTED:
            name = f" (halt {record.halted})" if record.halted else ""
            return f"it was ended with others of its kin{name}, as was asked"
        case Reason.EXPIRED:
            return "nobody took it in time"
        case Reason.USER:
            return "a person decided so"
        case Reason.SPAWN:
            return f"it couldn't be started: {error or 'its host said no more'}"
        case Reason.HOST:
            return f"its host couldn't start it: {error or 'it said no more'}"
        case Reason.FILES:
            return f"its files aren't all there: {error or 'its host said no more'}"
    return f"{record.reason}{error and f': {error}'}"


def _target(record: JobRecord) -> str:
    return _meant(record) if record.queue == "any" else _queue_in_words(record)


def _queue_in_words(record: JobRecord) -> str:
    sort, _, text = record.queue.partition(".")
    if sort == "with":
        return f"the host of {text}"
    if sort != "needs":
        return text
    asked = constraints_of(record.queue)
    accounts = [" or ".join(asked.accounts)] if asked.accounts else []
    has = [
        *asked.needs,
        *accounts,
        *(amount(name, count) for name, count in asked.resources.items()),
    ]
    named = " or ".join(asked.on) or "any host"
    what = f" with {' and '.join(has)}" if has else ""
    return f"{named}{what}{_but(asked.excluded)}"


def _but(excluded: Sequence[str]) -> str:
    return f", but not {' or '.join(excluded)}" if excluded else ""


def _meant(record: JobRecord) -> str:
    sort, _, text = record.queue.partition(".")
    return text if sort == "host" else "any host"


def _on(record: JobRecord) -> str:
    return f" on {record.host}" if record.host else ""


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
