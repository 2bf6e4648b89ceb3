"""`relayq flow`: workflows, which are many jobs as one, and their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relayq import clock
from relayq.cli.flowfiles import file_argument, input_option, read_file, tell_remarks
from relayq.cli.groups import Group
from relayq.cli.joboptions import interrupt_option
from relayq.cli.options import client, json_option, quiet_option
from relayq.cli.texts import number_of

if TYPE_CHECKING:
    from relayq.flowruns import FlowRun

_LISTED = 20


#: Commands about a file in a module of their own.
_ELSEWHERE = {
    "check": "relayq.cli.flowfiles:check_flow",
    "graph": "relayq.cli.flowfiles:graph_flow",
}


@click.group(cls=Group, elsewhere=_ELSEWHERE)
def flow() -> None:
    """Workflows: jobs that come after each other, from a file (docs/workflows.md)."""


run_argument = click.argument("run", metavar="RUN", default="last")
detach_option = click.option(
    "-d", "--detach", is_flag=True, help="Print the run's id and leave; it goes on."
)
follow_option = click.option(
    "-f", "--follow", "outputs", is_flag=True, help="Print what its jobs write."
)


@flow.command("run", short_help="Queue a run and watch its steps.")
@file_argument
@input_option
@detach_option
@follow_option
@interrupt_option
@click.option("--wait-for-host", is_flag=True, help="Queue it for hosts not known yet.")
@quiet_option
@json_option
@click.pass_context
def run_flow(
    ctx: click.Context,
    file: str,
    inputs: dict[str, str],
    detach: bool,
    outputs: bool,
    on_interrupt: str | None,
    wait_for_host: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Queue a run of a workflow and watch its steps: 0 if all went well, 1 if one failed.

    All of it is checked before anything is queued, and needs no process to go on.
    """
    from relayq.cli import flowfollow, show
    from relayq.workflows import start

    workflow = read_file(file)
    if not quiet:
        tell_remarks(workflow)
    with client(starts=True, quiet=quiet) as relay:

        def begin() -> FlowRun:
            return start(relay, workflow, inputs, wait_for_host=wait_for_host)

        if not detach:
            ctx.exit(
                flowfollow.run(
                    relay,
                    begin,
                    on_interrupt=on_interrupt,
                    outputs=outputs,
                    quiet=quiet,
                    as_json=as_json,
                )
            )
        made = begin()
        if as_json:
            show.print_json({"id": made.id})
        else:
            click.echo(made.id)


@flow.command("ls", short_help="List runs, the newest first.")
@click.option("-n", "limit", type=click.IntRange(1), default=_LISTED, help="How many (20).")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@json_option
def list_flows(limit: int, quiet: bool, as_json: bool) -> None:
    """List runs of workflows, the newest first."""
    from relayq.cli import flowviews, show, tables
    from relayq.cli.texts import rfc3339
    from relayq.flowruns import FlowRun

    with client() as relay:
        session = relay.session()
        runs = [FlowRun(session, one.id) for one in session.store.flows.list(limit)]
        if quiet:
            click.echo("".join(f"{one.id}\n" for one in runs), nl=False)
        elif as_json:
            shown = []
            for one in runs:
                state, counts = one.brief()
                shown.append(
                    {
                        "id": one.id,
                        "name": one.name,
                        "state": state,
                        "created_at": rfc3339(one.record.created_at),
                        "jobs": {word.value: count for word, count in counts.items()},
                    }
                )
            show.print_json({"flows": shown})
        elif runs:
            now = clock.now()
            columns = ("ID", "STATE", "NAME", "JOBS", "AGE")
            tables.table(columns, [flowviews.list_row(one, now) for one in runs])
        else:
            click.echo("no workflow has run yet; try: relayq flow run FILE")


@flow.command("show", short_help="Show a run's steps, and why.")
@run_argument
@json_option
def show_flow(run: str, as_json: bool) -> None:
    """Show a run's steps: where each ran, how long, and why it isn't farther."""
    from relayq.cli import flowviews, show, tables
    from relayq.flowruns import find, percent_of

    with client() as relay:
        made = find(relay, run)
        state, jobs = made.state, made.jobs()
        if as_json:
            show.print_json(flowviews.as_json(made, state, jobs))
            return
        click.echo(flowviews.head(made, state))
        if made.record.inputs:
            click.echo(flowviews.inputs_line(made))
        tables.table(flowviews.COLUMNS, flowviews.rows(jobs, clock.now()))
        done = f"{int(percent_of(jobs))} % done"
        click.echo("\n".join(tables.joined([*flowviews.total(jobs), done])))
        flowviews.conclude(made.id, state, jobs)


@flow.command("cancel", short_help="End a run, with all processes.")
@run_argument
@json_option
@click.pass_context
def cancel_flow(ctx: click.Context, run: str, as_json: bool) -> None:
    """End a run: nothing further starts, and what runs ends with all of its processes."""
    from relayq.cli import flowfollow, show
    from relayq.flowruns import find

    with client(needs_worker=True) as relay:
        made = find(relay, run)
        state = flowfollow.end(made, quiet=as_json)
        if as_json:
            show.print_json({"id": made.id, "state": state})
    ctx.exit({"cancelled": 0, "running": 75}.get(state, 1))


@flow.command("retry", short_help="Run again what failed, and after it.")
@run_argument
@click.option("--force", is_flag=True, help="Lost attempts of it are gone for certain.")
@detach_option
@follow_option
@interrupt_option
@quiet_option
@json_option
@click.pass_context
def retry_flow(
    ctx: click.Context,
    run: str,
    force: bool,
    detach: bool,
    outputs: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run again what failed or was cancelled in a run, and what comes after it."""
    from relayq.cli import flowfollow, show
    from relayq.flowruns import find

    with client(needs_worker=True, quiet=quiet) as relay:
        made = find(relay, run)
        again: list[str] = []

        def begin() -> FlowRun:
            again.extend(made.retry(force=force))
            if not quiet and again:
                show.remark(f"{number_of(len(again), 'job')} of {made.id} to run again")
            elif not quiet:
                show.remark(f"nothing of {made.id} failed, so nothing runs again")
            return made

        if not detach:
            ctx.exit(
                flowfollow.run(
                    relay,
                    begin,
                    fresh=again,
                    on_interrupt=on_interrupt,
                    outputs=outputs,
                    quiet=quiet,
                    as_json=as_json,
                )
            )
        begin()
        if as_json:
            show.print_json({"id": made.id, "jobs": again})
        else:
            click.echo(made.id)
