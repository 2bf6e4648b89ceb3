"""Jobs that wait for a person's word: those that stopped with a question, and those that failed.

Reads what is known and returns; the words themselves (resolve, retry, cancel) are `JobResult`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relayq.agentjobs import AGENT_KINDS, answer_of, choices_of
from relayq.client import Job
from relayq.errors import BadSignature
from relayq.model.ends import failure
from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason
from relayq.model.output import split
from relayq.model.retries import is_dead
from relayq.model.reviews import has_rebooted, last_line, may_still_run
from relayq.results import JobResult
from relayq.session import Session


@dataclass(frozen=True, slots=True)
class Review:
    """A job that waits for a person, or runs and asks one.

    `question` says for what, `choices` what can be answered, in the order of their numbers;
    `rebooted` whether its host has started anew since (None: unknown), `may_run` whether an attempt
    of it may still go on there, `host_seen_at` when the host was last heard of. Of one that
    `is_asked` the question is its own, and wants an answer; else it wants a verdict.
    """

    record: JobRecord
    question: str
    choices: tuple[str, ...]
    last_line: str
    host_seen_at: float | None
    rebooted: bool | None
    may_run: bool
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed; `is_dead` if its hosts did, and not its command."""

    record: JobRecord
    why: str
    last_line: str
    is_dead: bool
    advice: str


def waiting(job: Job, *, limit: int = 100) -> Sequence[Review]:
    """Return the jobs that wait for a person, or run and ask one; the longest waiting first."""
    session = job.relay.session()
    asking = session.store.jobs.fetch_many(session.store.questions.asking(limit))
    parked = job.list(state=JobState.NEEDS_HUMAN, limit=limit)
    records = [*parked, *(one for one in asking if one.question and one.state.is_waitable)]
    records.sort(key=lambda one: one.asked_at or one.finished_at or one.created_at)
    hosts = {host.name: host for host in session.store.hosts.list(online_within=0)}
    ends = _ends(session, records)
    return [
        _review(record, hosts.get(record.host or ""), outcome, line)
        for record, (outcome, line) in zip(records, ends, strict=True)
    ][:limit]


def _review(record: JobRecord, host: Host | None, outcome: Outcome | None, line: str) -> Review:
    return Review(
        record=record,
        question=_question(record, outcome),
        choices=tuple(choice.label for choice in choices_of(record, outcome)),
        is_asked=bool(record.question),
        last_line=line,
        host_seen_at=host.seen_at if host else None,
        rebooted=has_rebooted(record, host),
        may_run=may_still_run(record, host),
    )


def _question(record: JobRecord, outcome: Outcome | None) -> str:
    if record.question:
        return record.question
    if record.reason == Reason.LOST:
        return "its host was lost while it ran: is it done, or to run again?"
    if outcome is not None and outcome.error:
        return outcome.error
    return record.reason or "it waits for a person"


def failures(
    job: Job,
    *,
    since: float | None = None,
    dead: bool = False,
    limit: int = 50,
) -> Sequence[Failure]:
    """Return the newest failed jobs: those that failed since an instant, or only the dead ones."""
    # Both are few among the failed ones at times, so a page of them may have none.
    found = job.list(state=JobState.FAILED, limit=limit if since is None and not dead else 10_000)
    records = [
        record
        for record in found
        if (since is None or (record.finished_at or 0) >= since) and (is_dead(record) or not dead)
    ][:limit]
    ends = _ends(job.relay.session(), records)
    return [
        Failure(record, failure(record, outcome), line, is_dead(record), _advice(record))
        for record, (outcome, line) in zip(records, ends, strict=True)
    ]


def only_failed(
    job: Job, results: Sequence[JobResult], *, dead: bool = False
) -> Sequence[JobResult]:
    """Return those of the jobs that failed, or only those whose hosts did."""
    jobs = job.relay.session().store.jobs
    records = {record.id: record for record in jobs.fetch_many(one.id for one in results)}
    return [
        one
        for one in results
        if (record := records.get(one.id)) is not None
        and record.state is JobState.FAILED
        and (is_dead(record) or not dead)
    ]


def _advice(record: JobRecord) -> str:
    """Return the command to type, as it stands after `relayq`."""
    if record.kind in AGENT_KINDS and record.reason == Reason.AUTH:
        agent = (record.account or "AGENT").partition("/")[0]
        return f"agent login {record.host} {agent}"
    match record.reason:
        case Reason.UPSTREAM:
            return f"show {record.id}"
        case Reason.LOST | Reason.HOST:
            return f"retry --dead {record.id}"
        case Reason.REFUSED | Reason.AUTH:
            return f"show {record.id}"
        case Reason.EXIT if record.exit_code in (126, 127):
            return f"logs {record.id}"
    if record.kind == "run_batch":
        return f"map --resume-failed {record.spec.group if record.spec else ''}"
    return f"retry {record.id}"


def _ends(session: Session, records: Sequence[JobRecord]) -> Sequence[tuple[Outcome | None, str]]:
    """Return each job's outcome, if its last attempt has one, and the last line of its output."""
    ids = [record.id for record in records]
    signed = session.store.jobs.outcomes(ids)
    pieces = session.store.logs.ends(ids)
    ends: list[tuple[Outcome | None, str]] = []
    for record, raw, piece in zip(records, signed, pieces, strict=True):
        outcome = _checked(session, record, raw)
        if outcome is not None and outcome.is_whole:
            frames = split(outcome.output)[0]
        else:
            frames = split(piece.frames)[0] if piece and piece.attempt == record.attempt else []
        answer = answer_of(record, outcome)
        # The transcript ends with figures.
        said = [line.strip() for line in answer.text.splitlines() if line.strip()] if answer else []
        ends.append((outcome, said[-1] if said else last_line(frames)))
    return ends


def _checked(session: Session, record: JobRecord, signed: bytes | None) -> Outcome | None:
    try:
        outcome = session.signer.check_outcome(signed, id=record.id) if signed else None
    except BadSignature:
        # One forged outcome mustn't hide the other jobs; `show` says what is wrong with it.
        return None
    return outcome if outcome is not None and outcome.attempt == record.attempt else None
