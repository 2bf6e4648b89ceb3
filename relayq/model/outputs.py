"""The values that a job gives to the steps after it, as its file holds them: `name=value` lines.

A value of several lines stands between `name<<END` and a line `END`, as in GitHub Actions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Names of the variables that tell a job where its file is.
VARIABLES = ("RELAYQ_OUTPUT", "GITHUB_OUTPUT")
#: How many bytes the outputs of a job may have in all.
LARGEST = 2**20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_LINE = re.compile(r"([^=<]*)(=|<<)(.*)")


def check_name(name: str) -> str:
    """Return the name of an output, or raise ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"an output's name has letters, digits, '_' and '-', not {name!r:.80}")
    return name


def read(raw: bytes) -> dict[str, str]:
    """Return the outputs of a file, the last of each name; ValueError with the line that is wrong.

    Wrong UTF-8 becomes U+FFFD.
    """
    if len(raw) > LARGEST:
        raise ValueError(
            f"they have more than {LARGEST >> 20} MiB; bring large ones back as a file"
        )
    found = {}
    lines = raw.decode(errors="replace").split("\n")
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is no name=value: {line!r:.80}")
        try:
            name = check_name(match[1].strip())
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if match[2] == "=":
            found[name] = match[3]
            continue
        end = match[3].strip()
        if not end or end not in lines[at:]:
            raise ValueError(f"line {number}: {name}<<{end} has no line {end!r} after it")
        last = lines.index(end, at)
        found[name] = "\n".join(lines[at:last])
        at = last + 1
    return found


def written(outputs: Mapping[str, str], *, end: str) -> bytes:
    """Return outputs as a file holds them; `end` is a text that no value has as a line."""
    parts = []
    for name, value in outputs.items():
        check_name(name)
        is_plain = not re.search(r"[\r\n]", value)
        parts.append(f"{name}={value}\n" if is_plain else f"{name}<<{end}\n{value}\n{end}\n")
    return "".join(parts).encode("utf-8", "replace")


def size_of(outputs: Mapping[str, str]) -> int:
    """Return how many bytes outputs have, names and values."""
    return sum(len(text.encode("utf-8", "replace")) for pair in outputs.items() for text in pair)
