"""How far jobs are, in the words that people read; `relayq.cli.live` shows them while they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from relayq.cli.texts import age, inert, number_of, span
from relayq.model.jobs import JobState
from relayq.model.progress import Progress, total

if TYPE_CHECKING:
    from relayq.store.progress import Sight

_WIDTH = 14
#: Of several jobs what is left is told after so many seconds and so much.
_TREND = (5.0, 0.01)
#: Some host has the job.
_HELD = (JobState.RUNNING, JobState.LOST)


def bar(fraction: float, width: int) -> str:
    """Return `####------`; it is full at the end only."""
    filled = min(round(fraction * width), width - (fraction < 1))
    return "#" * filled + "-" * (width - filled)


def percent(fraction: float) -> str:
    """Return ` 62%`; 100 % is said at the end only."""
    return f"{int(fraction * 100 + 1e-9):3d}%"


def whole(seconds: float) -> str:
    """Return a duration without the tenths that would flicker: `8s`, `3m51s`."""
    return span(seconds) if seconds >= 60 else f"{int(seconds)}s"


def cell(progress: Progress, now: float) -> str:
    """Return what `ps` has room for: `####--  62%  eta 2m`."""
    parts = []
    if progress.fraction is not None:
        parts += [f"{bar(progress.fraction, 6)} {percent(progress.fraction)}"]
    left = progress.left(now)
    parts += [f"eta {age(left)}"] if left is not None else []
    return "  ".join([*parts, *filter(None, [progress.text or progress.rate])])


def described(progress: Progress, now: float) -> str:
    """Return the line of `show`."""
    said = f"({age(now - progress.at)} ago)"
    return "  ".join([*_parts(progress, now), *filter(None, [progress.text]), said])


def _parts(progress: Progress, now: float) -> list[str]:
    parts = []
    if progress.fraction is not None:
        parts += [f"{bar(progress.fraction, _WIDTH)} {percent(progress.fraction)}"]
    left = progress.left(now)
    parts += [progress.rate] if progress.rate else []
    return [*parts, f"eta {whole(left)}"] if left is not None else parts


def line_of(sight: Sight, now: float, waited: float) -> str:
    """Return how one job stands, in a line."""
    parts = [f"relayq: {sight.id}"]
    ran = max(0.0, now - sight.began_at) if sight.began_at is not None else waited
    if sight.state not in _HELD:
        return "  ".join([*parts, _awaited(sight), whole(waited)])
    parts += [sight.host or "-", whole(ran)]
    if sight.state is JobState.LOST:
        return "  ".join([*parts, "its host doesn't answer"])
    progress = sight.progress
    if sight.paused is not None:
        told = [percent(progress.fraction)] if progress and progress.fraction is not None else []
        return "  ".join([*parts, *told, f"paused: {inert(sight.paused)}"])
    if progress is not None:
        parts += [inert(part) for part in [*_parts(progress, now), progress.text] if part]
    return "  ".join(parts)


def _awaited(sight: Sight) -> str:
    if sight.state is not JobState.QUEUED:
        return sight.state.value
    sort, _, host = sight.queue.partition(".")
    return f"waiting for {host if sort == 'host' else 'a host'}"


def total_line(
    ids: Sequence[str], seen: Mapping[str, Sight], waited: float, begun: float | None
) -> str:
    """Return how several jobs stand together; `begun` is how far they were at first."""
    counts = Counter(_counted(seen[id].state) for id in ids if id in seen)
    told = [f"{counts[what]} {what}" for what in ("ended", "running", "waiting") if counts[what]]
    parts = [f"relayq: {number_of(len(ids), 'job')}", ", ".join(told), whole(waited)]
    fraction = fraction_of_all(ids, seen)
    if fraction is not None:
        parts += [f"{bar(fraction, _WIDTH)} {percent(fraction)}"]
        gained = fraction - (begun or 0.0)
        if waited >= _TREND[0] and gained >= _TREND[1]:
            parts.append(f"eta {whole((1 - fraction) * waited / gained)}")
    return "  ".join(filter(None, parts))


def _counted(state: JobState) -> str:
    if not state.is_waitable:
        return "ended"
    return "running" if state in _HELD else "waiting"


def fraction_of_all(ids: Sequence[str], seen: Mapping[str, Sight]) -> float | None:
    """Return how far these jobs are together."""
    sights = [seen[id] for id in ids if id in seen]
    going = [sight.progress for sight in sights if sight.state.is_waitable]
    return total(going, done=len(sights) - len(going))


def is_held(sight: Sight) -> bool:
    """Whether some host has the job."""
    return sight.state in _HELD
