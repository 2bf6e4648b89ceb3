"""The expressions of workflows: `${{ steps.build.outputs.path }}`, read and worked out.

The language is the part of GitHub Actions' that needs nothing but values: literals, names with
dots and brackets, comparisons, `!`, `&&`, `||`, parentheses and the functions below. There are no
loops, no assignments and no attributes of Python objects, so an expression ends soon and can do
nothing. Grammar and conversions: docs.github.com, "Evaluate expressions in workflows and actions".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from relayq.errors import RelayqError

#: What an expression can come to.
Value = None | bool | float | int | str | list[Any] | dict[str, Any]
#: How large a text an expression may make.
LARGEST = 2**20
_DEEPEST = 50

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))"
    r"|(?P<text>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_-]*)"
    r"|(?P<sign>==|!=|<=|>=|&&|\|\||[<>!()\[\].,*])"
    r")"
)
_WORDS: Mapping[str, Value] = {"true": True, "false": False, "null": None}
#: How closely the operators bind.
STRENGTH = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 4, "<=": 4, ">": 4, ">=": 4}


class ExpressionError(RelayqError):
    """An expression that can't be read or worked out; `column` counts from 0 in its text."""

    def __init__(self, message: str, *, column: int = 0) -> None:
        super().__init__(message)
        self.column = column


class _Token(NamedTuple):
    sort: str
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that stands there."""

    value: Value


@dataclass(frozen=True, slots=True)
class Path:
    """A name and what follows it: `steps.build.outputs['x']`; each step a text or an expression."""

    name: str
    steps: tuple[Node, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; the operators are functions, too."""

    function: str
    arguments: tuple[Node, ...]
    column: int


Node = Literal | Path | Call


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read; `text` is how it stands in its file."""

    text: str
    node: Node

    def paths(self) -> Iterator[tuple[str, ...]]:
        """Yield the names that it uses, as far as they are written out: (steps, build, outputs)."""
        yield from _paths(self.node)

    def nodes(self) -> Iterator[Node]:
        """Yield it and all its parts."""
        yield from _nodes(self.node)

    def calls(self) -> set[str]:
        """Return the names of the functions that it uses."""
        return {node.function for node in _nodes(self.node) if isinstance(node, Call)}

    def evaluate(
        self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Value]] | None = None
    ) -> Value:
        """Return what it comes to; `functions` are those that depend on where it stands."""
        return _Evaluation(names, {**FUNCTIONS, **(functions or {})}).of(self.node)


def parse(text: str) -> Expression:
    """Read an expression, or raise ExpressionError with the column of what is wrong."""
    return Expression(text, _Parser(text).whole())


def is_true(value: Value) -> bool:
    """Whether a condition holds that came to this: not for null, false, 0, NaN and ""."""
    if isinstance(value, float) and math.isnan(value):
        return False
    return value not in (None, False, 0, "")


def text_of(value: Value) -> str:
    """Return a value as it stands within a text: lists and tables as JSON, null as nothing."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case int() | float():
            return str(value)
    return json.dumps(value, ensure_ascii=False)


