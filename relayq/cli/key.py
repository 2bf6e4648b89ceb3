"""`relayq key`: the fleet's key, your own, and whose jobs this host runs."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import client, json_option, quiet_option
from relayq.errors import RelayqError

if TYPE_CHECKING:
    from relayq.config import Config
    from relayq.identity import Identity
    from relayq.model.submitters import Submitter


@click.group()
def key() -> None:
    """Show, make and change the keys that sign jobs.

    All machines of a fleet have one key, and that is enough to run anything on any of them. A host
    that is to know who asks has an authorized_submitters: it runs jobs only that were signed by a
    key named there, within its limits. docs/signing.md has all of it.
    """


@key.command()
@json_option
def show(as_json: bool) -> None:
    """Show this machine's keys: the fleet's by its id, and your public one.

    Example: relayq key show
    """
    from relayq.cli import show as shown
    from relayq.identity import load_identity
    from relayq.signing import key_id_of, load_keys

    config = _config()
    keys = load_keys(config.fleet_key_path)
    identity = load_identity(config.home)
    if as_json:
        former = [{"id": key_id_of(f.key), "until": _moment(f.until)} for f in keys.former]
        own = None if identity is None else _own(identity)
        shown.print_json({"fleet": key_id_of(keys.key), "former": former, "own": own})
        return
    click.echo(f"fleet  {key_id_of(keys.key)}")
    for one in keys.former:
        click.echo(f"       {key_id_of(one.key)}  (good until {_moment(one.until)})")
    if identity is None:
        click.echo("own    none: what is submitted here is signed by the fleet's key alone")
        shown.hint("relayq key new, if a host asks for more")
        return
    click.echo(f"own    {identity.id}  {identity.name}")
    click.echo(identity.line)


@key.command()
@click.option("--name", metavar="NAME", help="What others call it; by default you@this-host.")
@click.option("--force", is_flag=True, help="Replace the key that is here.")
@json_option
@quiet_option
def new(name: str | None, force: bool, as_json: bool, quiet: bool) -> None:
    """Make a key of your own on this machine, and print the line that hosts authorise.

    From then on what is submitted here is signed with it, too. Needs pip install 'relayq[signing]'.

    Example: relayq key new --name anna@laptop
    """
    from relayq.cli import show as shown
    from relayq.identity import make_identity
    from relayq.model.submitters import check_submitter_name

    config = _config()
    called = name or f"{getpass.getuser()}@{config.worker.name}"
    identity = make_identity(config.home, check_submitter_name(called), replaces=force)
    if as_json:
        shown.print_json(_own(identity))
        return
    click.echo(identity.line)
    if not quiet:
        shown.remark("on each host that is to ask for it: relayq key authorize 'that line'")


@key.command()
@click.argument("line", metavar="LINE", nargs=-1)
@click.option("--kinds", metavar="KIND,...", help="Only jobs of these kinds.")
@click.option("--hosts", metavar="HOST,...", help="Only on these, should hosts share the file.")
@click.option("--cwd", metavar="DIR,...", help="Jobs start in one of these, or below.")
@click.option("--user", metavar="USER", help="Only where jobs run as this user.")
@click.option("--max-timeout", metavar="TIME", help="Jobs have a time limit of at most this.")
@click.option("--expires", metavar="DATE", help="Good until then, such as 2027-01-31.")
@click.option("--no-shell", is_flag=True, help="Programs with arguments; agents may only read.")
@click.option("--children", is_flag=True, help="A worker's key: for what jobs submit there.")
@quiet_option
def authorize(line: tuple[str, ...], quiet: bool, **given: Any) -> None:
    """Have this host run the jobs of a key: LINE is what `relayq key new` printed, - reads it.

    The first one makes this host refuse all jobs of others. A key that is there gets these limits
    instead of those that it had.

    Example: relayq key authorize 'ed25519 8wK... anna@laptop' --kinds transcode --max-timeout 2h
    """
    from dataclasses import replace

    from relayq.cli import show as shown
    from relayq.host import authorizing
    from relayq.model.submitters import limits_of, read_line

    text = sys.stdin.readline() if line == ("-",) else " ".join(line)
    # An empty text isn't left out: what should have limited the key may have been a variable.
    asked = {
        name.replace("_", "-"): value for name, value in given.items() if value not in (None, False)
    }
    submitter = replace(read_line(text), **limits_of(asked))
    config = _config()
    is_first = authorizing.read(config.home) is None
    before = authorizing.add(config.home, submitter)
    if quiet:
        return
    verb = "changed" if before else "authorised"
    shown.remark(f"{verb} {submitter.name} ({submitter.id}) {submitter.limits}".rstrip())
    if is_first:
        name = config.worker.name
        shown.remark(f"{name} refuses all other jobs from now on; relayq key ls has who may")


@key.command()
@json_option
def ls(as_json: bool) -> None:
    """List whose jobs this host runs, and what they are limited to."""
    from relayq.cli import show as shown
    from relayq.cli import tables
    from relayq.host import authorizing

    known = authorizing.read(_config().home)
    if as_json:
        rows = None if known is None else [_authorised(one) for one in known]
        shown.print_json({"submitters": rows})
        return
    if known is None:
        click.echo("whoever has the fleet's key")
        shown.hint("relayq key authorize, to have this host ask for more")
        return
    tables.table(("NAME", "KEY", "LIMITS"), [[one.name, one.id, one.limits] for one in known])


@key.command()
@click.argument("name", metavar="NAME")
@quiet_option
def revoke(name: str, quiet: bool) -> None:
    """Have this host run no more jobs of a key, by its owner's name or its id.

    Jobs that run go on. Without any line the host runs nothing; the file itself is yours to remove.
    """
    from relayq.cli import show as shown
    from relayq.host import authorizing

    gone = authorizing.remove(_config().home, name)
    if not quiet:
        shown.remark(f"{gone.name} ({gone.id}) is no longer authorised here")


@key.command()
@click.option("--at-once", is_flag=True, help="What the old key signed is refused from now on.")
@json_option
@quiet_option
def rotate(at_once: bool, as_json: bool, quiet: bool) -> None:
    """Give the fleet another key: every machine that reaches the broker takes it over by itself.

    What the old one signed stays good for 30 days. Whoever has the old key and a way into the
    broker finds the new one, too: take that from them first (relayq hosts rm).

    Example: relayq hosts rm lost-laptop && relayq key rotate --at-once
    """
    from relayq import rotation
    from relayq.cli import show as shown
    from relayq.inside import is_inside
    from relayq.signing import key_id_of

    if is_inside():
        raise RelayqError("a job has no keys to change")
    with client(quiet=quiet) as relay:
        session = relay.session()
        old = session.signer.key_id
        keys = rotation.rotate(
            session.signer, relay.config, session.store, at_once=at_once, who=relay.submitter
        )
    if as_json:
        shown.print_json({"fleet": key_id_of(keys.key), "before": old})
        return
    click.echo(key_id_of(keys.key))
    if not quiet:
        good = "is refused" if at_once else "is good for 30 days"
        shown.remark(f"the fleet's key was {old}; what that signed {good}")


def _own(identity: Identity) -> dict[str, Any]:
    return {"id": identity.id, "name": identity.name, "line": identity.line}


def _authorised(one: Submitter) -> dict[str, Any]:
    held = one.as_dict()
    return {**held, "expires": None if one.expires is None else _moment(one.expires)}


def _moment(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _config() -> Config:
    from relayq import config

    return config.load()
