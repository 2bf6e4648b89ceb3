"""YAML files that are read with the place of everything in them, for errors that name it.

Every scalar is the text as it is written: none of YAML 1.1's surprises (`no`, `on`, `22:30`,
`010`) can happen, and whoever asks knows which type the value should have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from relayq.errors import ConfigError

_NULLS = {"", "~", "null", "Null", "NULL"}


class Place(NamedTuple):
    """Where something stands; as text `file:line:column`."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Value:
    """What stands in one place of a file: a text, nothing, a table or a list."""

    def __init__(self, node: Any, file: str) -> None:
        self._node = node
        self.place = _place(file, node.start_mark)

    def text(self, what: str) -> str:
        """Return the text, empty for a null; `what` names the value in the error."""
        if self._node.id != "scalar":
            raise ConfigError(f"{what}: expected one value, got {self._shape}", place=self.place)
        written: str = self._node.value
        return "" if self._node.style is None and written in _NULLS else written

    def flat(self, what: str, takes: Collection[str] = ()) -> str:
        """Return the text; of a list `a,b` and of a table `a=1,b=2`, where `takes` allows them."""
        if self._node.id == "sequence" and "array" in takes:
            items = (Value(node, self.place.file) for node in self._node.value)
            return ",".join(item.text(f"an item of {what}") for item in items)
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
            key = Value(key_node, self.place.file)
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
            yield name, key.place, Value(value_node, self.place.file)

    def plain(self, what: str, problems: list[ConfigError]) -> Any:
        """Return the value with all that is in it, every scalar of it as text."""
        if self._node.id == "sequence":
            items = (Value(node, self.place.file) for node in self._node.value)
            return [item.plain(f"an item of {what}", problems) for item in items]
        if self._node.id == "mapping":
            rows = self.table(what, problems)
            return {key: value.plain(f"{what}.{key}", problems) for key, _, value in rows}
        return self.text(what)

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
    # PyYAML has no node for an empty file.
    return Value(node or yaml.ScalarNode("", "", yaml.Mark(file, 0, 0, 0, None, 0)), file)


def _place(file: str, mark: Any) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)
