"""Changing single keys of `config.yml`, and nothing else of what its owner wrote there.

The text is changed line by line, then read again: unless exactly the asked keys have changed, and
the whole is a good configuration, the file stays as it was.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relayq import config, yamlfile
from relayq.errors import ConfigError

Scalar = str | int | bool | None
#: What needs no quotes, whoever reads it.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9._/-]*|[1-9][0-9]*")
_NOT_PLAIN = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def change(path: Path, values: Mapping[str, Scalar]) -> None:
    """Give keys such as `worker.name` these values; None takes one out."""
    path = Path(os.path.realpath(path))
    _replace(path, planned(path, values))


def planned(path: Path, values: Mapping[str, Scalar]) -> str:
    """Return what the file would be; raises ConfigError where that can't be done by a program."""
    path = Path(os.path.realpath(path))
    after = _planned(path, values)
    if after is not None:
        return after
    needed = "".join(f"\n  {name}: {written(one)}" for name, one in values.items() if one)
    raise ConfigError(
        f"it is written in a way that no program should change; it needs{needed}",
        place=path,
        hint="relayq config edit",
    )


def can_change(path: Path, values: Mapping[str, Scalar]) -> bool:
    """Whether these keys could be changed by a program; ConfigError if it can't be read at all."""
    return _planned(Path(os.path.realpath(path)), values) is not None


def _planned(path: Path, values: Mapping[str, Scalar]) -> str | None:
    try:
        before = path.read_text("utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't be read: {error}", place=path) from error
    wanted = _changed(_read(before, path), values)
    after = with_values(before, values)
    try:
        return after if _read(after, path) == wanted else None
    except ConfigError:
        # What the lines were taken for they aren't.
        return None


def with_values(text: str, values: Mapping[str, Scalar]) -> str:
    """Return the text with these keys, each in its section; the others stay as they are."""
    lines = text.splitlines()
    sections: dict[str, dict[str, Scalar]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    for section, keys in sections.items():
        _change_section(lines, section, keys)
    return "".join(f"{line}\n" for line in lines)


def _change_section(lines: list[str], section: str, keys: Mapping[str, Scalar]) -> None:
    head = re.compile(rf"(['\"]?){re.escape(section)}\1\s*:\s*(\{{\s*\}}|~|null)?\s*(#.*)?$")
    begin = next((i for i, line in enumerate(lines) if head.match(line)), None)
    if begin is None:
        new = [f"  {key}: {written(value)}" for key, value in keys.items() if value is not None]
        if new:
            lines += [f"{section}:", *new]
        return
    end = begin + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " #\t"):
        end += 1
    while end > begin + 1 and (not lines[end - 1].strip() or lines[end - 1][0] == "#"):
        end -= 1
    block = lines[begin + 1 : end]
    indent = next((_indent(x) for x in block if x.strip() and x.strip()[0] != "#"), 2)
    for key, value in keys.items():
        _change_key(block, key, value, indent)
    left = [line for line in block if line.strip() and line.strip()[0] != "#"]
    # A section with nothing in it would be a null, which is fine; but `broker: {}` is no head.
    lines[begin:end] = [f"{section}:" if left else lines[begin], *block]


def _change_key(block: list[str], key: str, value: Scalar, indent: int) -> None:
    own = re.compile(rf" {{{indent}}}(['\"]?){re.escape(key)}\1\s*:(\s|$)")
    new = [] if value is None else [f"{' ' * indent}{key}: {written(value)}"]
    at = next((i for i, line in enumerate(block) if own.match(line)), None)
    if at is None:
        block += new
        return
    after = at + 1
    while after < len(block) and block[after].strip() and _indent(block[after]) > indent:
        after += 1
    block[at:after] = new


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def written(value: Scalar) -> str:
    """Return a value as it is written in the file."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN:
        return text
    return json.dumps(text, ensure_ascii=False)


def _read(text: str, path: Path) -> dict[str, Any]:
    """Return everything in the file as texts."""
    problems: list[ConfigError] = []
    plain = yamlfile.compose(text, str(path)).plain("the file", problems)
    if problems:
        raise problems[0]
    return dict(plain) if isinstance(plain, dict) else {}


def _changed(read: Mapping[str, Any], values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return what is to be read afterwards."""
    wanted: dict[str, Any] = {
        name: dict(section) if isinstance(section, dict) else section
        for name, section in read.items()
    }
    for name, value in values.items():
        section, _, key = name.partition(".")
        table = wanted.get(section)
        table = table if isinstance(table, dict) else {}
        if value is None:
            table.pop(key, None)
        else:
            table[key] = written(value) if isinstance(value, bool) else str(value)
        if table or section in wanted:
            wanted[section] = table or ""
    return wanted


def _replace(path: Path, text: str) -> None:
    """Put the text in the place of the file, if it is a good configuration."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"config.yml.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if found := config.problems(path=draft):
            raise ConfigError(
                f"nothing was changed: {found[0].message}", hint="relayq config check"
            )
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"can't be written: {error.strerror}", place=path) from error
    finally:
        draft.unlink(missing_ok=True)
