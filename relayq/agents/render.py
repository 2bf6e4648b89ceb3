"""An event as lines that a person reads; no character of it can move a cursor or change a colour.

Words come as they are, everything else has a mark in front: `>` a tool that is used, `|` what it
gave back, `!` an error, `~` a wait, `-` news of the run.
"""

from __future__ import annotations

from datetime import UTC, datetime

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

#: What a tool gave back is shown up to here; the raw events have all of it.
_MOST_LINES = 12
_LONGEST_LINE = 500
_LONGEST = 200_000


def lines(event: Event) -> list[str]:
    """Return the lines of an event, none for what nobody needs to read."""
    match event:
        case Started():
            facts = (event.version, event.model, event.permission)
            known = ", ".join(_inert(fact) for fact in facts if fact)
            session = f", session {_inert(event.session_id)}" if event.session_id else ""
            return [f"- started: {known or 'no details'}{session}"]
        case Said():
            return [_inert(line) for line in event.text[:_LONGEST].splitlines()]
        case ToolCalled():
            return [_short(f"> {event.name}: {event.summary}".removesuffix(": "))]
        case ToolEnded():
            return _output(event)
        case Denied(denial):
            return [_short(f"! may not use {denial.tool} {denial.input}".rstrip())]
        case Retrying():
            return [_short(_wait(event))]
        case Limited():
            return [_short(_limit(event))]
        case Noted():
            mark = "!" if event.is_error else "-"
            return [_short(f"{mark} {line}") for line in event.text.splitlines()[:_MOST_LINES]]
        case Finished():
            return [_short(_end(event))]
        case Answering() | Exited():
            return []


class Transcript:
    """Lines of events in their order, where words come in pieces of lines."""

    def __init__(self) -> None:
        self._pending = ""

    def lines(self, event: Event) -> list[str]:
        """Return the lines that are whole by now."""
        if not isinstance(event, Said) or not event.is_partial:
            return self.rest() + lines(event)
        *whole, self._pending = (self._pending + event.text[:_LONGEST]).split("\n")
        if len(self._pending) > 4 * _LONGEST_LINE:
            whole, self._pending = [*whole, self._pending], ""
        return [_inert(line) for line in whole]

    def rest(self) -> list[str]:
        """Return the line that isn't whole yet, at the end or where something else follows."""
        pending, self._pending = self._pending, ""
        return [_inert(pending)] if pending.strip() else []


def _inert(text: str) -> str:
    # str.isprintable is false for escapes, controls, surrogates and what turns the direction.
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in text)


def _short(text: str) -> str:
    line = _inert(text[: _LONGEST_LINE + 1])
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 3] + "..."


def _output(event: ToolEnded) -> list[str]:
    mark = "!" if event.is_error else "|"
    given = event.text[:_LONGEST].splitlines()
    shown = [_short(f"{mark} {line}") for line in given[:_MOST_LINES]]
    left_out = len(given) - len(shown)
    if left_out > 0:
        shown.append(f"{mark} ({left_out} more lines)")
    return shown or (["! it failed"] if event.is_error else [])


def _wait(event: Retrying) -> str:
    why = " ".join(filter(None, (str(event.status or ""), event.error)))
    times = f", attempt {event.attempt}" if event.attempt else ""
    delay = f", again in {event.delay:.0f} s" if event.delay is not None else ""
    return f"~ waits for its API ({why or 'no answer'}{times}{delay})"


def _limit(event: Limited) -> str:
    used = f"{event.utilization:.0%} of " if event.utilization is not None else ""
    what = f"~ {used}the {event.sort or 'account'} limit is used"
    if event.is_rejected:
        what = f"~ the {event.sort or 'account'} limit is used up"
    if event.resets_at is None:
        return what
    return f"{what}; it resets at {datetime.fromtimestamp(event.resets_at, UTC):%Y-%m-%d %H:%M} UTC"


def _end(event: Finished) -> str:
    facts = [
        f"{event.turns} turns" if event.turns is not None else "",
        f"{event.usage.total} tokens" if event.usage.total else "",
        f"${event.cost_usd:.4f}" if event.cost_usd is not None else "",
    ]
    known = ", ".join(filter(None, facts))
    if event.is_error:
        why = event.error or ", ".join(event.causes) or "it says no more"
        return f"! failed: {why}" + (f" ({known})" if known else "")
    return f"- done: {known}" if known else "- done"