class _Parser:
    """A parser by the strength of operators."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._expression(0)
        if (token := self._next()) is not None:
            raise ExpressionError(f"{token.text!r} isn't expected here", column=token.column)
        return node

    def _next(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, *texts: str) -> _Token | None:
        token = self._next()
        if token is None or token.sort != "sign" or token.text not in texts:
            return None
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            token = self._next()
            found = f"not {token.text!r}" if token else "and it ends"
            column = token.column if token else len(self._text)
            raise ExpressionError(f"{text!r} is expected here, {found}", column=column)

    def _expression(self, weakest: int) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError(f"it is nested deeper than {_DEEPEST} levels")
        node = self._unary()
        while (token := self._next()) is not None and token.sort == "sign":
            strength = STRENGTH.get(token.text, 0)
            if strength <= weakest:
                break
            self._at += 1
            node = Call(token.text, (node, self._expression(strength)), token.column)
        self._depth -= 1
        return node

    def _unary(self) -> Node:
        if (token := self._take("!")) is not None:
            self._depth += 1
            if self._depth > _DEEPEST:
                raise ExpressionError(f"it is nested deeper than {_DEEPEST} levels")
            node = Call("!", (self._unary(),), token.column)
            self._depth -= 1
            return node
        if self._take("(") is not None:
            inner = self._expression(0)
            self._expect(")")
            return self._followed(inner)
        return self._single()

    def _single(self) -> Node:
        token = self._next()
        if token is None:
            raise ExpressionError("something is missing at its end", column=len(self._text))
        self._at += 1
        match token.sort:
            case "number":
                return Literal(_number(token.text))
            case "text":
                return Literal(token.text[1:-1].replace("''", "'"))
            case "name" if token.text in _WORDS:
                return Literal(_WORDS[token.text])
            case "name" if self._take("(") is not None:
                return self._followed(Call(token.text, self._arguments(), token.column))
            case "name":
                return self._followed(Path(token.text, (), token.column))
        raise ExpressionError(f"{token.text!r} isn't expected here", column=token.column)

    def _arguments(self) -> tuple[Node, ...]:
        found: list[Node] = []
        if self._take(")") is not None:
            return ()
        while True:
            found.append(self._expression(0))
            if self._take(",") is None:
                self._expect(")")
                return tuple(found)

    def _followed(self, node: Node) -> Node:
        """Read `.name`, `.*` and `[index]` after a value."""
        while (token := self._take(".", "[")) is not None:
            if token.text == "[":
                step = self._expression(0)
                self._expect("]")
            elif self._take("*") is not None:
                step = Literal(None)
            else:
                step = Literal(self._name())
            if isinstance(node, Path):
                node = Path(node.name, (*node.steps, step), node.column)
            else:
                node = Call("[]", (node, step), token.column)
        return node

    def _name(self) -> str:
        token = self._next()
        if token is None or token.sort != "name":
            column = token.column if token else len(self._text)
            raise ExpressionError("a name is expected after the dot", column=column)
        self._at += 1
        return token.text


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            column = at + len(text[at:]) - len(text[at:].lstrip())
            if text[column] == "'":
                raise ExpressionError("this text has no end", column=column)
            hint = "; texts stand in single quotes" if text[column] == '"' else ""
            raise ExpressionError(f"{text[column]!r} isn't expected here{hint}", column=column)
        sort = match.lastgroup
        yield _Token(sort, match[sort], match.start(sort))
        at = match.end()


def _number(text: str) -> Value:
    if "x" in text:
        return int(text, 16)
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    below: tuple[Node, ...] = ()
    if isinstance(node, Call):
        below = node.arguments
    elif isinstance(node, Path):
        below = node.steps
    for one in below:
        yield from _nodes(one)


def _paths(node: Node) -> Iterator[tuple[str, ...]]:
    for one in _nodes(node):
        if not isinstance(one, Path):
            continue
        words = [one.name]
        for step in one.steps:
            if not isinstance(step, Literal) or not isinstance(step.value, str):
                break
            words.append(step.value)
        yield tuple(words)


class _Evaluation:
    """One working out of an expression."""

    def __init__(
        self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Value]]
    ) -> None:
        self._names = names
        self._functions = functions

    def of(self, node: Node) -> Value:
        match node:
            case Literal(value):
                return value
            case Path(name, steps, column):
                if name not in self._names:
                    known = ", ".join(sorted(self._names))
                    raise ExpressionError(f"no such name: {name}; there is {known}", column=column)
                begin: Value = self._names[name]
                return self._followed(begin, steps)
            case Call("&&", (left, right)):
                value = self.of(left)
                return self.of(right) if is_true(value) else value
            case Call("||", (left, right)):
                value = self.of(left)
                return value if is_true(value) else self.of(right)
            case Call(function, arguments, column):
                return self._called(function, [self.of(one) for one in arguments], column)
        raise AssertionError(node)

    def _followed(self, value: Value, steps: Sequence[Node]) -> Value:
        for step in steps:
            value = _member(value, self.of(step))
        return value

    def _called(self, name: str, arguments: Sequence[Value], column: int) -> Value:
        function = self._functions.get(name)
        if function is None:
            known = ", ".join(sorted(one for one in self._functions if one.isalpha()))
            raise ExpressionError(f"no such function: {name}; there is {known}", column=column)
        try:
            value = function(*arguments)
        except ExpressionError as error:
            raise ExpressionError(error.message, column=column) from error
        except TypeError as error:
            raise ExpressionError(
                f"{name} doesn't take {len(arguments)} arguments", column=column
            ) from error
        if isinstance(value, str) and len(value) > LARGEST:
            raise ExpressionError(f"{name} makes more than {LARGEST >> 20} MiB", column=column)
        return value


def _member(value: Value, step: Value) -> Value:
    """Return a member of a table or a list; what isn't there is null, as in JSON with gaps."""
    if step is None:  # .*
        return list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, dict):
        return value.get(text_of(step))
    if isinstance(value, list):
        number = _as_number(step)
        if not math.isnan(number):
            index = int(number)
            return value[index] if 0 <= index < len(value) else None
        return [_member(one, step) for one in value]
    return None


def _as_number(value: Value) -> float:
    match value:
        case None:
            return 0
        case bool() | int() | float():
            return float(value)
        case str():
            try:
                return float(int(value, 16)) if "x" in value else float(value or 0)
            except ValueError:
                return math.nan
    return math.nan


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    if isinstance(left, list | dict) or isinstance(right, list | dict):
        return left == right
    if left is None and right is None:
        return True
    return _as_number(left) == _as_number(right)


def _less(left: Value, right: Value) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() < right.casefold()
    return _as_number(left) < _as_number(right)


def _contains(where: Value, what: Value) -> bool:
    if isinstance(where, list):
        return any(_equal(one, what) for one in where)
    return text_of(what).casefold() in text_of(where).casefold()


def _format(pattern: Value, *values: Value) -> str:
    def filled(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None or int(match[1]) >= len(values):
            raise ExpressionError(f"format has no value for {match[0]!r}")
        return text_of(values[int(match[1])])

    return re.sub(r"\{\{|\}\}|\{(\d{1,4})\}|[{}]", filled, text_of(pattern))


def _joined(value: Value, separator: Value = ",") -> str:
    items = value if isinstance(value, list) else [value]
    return text_of(separator).join(map(text_of, items))


def _from_json(value: Value) -> Value:
    try:
        read: Value = json.loads(text_of(value))
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"that is no JSON: {text_of(value)[:60]!r} ({error})") from error
    return read


def _to_json(value: Value) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


#: The functions, and the operators, that need nothing but their arguments.
FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _less,
    ">": lambda left, right: _less(right, left),
    "<=": lambda left, right: _less(left, right) or _equal(left, right),
    ">=": lambda left, right: _less(right, left) or _equal(left, right),
    "!": lambda value: not is_true(value),
    "[]": _member,
    "contains": _contains,
    "startsWith": lambda text, start: (
        text_of(text).casefold().startswith(text_of(start).casefold())
    ),
    "endsWith": lambda text, end: text_of(text).casefold().endswith(text_of(end).casefold()),
    "format": _format,
    "join": _joined,
    "toJSON": _to_json,
    "fromJSON": _from_json,
    "lines": lambda text: text_of(text).splitlines(),
}
