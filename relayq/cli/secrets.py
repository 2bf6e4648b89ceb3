"""`relayq secret`: what this host keeps for jobs, each value on this host alone."""

from __future__ import annotations

import base64
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import client, complete, json_option, quiet_option
from relayq.errors import BrokerUnavailable, NoSuchHost, RelayqError
from relayq.identity import INSTALL
from relayq.model.secrets import check_secret, secret_in

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.config import Config
    from relayq.model.hosts import Host


@click.group()
def secret() -> None:
    """Keep secrets on this host, and see which host has which.

    A value stays in ~/.relayq/secrets.env of the host where it was set, and goes to jobs that ask
    for it by name (--secret NAME), which run only on a host that has it: docs/secrets.md.
    """


@secret.command("set")
@click.argument("name", metavar="NAME")
@click.argument("values", nargs=-1, metavar="")
@quiet_option
def set_(name: str, values: tuple[str, ...], quiet: bool) -> None:
    """Keep the secret NAME on this host: asked for here, or read from a pipe.

    Example: pass show hf | relayq secret set HF_TOKEN
    """
    from relayq.cli import show
    from relayq.host import secrets

    if values or "=" in name:
        raise click.UsageError(
            "a value isn't an argument, which ps and the shell's history would show: it is asked "
            "for, or piped in here"
        )
    check_secret(name)
    path = _path()
    known = secrets.read(str(path))
    secrets.keep(str(path), name, _value(name))
    _tell_worker()
    if not quiet:
        show.remark(f"{name} {'replaced' if name in known else 'kept'} in {path}")


@secret.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--on",
    "host",
    required=True,
    metavar="HOST",
    shell_complete=complete("hosts"),
    help="Its host.",
)
@click.option("--key", metavar="MARK", help="Only if its key has this mark, as it says there.")
def seal(name: str, host: str, key: str | None) -> None:
    """Seal a value of NAME for one host, and print what to give to --secret.

    Only HOST can open it, and so only jobs there get it. It may lie in a workflow's file.

    Example: relayq run --secret "$(relayq secret seal HF_TOKEN --on gpu)" -- python train.py
    """
    from relayq.cli import show
    from relayq.host.secrets import check_value
    from relayq.sealedsecrets import mark_of, seal_secret

    check_secret(name)
    with client() as relay:
        public = _public_key(relay, host)
    if key not in (None, mark_of(public)):
        raise RelayqError(
            f"{host} says that its key is {mark_of(public)}, not {key}",
            hint=f"relayq secret key, on {host}",
        )
    click.echo(f"{name}={seal_secret(public, name, check_value(name, _value(name)))}")
    show.remark(f"sealed for {host}, key {mark_of(public)}")


def _public_key(relay: Relay, name: str) -> bytes:
    """Return the key that a host has published, if the fleet's key has signed it."""
    from relayq.sealedsecrets import note_name

    wanted = relay.config.host_called(name)
    found = next((one for one in relay.hosts() if wanted in (one.name, *one.aliases)), None)
    if found is None:
        raise NoSuchHost(f"no host {name}", hint="relayq hosts")
    note = found.facts.get("sealing")
    if not note:
        raise RelayqError(
            f"{found.name} has no key for sealed secrets: its worker needs cryptography",
            hint=f"there: {INSTALL}",
        )
    signer = relay.session().signer
    return base64.b64decode(signer.check_note(str(note).encode(), name=note_name(found.name)))


@secret.command()
def key() -> None:
    """Print the mark of this host's key for sealed secrets, to compare with --key."""
    from relayq.sealedsecrets import Locker, mark_of

    public = Locker(_config().home).public()
    if public is None:
        raise RelayqError("sealing needs the package cryptography", hint=INSTALL)
    click.echo(mark_of(public))


@secret.command()
@json_option
def ls(as_json: bool) -> None:
    """List the names of all secrets, and which hosts have them; never a value."""
    from relayq.cli import fleet, show, tables
    from relayq.host import secrets

    config = _config()
    hosts: list[Host] = []
    try:
        with client() as relay:
            hosts = fleet.hosts_of(relay)
    except BrokerUnavailable:
        if config.broker_url is not None:
            raise
    # What was set here just now may not have been published yet.
    found = {name: {config.worker.name} for name in secrets.read(str(_path()))}
    for host in hosts:
        for capability in host.capabilities:
            if (name := secret_in(capability)) is not None:
                found.setdefault(name, set()).add(host.name)
    rows: list[dict[str, Any]] = [
        {"name": name, "hosts": sorted(found[name])} for name in sorted(found)
    ]
    if as_json:
        show.print_json({"secrets": rows})
        return
    tables.table(("SECRET", "HOSTS"), [[row["name"], ", ".join(row["hosts"])] for row in rows])


@secret.command()
@click.argument("name", metavar="NAME")
@quiet_option
def rm(name: str, quiet: bool) -> None:
    """Remove the secret NAME from this host; jobs that run go on with it."""
    from relayq.cli import show
    from relayq.host import secrets

    path = _path()
    if not secrets.remove(str(path), check_secret(name)):
        raise RelayqError(f"no secret {name} in {path}", hint="relayq secret ls")
    _tell_worker()
    if not quiet:
        show.remark(f"{name} removed from {path}")


def _value(name: str) -> str:
    """Return what is typed without an echo, or piped in here."""
    if sys.stdin.isatty():
        typed: str = click.prompt(f"{name}", hide_input=True, err=True)
        return typed
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        # Nothing of the error, which quotes what it can't read.
        raise RelayqError(
            f"{name} isn't text (UTF-8)",
            hint=f"base64 -w0 FILE | relayq secret set {name}; in the job: base64 -d",
        ) from None


def _path() -> Path:
    from relayq.host.secrets import FILE

    return _config().home / FILE


def _config() -> Config:
    from relayq import config

    return config.load()


def _tell_worker() -> None:
    """Have this host's worker say at once what it has; by itself it looks every 30 seconds."""
    with suppress(BrokerUnavailable, NoSuchHost), client(quiet=True) as relay:
        relay.session().store.hosts.ask(relay.config.worker.name, {"op": "look"})
