"""An analysis, harvested: what became of each shard, what is to be done about it, and the whole.

Everything here can be repeated, by anybody who knows the run: what a session came to is in its
job's signed outcome, and a session that takes over a part of another one has an id that follows
from it. So a run is followed, left, and followed again, from this machine or another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from relayq import clock, scattering
from relayq.config import install_id
from relayq.dispatch import Dispatcher
from relayq.errors import (
    BadSignature,
    BrokerUnavailable,
    Conflict,
    NoSuchAnalysis,
    NoSuchJob,
    RelayqError,
)
from relayq.families import cancel
from relayq.model import findings, reports
from relayq.model.analyses import (
    Pace,
    Plan,
    Standing,
    Step,
    derived,
    lanes,
    left,
    standing_of,
    step_after,
)
from relayq.model.jobs import JobRecord, JobState, Outcome
from relayq.model.sessionanswers import read
from relayq.model.shards import Shard, halves
from relayq.sourcetree import read_lines
from relayq.tracks import Track, answer_of, why_undone
from relayq.version import __version__

if TYPE_CHECKING:
    from relayq.client import Relay

#: One blocking call's length.
_BLOCK = 2.0
#: States in which a glance says all that there is to say.
_GLANCED = frozenset({JobState.QUEUED, JobState.WAITING, JobState.RUNNING, JobState.LOST})
#: What the shard is called of files that a session left out.
REST = ".rest"


class Harvest:
    """A run as it stands at the last look."""

    def __init__(self, relay: Relay, plan: Plan) -> None:
        self._relay = relay
        self._session = relay.session()
        self.plan = plan
        self.tops = [self._track(part.shard, part.job) for part in plan.parts]
        self.is_over_budget = False
        #: The instant of the last look, on the broker's clock.
        self.looked_at = plan.created_at
        self._kept: set[str] = set()

    def _track(self, shard: Shard, job: str) -> Track:
        return Track(shard, self.plan.fresh.get(shard.name, job))

    @cached_property
    def is_here(self) -> bool:
        """Whether the files that it is about are this machine's."""
        return self.plan.install == install_id(self._relay.config.home)

    @cached_property
    def cached(self) -> Mapping[str, Sequence[findings.Issue]]:
        """What earlier runs found in the files that hadn't changed."""
        return scattering.known(self._relay, self.plan.wishes, self.plan.cached)

    @property
    def tracks(self) -> list[Track]:
        """The shards, those that were divided without their wholes."""
        return [leaf for top in self.tops for leaf in top.leaves()]

    @property
    def everything(self) -> list[Track]:
        """All sessions, those as well whose shards were divided."""
        return [one for top in self.tops for one in top.all()]

    def restore(self, saved: Mapping[str, Mapping[str, Any]]) -> int:
        """Take the results that a checkpoint has of shards; returns how many are complete by it."""
        for track in self.everything:
            known = saved.get(track.name)
            if known is None or known.get("job") != track.job:
                continue
            issues = tuple(map(findings.Issue.from_dict, known["issues"]))
            track.answer = findings.Answer(track.name, issues, tuple(known["analysed"]))
            track.standing, track.session_id = Standing.DONE, known.get("session")
            track.host, track.attempts = known.get("host"), int(known.get("attempts") or 0)
            track.seconds, track.cost_usd = known.get("seconds") or 0.0, known.get("cost_usd")
            track.tokens, track.ended_at = int(known.get("tokens") or 0), known.get("ended_at")
            self._kept.add(track.job)
            self._leave_rest(track)
        return sum(one.standing is Standing.DONE for one in self.everything)

    def look(self) -> list[Track]:
        """Look at every session that wasn't over; returns those that are over now."""
        asked = [
            one
            for one in self.everything
            if one.step is not Step.RESUME
            and (one.standing is Standing.ASKS or not one.standing.is_over)
        ]
        over = []
        while asked:
            before = {one.job for one in self.everything}
            over += self._look_at(asked)
            # Those that take over a shard that was too much, somebody may have queued already.
            asked = [one for one in self.everything if one.job not in before]
        return over

    def _look_at(self, asked: Sequence[Track]) -> list[Track]:
        asking = {one.job for one in asked if one.standing is Standing.ASKS}
        sights = self._session.store.progress.look([one.job for one in asked])
        glanced: list[Track] = []
        settled: list[Track] = []
        for track in asked:
            sight = track.sight = sights.get(track.job)
            track.is_missing = sight is None
            is_glanced = sight is None or sight.state in _GLANCED
            (glanced if is_glanced else settled).append(track)
        self._glance(glanced)
        self._judge(settled)
        return [one for one in settled if one.standing.is_over and one.job not in asking]

    def _glance(self, tracks: Sequence[Track]) -> None:
        self.looked_at = clock.now()
        paused = None
        if any(one.sight and one.sight.state is JobState.QUEUED for one in tracks):
            paused = self._paused()
        for track in tracks:
            track.standing, track.until, track.why = Standing.WAITING, None, ""
            state = track.sight.state if track.sight is not None else None
            if state in (JobState.RUNNING, JobState.LOST):
                track.standing = Standing.RUNNING
            elif state is JobState.QUEUED and paused is not None:
                track.standing, (track.until, track.why) = Standing.PARKED, paused

    def _paused(self) -> tuple[float, str] | None:
        """Return until when no account of its sessions may be used, and why; None if one may."""
        accounts = self._session.store.accounts
        found = accounts.fetch(self._accounts)
        now = self.looked_at = accounts.now()
        waiting = [one for one in found if one.until is not None and one.until > now]
        if len(waiting) < len(found):
            return None
        first = min(waiting, key=lambda one: one.until or 0.0)
        return first.until or now, f"{first.name} {first.reason}".strip()

    @cached_property
    def _accounts(self) -> tuple[str, ...]:
        wishes = self.plan.wishes
        others = wishes.asked.get("fallbacks") or ()
        named = (one if "/" in one else f"{one}/default" for one in others)
        return (f"{wishes.agent}/{wishes.asked.get('account') or 'default'}", *named)

    def _judge(self, tracks: Sequence[Track]) -> None:
        """Work out what the sessions came to that have ended, or are parked."""
        ids = [one.job for one in tracks]
        if not ids:
            return
        jobs = self._session.store.jobs
        records = {record.id: record for record in jobs.fetch_many(ids)}
        outcomes = dict(zip(ids, jobs.outcomes(ids), strict=True))
        for track in tracks:
            record = records.get(track.job)
            track.is_missing = record is None
            if record is not None:
                self._judge_one(track, record, outcomes[track.job])

    def _judge_one(self, track: Track, record: JobRecord, signed: bytes | None) -> None:
        track.record = record
        track.standing = standing_of(record)
        track.until = record.due_at if track.standing is Standing.PARKED else None
        try:
            outcome = self._checked(record, signed)
        except BadSignature as error:
            # Nothing is built on what the fleet didn't sign; the others are as they are.
            track.standing, track.why = Standing.FAILED, error.message
            return
        agent = answer_of(outcome)
        track.why = why_undone(record, outcome, agent)
        track.host, track.attempts = record.host, record.attempt
        track.seconds, track.cost_usd = record.duration or 0.0, record.cost_usd
        track.tokens, track.ended_at = record.tokens_in + record.tokens_out, record.finished_at
        if agent is None:
            return
        track.session_id = agent.session_id or track.session_id
        if track.standing not in (Standing.DONE, Standing.FAILED):
            return
        answer = read(agent.structured, agent.text, track.shard)
        answer = findings.check(
            answer, track.shard, self._lines, known=self.plan.paths, cwd=agent.cwd or ""
        )
        if track.standing is Standing.DONE:
            track.raw, track.answer = agent.text, answer
            if answer.problem:
                track.standing, track.why = Standing.UNREADABLE, answer.problem
            else:
                self._leave_rest(track)
            return
        # What a session found before it failed is worth keeping; its files aren't done.
        track.answer = answer if answer.issues else None
        files = len(track.shard.files)
        track.step = step_after(agent.error_class, attempt=record.attempt, files=files)
        if track.step is Step.HALVE:
            track.standing, track.answer = Standing.HALVED, None
            parts = enumerate(halves(track.shard), 1)
            track.parts = [self._track(one, derived(track.job, number)) for number, one in parts]

    def _leave_rest(self, track: Track) -> None:
        """Have another session read the files that this one left out, once."""
        analysed = set(track.answer.analysed if track.answer is not None else ())
        rest = tuple(one for one in track.shard.files if one.path not in analysed)
        if not rest:
            return
        if track.name.endswith(REST):
            track.standing = Standing.FAILED
            track.why = f"it left out {len(rest)} of its files"
            return
        track.shard = Shard(
            track.name, tuple(one for one in track.shard.files if one.path in analysed)
        )
        track.parts = [self._track(Shard(f"{track.name}{REST}", rest), derived(track.job, 1))]

    def _checked(self, record: JobRecord, signed: bytes | None) -> Outcome | None:
        if signed is None:
            return None
        outcome = self._session.signer.check_outcome(signed, id=record.id)
        return outcome if outcome.attempt == record.attempt else None

    @cached_property
    def _lines(self) -> Callable[[str], Sequence[str] | None] | None:
        if not self.is_here:
            return None
        return cache(partial(read_lines, self.plan.root))

    # What is done about it

    def mend(self) -> list[str]:
        """Do what a session that failed, or is missing, calls for; returns what was done, in words.

        Never more sessions at a time than were asked for.
        """
        self._hold_budget()
        if self.is_over_budget:
            return []
        said = []
        for track in self.everything:
            if not self._has_room():
                break
            if track.step is Step.RESUME:
                self._go_on(track)
                said.append(f"{track.name}: its session goes on")
            elif track.is_missing and not track.standing.is_over:
                said.append(f"{track.name}: {self._begin(track)}")
        return said

    def _begin(self, track: Track) -> str:
        """Queue the session of a shard; says what came of it."""
        try:
            scattering.queue(self._relay, self.plan, [(track.shard, track.job, None)])
        except BrokerUnavailable:
            raise
        except RelayqError as error:
            # Such as a file that isn't there any more.
            track.standing, track.why = Standing.FAILED, error.message
            return error.message
        track.is_missing = False
        return "a session of its own"

    def _has_room(self) -> bool:
        going = [
            one
            for one in self.everything
            if one.is_under_way and (one.sight is None or one.sight.state is not JobState.WAITING)
        ]
        return len(going) < self.plan.wishes.workers

    def _hold_budget(self) -> None:
        """Cancel what hasn't begun once the run has cost what it may."""
        budget = self.plan.wishes.budget
        if budget is None or self.is_over_budget or (self.cost_usd or 0.0) < budget:
            return
        unbegun = [one for one in self.everything if not one.standing.is_over]
        unbegun = [one for one in unbegun if one.standing is not Standing.RUNNING]
        self.is_over_budget = bool(unbegun)
        for track in unbegun:
            if track.is_under_way:
                cancel(self._session.store, [track.job])
            else:
                track.standing, track.step = Standing.CANCELLED, Step.NOTHING

    def _go_on(self, track: Track) -> None:
        """Have a session go on, or begin where its job is gone."""
        fresh = Track(track.shard, track.job, session_id=track.session_id)
        try:
            Dispatcher(self._session.store, self._session.signer).retry(track.job)
        except Conflict:
            pass  # somebody else did
        except NoSuchJob:
            fresh.is_missing = True
        track.become(fresh)

    @property
    def lost(self) -> list[Track]:
        """The shards that came to nothing."""
        over = [one for one in self.tracks if one.standing.is_over]
        return [one for one in over if one.standing is not Standing.DONE]

    def again(self, track: Track, *, fresh: bool = False) -> None:
        """Have a shard that is over done again, as soon as somebody follows the run.

        Its session goes on, or a new one is begun: always where its answer couldn't be read.
        """
        self.is_over_budget = False
        self._kept.discard(track.job)
        if not fresh and track.standing is not Standing.UNREADABLE:
            track.step, track.standing = Step.RESUME, Standing.WAITING
            return
        job = derived(track.job, 0)
        self.plan = self.plan.with_job(track.name, job)
        scattering.keep(self._relay, self.plan)
        track.become(Track(track.shard, job, is_missing=True))

    def queue_all(self) -> None:
        """Queue at once what waits to be, each lane one after the other."""
        for track in self.everything:
            if track.step is Step.RESUME:
                self._go_on(track)
        missing = [one for one in self.everything if one.is_missing and not one.standing.is_over]
        after = lanes([one.shard.weight for one in missing], self.plan.wishes.workers)
        wanted = [
            (one.shard, one.job, None if before is None else missing[before].job)
            for one, before in zip(missing, after, strict=True)
        ]
        scattering.queue(self._relay, self.plan, wanted)
        for track in missing:
            track.is_missing = False

    def cancel(self) -> int:
        """Cancel the sessions that haven't ended; returns how many those are."""
        going = [one for one in self.everything if one.is_under_way]
        cancel(self._session.store, [track.job for track in going])
        return len(going)

    # How it stands

    def is_moving(self, *, patience: float = float("inf")) -> bool:
        """Whether a session goes on, or is about to: what is parked for longer isn't waited for."""
        soon = self.looked_at + patience
        for track in self.everything:
            if track.standing is Standing.RUNNING or track.step is Step.RESUME:
                return True
            if track.standing is Standing.PARKED and (track.until or 0.0) <= soon:
                return True
            is_queued = track.sight is not None and track.sight.state is JobState.QUEUED
            if track.standing is Standing.WAITING and (track.is_missing or is_queued):
                return True
        return False

    def wait(self, *, patience: float = _BLOCK) -> None:
        """Wait until a session ends, or so long."""
        if ids := [one.job for one in self.everything if one.is_under_way]:
            self._session.store.jobs.wait(ids, patience=patience)

    @property
    def cost_usd(self) -> float | None:
        """What all sessions cost so far, None where no agent said."""
        costs = [one.cost_usd for one in self.everything if one.cost_usd is not None]
        return sum(costs) if costs else None

    @property
    def issues(self) -> list[findings.Issue]:
        """What was found, each once, by file, severity and line."""
        found = [one.answer for one in self.tracks if one.answer is not None]
        if self.cached:
            found.append(findings.from_cache(self.cached))
        return findings.merge(found)

    @property
    def sessions(self) -> dict[str, str]:
        """The ids of the sessions, by shard."""
        return {one.name: one.session_id for one in self.tracks if one.session_id}

    @property
    def is_complete(self) -> bool:
        """Whether every shard is done."""
        return all(one.standing is Standing.DONE for one in self.tracks)

    def find(self, name: str) -> Track:
        """Return the shard of this name, or whose job it is."""
        known = [one for one in self.tracks if name in (one.name, one.name.strip("()"), one.job)]
        known = known or [one for one in self.tracks if one.name.startswith(name)]
        if len(known) == 1:
            return known[0]
        names = ", ".join(one.name for one in known or self.tracks)
        what = f"{name} is several shards" if known else f"{self.plan.id} has no shard {name}"
        raise NoSuchAnalysis(f"{what}: {names}", hint=f"relayq analyze show {self.plan.id}")

    def left(self) -> float | None:
        """Return the seconds until all is likely to have ended."""
        running = [
            (one.shard.weight, self.ran(one))
            for one in self.tracks
            if one.standing is Standing.RUNNING
        ]
        waiting = [one.shard.weight for one in self.tracks if one.standing is Standing.WAITING]
        return left(self.pace, running, waiting, self.plan.wishes.workers)

    @property
    def pace(self) -> Pace:
        """How long its sessions take."""
        pace = Pace()
        for one in self.tracks:
            if one.standing is Standing.DONE and one.seconds:
                pace = pace.adding(one.seconds, one.shard.weight)
        return pace

    def ran(self, track: Track) -> float:
        """Return how long a session runs by now."""
        began = track.sight.began_at if track.sight is not None else None
        return max(0.0, self.looked_at - began) if began is not None else 0.0

    def remember(self, tracks: Sequence[Track]) -> None:
        """Keep what was found in files for runs to come."""
        found: dict[str, Sequence[findings.Issue]] = {}
        sha256s: dict[str, str] = {}
        for one in tracks:
            if one.standing is not Standing.DONE or one.answer is None or one.job in self._kept:
                continue
            self._kept.add(one.job)
            found |= findings.by_file(one.answer)
            sha256s |= one.contents()
        scattering.remember(self._relay, self.plan.wishes, found, sha256s)

    def report(self) -> reports.Run:
        """Return the facts of the run, for a report."""
        plan, wishes = self.plan, self.plan.wishes
        ended = [one.ended_at for one in self.everything if one.ended_at is not None]
        return reports.Run(
            id=plan.id,
            root=plan.root,
            files=plan.files,
            by=wishes.by,
            agent=wishes.agent,
            model=wishes.model,
            workers=wishes.workers,
            started_at=plan.created_at,
            ended_at=None if self.is_moving(patience=0.0) else max([plan.created_at, *ended]),
            shards=tuple(one.row() for one in self.tracks),
            issues=tuple(self.issues),
            commit=plan.commit,
            is_dirty=plan.is_dirty,
            cached_files=len(plan.cached),
            left_out=dict(plan.left_out),
            version=__version__,
        )
