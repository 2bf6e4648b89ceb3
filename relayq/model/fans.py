"""A step that becomes a job for each item of a list: which jobs those are, what they come to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relayq.errors import RelayqError
from relayq.model import matrices
from relayq.model.expressions import Expression, Value, parse
from relayq.model.jobs import ALPHABET, ID_LENGTH, Spec
from relayq.model.outputs import LARGEST, size_of
from relayq.model.steps import CANCELLED, FAILURE, SUCCESS, Ended, Names
from relayq.model.templates import BEGIN, Template, fill_all, read

_NAMED = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)\s*=(?!=)(.*)", re.DOTALL)
#: How many of the jobs that failed an error names.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Fans:
    """How a step becomes jobs: by the value of `source`, of which `name` is an item's name.

    It is written `x = <expression>`; without a name, items that are tables are added to the matrix
    as they are. A JSON object has `axes`, `include` and `exclude`, with expressions in its texts.
    """

    name: str
    source: Expression | Template | Mapping[str, Any]

    def combinations(self, names: Names) -> list[dict[str, Any]]:
        """Return what each job adds to its matrix."""
        match self.source:
            case Expression():
                made = _of_value(self.name, self.source.evaluate(names))
            case Template():
                made = _of_value(self.name, self.source.fill(names))
            case axes:
                made = _of_matrix(fill_all(axes, names))
        if len(made) > matrices.MOST:
            raise RelayqError(f"a step becomes at most {matrices.MOST} jobs, not {len(made)}")
        return made

    @property
    def parts(self) -> Any:
        """All that has to be worked out."""
        return self.source.expressions if isinstance(self.source, Template) else self.source


def parse_fans(text: str) -> Fans:
    """Read what a spec says of the jobs that it becomes."""
    if text.lstrip().startswith("{"):
        try:
            return Fans("", json.loads(text))
        except ValueError as error:
            raise RelayqError(f"the jobs that it becomes can't be read: {error}") from error
    named = _NAMED.fullmatch(text)
    name, text = (named[1], named[2]) if named else ("", text)
    return Fans(name, read(text.strip()) if BEGIN in text else parse(text))


def _of_matrix(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    axes: Mapping[str, Any] = asked.get("axes") or {}
    extra, out = list(asked.get("include") or ()), list(asked.get("exclude") or ())
    for name, values in axes.items():
        if not isinstance(values, list):
            raise RelayqError(f"the matrix's {name} has to be a list, not {values!r:.60}")
    if not all(isinstance(one, dict) for one in (*extra, *out)):
        raise RelayqError("what a matrix includes and excludes are tables")
    return matrices.expand(matrices.Matrix(axes, extra, out))


def _of_value(name: str, value: Value) -> list[dict[str, Any]]:
    if isinstance(value, dict) and not name:
        # As a matrix is written: its axes, beside include and exclude.
        axes = {key: one for key, one in value.items() if key not in ("include", "exclude")}
        return _of_matrix({**value, "axes": axes})
    if not isinstance(value, list):
        raise RelayqError(f"a step becomes jobs by a list, not by {json.dumps(value):.60}")
    return [
        dict(one) if isinstance(one, dict) and not name else {name or "item": one} for one in value
    ]


def child_of(parent: Spec, number: int, values: Mapping[str, Any]) -> Spec:
    """Return the spec of one of the jobs that a step becomes; a repeat gives the same."""
    matrix = {**parent.matrix, **values}
    label = matrices.label(values) or str(number)
    return replace(
        parent,
        id=child_id(parent.id, number, matrix, parent.payload),
        matrix=matrix,
        name=f"{parent.name or parent.step or parent.id} ({label})",
        after=(),
        after_any=(),
        # Halts spare what runs after a failure.
        when="success" if parent.when == "success" else "always",
        condition=None,
        fans=None,
        unique=None,
        due_at=None,
        item_of=f"{parent.id} {number}",
    )


def child_id(
    parent: str, number: int, matrix: Mapping[str, Any], payload: Mapping[str, Any]
) -> str:
    """Return the id of a child, which nothing else but the same child can have."""
    text = json.dumps([parent, number, matrix, payload], sort_keys=True)
    digest = hashlib.sha256(b"relayq child\0" + text.encode()).digest()
    return "".join(ALPHABET[byte & 31] for byte in digest[:ID_LENGTH])


def is_child(spec: Spec, parent: str, number: int) -> bool:
    """Whether a job is the one that a step became for the item of this number."""
    return spec.id == child_id(parent, number, spec.matrix, spec.payload)


def collected(jobs: Sequence[Ended]) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return the result and the outputs of a step of these jobs, and why it failed, "" if not."""
    outputs: dict[str, str] = {}
    for one in jobs:
        outputs |= one.outcome.outputs if one.outcome is not None else {}
    told = [{"id": one.id, "matrix": dict(one.matrix), "result": one.result} for one in jobs]
    bad = [one for one in jobs if one.counts_as in (FAILURE, CANCELLED)]
    why = ""
    if bad:
        words = ", ".join(f"{one.id} {_PAST[one.counts_as]}" for one in bad[:_SHOWN])
        more = f", and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        why = f"{len(bad)} of its {len(jobs)} jobs didn't succeed: {words}{more}"
    elif size_of(outputs) > LARGEST:
        why = f"the outputs of its jobs have more than {LARGEST >> 20} MiB together"
    if why:
        outputs = {} if size_of(outputs) > LARGEST else outputs
    return {"jobs": told}, outputs, why


_PAST = {FAILURE: "failed", CANCELLED: "was cancelled", SUCCESS: "succeeded"}
