"""Texts with expressions in them: `Deploy ${{ steps.build.outputs.version }}`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relayq.model.expressions import Expression, ExpressionError, Value, parse, text_of

BEGIN, _END = "${{", "}}"


@dataclass(frozen=True, slots=True)
class Template:
    """Texts and expressions in turn; of nothing but one expression its value is kept as it is."""

    parts: tuple[str | Expression, ...]

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be filled in."""
        return not any(isinstance(part, Expression) for part in self.parts)

    @property
    def expressions(self) -> Sequence[Expression]:
        """The expressions in it."""
        return [part for part in self.parts if isinstance(part, Expression)]

    def fill(
        self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Value]] | None = None
    ) -> Value:
        """Return the text with all filled in, or the value of the one expression that it is."""
        match self.parts:
            case (Expression() as only,):
                return only.evaluate(names, functions)
        return "".join(
            part if isinstance(part, str) else text_of(part.evaluate(names, functions))
            for part in self.parts
        )


def read(text: str) -> Template:
    """Read a text, or raise ExpressionError with the column, from 0, of what is wrong in it."""
    return Template(tuple(_parts(text)))


def _parts(text: str) -> Iterator[str | Expression]:
    at = 0
    while (begin := text.find(BEGIN, at)) >= 0:
        if begin > at:
            yield text[at:begin]
        expression, at = expression_at(text, begin)
        yield expression
    if at < len(text) or not text:
        yield text[at:]


def expression_at(text: str, begin: int) -> tuple[Expression, int]:
    """Return the expression whose marks begin there, and where they end."""
    inner = begin + len(BEGIN)
    end = _end_of(text, inner)
    if end < 0:
        raise ExpressionError(f"{BEGIN} without {_END}", column=begin)
    try:
        return parse(text[inner:end]), end + len(_END)
    except ExpressionError as error:
        raise ExpressionError(error.message, column=inner + error.column) from error


def _end_of(text: str, start: int) -> int:
    """Return where an expression ends; a `}}` within single quotes is part of a text."""
    is_quoted = False
    for at in range(start, len(text)):
        if text[at] == "'":
            is_quoted = not is_quoted
        elif not is_quoted and text.startswith(_END, at):
            return at
    return -1


def fill_all(value: Any, names: Mapping[str, Any], functions: Any = None) -> Any:
    """Fill in every text of a value made of lists and tables."""
    match value:
        case str():
            return read(value).fill(names, functions)
        case Mapping():
            return {key: fill_all(one, names, functions) for key, one in value.items()}
        case list() | tuple():
            return [fill_all(one, names, functions) for one in value]
    return value
