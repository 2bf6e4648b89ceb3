"""What was measured, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

#: Who the others are compared with.
BASES = ("floor", "rq")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured of one subject, once a round."""

    what: str
    who: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return median(self.values)


class Figures:
    """The figures of a run, in the order in which they first came."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str], list[float]] = {}

    def add(self, what: str, who: str, unit: str, value: float) -> None:
        """Note the value of one round."""
        self._values.setdefault((what, who, unit), []).append(value)

    def all(self) -> list[Figure]:
        """Return the figures, those of one thing beside each other."""
        order = list(dict.fromkeys(what for what, _, _ in self._values))
        keys = sorted(self._values, key=lambda key: order.index(key[0]))
        return [Figure(*key, tuple(self._values[key])) for key in keys]


def ratio(figure: Figure, base: str, figures: Sequence[Figure]) -> float | None:
    """Return how many times the base's median this one's is, None where there is no base."""
    for other in figures:
        if (other.what, other.who, other.unit) == (figure.what, base, figure.unit):
            return figure.median / other.median if other.median else None
    return None


def as_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return the figures as JSON shows them."""
    return [
        {
            "what": one.what,
            "who": one.who,
            "unit": one.unit,
            "median": one.median,
            "min": min(one.values),
            "max": max(one.values),
            "values": list(one.values),
            **{f"of_{base}": ratio(one, base, figures) for base in BASES},
        }
        for one in figures
    ]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table, which is aligned for a terminal as well."""
    rows = [["what", "who", "median", "min to max", "unit", *(f"/ {base}" for base in BASES)]]
    rows.append([])
    before = ""
    for one in figures:
        ratios = [ratio(one, base, figures) for base in BASES]
        rows.append(
            [
                one.what if one.what != before else "",
                one.who,
                number(one.median),
                f"{number(min(one.values))} to {number(max(one.values))}",
                one.unit,
                *("" if r is None else f"{r:.2f}" for r in ratios),
            ]
        )
        before = one.what
    widths = [max(len(row[i]) for row in rows if row) for i in range(len(rows[0]))]
    rows[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
