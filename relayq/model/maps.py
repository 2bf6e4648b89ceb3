"""A command for each of many inputs: what stands where `{}` does, and which inputs there are.

The placeholders are GNU parallel's. In a shell line a value is quoted as the text around it is, so
that no shell takes a part of it for code; an argument vector takes it as it is.
"""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from relayq.errors import RelayqError

Command = str | list[str]

_PLACEHOLDER = re.compile(r"\{(#|(\d*)(\.|//|/\.|/)?)\}")
_PARTS: Mapping[str, Callable[[str], str]] = {
    "": lambda value: value,
    ".": lambda value: _without_extension(value),
    "/": lambda value: value.rpartition("/")[2],
    "//": lambda value: os.path.dirname(value) or ".",
    "/.": lambda value: _without_extension(value.rpartition("/")[2]),
}
_EXTENSION = re.compile(r"(?<=[^/])\.[^/.]*$")
#: What is safe even where a shell works an expression out.
_PLAIN = re.compile(r"[\w.+-]*")
_INSTEAD = "give the command as several arguments, such as sh -c '... \"$1\"' sh {}"


@dataclass(frozen=True, slots=True)
class Item:
    """One of the inputs, or one of several sources each; numbered from 1."""

    number: int
    values: tuple[str, ...]

    @property
    def text(self) -> str:
        """The input as people recognise it."""
        return " ".join(self.values)


def items_of(inputs: Iterable[Any]) -> list[Item]:
    """Return the inputs, each a text, a path or several of these, as items."""
    return [Item(number, _values(one)) for number, one in enumerate(inputs, 1)]


def _values(one: Any) -> tuple[str, ...]:
    if isinstance(one, str | os.PathLike):
        return (os.fspath(one),)
    if isinstance(one, bool) or one is None:
        raise RelayqError(f"an input is a text, a number or a path, or several, not {one!r}")
    if isinstance(one, int | float):
        return (str(one),)
    if isinstance(one, tuple | list) and one:
        return tuple(value for part in one for value in _values(part))
    raise RelayqError(f"an input is a text, a number or a path, or several, not {one!r:.80}")


def combined(sources: Sequence[tuple[Sequence[str], bool]]) -> list[tuple[str, ...]]:
    """Return every combination of the sources' values, the last one's changing first.

    A source that is linked (the second of the pair) goes along with the one before it, value by
    value, as far as both reach.
    """
    groups: list[list[tuple[str, ...]]] = []
    for values, is_linked in sources:
        if is_linked and groups:
            pairs = zip(groups[-1], values, strict=False)
            groups[-1] = [(*before, value) for before, value in pairs]
        else:
            groups.append([(value,) for value in values])
    return [tuple(value for part in row for value in part) for row in product(*groups)]


def lines_of(text: str, *, by_nul: bool = False) -> list[str]:
    """Return the inputs that a file holds, one a line or with a NUL after each."""
    mark = "\0" if by_nul else "\n"
    lines = text.split(mark)
    return lines[:-1] if lines[-1] == "" else lines


def with_placeholder(cmd: Command) -> Command:
    """Return the command with `{}` at its end if nothing in it stands for the input."""
    if any(_PLACEHOLDER.search(word) for word in ([cmd] if isinstance(cmd, str) else cmd)):
        return cmd
    return f"{cmd} {{}}" if isinstance(cmd, str) else [*cmd, "{}"]


def command_for(cmd: Command, item: Item) -> Command:
    """Return the command for one item: a shell line, or a program with its arguments."""
    if isinstance(cmd, str):
        return "".join(_Line(cmd, item).parts())
    return [word for template in cmd for word in _words(template, item)]


def _words(template: str, item: Item) -> list[str]:
    """Return a word for an argument vector; `{}` alone becomes a word for each value."""
    if template == "{}":
        return list(item.values)
    return [filled(template, item)]


def filled(template: str, item: Item) -> str:
    """Return a text with the placeholders replaced, as it is for no shell."""
    return _PLACEHOLDER.sub(lambda found: " ".join(_meant(found, item)), template)


