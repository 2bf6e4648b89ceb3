"""`relayq config`: what is configured and why, what is wrong with it, and how to change it."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import MISSING, Field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.imports import import_
from relayq.cli.options import is_interactive, json_option
from relayq.errors import ConfigError, RelayqError

if TYPE_CHECKING:
    from relayq.config import Config

_HIDDEN = "****"
_TEMPLATE = """\
# relayq's configuration; everything in it is optional. `relayq config show` has each value.
#broker:
#  host: 192.168.1.10
#  user: worker-{name}
#  password_file: ~/.relayq/password
#worker:
#  name: {name}
#  priority: low
#  max_concurrent: 2
#defaults:
#  timeout: 5h
"""


@click.group()
def config() -> None:
    """Show, check and change the configuration."""


config.add_command(import_)


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Show each value and where it comes from; no secret is shown."""
    from relayq import config
    from relayq.cli.show import print_json
    from relayq.cli.texts import inert

    loaded = config.load()
    home_origin = "RELAYQ_HOME" if os.environ.get("RELAYQ_HOME") else "default"
    if as_json:
        values = {
            key: {"value": _plain(_value(loaded, key)), "origin": origin}
            for key, origin in loaded.origins.items()
        }
        home = {"value": str(loaded.home), "origin": home_origin}
        print_json({"config": {"home": home, **values}})
        return
    rows = [["home", str(loaded.home), home_origin]]
    for key, origin in loaded.origins.items():
        rows.append([key, _text(key, _value(loaded, key)), origin])
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        click.echo(inert(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}"))


def _value(loaded: Config, key: str) -> Any:
    """Return a key's value, its secrets hidden."""
    from relayq.config import KEYS

    if key.startswith("hosts."):
        host, _, name = key.removeprefix("hosts.").rpartition(".")
        return getattr(loaded.hosts[host], name)
    value: Any = loaded
    if key.startswith(("agents.", "privacy.")):
        return _free_value(loaded, key)
    for name in key.split("."):
        value = getattr(value, name)
    if value is None or not KEYS[key].metadata["secret"]:
        return value
    # Of a URL only the user and the password are secret.
    return re.sub(r"//[^/;]*@", f"//{_HIDDEN}@", value) if "://" in value else _HIDDEN


def _free_value(loaded: Config, key: str) -> Any:
    """Return what an agent's or a private label's entry says, as far as it may be shown."""
    from relayq.config import KEYS

    section, _, name = key.partition(".")
    if section == "privacy":
        kept = loaded.privacy[name]
        return {"agents": list(kept.agents), "hosts": list(kept.hosts)}
    if key in KEYS:
        return loaded.default_agent if name == "default" else loaded.resume_elsewhere_after
    agent, _, own = name.rpartition(".")
    return _without_values(loaded.agents[agent][own], own)


def _without_values(value: Any, name: str) -> Any:
    """Return the value with only the names of variables: some put their keys there."""
    if isinstance(value, dict):
        if name in ("env", "root_env"):
            return dict.fromkeys(value, _HIDDEN)
        return {key: _without_values(one, key) for key, one in value.items()}
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _text(key: str, value: Any) -> str:
    from relayq.cli.texts import limit
    from relayq.config import KEYS
    from relayq.parsing import schema, size

    if value is None or value in ((), {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        if key.startswith(("agents.", "privacy.")):
            return json.dumps(value)
        return ", ".join(f"{name}={number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if key not in KEYS:
        return str(value)
    parse = KEYS[key].metadata["parse"]
    if {"number", "string"} <= set(schema(parse).get("type", ())):
        return _size(value) if parse is size else limit(value)
    return str(value)


def _size(count: int) -> str:
    """Return a size as it can be typed, and not rounded."""
    units = (("GiB", 1 << 30), ("MiB", 1 << 20), ("GB", 10**9), ("MB", 10**6), ("kB", 1000))
    return next(
        (f"{count // n}{unit}" for unit, n in units if count and count % n == 0), f"{count}B"
    )


@config.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Say everything that is wrong, with file, line and column; exits with 1 if anything is."""
    from relayq import config
    from relayq.cli.show import print_json

    found = config.problems() or _wrong_agents()
    if as_json:
        shown = [{"place": one.place, "message": one.message} for one in found]
        print_json({"ok": not found, "problems": shown})
    elif found:
        _tell(found)
        click.echo("  hint: relayq config edit", err=True)
    else:
        click.echo("the configuration is good")
    ctx.exit(int(bool(found)))


def _wrong_agents() -> list[ConfigError]:
    """Return what is wrong with the agents of a configuration that can be read."""
    from relayq import config
    from relayq.agents import adapters

    try:
        adapters.load(config.load().adapters)
    except ConfigError as error:
        return [error]
    return []


def _tell(found: list[ConfigError]) -> None:
    from relayq.cli.texts import inert

    for problem in found:
        click.echo(inert(problem.message), err=True)


@config.command()
@json_option
def path(as_json: bool) -> None:
    """Print the path of this machine's configuration file, which need not exist."""
    from relayq.cli.show import print_json

    file = _file()
    if as_json:
        print_json({"path": str(file), "exists": file.exists()})
    else:
        click.echo(str(file))


def _file() -> Path:
    from relayq.config import home_directory

    return home_directory() / "config.yml"


@config.command()
def edit() -> None:
    """Open the configuration in $VISUAL or $EDITOR; a broken one never replaces the old one."""
    from relayq import config

    # A link stays one: many keep their configuration elsewhere.
    file = Path(os.path.realpath(_file()))
    draft = file.with_name("config.yml.draft")
    before = _open_draft(file, draft)
    while True:
        # Quoted by click, which also knows where editors are on each system.
        click.edit(filename=str(draft))
        if draft.read_bytes() == before:
            draft.unlink()
            click.echo("nothing changed")
            return
        if not (found := config.problems(path=draft)):
            break
        _tell(found)
        if not is_interactive() or not click.confirm("Edit it again?", default=True, err=True):
            raise _broken(file, draft)
    draft.replace(file)
    click.echo(
        f"saved {file}; a running worker reads it at its next start (relayq worker stop; relayq up)"
    )


def _open_draft(file: Path, draft: Path) -> bytes:
    """Put the file's text into the draft, unless an earlier edit left one; returns the former."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = file.read_bytes() if file.exists() else _template()
    if draft.exists():
        if draft.read_bytes() != text:
            click.echo("relayq: this is what the last edit left", err=True)
        return text
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as copy:
        copy.write(text)
    if file.exists():
        shutil.copymode(file, draft)
    return text


def _template() -> bytes:
    from relayq.config import KEYS

    return _TEMPLATE.format(name=KEYS["worker.name"].default_factory()).encode()  # type: ignore


def _broken(file: Path, draft: Path) -> RelayqError:
    kept = f"{file} stays as it was" if file.exists() else "nothing was saved"
    error = RelayqError(
        f"{kept}; your text is in {draft}",
        hint=f"relayq config edit goes on with it; rm '{draft}' forgets it",
    )
    error.exit_code = 1
    return error


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `config.yml`."""
    from relayq.config import KEYS
    from relayq.sections import ENTRY_KEYS

    root: dict[str, Any] = _table({})
    for name, key in KEYS.items():
        *sections, own = name.split(".")
        table = root
        for section in sections:
            table = table["properties"].setdefault(section, _table({}))
        table["properties"][own] = _schema_of(key)
    entry = _table({name: _schema_of(key) for name, key in ENTRY_KEYS.items()})
    for name, one in _free_schemas().items():
        root["properties"].setdefault(name, {"type": ["object", "null"]}).update(one)
    root["properties"]["hosts"] = {"type": ["object", "null"], "additionalProperties": entry}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "relayq's configuration",
        **root,
    }


def _free_schemas() -> dict[str, dict[str, Any]]:
    """Return what sections take besides their own keys: entries that the user names."""
    words = {"type": ["array", "string", "null"], "items": {"type": "string"}}
    return {
        # The keys of an adapter are many, and `config check` knows them.
        "agents": {"additionalProperties": {"type": ["object", "null"]}},
        "privacy": {"additionalProperties": _table({"agents": words, "hosts": words})},
    }


def _table(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _schema_of(key: Field[Any]) -> dict[str, Any]:
    from relayq.parsing import schema

    taken = dict(schema(key.metadata["parse"]))
    # An empty value means the default.
    if "enum" in taken:
        taken["enum"] = [*taken["enum"], None]
    else:
        types = taken["type"]
        taken["type"] = [*([types] if isinstance(types, str) else types), "null"]
    described = {"description": key.metadata["about"], **taken}
    if key.default not in (MISSING, None):
        described["default"] = _plain(key.default)
    return described
