"""What an agent says while it runs: written down, watched over, and summed up at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

from relayq import clock
from relayq.agents import classify, invocation, render
from relayq.agents.adapters import Adapter
from relayq.agents.answers import Answer, ErrorClass, Status, Usage
from relayq.agents.events import (
    Answering,
    Event,
    Finished,
    Noted,
    Retrying,
    Said,
    Started,
    ToolCalled,
    ToolEnded,
)
from relayq.agents.order import Order
from relayq.agents.parsers import parser_named
from relayq.agents.summaries import Summary
from relayq.host import progress
from relayq.host.credentials import Mask
from relayq.host.program import Line, Program, Signals
from relayq.host.sessions import Carried, SessionInUse, Sessions
from relayq.host.silence import Silence
from relayq.model.progress import Progress

#: What of standard error is looked at when a run has failed.
_TAIL = 64 * 1024
#: What is kept of the raw events.
_MOST_RAW = 64 * 2**20
#: For an agent that only waits: with the wait itself it holds its slot for less than 75 s.
_SHORT_GRACE = 5.0


class Raw:
    """The raw events on the disk, up to a size; a full disk ends the writing and not the run."""

    def __init__(self, path: str, mask: Mask) -> None:
        self._fd: int | None = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._left = _MOST_RAW
        self._mask = mask

    def add(self, line: Line) -> None:
        """Write a line."""
        if self._fd is None or line.is_error:
            return
        raw = self._mask.line(line.raw) + b"\n"
        if line.left_out_bytes:
            raw = b'{"relayq":"left out","bytes":%d}\n' % line.left_out_bytes
        try:
            if len(raw) > self._left:
                os.write(self._fd, b'{"relayq":"cut","limit_bytes":%d}\n' % _MOST_RAW)
                self.close()
                return
            self._left -= os.write(self._fd, raw)
        except OSError as error:
            sys.stdout.write(f"! can't keep the raw events: {error.strerror}\n")
            self.close()

    def close(self) -> None:
        """Write no more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Conversation:
    """One run of an agent's program."""

    def __init__(
        self,
        order: Order,
        adapter: Adapter,
        *,
        sessions: Sessions,
        home: str,
        before: Carried | None,
        mask: Mask,
        raw: str,
    ) -> None:
        self._order = order
        self._adapter = adapter
        self._sessions = sessions
        self._home = home
        self._before = before
        self._mask = mask
        self._raw = Raw(raw, mask)
        self._turn_limit = invocation.turn_limit(adapter, order)
        self._parser = parser_named(adapter.parser)
        self._summary = Summary()
        self._transcript = render.Transcript()
        self._errors = b""
        self._heard_at = 0.0
        self._silence: Silence | None = None
        self._ended_by: str | None = None
        self._is_elsewhere = False
        self._unread = set(order.reads)
        self._carried: Carried | None = None

    def follow(
        self, program: Program, signals: Signals, *, on_cancel: Callable[[Answer], None]
    ) -> Answer:
        """Take what it says until its end, which may be forced, and return the answer."""
        for line in program.lines():
            if line is not None:
                self._take(line, program)
            self._watch(program)
            if signals.is_asked and self._ended_by != "cancel":
                self._ended_by = "cancel"
                # The grace may be over before the agent is: this much is known now.
                on_cancel(self._judge(program))
                program.end()
        for event in self._parser.finish(program.exit_code):
            self._hear(event, program)
        self._show(self._transcript.rest())
        self._raw.close()
        if signals.is_asked:
            self._ended_by = "cancel"
        answer = self._judge(program)
        if answer.usage_total is not None and self._carried is not None:
            self._carry(replace(self._carried, usage_total=asdict(answer.usage_total)))
        return answer

    def _judge(self, program: Program) -> Answer:
        ended_by = self._ended_by
        if ended_by is None and program.is_ending:
            ended_by = "lingered" if self._summary.finished else "stall"
        total = self._before.usage_total if self._before else None
        answer = classify.answer(
            self._summary,
            order=self._order,
            stderr=self._errors.decode("utf-8", "replace"),
            exit_code=program.exit_code,
            signal=program.signal,
            ended_by=ended_by,
            now=clock.now(),
            usage_before=Usage(**total) if total else None,
        )
        if self._is_elsewhere and ended_by != "cancel":
            said = f"{self._order.agent} began another session instead of {self._order.session}"
            return replace(
                answer,
                status=Status.FAILED,
                error_class=ErrorClass.SESSION_NOT_FOUND,
                message=said,
                session_id=None,
            )
        return answer

    def _take(self, line: Line, program: Program) -> None:
        """Write a line down and hear what it says."""
        self._raw.add(line)
        if line.is_error:
            self._errors = (self._errors + line.raw + b"\n")[-_TAIL:]
            text = line.raw.decode("utf-8", "replace")
            if text.strip():
                shown = "\n".join(render.lines(Noted(self._mask.text(text))))
                sys.stderr.write(f"{shown}\n")
                sys.stderr.flush()
            events = self._parser.feed_error(text)
        elif line.left_out_bytes:
            said = f"(a line of {line.left_out_bytes / 1e6:.0f} MB, left out)"
            events = (Noted(said),)
            self._speaks(program)
        else:
            events = self._parser.feed(line.raw.decode("utf-8", "replace"))
            if not events or not all(isinstance(event, Retrying) for event in events):
                self._speaks(program)
        for event in events:
            self._hear(event, program)

    def _speaks(self, program: Program) -> None:
        self._heard_at = program.clock
        if self._silence is not None:
            self._silence.heard(program.clock)

    def _hear(self, event: Event, program: Program) -> None:
        self._summary.add(event)
        self._show(self._transcript.lines(event))
        match event:
            case Started(session_id=str(session_id)):
                self._enter(session_id, program)
            case ToolCalled():
                self._progress()
                self._reads(event)
            case Said() | ToolEnded():
                self._progress()
            case Finished():
                program.said_its_last()

    def _show(self, lines: list[str]) -> None:
        if lines:
            sys.stdout.write("".join(f"{self._mask.text(line)}\n" for line in lines))
            sys.stdout.flush()

    def _enter(self, session_id: str, program: Program) -> None:
        """Remember the session that the agent is in, from now on: it can be resumed."""
        order = self._order
        if order.session and not order.fork and session_id != order.session:
            # codex begins a new thread, without a word, for an id that it doesn't know.
            self._is_elsewhere = True
            program.end()
            return
        if self._adapter.session == "none" or self._carried is not None:
            return
        if session_id != order.session:
            try:
                self._sessions.lock(session_id)
            except SessionInUse:
                self._show([f"! the session {session_id} is in use by another run"])
        before = self._before
        assert order.cwd is not None
        self._carry(
            Carried(
                agent=order.agent,
                account=order.account,
                session_id=session_id,
                cwd=order.cwd,
                home=self._home,
                version=self._summary.version or (before.version if before else ""),
                job=order.job_id,
                has_progressed=before is not None
                and before.job == order.job_id
                and before.has_progressed,
                reply=order.answer.text if order.answer else "",
                allowed=order.allowed,
                usage_total=before.usage_total if before else None,
            )
        )

    def _progress(self) -> None:
        carried = self._carried
        if carried is not None and (carried.reply or not carried.has_progressed):
            self._carry(replace(carried, has_progressed=True, reply=""))

    def _reads(self, call: ToolCalled) -> None:
        """Say how many of the files that it is to look into it has opened."""
        if not self._unread:
            return
        self._unread -= {name for name in self._unread if name in call.summary}
        count = len(self._order.reads)
        # Its answer is still to come when it has opened the last.
        fraction = (count - len(self._unread)) / (count + 1)
        progress.tell(os.environ, Progress(fraction, self._mask.text(call.summary)))

    def _carry(self, carried: Carried) -> None:
        self._carried = carried
        try:
            self._sessions.carry(self._order.job_id, carried)
        except OSError as error:
            # A full disk: the run goes on, only its next attempt couldn't.
            self._show([f"! can't remember the session: {error.strerror}"])

    def _watch(self, program: Program) -> None:
        """End a run that only waits: for its API, or for nothing that can be seen."""
        limits, waiting = self._order.limits, self._summary.retrying
        if self._ended_by is not None or self._summary.finished is not None:
            return
        if self._turn_limit is not None and self._summary.turns > self._turn_limit:
            self._end("max_turns", f"it has used its {self._turn_limit} turns", program)
            return
        silence = self._silence = self._silence or Silence(program.session)
        waited = silence.waited(
            program.clock,
            is_retrying=waiting is not None,
            is_using_tools=self._summary.is_using_tools,
        )
        announced = waiting.delay or 0.0 if waiting else 0.0
        if waiting is not None and silence.is_answered:
            self._hear(Answering(), program)
            silence.heard(program.clock)
        elif max(waited.access, announced) >= limits.max_throttle_wait:
            self._end("throttle", "it only waits for its API", program)
        elif waited.answer >= self._adapter.first_answer > 0:
            self._end("silence", "its API took what it asks and doesn't answer", program)
        elif program.clock - max(self._heard_at, program.mid_line_at) >= limits.stall:
            self._end("stall", f"it has said nothing for {limits.stall:.0f} s", program)

    def _end(self, why: str, said: str, program: Program) -> None:
        self._ended_by = why
        self._show([f"~ {said}: it is ended"])
        program.end(_SHORT_GRACE)
