"""What the fleet has of agents: where they are, their sessions, and what is left of accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import fleet
from relayq.cli.options import client, complete, duration_option, json_option
from relayq.cli.texts import age, dollars, instant, rfc3339
from relayq.errors import RelayqError

if TYPE_CHECKING:
    from relayq.agents.adapters import Adapter
    from relayq.client import Relay
    from relayq.config import Config
    from relayq.model.accounts import Account
    from relayq.model.hosts import Host

_AGENTS = ("AGENT", "HOST", "STATE", "VERSION", "LOGIN", "PERMISSION", "ACCOUNTS")
_SESSIONS = ("SESSION", "AGENT", "HOST", "CWD", "TURNS", "COST", "USED", "JOB")
_QUOTA = ("ACCOUNT", "RUNNING", "WAITING", "SPENT TODAY", "TOKENS", "PAUSED UNTIL", "WHY")
_LOGINS = {True: "yes", False: "no", None: "unknown"}


def agents_of(host: Host) -> Mapping[str, Mapping[str, Any]]:
    """Return the agents of a host, with what it says of each; models behind an API included."""
    found = {name: dict(facts) for name, facts in dict(host.facts.get("agents", {})).items()}
    for word in host.capabilities:
        sort, _, name = word.partition(":")
        if sort == "agent":
            found.setdefault(name, {"version": "", "logged_in": None})["usable"] = True
    for account, why in dict(host.facts.get("unfit", {})).items():
        name, _, which = account.partition("/")
        if name in found:
            found[name].setdefault("refused", {})[which] = why
    return found


def permission_of(config: Config, name: str, adapter: Adapter | None) -> str:
    """Say what a job of an agent may do that asks for nothing, and for what it may ask."""
    if adapter is not None and adapter.is_http:
        return "answers only (no tools)"
    mode = config.mode_of(name)
    others = [one for one in (adapter.permission if adapter else ()) if one != mode]
    return f"{mode} (or {', '.join(others)})" if others else mode


@click.command()
@click.option("--on", "host", metavar="HOST", shell_complete=complete("hosts"), help="Of one host.")
@json_option
def ls(host: str | None, as_json: bool) -> None:
    """List the agents: on which hosts, logged in or not, and what they may do unasked."""
    from relayq.agents import adapters
    from relayq.cli import show, tables

    with client() as relay:
        known = adapters.load(relay.config.adapters)
        hosts = [fleet.find(relay, host)] if host else fleet.hosts_of(relay)
        accounts = relay.session().store.accounts.list()
        config = relay.config
    found = sorted(
        ((name, one, facts) for one in hosts for name, facts in agents_of(one).items()),
        key=lambda row: (row[0], row[1].name),
    )
    if as_json:
        print_rows = [
            {
                "agent": name,
                "host": one.name,
                "online": one.is_online,
                "version": facts.get("version") or None,
                "logged_in": facts.get("logged_in"),
                "usable": bool(facts.get("usable")),
                "refused": facts.get("refused", {}),
                "permission": config.mode_of(name),
                "permissions": list(known[name].permission) if name in known else [],
                "accounts": [a.name for a in accounts if a.name.startswith(f"{name}/")],
            }
            for name, one, facts in found
        ]
        show.print_json({"agents": print_rows})
    elif found:
        rows = [
            [
                name,
                one.name,
                one.standing[0],
                facts.get("version") or "-",
                _login(facts),
                permission_of(config, name, known.get(name)),
                _accounts(name, accounts),
            ]
            for name, one, facts in found
        ]
        tables.table(_AGENTS, rows)
    else:
        click.echo("no host has an agent; install one there, such as claude, and log in")


def _login(facts: Mapping[str, Any]) -> str:
    login = facts.get("logged_in")
    if refused := facts.get("refused"):
        return "; ".join(f"{account}: {why}" for account, why in refused.items())
    if login is None and facts.get("usable") and not facts.get("version"):
        return "key"
    return _LOGINS[login]


def _accounts(agent: str, accounts: Any) -> str:
    mine = [one for one in accounts if one.name.partition("/")[0] == agent]
    shown = [
        f"{one.name.partition('/')[2]} {len(one.active)}/{one.limit or '-'}"
        + (" paused" if one.until else "")
        for one in mine
    ]
    return ", ".join(shown) or "-"


@click.command()
@click.option("--agent", metavar="NAME", shell_complete=complete("agents"), help="Of one agent.")
@click.option("--on", "host", metavar="HOST", shell_complete=complete("hosts"), help="Of one host.")
@click.option("-n", "limit", type=click.IntRange(1), metavar="N", default=30, help="So many.")
@json_option
def sessions(agent: str | None, host: str | None, limit: int, as_json: bool) -> None:
    """List the sessions of the last 30 days, the last used first: where each can go on."""
    from relayq.cli import show, tables

    with client() as relay:
        name = fleet.find(relay, host).name if host else None
        found = relay.session().store.sessions.list(agent=agent, host=name, limit=limit)
    if as_json:
        shown = [{**asdict(one), "at": rfc3339(one.at)} for one in found]
        show.print_json({"sessions": shown})
        return
    if not found:
        click.echo("no session yet; an agent's first job begins one: relayq agent run")
        return
    now = clock.now()
    rows = [
        [
            one.id,
            one.agent,
            one.host,
            one.cwd,
            str(one.turns),
            dollars(one.cost_usd),
            f"{age(now - one.at)} ago",
            one.job or "-",
        ]
        for one in found
    ]
    tables.table(_SESSIONS, rows)
    newest = found[0]
    show.hint(f"relayq agent run {newest.agent} --session {newest.id} 'PROMPT'")


@click.command()
@click.option("--pause", "paused", metavar="ACCOUNT", help="Have no job start on it ...")
@click.option(
    "--for",
    "lasts",
    type=duration_option,
    metavar="DURATION",
    help="... for so long (default: 1h).",
)
@click.option("--resume", "resumed", metavar="ACCOUNT", help="Have jobs start on it again now.")
@json_option
def quota(paused: str | None, lasts: float | None, resumed: str | None, as_json: bool) -> None:
    """Show each account: what runs and waits, what was spent today, until when it is paused.

    An account is AGENT/NAME, such as claude/default. One whose limit is used up is paused for the
    whole fleet until the reset; its jobs wait, and go on in their sessions then.
    """
    from relayq.cli import show, tables

    if paused and resumed:
        raise click.UsageError("--pause and --resume exclude each other")
    with client() as relay:
        store = relay.session().store
        if paused:
            account = _full(paused)
            store.accounts.pause(
                account, seconds=lasts or 3600.0, reason="a person", who=relay.submitter
            )
        elif resumed and not store.accounts.resume(_full(resumed), who=relay.submitter):
            raise RelayqError(f"{_full(resumed)} isn't paused", hint="relayq agent quota")
        found = {one.name: one for one in _all(relay)}
        now = store.accounts.now()
    if as_json:
        show.print_json({"accounts": [fleet.account_as_json(one) for one in found.values()]})
    elif found:
        tables.table(_QUOTA, [_row(one, now) for one in found.values()])
    else:
        click.echo("no account was used yet; an agent's first job uses one: relayq agent run")


def _full(account: str) -> str:
    return account if "/" in account else f"{account}/default"


def _all(relay: Relay) -> Iterator[Account]:
    """Return the accounts that were used, and those that the configuration names."""
    store = relay.session().store
    named = [
        f"{agent}/{name}"
        for agent, entry in relay.config.agents.items()
        for name in entry.get("accounts", ())
    ]
    used = store.accounts.list()
    more = [name for name in named if name not in {one.name for one in used}]
    yield from sorted([*used, *store.accounts.fetch(more)], key=lambda one: one.name)


def _row(one: Account, now: float) -> list[str]:
    from relayq.model.accounts import why_not

    spent = dollars(one.spent_usd)
    limit = "-" if one.limit is None else str(one.limit)
    if one.room is not None and one.room != one.limit:
        limit = f"{one.room} (of {one.limit})"
    return [
        one.name,
        f"{len(one.active)}/{limit}",
        str(one.queued),
        f"{spent} of ${one.budget_usd:.2f}" if one.budget_usd else spent,
        f"{one.tokens:,}",
        instant(one.until) if one.until else "-",
        one.reason or why_not(one, now, instant) or "-",
    ]
