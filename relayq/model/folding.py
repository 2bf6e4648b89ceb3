"""Expressions of which a part is known already: worked out as far as they can be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from relayq.model.expressions import (
    FUNCTIONS,
    STRENGTH,
    Call,
    Expression,
    ExpressionError,
    Literal,
    Node,
    Path,
    Value,
    is_true,
    text_of,
)
from relayq.model.templates import Template, read

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def fold(expression: Expression, known: Mapping[str, Any]) -> Expression:
    """Return an expression with the values of these names in their place."""
    node = _folded(expression.node, known)
    return expression if node == expression.node else Expression(written(node), node)


def fold_text(text: str, known: Mapping[str, Any]) -> Any:
    """Return a text with all that is known filled in; what can't be stays an expression.

    A text of nothing but one expression becomes its value. What is filled in is never read as an
    expression again.
    """
    if "${{" not in text:
        return text
    parts = [part if isinstance(part, str) else fold(part, known) for part in read(text).parts]
    match parts:
        case [Expression(node=Literal(value=value))] if not _has_marks(value):
            return value
    return "".join(map(_filled, parts))


def fold_all(value: Any, known: Mapping[str, Any]) -> Any:
    """Fold every text of a value made of lists and tables."""
    match value:
        case str():
            return fold_text(value, known)
        case Mapping():
            return {key: fold_all(one, known) for key, one in value.items()}
        case list() | tuple():
            return [fold_all(one, known) for one in value]
    return value


def has_expressions(value: Any) -> bool:
    """Whether anything in a value has to be filled in yet."""
    match value:
        case str():
            return "${{" in value
        case Mapping():
            return any(map(has_expressions, value.values()))
        case list() | tuple():
            return any(map(has_expressions, value))
    return False


def expressions_in(value: Any) -> list[Expression]:
    """Return all expressions of a value made of lists and tables."""
    match value:
        case str():
            return list(read(value).expressions) if "${{" in value else []
        case Mapping():
            return [found for one in value.values() for found in expressions_in(one)]
        case list() | tuple():
            return [found for one in value for found in expressions_in(one)]
    return []


def is_whole(value: Any) -> bool:
    """Whether a value is a text of nothing but one expression."""
    if not isinstance(value, str) or "${{" not in value:
        return False
    template: Template = read(value)
    return len(template.parts) == 1 and not template.is_plain


def marked(expression: Expression) -> str:
    """Return an expression as it stands in a text."""
    return f"${{{{ {expression.text.strip()} }}}}"


def _filled(part: str | Expression) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part.node, Literal) and not _has_marks(part.node.value):
        return text_of(part.node.value)
    return marked(part)


def _has_marks(value: Value) -> bool:
    return "${{" in text_of(value)


def _folded(node: Node, known: Mapping[str, Any]) -> Node:
    match node:
        case Path(name, steps, column):
            steps = tuple(_folded(step, known) for step in steps)
            if name in known and all(isinstance(step, Literal) for step in steps):
                return _evaluated(Path(name, steps, column), known)
            return Path(name, steps, column)
        case Call("&&" | "||" as function, (left, right), column):
            left, right = _folded(left, known), _folded(right, known)
            if not isinstance(left, Literal):
                return Call(function, (left, right), column)
            return right if is_true(left.value) == (function == "&&") else left
        case Call(function, arguments, column):
            arguments = tuple(_folded(one, known) for one in arguments)
            call = Call(function, arguments, column)
            is_known = all(isinstance(one, Literal) for one in arguments)
            return _evaluated(call, {}) if function in FUNCTIONS and is_known else call
    return node


def _evaluated(node: Node, known: Mapping[str, Any]) -> Node:
    try:
        return Literal(Expression("", node).evaluate(known))
    except ExpressionError:
        # It may stand where nobody comes; who does is told.
        return node


def written(node: Node) -> str:
    """Return an expression as a text that is read as the same."""
    match node:
        case Literal(value):
            return _literal(value)
        case Path(name, steps, _):
            return name + "".join(map(_step, steps))
        case Call("!", (inner,), _):
            return f"!{_within(inner, 9)}"
        case Call("[]", (inner, step), _):
            is_call = isinstance(inner, Call) and inner.function not in (*STRENGTH, "!")
            text = written(inner)
            return f"{text if is_call else f'({text})'}{_step(step)}"
        case Call(function, (left, right), _) if function in STRENGTH:
            strength = STRENGTH[function]
            return f"{_within(left, strength)} {function} {_within(right, strength + 1)}"
        case Call(function, arguments, _):
            return f"{function}({', '.join(map(written, arguments))})"
    raise AssertionError(node)


def _within(node: Node, strength: int) -> str:
    """Return an operand, in parentheses where it would be read apart without them."""
    text = written(node)
    is_weak = isinstance(node, Call) and STRENGTH.get(node.function, 9) < strength
    return f"({text})" if is_weak else text


def _step(step: Node) -> str:
    match step:
        case Literal(None):
            return ".*"
        case Literal(str() as name) if _NAME.fullmatch(name):
            return f".{name}"
    return f"[{written(step)}]"


def _literal(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case int() | float() if math.isfinite(value):
            return repr(value)
    return "fromJSON(" + _literal(json.dumps(value, ensure_ascii=False)) + ")"
