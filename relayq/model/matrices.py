"""The jobs of a step with a matrix: every combination of its values, with include and exclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from relayq.errors import RelayqError
from relayq.model.expressions import text_of

#: How many jobs one step may become.
MOST = 1000
#: How long the values of a job may be where they are its name.
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Matrix:
    """The values of a step's jobs: axes by name, as in GitHub Actions.

    Of the combinations those go that fit one of `exclude`. Each entry of `include` adds its values
    to the combinations whose own values it leaves as they are, or else is one more. `name` is the
    axis whose list is only known when the step runs, as the expression `fans`; empty if the
    expression stands for the combinations themselves.
    """

    axes: Mapping[str, Sequence[Any]]
    include: Sequence[Mapping[str, Any]] = ()
    exclude: Sequence[Mapping[str, Any]] = ()
    fans: str | None = None
    name: str = ""


def expand(matrix: Matrix) -> list[dict[str, Any]]:
    """Return the values of each job, in the order in which they are written down."""
    total = 1
    for values in matrix.axes.values():
        total *= len(values)
    if total + len(matrix.include) > MOST:
        raise RelayqError(f"a matrix of more than {MOST} jobs")
    made = [
        dict(zip(matrix.axes, values, strict=True)) for values in product(*matrix.axes.values())
    ]
    if not matrix.axes:
        made = []
    made = [one for one in made if not any(_fits(one, out) for out in matrix.exclude)]
    original = [dict(one) for one in made]
    for extra in matrix.include:
        fitting = [
            one
            for one, own in zip(made, original, strict=False)
            if all(own[key] == value for key, value in extra.items() if key in own)
        ]
        for one in fitting:
            one.update(extra)
        if not fitting:
            made.append(dict(extra))
    return made


def label(values: Mapping[str, Any]) -> str:
    """Return what tells a job from the others of its step: `linux, 3.12`."""
    text = ", ".join(" ".join(text_of(value).split()) for value in values.values())
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."


def _fits(one: Mapping[str, Any], pattern: Mapping[str, Any]) -> bool:
    return all(key in one and one[key] == value for key, value in pattern.items())
