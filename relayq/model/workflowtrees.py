"""What a workflow is read from: values with the place of each, of a file or of Python's own."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from relayq.errors import ConfigError
from relayq.model.expressions import ExpressionError
from relayq.model.templates import read as read_template
from relayq.yamlfile import Value, compose

#: Where something is in a tree: keys of tables and numbers of items, from the top.
Way = tuple[str | int, ...]


@dataclass
class Tree:
    """A tree of tables, lists and values; `problems` collects all that is wrong in it."""

    root: Any
    file: str = ""
    values: Mapping[Way, Value] = field(default_factory=dict)
    keys: Mapping[Way, object] = field(default_factory=dict)
    problems: list[ConfigError] = field(default_factory=list)

    def wrong(self, way: Way, message: str, *, hint: str | None = None, offset: int = -1) -> None:
        """Note what is wrong, with its place; an offset is that of a letter in its text."""
        self.problems.append(ConfigError(message, place=self.place(way, offset), hint=hint))

    def place(self, way: Way, offset: int = -1) -> object | None:
        """Return where something stands; of what isn't from a file its way, in words."""
        found = self.values.get(way)
        if found is not None:
            return found.place_of(offset) if offset >= 0 else found.place
        words = [str(part) for part in way if part not in ("jobs", "tasks")]
        return self.file or ".".join(words) or None

    def key_place(self, way: Way) -> object | None:
        """Return where the key of a table's entry stands."""
        return self.keys.get(way) or self.place(way)

    def unknown(self, way: Way, known: Collection[str], what: str) -> None:
        """Note a key that nobody knows, with what it may have been meant to be."""
        name = str(way[-1])
        close = get_close_matches(name, known, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        error = ConfigError(f"{what} has no key {name!r}{meant}", place=self.key_place(way))
        self.problems.append(error)

    def check_texts(self, way: Way, value: Any) -> None:
        """Note every expression that can't be read."""
        match value:
            case str() if "${{" in value:
                try:
                    read_template(value)
                except ExpressionError as error:
                    self.wrong(way, error.message, offset=error.column)
            case Mapping():
                for key, inner in value.items():
                    self.check_texts((*way, key), inner)
            case list() | tuple():
                for number, inner in enumerate(value):
                    self.check_texts((*way, number), inner)

    # What is asked of one value; a wrong one is noted, and the answer then is empty.

    def table(self, way: Way, value: Any, what: str) -> dict[str, Any]:
        """Return a table."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.wrong(way, f"{what}: expected 'key: value', got {shown(value)}")
            return {}
        return {str(key): one for key, one in value.items()}

    def text(self, way: Way, value: Any, what: str) -> str:
        """Return a text; numbers and truths are theirs as they are written."""
        found = self.values.get(way)
        if found is not None and found.sort == "scalar":
            return found.text(what)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, os.PathLike):
            return str(os.fspath(value))
        if value is None or not isinstance(value, str | int | float):
            self.wrong(way, f"{what}: expected a text, got {shown(value)}")
            return ""
        return str(value)

    def as_written(self, way: Way, value: Any) -> Any:
        """Return a value, but a fraction as the text that it is in its file: `3.10` isn't `3.1`."""
        return self.text(way, value, "") if isinstance(value, float) else value

    def texts(self, way: Way, value: Any, what: str) -> list[str]:
        """Return a list of texts; one text is a list of one."""
        if value is None:
            return []
        if isinstance(value, list | tuple | set):
            return [self.text((*way, n), one, f"an item of {what}") for n, one in enumerate(value)]
        return [self.text(way, value, what)]

    def truth(self, way: Way, value: Any, what: str) -> bool:
        """Return true or false."""
        if isinstance(value, bool):
            return value
        if str(value).lower() not in ("yes", "no", "true", "false"):
            self.wrong(way, f"{what}: expected true or false, got {shown(value)}")
        return str(value).lower() in ("yes", "true")

    def number(self, way: Way, value: Any, what: str) -> int:
        """Return a whole number from 0 on."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.wrong(way, f"{what}: expected a whole number, got {shown(value)}")
            return 0
        return value


def from_text(text: str, file: str) -> Tree:
    """Read YAML, of which JSON is a part."""
    if text.lstrip()[:1] == "{":
        # What indents JSON may be a tab; within its texts there is none.
        text = text.replace("\t", " ")
    tree = Tree(None, file)
    values: dict[Way, Value] = {}
    keys: dict[Way, object] = {}
    tree.values, tree.keys = values, keys

    def plain(value: Value, way: Way) -> Any:
        values[way] = value
        if value.sort == "sequence":
            return [plain(one, (*way, n)) for n, one in enumerate(value.items())]
        if value.sort == "scalar":
            return value.scalar()
        found = {}
        for key, place, inner in value.table(str(way[-1]) if way else file, tree.problems):
            keys[(*way, key)] = place
            found[key] = plain(inner, (*way, key))
        return found

    tree.root = plain(compose(text, file), ())
    return tree


def shown(value: Any) -> str:
    """Return a value for an error."""
    if isinstance(value, Mapping):
        return "'key: value'"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else repr(value)


def snake(key: str) -> str:
    """Return a key in one spelling: `runs-on`, `runsOn` and `runs_on` are the same."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).replace("-", "_").lower()
