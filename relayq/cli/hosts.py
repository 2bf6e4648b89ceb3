"""`relayq hosts`: which machines there are, what they can do, and what is asked of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import fleet, templates
from relayq.cli.groups import Group
from relayq.cli.options import client, complete, json_option
from relayq.cli.texts import number_of
from relayq.errors import Conflict

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.hosts import Host

#: Commands of the group that live elsewhere.
_ELSEWHERE = {
    "rm": "relayq.cli.removal:rm",
    "upgrade": "relayq.cli.upgrades:upgrade_hosts",
    "pick": "relayq.cli.pick:pick",
    "wake": "relayq.cli.pause:wake",
}
_host_argument = click.argument("name", metavar="HOST", shell_complete=complete("hosts"))


@click.group(cls=Group, elsewhere=_ELSEWHERE, invoke_without_command=True)
@json_option
@click.pass_context
def hosts(ctx: click.Context, as_json: bool) -> None:
    """Show the hosts; or change what is asked of one.

    Without a command it lists them, as `relayq hosts ls`.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(ls, template=None, as_json=as_json)


@hosts.command()
@templates.format_option(templates.host_fields)
@json_option
def ls(template: templates.Template | None, as_json: bool) -> None:
    """List the hosts: state, slots, what each can do.

    Example: relayq hosts ls --format '{{.name}} {{.state}}'
    """
    from relayq.cli import show, tables

    with client() as relay:
        found = fleet.hosts_of(relay)
        last_day = relay.session().store.stats.last_day(now=clock.now())
    if template is not None:
        templates.print_all(template, [templates.of_host(host) for host in found])
    elif as_json:
        show.print_json({"hosts": [fleet.host_as_json(host, last_day) for host in found]})
    elif found:
        tables.table(*fleet.host_table(found, clock.now(), last_day))
    else:
        click.echo("no host yet; on one that should work: relayq up")


@hosts.command("show")
@_host_argument
@json_option
def show_host(name: str, as_json: bool) -> None:
    """Show all that is known of a host: its size, tools, agents, labels, what it runs.

    Example: relayq hosts show pi4
    """
    from relayq.cli import show, tables

    with client() as relay:
        host = fleet.find(relay, name)
        store = relay.session().store
        last_day = store.stats.last_day(now=clock.now())
        ids = store.places.running_on([host.name])[host.name]
        records = store.jobs.fetch_many(ids)
    if as_json:
        running = [show.as_json(record) for record in records]
        show.print_json({**fleet.host_as_json(host, last_day), "running": running})
        return
    click.echo("\n".join(fleet.host_details(host, clock.now(), last_day, tables.room())))
    if records:
        tables.table(show.JOB_COLUMNS, show.job_rows(records, clock.now()))


# Without -h, which would be the beginning of -heavy.
@hosts.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@_host_argument
@click.argument("changes", metavar="+LABEL|-LABEL|=LABEL...", nargs=-1, required=True)
@json_option
def label(name: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Give a host labels by which jobs choose it, or take some away.

    +x adds one, -x takes one away, also one of the host's own configuration; =x leaves it to that
    again. Kept by the broker, whether or not the host is online: relayq run --on @x.

    Example: relayq hosts label mini +heavy -slow
    """
    from relayq.parsing import label as read

    for change in changes:
        if change[0] not in "+-=":
            raise click.UsageError(f"expected +{change} or -{change}, got {change}")
        try:
            read(change[1:])
        except ValueError as error:
            raise click.UsageError(f"{error}, got {change}") from error
    with client() as relay:
        host = fleet.find(relay, name)
        relay.session().store.hosts.label(host.name, changes)
        _wake(relay, host)
        labels = list(fleet.find(relay, host.name).labels)
    _answer(
        f"{host.name}  labels: {', '.join(labels) or 'none'}",
        as_json,
        host=host.name,
        labels=labels,
    )


@hosts.command()
@click.argument("old", shell_complete=complete("hosts"))
@click.argument("new", shell_complete=complete("hosts"))
@json_option
def rename(old: str, new: str, as_json: bool) -> None:
    """Have a host be known by the new name of its worker.

    First change worker.name there and restart its worker, which registers as NEW; this moves the
    jobs that wait for OLD, and keeps OLD as another name of it.

    Example: relayq hosts rename pi4 pi5
    """
    with client() as relay:
        hosts_now = {host.name: host for host in fleet.hosts_of(relay)}
        for name in (old, new):
            if name not in hosts_now:
                fleet.find(relay, name)
                raise Conflict(f"{name} is another name already", hint="relayq hosts")
        if old == new:
            raise click.UsageError("a host can't be renamed to its own name")
        if hosts_now[old].is_online:
            raise Conflict(
                f"{old} is online, so its worker has that name",
                hint=f"there: worker.name: {new} in config.yml, then relayq worker stop; relayq up",
            )
        moved = _move_all(relay, old, new)
        session = relay.session()
        session.store.hosts.dismiss(
            old, lease=relay.config.lease.length, heir=new, who=session.store.jobs.who
        )
    line = f"{old} is {new} now; {number_of(len(moved), 'job')} moved"
    _answer(line, as_json, host=new, alias=old, moved=moved)


def _move_all(relay: Relay, old: str, new: str) -> list[str]:
    """Move what waits for a host to another one; returns the ids."""
    from relayq.model.jobs import JobState

    states = (JobState.QUEUED, JobState.SCHEDULED, JobState.WAITING)
    moved = []
    for state in states:
        for result in relay.job.select([], filters={"state": state.value, "host": old}):
            if result.record.queue == f"host.{old}":
                result.move(new)
                moved.append(result.id)
    return moved


@hosts.command()
@_host_argument
@click.option("--reason", default="", metavar="TEXT", help="Why; shown wherever the host is.")
@json_option
def drain(name: str, reason: str, as_json: bool) -> None:
    """Have a host take nothing new; what it runs goes on. Holds until undrain, over restarts.

    Example: relayq hosts drain pi4 --reason 'a new disk'
    """
    with client() as relay:
        host = fleet.find(relay, name)
        store = relay.session().store
        store.hosts.drain(host.name, reason=reason, who=store.jobs.who)
        running = host.active
    left = f"; what runs there goes on ({number_of(running, 'job')})" if running else ""
    _answer(f"{host.name}  takes nothing new{left}", as_json, host=host.name, running=running)


@hosts.command()
@_host_argument
@json_option
def undrain(name: str, as_json: bool) -> None:
    """Have a host take work again.

    Example: relayq hosts undrain pi4
    """
    with client() as relay:
        host = fleet.find(relay, name)
        store = relay.session().store
        was_drained = store.hosts.drain(host.name, undo=True, who=store.jobs.who)
        _wake(relay, host)
    line = f"{host.name}  takes work{' again' if was_drained else '; it was not drained'}"
    _answer(line, as_json, host=host.name, was_drained=was_drained)


def _wake(relay: Relay, host: Host) -> None:
    """Have a host that is there look at once; an absent one will when it is back."""
    if host.is_online:
        relay.session().store.hosts.ask(host.name, {"op": "wake"})


def _answer(line: str, as_json: bool, **value: Any) -> None:
    if as_json:
        from relayq.cli import show

        show.print_json(value)
    else:
        click.echo(line)
