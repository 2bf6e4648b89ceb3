"""What is known of a run so far: events added up, with little kept of each."""

from __future__ import annotations

from relayq.agents.answers import Denial
from relayq.agents.events import (
    Answering,
    Denied,
    Event,
    Exited,
    Finished,
    Limited,
    Noted,
    Retrying,
    Said,
    Started,
    ToolCalled,
    ToolEnded,
)

_MOST_DENIALS = 20
_MOST_OPEN = 1000
_LONGEST = 2**20


class Summary:
    """One run; `add` takes each event in its order."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.model: str | None = None
        self.version: str | None = None
        self.permission: str | None = None
        self.finished: Finished | None = None
        self.exited: Exited | None = None
        #: The last that the API said of a limit that is used up, and of one that will be.
        self.limited: Limited | None = None
        self.warned: Limited | None = None
        #: The wait for the API that goes on, None while there is progress.
        self.retrying: Retrying | None = None
        self.error = ""
        self.tool_calls = 0
        #: How often the model spoke: a turn ends when a tool comes back.
        self.turns = 0
        self._is_in_turn = False
        self.tool_failures = 0
        self._open_tools: set[str] = set()
        self._denials: dict[tuple[str, str], Denial] = {}
        self._words: list[str] = []
        self._length = 0

    @property
    def is_progressing(self) -> bool:
        """Whether the agent isn't just waiting for its API."""
        return self.retrying is None

    @property
    def is_using_tools(self) -> bool:
        """Whether a tool that it called hasn't come back yet."""
        return bool(self._open_tools)

    @property
    def denials(self) -> tuple[Denial, ...]:
        """Each tool that was withheld, once."""
        return tuple(self._denials.values())

    @property
    def said(self) -> str:
        """The agent's words so far, from the last tool's use on: all there is of a broken run."""
        return "".join(self._words).strip()

    def add(self, event: Event) -> None:
        """Take what the agent said."""
        match event:
            case Started():
                self.session_id = event.session_id or self.session_id
                self.model = event.model or self.model
                self.version = event.version or self.version
                self.permission = event.permission or self.permission
            case Said():
                self._turn()
                self._say(event)
            case ToolCalled():
                self._turn()
                self.tool_calls += 1
                if len(self._open_tools) < _MOST_OPEN:
                    self._open_tools.add(event.id)
                self._words, self._length = [], 0
            case ToolEnded():
                self.retrying = None
                self._is_in_turn = False
                self._open_tools.discard(event.id)
                self.tool_failures += event.is_error
            case Answering():
                self.retrying = None
            case Denied():
                self._deny(event.denial)
            case Retrying():
                # A later line may know less than the one that it explains.
                before = self.retrying
                known = event.status or (before.status if before else None)
                error = event.error or (before.error if before else "")
                self.retrying = Retrying(event.attempt, event.delay, error, known)
            case Limited(is_rejected=True):
                self.limited = event
            case Limited():
                self.warned = event
            case Noted(is_error=True):
                self.error = event.text
            case Finished():
                self.retrying = None
                self.finished = event
                for denial in event.denials:
                    self._deny(denial)
            case Exited():
                self.exited = event

    def _turn(self) -> None:
        self.retrying = None
        if not self._is_in_turn:
            self.turns += 1
            self._is_in_turn = True

    def _say(self, event: Said) -> None:
        words = event.text if event.is_partial else event.text + "\n"
        kept = words[: max(0, _LONGEST - self._length)]
        self._words.append(kept)
        self._length += len(kept)

    def _deny(self, denial: Denial) -> None:
        if len(self._denials) < _MOST_DENIALS:
            self._denials.setdefault((denial.tool, denial.input), denial)
