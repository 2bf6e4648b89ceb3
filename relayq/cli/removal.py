"""`relayq hosts rm`: a machine is gone for good, or isn't to be let in any more."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from relayq.cli import fleet
from relayq.cli.options import client, complete, json_option
from relayq.cli.services import answer, load_config, remark
from relayq.errors import Conflict, NoSuchHost

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.config import Config


@click.command("rm")
@click.argument("name", metavar="HOST", shell_complete=complete("hosts"))
@click.option("--revoke", is_flag=True, help="Shut it out at once, online or not.")
@json_option
def rm(name: str, revoke: bool, as_json: bool) -> None:
    """Forget a host that is gone for good; refused while it is online or has jobs.

    On the broker's machine this takes away the credentials with which it joined, too; --revoke does
    that first, for a host that was lost or stolen.

    Example: relayq hosts rm old-laptop
    """
    config = load_config()
    if revoke and config.broker.is_configured:
        raise Conflict(
            "only the broker's machine can shut a host out",
            hint=f"there: relayq hosts rm {name} --revoke",
        )
    with client() as relay:
        name, *former = _called(relay, name, config)
        revoked = _revoke(config, name, *former) if revoke else []
        is_forgotten = _forget(relay, name, config, is_out=bool(revoked))
        revoked += [] if revoke else _revoke(config, name, *former)
    done = ["forgotten"] if is_forgotten else []
    if revoked:
        done.append("shut out")
    value = {"removed": name if is_forgotten else None, "revoked": revoked}
    answer(f"{name}  {' and '.join(done)}", as_json, value)
    _remark(config, name, revoked, is_forgotten=is_forgotten)


def _called(relay: Relay, name: str, config: Config) -> list[str]:
    """Return the host's name, and what else it may have joined by before it was renamed.

    One that never had a worker is known by its credentials only.
    """
    try:
        found = fleet.find(relay, name)
    except NoSuchHost:
        # One whose record can't be read is known by its name.
        if name not in _let_in(config) and name not in relay.session().store.hosts.names():
            raise
        return [name]
    others = {host.name for host in fleet.hosts_of(relay)}
    return [found.name, *(alias for alias in found.aliases if alias not in others)]


def _let_in(config: Config) -> set[str]:
    """Return the hosts that have credentials of this machine's broker."""
    from relayq.embedded.admission import joined
    from relayq.embedded.users import users

    made = {user.host for user in users(config) if user.host is not None}
    return made | {one.name for one in joined(config)}


def _revoke(config: Config, *names: str) -> list[str]:
    """Shut out a machine by all of its names; returns the users that are no more."""
    from relayq.embedded import admission

    there = _let_in(config)
    return [user for name in names if name in there for user in admission.revoke(config, name)]


def _forget(relay: Relay, name: str, config: Config, *, is_out: bool) -> bool:
    """Forget the host; False for one that can't be yet, or never had a worker."""
    store = relay.session().store
    try:
        store.hosts.dismiss(name, lease=relay.config.lease.length, who=store.jobs.who)
    except NoSuchHost:
        return False
    except Conflict as error:
        if is_out:
            remark(f"{error.message}: relayq hosts rm {name} forgets it later")
            return False
        if name in _let_in(config):
            hint = f"{error.hint}; or relayq hosts rm {name} --revoke shuts it out at once"
            raise Conflict(error.message, hint=hint) from error
        raise
    return True


def _remark(config: Config, name: str, revoked: list[str], *, is_forgotten: bool) -> None:
    """Say what that machine can still do."""
    if revoked:
        remark(f"{name} still has the fleet's key; if it isn't yours any more: relayq key rotate")
    elif is_forgotten and config.broker.is_configured:
        from relayq.joining import membership

        with suppress(OSError):
            if (member := membership(config)) is not None:
                remark(
                    f"its credentials are good still: on {member.fleet}: "
                    f"relayq hosts rm {name} --revoke"
                )
