"""`relayq pause` and `resume`: jobs, hosts, or the whole fleet; `relayq hosts wake`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relayq import clock
from relayq.cli import selection
from relayq.cli.options import client, complete, duration_option, json_option
from relayq.cli.selection import Chosen
from relayq.cli.texts import inert, number_of, span
from relayq.model.jobs import JobState

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

_Function = TypeVar("_Function", bound=Callable[..., Any])
_RUNNING = (JobState.RUNNING, JobState.LOST)
#: How long is waited for a job to stand still, or to go on.
_PATIENCE = 3.0


def _meant(function: _Function) -> _Function:
    """Give a command what it is about: `chosen` jobs, or `hosts`, or the fleet (`everything`)."""

    @functools.wraps(function)
    def command(
        *args: Any,
        selectors: tuple[str, ...],
        filters: tuple[str, ...],
        hosts: tuple[str, ...],
        everything: bool,
        **rest: Any,
    ) -> Any:
        ways = [bool(selectors or filters), bool(hosts), everything]
        if ways.count(True) != 1:
            raise click.UsageError("what? one of JOB..., --host HOST, or --all")
        chosen = Chosen(selectors, filters, everything=False)
        return function(*args, chosen=chosen, hosts=hosts, everything=everything, **rest)

    for add in (
        click.option("--all", "everything", is_flag=True, help="Every host of the fleet."),
        click.option(
            "--host",
            "hosts",
            multiple=True,
            metavar="HOST",
            shell_complete=complete("hosts"),
            help="A whole host: it takes nothing new either.",
        ),
        selection.filter_option,
        click.argument("selectors", metavar="[JOB]...", nargs=-1, shell_complete=complete("jobs")),
    ):
        command = add(command)
    return command  # type: ignore[return-value]


@click.command()
@_meant
@click.option(
    "--for",
    "lasts",
    type=duration_option,
    metavar="DURATION",
    help="Go on by itself after 2h, say.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever wonders.")
@json_option
@click.pass_context
def pause(
    ctx: click.Context,
    chosen: Chosen,
    hosts: tuple[str, ...],
    everything: bool,
    lasts: float | None,
    reason: str,
    as_json: bool,
) -> None:
    """Have running jobs stand still, with all of their processes, until `relayq resume`.

    Their time limits stand still as well. A host that is paused takes nothing new; one that is
    offline obeys when it is back. Jobs that wait can't be paused; their hosts can.
    """
    ending = f" for {span(lasts)}" if lasts is not None else ""

    def act(result: JobResult) -> None:
        result.pause(lasts, reason=reason)

    def act_on(relay: Relay, host: str | None) -> Sequence[str]:
        if host is None:
            return relay.job.pause_fleet(lasts, reason=reason)
        return relay.job.pause_host(host, lasts, reason=reason)

    _do(ctx, chosen, hosts, everything, act, act_on, f"paused{ending}", as_json=as_json)


@click.command()
@_meant
@json_option
@click.pass_context
def resume(
    ctx: click.Context,
    chosen: Chosen,
    hosts: tuple[str, ...],
    everything: bool,
    as_json: bool,
) -> None:
    """Let jobs, hosts or the fleet go on that somebody paused.

    Each is resumed as it was paused: --all ends a pause of --all, and leaves that of one host.
    """

    def act(result: JobResult) -> None:
        result.resume()

    def act_on(relay: Relay, host: str | None) -> Sequence[str]:
        return relay.job.resume_fleet() if host is None else relay.job.resume_host(host)

    _do(ctx, chosen, hosts, everything, act, act_on, "resumed", as_json=as_json)


def _do(
    ctx: click.Context,
    chosen: Chosen,
    hosts: tuple[str, ...],
    everything: bool,
    act: Callable[[JobResult], None],
    act_on: Callable[[Relay, str | None], Sequence[str]],
    done: str,
    *,
    as_json: bool,
) -> None:
    from relayq.cli import show

    acted: list[Any] = []

    def one(result: Any) -> None:
        act(result)
        _await(result, stands_still=done != "resumed")
        acted.append(result)
        if not as_json:
            click.echo(f"{result.id}  {_told(result, done)}")

    with client() as relay:
        if not hosts and not everything:
            code = selection.each(chosen.results(relay, _RUNNING), one)
            if as_json:
                show.print_json({"jobs": [show.as_json(result.record) for result in acted]})
            ctx.exit(code)
        told = {host: act_on(relay, host) for host in hosts or (None,)}
        if as_json:
            show.print_json({"hosts": sorted({name for names in told.values() for name in names})})
            return
        for host, names in told.items():
            shown = host or f"the fleet, {number_of(len(names), 'host')}"
            click.echo(f"{inert(shown)}  {done}")


def _await(result: JobResult, *, stands_still: bool) -> None:
    """Wait a moment until the host has obeyed."""
    deadline = clock.boottime() + _PATIENCE
    while clock.boottime() < deadline:
        record = result.record
        if record.state is not JobState.RUNNING or (record.paused is not None) is stands_still:
            return
        clock.sleep(0.05)


def _told(result: JobResult, done: str) -> str:
    record = result.record
    on = f" on {record.host}" if record.host else ""
    if record.state not in _RUNNING:
        return f"is {record.state.value}"
    if done == "resumed":
        if record.paused is None:
            return f"resumed{on}"
        return inert(f"resumed, but it still stands still{on}: {record.paused}")
    if record.paused is None:
        return f"will be {done}: {record.host} doesn't answer now, and obeys when it does"
    return f"{done}{on}"


@click.command()
@click.argument("host", shell_complete=complete("hosts"))
@click.option(
    "--via",
    multiple=True,
    metavar="HOST",
    shell_complete=complete("hosts"),
    help="Who is to send the packet: a host of the same network.",
)
@json_option
def wake(host: str, via: tuple[str, ...], as_json: bool) -> None:
    """Wake a host that sleeps, by a packet that another host of its network sends.

    Its own configuration says how: worker.wake.mac, and worker.wake.via for who can.
    """
    from relayq.cli import show

    with client() as relay:
        asked = relay.job.wake_host(host, via)
    if as_json:
        show.print_json({"host": host, "via": list(asked)})
        return
    click.echo(f"{host}  waking, by {', '.join(asked)}")
