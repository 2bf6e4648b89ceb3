"""The variables of a job: `-e NAME=VALUE`, `-e NAME`, and files of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import click

from relayq.errors import RelayqError


def read(files: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """Return the variables of the files, then those given one by one, which win."""
    found: dict[str, str] = {}
    for file in files:
        for where, text in _lines(file):
            found |= dict([_variable(text, where)])
    for text in given:
        found |= dict([_variable(text, "-e")])
    return found


def pairs(given: Iterable[str], option: str) -> dict[str, str]:
    """Return `K=V` texts as a mapping."""
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{option} takes K=V, not {text!r}")
        found[key] = value
    return found


def _lines(file: str) -> Iterable[tuple[str, str]]:
    """Yield what a file sets, with its place: neither empty lines nor comments."""
    try:
        text = Path(file).read_text("utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise RelayqError(f"{file} can't be read: {why}", hint=f"ls -l {file}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip().removeprefix("export ").strip()
        if line and not line.startswith("#"):
            yield f"{file}:{number}", _unquoted(line)


def _unquoted(line: str) -> str:
    """Return `K='a b'` without its quotes; all else in a value stays as it is."""
    name, equals, value = line.partition("=")
    quote = value[:1]
    if quote in ("'", '"') and len(value) > 1 and value.endswith(quote):
        value = value[1:-1]
    return f"{name.strip()}{equals}{value}"


def _variable(text: str, where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise click.UsageError(f"{where}: {text!r} has no name")
    if not equals and name not in os.environ:
        raise click.UsageError(f"{where}: {name} isn't set here; give it as {name}=VALUE")
    return name, value if equals else os.environ[name]
