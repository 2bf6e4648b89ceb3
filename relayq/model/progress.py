"""How far a running job says it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_TEXT = 200
_LONGEST_RATE = 40
_LONGEST_ETA = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: a `fraction` from 0 to 1 where it can tell, and what it says of it.

    `eta` are the seconds that it thinks were left `at` that instant, `rate` is how fast it is, as
    people read it: `2.4x`, `74 MB/s`.
    """

    fraction: float | None
    text: str = ""
    eta: float | None = None
    rate: str = ""
    at: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said, or no more: it takes back what was."""
        return self.fraction is None and self.eta is None and not (self.text or self.rate)

    def left(self, now: float) -> float | None:
        """Return the seconds that are left by now, None when it doesn't know (or was wrong)."""
        if self.eta is None:
            return None
        left = self.eta - max(0.0, now - self.at)
        return left if left >= 0 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, as JSON can hold them."""
        kept: dict[str, Any] = {"fraction": self.fraction}
        kept |= {"text": self.text} if self.text else {}
        kept |= {"eta": self.eta} if self.eta is not None else {}
        kept |= {"rate": self.rate} if self.rate else {}
        return kept | ({"at": self.at} if self.at else {})

    @classmethod
    def from_dict(cls, raw: object) -> Progress | None:
        """Read what a job wrote, whatever that is; None when it isn't an object."""
        if not isinstance(raw, Mapping):
            return None
        fraction = _number(raw.get("fraction"))
        return cls(
            fraction=None if fraction is None else min(max(fraction, 0.0), 1.0),
            text=_line(raw.get("text"), LONGEST_TEXT),
            eta=_seconds(raw.get("eta")),
            rate=_line(raw.get("rate"), _LONGEST_RATE),
            at=_number(raw.get("at")) or 0.0,
        )


def fraction_of(text: str) -> float:
    """Return the fraction that `42%`, `0.42` or `21/50` means; raises ValueError."""
    percent, slash = text.strip().removesuffix("%"), text.partition("/")
    try:
        if slash[1]:
            value = float(slash[0]) / float(slash[2])
        else:
            value = float(percent) / (100 if percent != text.strip() else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise ValueError("expected 0% to 100%, as 42%, 0.42 or 21/50")
    return value


def total(parts: Sequence[Progress | None], done: int = 0) -> float | None:
    """Return the fraction of several jobs as one, of which `done` have ended besides.

    One that says nothing of its fraction counts as at its beginning; None when none does.
    """
    fractions = [part.fraction for part in parts if part is not None and part.fraction is not None]
    if not fractions and not done:
        return None
    count = len(parts) + done
    return (sum(fractions) + done) / count if count else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _seconds(value: object) -> float | None:
    number = _number(value)
    return None if number is None or not 0 <= number <= _LONGEST_ETA else number


def _line(value: object, longest: int) -> str:
    return " ".join(value.split())[:longest] if isinstance(value, str) else ""
