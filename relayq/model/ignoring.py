"""The rules of `.gitignore` files, for directories that no git knows.

Where git can be asked it is asked; `relayq.sourcetree` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CLASS = re.compile(r"\[([!^]?)(\]?(?:\\.|\[:\w+:\]|[^\]\\])*)\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a `.gitignore`: what it matches, relative to the file's own directory."""

    pattern: re.Pattern[str]
    ignores: bool
    is_for_directories: bool


def read(text: str) -> list[Rule]:
    """Return the rules of a `.gitignore`, in its order; lines that say nothing are left out."""
    return [rule for line in text.splitlines() if (rule := _rule(line)) is not None]


def is_ignored(path: str, *, is_directory: bool, rules: Sequence[tuple[str, Rule]]) -> bool:
    """Tell whether the last rule that matches says so; `rules` are pairs of directory and rule.

    What is in an ignored directory is ignored as well: that is for whoever walks.
    """
    for directory, rule in reversed(rules):
        if rule.is_for_directories and not is_directory:
            continue
        if directory and not path.startswith(f"{directory}/"):
            continue
        if rule.pattern.fullmatch(path[len(directory) + 1 :] if directory else path):
            return rule.ignores
    return False


def _rule(line: str) -> Rule | None:
    line = line.removesuffix("\r")
    # Spaces at the end don't count, unless a backslash is before them.
    line = re.sub(r"(?<!\\)((?:\\\\)*) +$", r"\1", line)
    if not line or line.startswith("#"):
        return None
    ignores = not line.startswith("!")
    line = line if ignores else line[1:]
    is_for_directories = line.endswith("/")
    line = line[:-1] if is_for_directories else line
    if not line:
        return None
    is_anchored = "/" in line
    body = line.removeprefix("/")
    prefix = "" if is_anchored else "(?:.*/)?"
    try:
        pattern = re.compile(prefix + _translated(body), re.DOTALL)
    except re.error:  # an unclosed or backward range: such a line matches nothing in git either
        return None
    return Rule(pattern, ignores, is_for_directories)


def _translated(glob: str) -> str:
    """Return a pattern's regular expression: `*` stays within a directory, `**` doesn't."""
    found, at = "", 0
    while at < len(glob):
        rest = glob[at:]
        begins = at == 0 or glob[at - 1] == "/"
        if begins and rest.startswith("**/"):
            found, at = found + "(?:.*/)?", at + 3
        elif begins and rest == "**":
            found, at = found + ".*", at + 2
        elif rest[0] == "*":
            found, at = found + "[^/]*", at + 1
        elif rest[0] == "?":
            found, at = found + "[^/]", at + 1
        elif (chars := _CLASS.match(rest)) is not None:
            found, at = found + _class(chars), at + chars.end()
        elif rest[0] == "[":
            raise re.error("unclosed")
        elif rest[0] == "\\" and len(rest) > 1:
            found, at = found + re.escape(rest[1]), at + 2
        else:
            found, at = found + re.escape(rest[0]), at + 1
    return found


_NAMED = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "lower": "a-z",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


def _class(match: re.Match[str]) -> str:
    inside = re.sub(r"\[:(\w+):\]", lambda m: _NAMED.get(m[1], ""), match[2])
    inside = inside.replace("[", r"\[")
    if inside.startswith("]"):
        inside = "\\" + inside
    if inside.startswith("^"):
        inside = "\\" + inside
    return f"(?!/)[{'^' if match[1] else ''}{inside}]"
