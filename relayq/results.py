"""What became of a job: waiting for its end, and all of its output.

Waits block on keys of the job itself, look at the record again after every interruption, and
say when the broker goes and comes back. How an output gets here is in `relayq.following`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from relayq import agentjobs, clock, families, mediajobs, pausing, speechjobs
from relayq.agentsections import PRIVATE
from relayq.dispatch import Dispatcher
from relayq.errors import (
    Conflict,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    NeedsHuman,
    NoSuchJob,
    OutputUnavailable,
    RelayqError,
    WaitTimeout,
)
from relayq.following import Following
from relayq.gitjobs import WithGit
from relayq.model.ends import exit_status, failure
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason, priority_number
from relayq.model.output import STDERR, STDOUT, Frame, only, split
from relayq.session import Session
from relayq.specs import where
from relayq.speechjobs import WithTranscript
from relayq.stepjobs import WithOutputs

if TYPE_CHECKING:
    from relayq.agents.answers import Answer
    from relayq.model.events import Event

#: One blocking call's length; the store's own patience for an answer is longer.
_BLOCK = 2.5
#: How often a full window is looked at again.
_FULL = 0.02


class JobResult(WithGit, WithTranscript, WithOutputs):
    """A job that was submitted, and what becomes of it."""

    def __init__(
        self, session: Session, id: str, *, follow: bool = False, fresh: bool = False
    ) -> None:
        self.id = id
        self.reply = os.urandom(8).hex()
        self.told = 0
        self._session = session
        self.is_followed = follow
        #: Told the record now and then while a live output is silent.
        self.on_silence: Callable[[JobRecord], None] = lambda record: None
        #: Whether the submit made the job, and didn't find one with the same unique key.
        self.is_new = fresh
        self._is_fresh = fresh
        self._record: JobRecord | None = None
        self._outcome: Outcome | None = None

    def __repr__(self) -> str:
        known = self._record
        state = f"{known.state.value} on {known.target}" if known else "not looked at yet"
        return f"<JobResult {self.id} {state}>"

    @property
    def record(self) -> JobRecord:
        """The record, read again until it is final."""
        if self._record is None or not self._record.state.is_final:
            self._record = self._session.store.jobs.fetch(self.id)
        return self._record

    @property
    def state(self) -> str:
        """The state's name."""
        return self.record.state.value

    @property
    def reason(self) -> str | None:
        """Why it is in its final or parked state."""
        return self.record.reason

    @property
    def exit_code(self) -> int | None:
        """The command's own exit code, None before its end or after a signal."""
        return self.record.exit_code

    @property
    def host(self) -> str | None:
        """The host of its last attempt."""
        return self.record.host

    def ready(self) -> bool:
        """Whether it ended or waits for a person."""
        return not self.record.state.is_waitable

    def successful(self) -> bool:
        """Whether it succeeded."""
        return self.record.state is JobState.SUCCEEDED

    def failed(self) -> bool:
        """Whether it failed; a cancelled job didn't."""
        return self.record.state is JobState.FAILED

    def wait(self, timeout: float | None = None) -> JobRecord:
        """Wait until it ends or parks; raises WaitTimeout after `timeout` seconds, job unharmed."""
        deadline = None if timeout is None else clock.boottime() + timeout
        jobs = self._session.store.jobs
        # A job that was just submitted can't have ended so long ago that its end isn't heard.
        record = None if self._is_fresh else self._session.patiently(lambda: self.record, deadline)
        if record is not None and not record.state.is_waitable:
            return record
        self._is_fresh = False
        while True:
            block = _BLOCK if deadline is None else min(_BLOCK, deadline - clock.boottime())
            ask = partial(jobs.wait, [self.id], patience=max(block, 0.001))
            ended = self._session.patiently(ask, deadline)
            if ended and self.id in ended:
                self.keep(ended[self.id])
            record = self._session.patiently(lambda: self.record, deadline)
            if record is not None and not record.state.is_waitable:
                return record
            if deadline is not None and clock.boottime() >= deadline:
                raise WaitTimeout(
                    f"{self.id} hasn't ended after {timeout:g} s; it goes on",
                    hint=f"relayq wait {self.id}",
                )

    def get(self, timeout: float | None = None) -> Any:
        """Wait for success and return the result: for a command its output, as text.

        One final newline is left out. For an agent it is its answer: the text, or the value if a
        schema was asked for; `agent` has the rest. For a transcode it is what was made, as a
        dictionary, for a transcript the text, and the files come here. Raises JobFailed,
        JobTimedOut, JobCancelled or NeedsHuman; OutputUnavailable instead of a shorter text;
        WaitTimeout after `timeout` seconds, and then the job goes on.
        """
        record = self.wait(timeout)
        if record.state is not JobState.SUCCEEDED:
            raise self.error(record)
        outcome = self.outcome()
        answer = agentjobs.answer_of(record, outcome)
        if answer is not None:
            return agentjobs.value_of(answer)
        if outcome is not None and outcome.result is not None:
            mediajobs.bring(self)
            return speechjobs.value_of(record, outcome.result)
        return self.text

    @property
    def agent(self) -> Answer | None:
        """What an agent's last attempt came to, with its session, cost and tokens; None before."""
        return agentjobs.answer_of(self.record, self.outcome())

    def error(self, record: JobRecord) -> Exception:
        """Return the error for a job that ended, or parked, without success."""
        where = f" on {record.host}" if record.host else ""
        if record.state is JobState.CANCELLED:
            return JobCancelled(f"{self.id} was cancelled{where}", record=record)
        if record.state is JobState.NEEDS_HUMAN:
            question = record.question or ""
            text = f"{self.id} waits for a person: {question or record.reason}"
            return NeedsHuman(text, record=record, question=question)
        outcome = self.outcome()
        text = f"{self.id} failed{where}: {failure(record, outcome)}"
        hint = f"relayq logs {self.id}"
        tail = outcome.output if outcome is not None else b""
        end = only(split(tail)[0], STDERR).decode(errors="replace")[-2000:]
        if record.reason == Reason.TIMEOUT:
            return JobTimedOut(text, record=record, exit_code=124, log_tail=end, hint=hint)
        return JobFailed(
            text, record=record, exit_code=exit_status(record), log_tail=end, hint=hint
        )

    def outcome(self) -> Outcome | None:
        """Return the signed outcome of the last attempt, checked; None when there is none.

        A wrong signature raises BadSignature: nothing is built on what the fleet didn't sign.
        """
        if self._outcome is None or self._outcome.attempt != self.record.attempt:
            self.keep(self._session.store.jobs.outcome(self.id))
        kept = self._outcome
        return kept if kept is not None and kept.attempt == self.record.attempt else None

    @property
    def remarks(self) -> Sequence[str]:
        """What the limits of its last attempt did besides ending it, as sentences."""
        spec = self.record.spec
        if spec is None or (spec.memory is None and spec.processes is None):
            return ()
        outcome = self.outcome()
        return () if outcome is None else outcome.remarks

    def keep(self, signed: bytes | None) -> None:
        """Keep an outcome that came with the job's end, once it is checked."""
        if signed is not None:
            self._outcome = self._session.signer.check_outcome(signed, id=self.id)

    @property
    def stdout(self) -> str:
        """All of the standard output so far, as text; wrong UTF-8 shows as U+FFFD."""
        return only(self.logs(), STDOUT).decode(errors="replace")

    @property
    def text(self) -> str:
        """`stdout` without its final newline."""
        return self.stdout.removesuffix("\n")

    @property
    def stderr(self) -> str:
        """All of the standard error so far, as text."""
        return only(self.logs(), STDERR).decode(errors="replace")

    def logs(self, *, follow: bool = False) -> Iterator[Frame]:
        """Yield the output, frame by frame, in the order in which it was read.

        With `follow`, until the job ends. Always the whole output or OutputUnavailable: what the
        broker doesn't hold is fetched from the host. Where a full disk cut the output, the error
        has its `missing` bytes and comes after all that there is.
        """
        if not self.is_followed or not follow:
            record = self.record
            if record.attempt == 0 and not follow:
                return iter(())
            outcome = None if record.state.is_waitable else self.outcome()
            if outcome is not None and outcome.is_whole:
                return iter(split(outcome.output)[0])
        return self._sent(live=follow)

    def _sent(self, *, live: bool) -> Iterator[Frame]:
        """Yield what the host sends, and raise if that isn't all that the job wrote."""
        yield from Following(self, self._session, live=live).frames()
        record = self._session.surely(lambda: self.record)
        if record.state.is_waitable or record.attempt <= self.told:
            return
        outcome = self._session.surely(self.outcome)
        if outcome is not None and outcome.dropped_bytes:
            raise OutputUnavailable(
                f"{outcome.dropped_bytes} bytes of the output of {self.id} are missing: "
                f"{outcome.host}'s disk was full",
                hint=f"relayq logs {self.id} has the rest; free some room on {outcome.host}, "
                f"then relayq retry {self.id}",
                missing=outcome.dropped_bytes,
                host=outcome.host,
            )

    def feed(
        self,
        read: Callable[[], bytes | None],
        *,
        position: int = 0,
        size: Callable[[], tuple[int, int] | None] = lambda: None,
    ) -> None:
        """Send standard input to a job that was submitted with `feed` or `tty`, until its end.

        `read` returns the next bytes, b"" at the end, None to have `size` asked, which returns the
        terminal's rows and columns when they have changed. `position` is where an input that
        somebody began goes on. Blocks while the job reads more slowly; returns early when the job
        has ended. Call it once, from a thread of its own beside `logs`.
        """
        from relayq.feeding import InputPiece, signed_piece
        from relayq.store.logs import WINDOW

        inputs, taken = self._session.store.inputs, position
        while True:
            read_now = read()
            data = read_now or b""
            piece = InputPiece(position, data, is_end=read_now == b"", size=size())
            piece = signed_piece(self._session.signer, self.id, piece)
            sent = None
            while sent is None:
                sent = self._session.patiently(partial(inputs.send, self.id, piece), None)
            position, taken = position + len(data), sent
            if piece.is_end:
                return
            while position - taken > WINDOW:
                if self._session.patiently(self.ready, None):
                    return
                clock.sleep(_FULL)
                taken = self._session.patiently(partial(inputs.taken, self.id), None) or taken

    def cancel(self, *, alone: bool = False) -> str:
        """Cancel it, durably: its whole process tree, also on a host that is asleep now.

        Returns "cancelled", "asked" while the host ends it, or the final state that it had.
        What it submitted is cancelled with it, unless it is to be `alone`.
        """
        word = families.cancel(self._session.store, [self.id], alone=alone)[0]
        if word == "gone":
            raise NoSuchJob(f"no such job: {self.id}", hint="relayq ps -a")
        return word

    def pause(self, lasts: float | str | None = None, *, reason: str = "") -> JobResult:
        """Have its processes stand still until `resume`, or for so long (seconds, or "2h").

        Its time limit's clock stands still as well. Conflict when it doesn't run.
        """
        pausing.pause(self._session, id=self.id, lasts=lasts, reason=reason)
        return self

    def resume(self) -> JobResult:
        """Let it go on; Conflict when nobody paused it."""
        pausing.resume(self._session, id=self.id)
        return self

    def retry(self, *, force: bool = False, follow: bool = False) -> JobResult:
        """Queue it again as a new attempt; `force` when a lost attempt is known to be gone.

        `follow` has the output of what comes now sent from its start, for `logs(follow=True)`.
        """
        self._record = self._outcome = None
        logs = self._session.store.logs
        if follow:
            # Before the job is queued: what claims it is told of its followers then.
            self.told, self.reply = self.record.attempt, os.urandom(8).hex()
            logs.ack(self.reply, 0)
            logs.follow(self.id, self.reply)
        try:
            Dispatcher(self._session.store, self._session.signer).retry(self.id, force=force)
        except RelayqError:
            if follow:
                logs.unfollow(self.id, self.reply)
            raise
        self.is_followed = follow
        self._record = None
        return self

    def events(self, count: int | None = None) -> Sequence[Event]:
        """Return what happened to it, the oldest first, or only the last `count` events.

        The broker keeps the fleet's last 10,000; its submit is always told.
        """
        from relayq.model.events import with_submit

        record = self.record
        found = self._session.store.events.read(
            since=record.created_at - 1, count=count, job=self.id
        )
        return found if count is not None and len(found) >= count else with_submit(record, found)

    def resolve(self, verdict: str, *, notes: str = "", force: bool = False) -> JobResult:
        """Say what becomes of it while it waits for a person.

        "done": it succeeded, and what comes after it goes on; "failed": it didn't; "pending": it is
        queued again (`force` as for `retry`). Conflict when it doesn't wait for anybody.
        """
        dispatcher = Dispatcher(self._session.store, self._session.signer)
        dispatcher.resolve(self.id, verdict, notes=notes, force=force)
        self._record = self._outcome = None
        return self

    def answer(
        self,
        text: str = "",
        *,
        choice: int | str | None = None,
        allow: Iterable[str] = (),
        force: bool = False,
    ) -> str:
        """Answer what it asks: with a text, or with the number or the label of a choice.

        An agent goes on in the same session, and may use the tools of `allow` from now on without
        asking. Returns "queued", "told" while it runs, "already" for a repeat, or "done",
        "failed", "pending" where the choice was a verdict. Conflict when it asks nothing.
        """
        record = self._session.store.jobs.fetch(self.id)
        parked = record.state is JobState.NEEDS_HUMAN
        word = agentjobs.reply(
            self._session,
            record,
            self.outcome() if parked else None,
            text=text,
            choice=choice,
            allow=allow,
            force=force,
        )
        self._record = self._outcome = None
        return word

    def move(
        self, host: str | None = None, priority: int | str | None = None, **constraints: Any
    ) -> JobResult:
        """Send it to another host ("any": whichever is free), or give it another priority.

        `constraints` are those of `submit` instead of its old ones, such as `needs` and `on`. It
        keeps its place among those of its priority. Conflict when it has already started.
        """
        number = None if priority is None else priority_number(priority)
        labels = self.record.spec.labels if self.record.spec is not None else ()
        if (host or constraints) and any(label.startswith(PRIVATE) for label in labels):
            raise Conflict(
                f"{self.id} is private, and stays where it may run",
                hint=f"relayq cancel {self.id}, and submit it anew",
            )
        asked: dict[str, Any] = {}
        if constraints:
            asked = where(self.record.kind, None if host == "any" else host, constraints)
            host = asked.pop("host") or "any"
        Dispatcher(self._session.store, self._session.signer).move(
            self.id, host=host, priority=number, **asked
        )
        self._record = None
        return self

    def forget(self) -> None:
        """Delete all that the broker knows of it; Conflict unless it has ended."""
        [word] = self._session.store.jobs.forget([self.id])
        if word == "gone":
            raise NoSuchJob(f"no such job: {self.id}", hint="relayq ps -a")
        if word != "forgotten":
            raise Conflict(
                f"{self.id} is {word}; only an ended job can be forgotten",
                hint=f"relayq cancel {self.id}",
            )
