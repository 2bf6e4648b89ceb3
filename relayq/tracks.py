"""A shard of an analysis on its way: its session, how far that is, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from relayq.agents.answers import Answer as AgentAnswer
from relayq.model import findings, reports
from relayq.model.analyses import Standing, Step
from relayq.model.jobs import JobRecord, JobState, Outcome
from relayq.model.shards import Shard

if TYPE_CHECKING:
    from relayq.store.progress import Sight

#: What a report calls it.
_STATES = {
    Standing.WAITING: "queued",
    Standing.PARKED: "queued",
    Standing.RUNNING: "running",
    Standing.DONE: "succeeded",
    Standing.ASKS: "needs_human",
    Standing.CANCELLED: "cancelled",
}


@dataclass
class Track:
    """One shard, its session, and how far that is.

    `until` is when it goes on by itself, if it is parked; `is_missing` says that there is no such
    job, yet or any more, `step` what is to be done when there is room.
    """

    shard: Shard
    job: str
    standing: Standing = Standing.WAITING
    sight: Sight | None = None
    record: JobRecord | None = None
    answer: findings.Answer | None = None
    session_id: str | None = None
    host: str | None = None
    seconds: float = 0.0
    cost_usd: float | None = None
    tokens: int = 0
    attempts: int = 0
    ended_at: float | None = None
    raw: str = ""
    why: str = ""
    until: float | None = None
    is_missing: bool = False
    step: Step = Step.NOTHING
    parts: list[Track] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The shard's name."""
        return self.shard.name

    @property
    def is_under_way(self) -> bool:
        """Whether there is a job of it that hasn't ended."""
        is_pending = self.is_missing or self.step is Step.RESUME
        return not self.standing.is_over and not is_pending

    def row(self) -> reports.ShardRun:
        """Return what a report says of it."""
        answer = self.answer
        return reports.ShardRun(
            name=self.name,
            files=len(self.shard.files),
            state=_STATES.get(self.standing, "failed"),
            host=self.host or (self.sight.host if self.sight else None),
            job=self.job,
            session=self.session_id,
            analysed=len(answer.analysed) if answer and self.standing is Standing.DONE else 0,
            issues=len(answer.issues) if answer else 0,
            duration=self.seconds or None,
            cost_usd=self.cost_usd,
            tokens=self.tokens,
            attempts=self.attempts,
            why=self.why,
        )

    def contents(self) -> dict[str, str]:
        """Return the hashes of what its session read: of what travelled, else of the plan."""
        planned = {one.path: one.sha256 for one in self.shard.files}
        spec = self.record.spec if self.record is not None else None
        sent: Sequence[Mapping[str, Any]] = spec.files_in if spec is not None else ()
        return planned | {one["dest"]: one["sha256"] for one in sent if one.get("sha256")}

    def become(self, other: Track) -> None:
        """Take over all that is known of another one."""
        self.__dict__.update(other.__dict__)

    def leaves(self) -> Iterator[Track]:
        """Yield it, or those that took it over."""
        if self.standing is not Standing.HALVED:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def all(self) -> Iterator[Track]:
        """Yield it and those that took it over."""
        yield self
        for part in self.parts:
            yield from part.all()


def answer_of(outcome: Outcome | None) -> AgentAnswer | None:
    """Return what an agent came to, None if there is none or it can't be read."""
    if outcome is None or not isinstance(outcome.result, dict):
        return None
    try:
        return AgentAnswer.from_dict(outcome.result)
    except (KeyError, ValueError, TypeError):
        return None


def why_undone(record: JobRecord, outcome: Outcome | None, agent: AgentAnswer | None) -> str:
    """Say in a few words why a session isn't done."""
    if record.state is JobState.SUCCEEDED:
        return ""
    if record.state is JobState.NEEDS_HUMAN:
        return record.question or "it asks a person"
    if agent is not None and agent.error_class is not None:
        return f"{agent.error_class}: {agent.message}" if agent.message else str(agent.error_class)
    said = outcome.error if outcome is not None else None
    return said or str(record.reason or record.state.value)
