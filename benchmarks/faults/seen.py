"""What was seen of a job after something broke, and how that is put into words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.systems import State


def seconds(number: float) -> str:
    """Return a time in words, as exact as it is worth."""
    if number < 0.05:
        return "less than 0.1 s"
    return f"{number:.1f} s" if number < 10 else f"{number:.0f} s"


@dataclass(frozen=True)
class Note:
    """A line of the journal: what a job wrote about itself."""

    word: str
    pid: int


def notes(journal: Path, *words: str) -> list[Note]:
    """Return what the jobs wrote, in order: these words, or all."""
    found = []
    for line in journal.read_text().splitlines() if journal.exists() else []:
        word, pid = line.split()
        if not words or word in words:
            found.append(Note(word, int(pid)))
    return found


@dataclass(frozen=True)
class Seen:
    """What became of a job; `after` is from the fault, or how long was looked for an end."""

    state: State
    after: float
    starts: int
    ends: int
    #: Messages that could yet start it; None when that can't be told.
    held: int | None
    has_worker_exited: bool = False
    #: The most copies that ran at a time, where that was looked for.
    at_once: int = 1
    #: What is said instead of times and starts.
    first: str = ""

    def __str__(self) -> str:
        """Say it in words."""
        if self.first:
            return "; ".join(part for part in (self.first, str(self.state)) if part)
        parts = [self._end(), f"{self.starts} start{'s' * (self.starts != 1)}"]
        if self.at_once > 1:
            parts[-1] += f", {self.at_once} at a time"
        if self.ends and not self.state.is_success:
            parts.append("though the command ended well")
        if self.has_worker_exited:
            parts.append("the worker had exited, another was started")
        return "; ".join(parts)

    def _end(self) -> str:
        if self.state.is_final:
            return f"{self.state} after {seconds(self.after)}"
        looked = seconds(self.after)
        if self.held == 0:
            return f"lost: {self.state} for ever (looked for {looked}, no message is left)"
        return f"still {self.state} after {looked}"

    def as_json(self) -> dict[str, Any]:
        """Return it with its words."""
        return {"words": str(self), **asdict(self)}


def read(journal: Path, state: State, after: float, held: int | None, **more: Any) -> Seen:
    """Put together what the journal says and what the system says."""
    starts, ends = len(notes(journal, "start")), len(notes(journal, "end"))
    return Seen(state, after, starts, ends, held, **more)


def most_at_once(journal: Path) -> int:
    """Return how many copies ran at a time, at most; right where none of them was killed."""
    running, most = 0, 0
    for note in notes(journal, "start", "end"):
        running += 1 if note.word == "start" else -1
        most = max(most, running)
    return most
