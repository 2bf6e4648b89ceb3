"""Values out of lines that anybody may have written: nothing here raises, and all is bounded.

An agent's output holds what its tools printed, so a line may be of any length, half, or no JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: A longer line isn't looked into: 50 MB of one tool's output would take half a gigabyte as JSON.
LONGEST_LINE = 16 * 2**20
#: An answer that is longer is cut.
LONGEST_TEXT = 2**20
#: What a person reads of one line that isn't understood.
LONGEST_NOTE = 2000
_TELLING = (
    "command file_path path notebook_path pattern query url prompt description skill name".split()
)
_MOST = 2**53


def parsed(line: str) -> Any:
    """Return the JSON value that a line holds, None if it holds none or is too long."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def table(line: str) -> Mapping[str, Any] | None:
    """Return the JSON object that a line holds, None if it holds none."""
    if not line.lstrip().startswith("{"):
        return None
    value = parsed(line)
    return value if isinstance(value, dict) else None


def at(value: Any, *path: str) -> Any:
    """Return what stands at a path of keys, None where there is no such place."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def rows(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, nothing for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def text(value: Any, longest: int = LONGEST_TEXT) -> str:
    """Return a text that can be encoded, empty for anything else."""
    if not isinstance(value, str):
        return ""
    # JSON may hold half of a surrogate pair, which no file and no Redis takes.
    return value[:longest].encode("utf-8", "replace").decode("utf-8")


def word(value: Any) -> str | None:
    """Return a short text, None for an empty one or anything else."""
    return text(value, 200) or None


def number(value: Any) -> float | None:
    """Return a finite number from 0 on, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST and math.isfinite(value) else None


def count(value: Any) -> int:
    """Return a whole number from 0 on, 0 for anything else."""
    return int(number(value) or 0)


def whole(value: Any) -> int | None:
    """Return a whole number from 0 on, None for anything else."""
    found = number(value)
    return None if found is None else int(found)


def seconds(milliseconds: Any) -> float | None:
    """Return milliseconds as seconds."""
    found = number(milliseconds)
    return None if found is None else found / 1000


def one_line(value: str, longest: int = 200) -> str:
    """Return a text as one short line."""
    line = " ".join(value[: 4 * longest].split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def gist(arguments: Any) -> str:
    """Return what says most of a tool's arguments, in one short line."""
    if isinstance(arguments, dict):
        for key in _TELLING:
            if found := text(arguments.get(key), 1000):
                return one_line(found)
        if not arguments:
            return ""
    if isinstance(arguments, str):
        return one_line(text(arguments, 1000))
    try:
        return one_line(text(json.dumps(arguments, ensure_ascii=False), 1000))
    except RecursionError:
        return ""


def value_in(answer: str | None) -> tuple[Any, bool]:
    """Return the JSON object or list that an answer is, and whether it is one."""
    bare = (answer or "").strip().removeprefix("```json").removesuffix("```").strip()
    if not bare.startswith(("{", "[")):
        return None, False
    value = parsed(bare)
    return value, value is not None
