"""`relayq broker users`: who may reach this machine's broker, each with a password of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relayq import clock
from relayq.cli.options import json_option, quiet_option
from relayq.cli.services import answer, load_config, remark
from relayq.cli.texts import age, rfc3339
from relayq.model import access

if TYPE_CHECKING:
    from relayq.embedded import BrokerUser

_name_argument = click.argument("name", metavar="USER")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def users(ctx: click.Context, as_json: bool) -> None:
    """Show, make and remove users of this machine's broker.

    `relayq broker token` and `relayq join` make one for each machine by themselves. Without a
    command it lists them, as `relayq broker users ls`.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(ls, as_json=as_json)


@users.command()
@json_option
def ls(as_json: bool) -> None:
    """List the users: what each may do, which machine has its password, and since when."""
    from relayq.cli import tables
    from relayq.embedded.users import users as all_users

    found = all_users(load_config())
    if as_json:
        answer("", as_json, {"users": [_shown(user) for user in found]})
    elif found:
        now = clock.now()
        rows = [[u.name, u.role, u.host or "-", age(now - u.created)] for u in found]
        tables.table(("USER", "ROLE", "HOST", "AGE"), rows)
    else:
        click.echo("no user yet; for another machine: relayq broker token")


@users.command()
@_name_argument
@click.option(
    "--role",
    type=click.Choice(access.ROLES),
    default=access.WORKER,
    show_default=True,
    help="; ".join(f"{role}: {access.about(role)}" for role in access.ROLES) + ".",
)
@click.option(
    "--host", metavar="HOST", help="The machine that gets the password; else HOST of worker-HOST."
)
@quiet_option
@json_option
def add(name: str, role: str, host: str | None, quiet: bool, as_json: bool) -> None:
    """Make USER, or give one a new password, and print the password: it isn't kept here.

    Example: relayq broker users add worker-pi4 > password
    """
    from relayq import embedded

    password = embedded.add_user(load_config(), name, role=role, host=host)
    value = {"user": {"name": name, "role": role, "host": host, "password": password}}
    answer(password, as_json, value)
    if not quiet and not as_json:
        remark(f"for the machine that is to be {name}: broker.user and broker.password_file there")


@users.command()
@_name_argument
@json_option
def rm(name: str, as_json: bool) -> None:
    """Remove USER, which ends its connections at once."""
    from relayq import embedded
    from relayq.errors import RelayqError

    if not embedded.remove_user(load_config(), name):
        raise RelayqError(f"the broker has no user {name}", hint="relayq broker users")
    answer(f"removed {name}", as_json, {"removed": name})


@users.command()
@click.argument("role", type=click.Choice(access.ROLES))
@json_option
def rules(role: str, as_json: bool) -> None:
    """Print what ACL SETUSER is to be told for a role, for a Redis of your own."""
    from relayq.store.keys import PREFIX

    words = access.rules(role, PREFIX)
    answer(" ".join(words), as_json, {"role": role, "rules": list(words)})


def _shown(user: BrokerUser) -> dict[str, str | None]:
    return {
        "name": user.name,
        "role": user.role,
        "host": user.host,
        "created_at": rfc3339(user.created),
    }
