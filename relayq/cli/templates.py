"""`--format`: one line for each job or host, from a template such as `{{.id}} {{.state}}`.

The fields are those of `--json` (docs/json.md). A template that asks for another one is refused
before the broker is asked for anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.texts import inert

if TYPE_CHECKING:
    from relayq.model.hosts import Host
    from relayq.model.jobs import JobRecord

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD = re.compile(r"\s*\.([\w-]+(?:\.[\w-]+)*)\s*")
_ESCAPES = {"t": "\t", "n": "\n", "\\": "\\"}
_HOST_FIELDS = (
    "name online state reason slots active queued finished version seen_at drained_at labels "
    "aliases capabilities facts"
).split()
#: Fields in which a template may look for any name.
_OPEN = ("meta", "payload", "facts")


class Template:
    """A text with places for fields; ValueError if it can't be used."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        literals = _PLACE.split(text)
        self._parts: list[str | Sequence[str]] = []
        for number, part in enumerate(literals):
            self._parts.append(_path(part, known) if number % 2 else _literal(part))

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the text with the values in it, each of them on one line and inert."""
        return "".join(
            part if isinstance(part, str) else inert(_shown(_found(values, part)), longest=None)
            for part in self._parts
        )


def _literal(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise ValueError("{{ and }} belong together, as in {{.id}}")
    return re.sub(r"\\([tn\\])", lambda escape: _ESCAPES[escape[1]], text)


def _path(inner: str, known: Collection[str]) -> Sequence[str]:
    asked = _FIELD.fullmatch(inner)
    if asked is None:
        raise ValueError(f"expected a field such as {{{{.id}}}}, got {{{{{inner}}}}}")
    path = asked[1].split(".")
    opened = next((n for n, name in enumerate(path) if name in _OPEN), None)
    named = ".".join(path if opened is None else path[: opened + 1])
    if named not in known:
        own = [name for name in sorted(known) if not name.startswith("spec.")]
        raise ValueError(f"no field {asked[1]}; there are {', '.join(own)}")
    return path


def _found(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case list() | tuple():
            return ",".join(map(_shown, value))
    return json.dumps(value)


def job_fields() -> Collection[str]:
    """Return what a template may ask of a job: its fields, and its spec's as its own."""
    from relayq.model.jobs import JobRecord, Spec

    asked = {field.name for field in fields(Spec)}
    own = {field.name for field in fields(JobRecord)} | {"duration", "command"}
    return asked | own | {f"spec.{name}" for name in asked}


def host_fields() -> Collection[str]:
    """Return what a template may ask of a host."""
    return _HOST_FIELDS


def of_job(record: JobRecord) -> Mapping[str, Any]:
    """Return a job's fields, for a template."""
    from relayq.cli import show

    own = show.as_json(record)
    return {**(own["spec"] or {}), **own, "command": show.command_of(record.spec)}


def of_host(host: Host) -> Mapping[str, Any]:
    """Return a host's fields, for a template."""
    from relayq.cli import fleet

    return fleet.host_as_json(host)


def format_option(known: Callable[[], Collection[str]]) -> Callable[..., Any]:
    """Return `--format` for a command whose answer has these fields."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> Template | None:
        if text is None:
            return None
        asked = ctx.get_parameter_source("as_json")
        if asked is not None and asked.name == "COMMANDLINE":
            raise click.UsageError("--format and --json exclude each other")
        try:
            return Template(text, known())
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return click.option(
        "--format",
        "template",
        callback=read,
        metavar="TEMPLATE",
        help="Print each so, such as '{{.id}} {{.state}}': fields of --json.",
    )


def print_all(template: Template, values: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each."""
    click.echo("".join(f"{template.fill(one)}\n" for one in values), nl=False)
