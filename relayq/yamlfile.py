"""YAML files that are read with the place of everything in them, for errors that name it.

Every scalar is the text as it is written: none of YAML 1.1's surprises (`no`, `on`, `22:30`,
`010`) can happen, and whoever asks knows which type the value should have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from relayq.errors import ConfigError

_NULLS = {"", "~", "null", "Null", "NULL"}
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
#: Numbers of YAML 1.2's core schema; `010` and `1_000` are texts there, or should be.
_WHOLE = re.compile(r"[-+]?(0|[1-9]\d*)")
_FRACTION = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_ZEROS = re.compile(r"[-+]?0\d")
#: How much a file may hold, with what its aliases repeat, and how deep.
_MOST, _DEEPEST = 200_000, 60


class Place(NamedTuple):
    """Where something stands; as text `file:line:column`."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Value:
    """What stands in one place of a file: a text, nothing, a table or a list."""

    def __init__(self, node: Any, file: str, source: str = "") -> None:
        self._node = node
        self._source = source
        self.place = _place(file, node.start_mark)

    def text(self, what: str) -> str:
        """Return the text, empty for a null; `what` names the value in the error."""
        if self._node.id != "scalar":
            raise ConfigError(f"{what}: expected one value, got {self._shape}", place=self.place)
        written: str = self._node.value
        return "" if not self._node.style and written in _NULLS else written

    def flat(self, what: str, takes: Collection[str] = ()) -> str:
        """Return the text; of a list `a,b` and of a table `a=1,b=2`, where `takes` allows them."""
        if self._node.id == "sequence" and "array" in takes:
            return ",".join(item.text(f"an item of {what}") for item in self.items())
        if self._node.id == "mapping" and "object" in takes:
            problems: list[ConfigError] = []
            rows = [f"{key}={value.text(key)}" for key, _, value in self.table(what, problems)]
            if problems:
                raise problems[0]
            return ",".join(rows)
        return self.text(what)

    def table(self, what: str, problems: list[ConfigError]) -> Iterator[tuple[str, Place, Value]]:
        """Yield each key, its place and its value; a null is an empty table.

        A key that can't be used goes into `problems`, and the next one follows.
        """
        if self._node.id == "scalar" and not self.text(what):
            return
        if self._node.id != "mapping":
            raise ConfigError(f"{what}: expected 'key: value', got {self._shape}", place=self.place)
        seen: dict[str, Place] = {}
        for key_node, value_node in self._node.value:
            key = self._beside(key_node)
            try:
                name = key.text(f"a key of {what}")
            except ConfigError as error:
                problems.append(error)
                continue
            if name in seen:
                where = f"first in line {seen[name].line}"
                problems.append(
                    ConfigError(f"{name!r} stands twice in {what} ({where})", place=key.place)
                )
                continue
            seen[name] = key.place
            yield name, key.place, self._beside(value_node)

    def plain(self, what: str, problems: list[ConfigError]) -> Any:
        """Return the value with all that is in it, every scalar of it as text."""
        if self._node.id == "sequence":
            return [item.plain(f"an item of {what}", problems) for item in self.items()]
        if self._node.id == "mapping":
            rows = self.table(what, problems)
            return {key: value.plain(f"{what}.{key}", problems) for key, _, value in rows}
        return self.text(what)

    @property
    def sort(self) -> str:
        """What it is: scalar, sequence or mapping."""
        sort: str = self._node.id
        return sort

    def items(self) -> Sequence[Value]:
        """Return what a list holds."""
        return [self._beside(node) for node in self._node.value]

    def scalar(self) -> None | bool | int | float | str:
        """Return one value by the core schema of YAML 1.2; what stands in quotes is a text."""
        written: str = self._node.value
        if self._node.style:
            return written
        if written in _NULLS:
            return None
        if written in _TRUTHS:
            return _TRUTHS[written]
        if _WHOLE.fullmatch(written):
            return int(written)
        is_number = _FRACTION.fullmatch(written) and not _ZEROS.match(written)
        return float(written) if is_number else written

    def place_of(self, offset: int) -> Place:
        """Return where in the file the letter of the text is that stands at this offset.

        Exact for what follows a `${{`, and in texts that are written as they are.
        """
        text: str = self._node.value
        start = self._node.start_mark.index
        begin = text.rfind("${{", 0, offset + 3)
        if begin >= 0:
            at = start
            for _ in range(text.count("${{", 0, begin + 1) + 1):
                at = self._source.find("${{", at) + 3
            at += offset - begin - 3
        elif self._node.style in ("|", ">"):
            return self.place
        else:
            at = start + bool(self._node.style) + offset
        line = self._source.count("\n", 0, at)
        return Place(self.place.file, line + 1, at - self._source.rfind("\n", 0, at))

    def _beside(self, node: Any) -> Value:
        return Value(node, self.place.file, self._source)

    @property
    def _shape(self) -> str:
        if self._node.id == "scalar":
            return repr(self._node.value)
        return "a list" if self._node.id == "sequence" else "'key: value'"


def read(path: Path, file: str) -> Value:
    """Return what is in the file; errors call it `file`.

    Raises `FileNotFoundError` as it is.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't be read: {error}", place=file) from error
    return compose(text, file)


def compose(text: str, file: str) -> Value:
    """Return what is in a text; errors call it `file`."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(file, mark) if mark else file
        raise ConfigError(str(error.problem or error.context), place=place) from error
    except yaml.YAMLError as error:
        raise ConfigError(" ".join(str(error).split()), place=file) from error
    if node is None:  # PyYAML has no node for an empty file.
        node = yaml.ScalarNode("", "", yaml.Mark(file, 0, 0, 0, None, 0))
    _check_size(node, file)
    return Value(node, file, text)


def _check_size(node: Any, file: str) -> None:
    """Raise for what aliases make endless, or larger than anybody meant."""
    count, left = 0, [(node, 0)]
    while left:
        one, depth = left.pop()
        count += 1
        if count > _MOST or depth > _DEEPEST:
            raise ConfigError(
                "it holds too much, or is too deep", place=_place(file, one.start_mark)
            )
        if one.id == "sequence":
            left += [(inner, depth + 1) for inner in one.value]
        elif one.id == "mapping":
            left += [(inner, depth + 1) for pair in one.value for inner in pair]


def _place(file: str, mark: Any) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)
