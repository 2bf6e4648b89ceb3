"""`relayq config import`: the hosts of a `machines.yaml`, as entries of `hosts:`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from relayq.cli.options import json_option
from relayq.errors import ConfigError, Conflict, RelayqError

#: What becomes of the keys of a machine there.
_TAKEN = {"tailscale_ip": "address", "address": "address", "aliases": "aliases"}
_LISTS = ("aliases", "capabilities", "agents")
_LEFT_OUT = {
    "role": "every host submits, and every host with a worker works",
    "os": "each host tells it by itself",
    "queue_port": "there is no queue server; broker.port is Redis' own",
    "worker_port": "a worker listens on no port",
}
#: What the example file has in place of an address.
_PLACEHOLDER = "YOUR_"


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only print what would be added to config.yml.")
@json_option
def import_(file: Path, dry_run: bool, as_json: bool) -> None:
    """Take over the hosts of a machines.yaml (distributed-infra) into this machine's config.yml."""
    from relayq.cli.show import print_json, remark

    remarks: list[str] = []
    entries = read_machines(file, remarks)
    text = as_yaml(entries)
    target = None if dry_run else _add(text)
    if as_json:
        added = str(target) if target is not None else None
        print_json({"hosts": entries, "remarks": remarks, "file": added})
        return
    for line in remarks:
        remark(line)
    if target is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"added {', '.join(entries)} to hosts: in {target}")


def read_machines(file: Path, remarks: list[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of `hosts:` that the file's machines are; what isn't taken is remarked."""
    from relayq import yamlfile

    problems: list[ConfigError] = []
    document = yamlfile.read(file, str(file))
    tables = {name: value for name, _, value in document.table("the file", problems)}
    if "machines" not in tables:
        raise ConfigError("expected a table of machines", place=file)
    machines = list(tables["machines"].table("machines", problems))
    left_out: dict[str, None] = {}
    entries = {}
    for name, _, value in machines:
        entry = dict(_entry(name.lower(), value, problems, remarks, left_out))
        entries[name.lower()] = {key: entry[key] for key in sorted(entry)}
    if problems:
        raise problems[0]
    if not entries:
        raise ConfigError("there is no machine in it", place=file)
    remarks += [f"{key} isn't taken over: {_LEFT_OUT[key]}" for key in left_out]
    return entries


def _entry(
    name: str,
    value: Any,
    problems: list[ConfigError],
    remarks: list[str],
    left_out: dict[str, None],
) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of one entry."""
    capabilities: list[str] = []
    for key, place, inner in value.table(name, problems):
        if key in _LISTS:
            words = inner.flat(key, ("array",)).split(",")
            words = [word.strip().lower() for word in words if word.strip()]
            if key == "aliases":
                yield "aliases", words
            else:
                capabilities += [f"agent:{word}" if key == "agents" else word for word in words]
        elif key in _TAKEN:
            address = inner.text(key).strip()
            if address.startswith(_PLACEHOLDER):
                remarks.append(f"{name} has no address in the file, only a placeholder")
            elif address:
                yield _TAKEN[key], address
        elif key in _LEFT_OUT:
            left_out[key] = None
        else:
            remarks.append(f"{place}: {key} isn't known, and isn't taken over")
    if capabilities:
        yield "capabilities", list(dict.fromkeys(capabilities))


def as_yaml(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the section `hosts:` with these entries."""
    lines = ["hosts:"]
    for name, entry in entries.items():
        # Every JSON value is YAML, too.
        values = ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.items())
        lines.append(f"  {json.dumps(name)}: {{{values}}}")
    return "\n".join(lines) + "\n"


def _add(text: str) -> Path:
    """Append the section to config.yml, which must be a good one with it."""
    from relayq import config

    file = Path(os.path.realpath(config.home_directory() / "config.yml"))
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = file.read_text("utf-8") if file.exists() else ""
    if any(line.startswith(("hosts:", '"hosts"')) for line in before.splitlines()):
        raise Conflict(
            f"{file} has a section hosts: already",
            hint="relayq config import --dry-run FILE prints the entries; relayq config edit",
        )
    gap = "" if not before or before.endswith("\n") else "\n"
    draft = file.with_name(f"config.yml.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(f"{before}{gap}{text}")
        if found := config.problems(path=draft):
            raise RelayqError(
                f"nothing was changed: {found[0].message}", hint="relayq config import --dry-run"
            )
        if file.exists():
            draft.chmod(file.stat().st_mode & 0o777)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return file