def _meant(found: re.Match[str], item: Item) -> list[str]:
    """Return what a placeholder stands for."""
    whole, position, part = found.groups()
    if whole == "#":
        return [str(item.number)]
    change = _PARTS[part or ""]
    if not position:
        return [change(value) for value in item.values]
    if not 1 <= int(position) <= len(item.values):
        raise RelayqError(
            f"{found[0]} is the input of source {position}, and there are {len(item.values)}",
            hint="relayq map --help",
        )
    return [change(item.values[int(position) - 1])]


def _without_extension(value: str) -> str:
    return _EXTENSION.sub("", value)


class _Line:
    """A shell line, read as a shell reads it as far as its quotes go."""

    def __init__(self, text: str, item: Item) -> None:
        self._text = text
        self._item = item
        #: What surrounds the place: a quote, a backtick, "(" of a `$(`, "((" of a `$((`; the
        #: innermost last.
        self._open: list[str] = []
        #: Why no input can stand here any more, "" if one can.
        self._ban = ""

    def parts(self) -> Iterator[str]:
        """Yield the line in parts, the values among them quoted as their place asks for it."""
        at = 0
        while at < len(self._text):
            found = _PLACEHOLDER.match(self._text, at)
            if found is not None:
                yield self._quoted(_meant(found, self._item))
                at = found.end()
                continue
            end = self._step(at)
            yield self._text[at:end]
            at = end

    def _quoted(self, values: Sequence[str]) -> str:
        ban = "between backticks" if "`" in self._open else self._ban
        if "((" in self._open and not all(map(_PLAIN.fullmatch, values)):
            ban = f"in $((...)) unless it is a number or a name, unlike {' '.join(values)!r:.60}"
        if ban:
            raise RelayqError(
                f"an input can't stand {ban}: a shell would run parts of it", hint=_INSTEAD
            )
        place = self._open[-1] if self._open else ""
        if place == "'":
            return " ".join(values).replace("'", "'\\''")
        if place == '"':
            return f'"{shlex.quote(" ".join(values))}"'
        return " ".join(map(shlex.quote, values))

    def _step(self, at: int) -> int:
        """Take what belongs together; returns where the next begins."""
        place = self._open[-1] if self._open else ""
        if place == "'":
            if self._text[at] == "'":
                self._open.pop()
            return at + 1
        if self._text[at] == "\\":
            return at + 2
        for opening in ("$((", "$("):
            if self._text.startswith(opening, at):
                self._open.append(opening[1:])
                return at + len(opening)
        if place == "((" and self._text.startswith("))", at):
            self._open.pop()
            return at + 2
        if place != '"':
            return self._unquoted(at, place)
        if self._text[at] == '"':
            self._open.pop()
        elif self._text[at] == "`":
            self._backtick()
        return at + 1

    def _unquoted(self, at: int, place: str) -> int:
        """Take a part of the line that stands in no quotes."""
        text, char = self._text, self._text[at]
        begins_word = at == 0 or text[at - 1] in " \t\n;&|("
        if char == "#" and begins_word:
            end = text.find("\n", at)
            return len(text) if end < 0 else end
        if text.startswith("<<<", at):
            return at + 3
        if text.startswith("<<", at) and place != "((":
            self._ban = "in a here-document, or after one"
        elif text.startswith("$'", at):
            self._ban = "after $'...', which not every shell knows"
        elif place == "(" and begins_word and text.startswith("case", at):
            self._ban = "after a case within $(...)"
        if char in "'\"":
            self._open.append(char)
        elif char == "`":
            self._backtick()
        elif char == "(" and place in ("(", "(("):
            self._open.append("(")
        elif char == ")" and place == "(":
            self._open.pop()
        return at + 1

    def _backtick(self) -> None:
        if "`" in self._open:
            while self._open.pop() != "`":
                continue
        else:
            self._open.append("`")
