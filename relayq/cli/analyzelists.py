"""Runs of analyses afterwards: which there are, what they found, and their sessions."""

from __future__ import annotations

import click

from relayq.cli.joboptions import interrupt_option
from relayq.cli.options import client, json_option, quiet_option

#: What `show` prints.
_FORMATS = ("text", "markdown", "sarif")


@click.command()
@click.option("-n", "limit", type=click.IntRange(1), metavar="N", default=20, help="So many.")
@json_option
def ls(limit: int, as_json: bool) -> None:
    """List the runs of the last 30 days, the newest first."""
    from relayq.cli import analyzeviews, show, tables

    with client() as relay:
        runs = relay.job.analyses(limit=limit)
        for one in runs:
            one.look()
        if as_json:
            show.print_json({"runs": [analyzeviews.run_as_json(one) for one in runs]})
        elif runs:
            tables.table(*analyzeviews.run_rows(runs))
        else:
            click.echo("no run yet; relayq analyze DIR begins one")


@click.command("show")
@click.argument("run", metavar="[RUN]", default="last")
@click.option("--format", "sort", type=click.Choice(_FORMATS), default="text", help="The report's.")
@click.option("--stats", is_flag=True, help="Compare with one session after the other.")
@json_option
@click.pass_context
def show_run(ctx: click.Context, run: str, sort: str, stats: bool, as_json: bool) -> None:
    """Print the report of RUN (default: the last), as far as it is.

    It exits with 80 when something hasn't been read.
    """
    from relayq.cli import show
    from relayq.model import reports

    with client() as relay:
        analysis = relay.job.analysis(run)
        analysis.look()
        facts = analysis.facts
        if as_json:
            show.print_json({"analysis": analysis.as_dict()})
        else:
            click.echo(analysis.report(sort))
        if stats and not as_json:
            click.echo("\n".join(reports.comparison(facts)))
    ctx.exit(facts.exit_code)


@click.command()
@click.argument("run", metavar="[RUN]", default="last")
@json_option
def sessions(run: str, as_json: bool) -> None:
    """List the session of each shard of RUN (default: the last), to be asked further."""
    from relayq.cli import show, tables

    with client() as relay:
        analysis = relay.job.analysis(run)
        analysis.look()
        found = [one for one in analysis.harvest.tracks if one.session_id]
        if as_json:
            rows = [
                {"shard": one.name, "session": one.session_id, "host": one.host, "job": one.job}
                for one in found
            ]
            show.print_json({"run": analysis.id, "sessions": rows})
        elif found:
            cells = [[one.name, one.session_id or "-", one.host or "-", one.job] for one in found]
            tables.table(("SHARD", "SESSION", "HOST", "JOB"), cells)
            show.hint(f"relayq analyze ask {analysis.id} '{found[0].name}' 'QUESTION'")
        else:
            click.echo("no session has begun yet")


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("shard", metavar="SHARD")
@click.argument("words", metavar="QUESTION", nargs=-1, required=True)
@click.option("--max-turns", type=click.IntRange(1), metavar="N", help="Its limit of turns.")
@quiet_option
@json_option
@interrupt_option
@click.pass_context
def ask(
    ctx: click.Context,
    run: str,
    shard: str,
    words: tuple[str, ...],
    max_turns: int | None,
    quiet: bool,
    as_json: bool,
    on_interrupt: str | None,
) -> None:
    """Ask the session that read SHARD of RUN something more, where it knows the files.

    Example: relayq analyze ask last auth "which of these is the worst?"
    """
    from relayq.cli import output

    with client(starts=True, quiet=quiet) as relay:
        analysis = relay.job.analysis(run)
        asked = {} if max_turns is None else {"max_turns": max_turns}
        code = output.only_answer(
            relay,
            lambda: analysis.ask(shard, " ".join(words), **asked),
            on_interrupt=on_interrupt,
            quiet=quiet,
            as_json=as_json,
        )
    ctx.exit(code)


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("shard", metavar="[SHARD]", required=False)
@click.option("--fresh", is_flag=True, help="By a new session, not by the old one.")
@click.option("-d", "--detach", is_flag=True, help="Queue it and leave.")
@interrupt_option
@quiet_option
@json_option
@click.pass_context
def retry(
    ctx: click.Context,
    run: str,
    shard: str | None,
    fresh: bool,
    detach: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Have SHARD of RUN done again, or all shards that came to nothing.

    The old session goes on where it ended, unless a --fresh one is to begin.
    """
    from relayq.cli import analyze, show

    with client(starts=True, quiet=quiet) as relay:
        analysis = relay.job.analysis(run)
        count = analysis.retry(shard, fresh=fresh)
        if not count and not quiet:
            show.remark("nothing of it came to nothing")
        if detach:
            analyze.leave(analysis, as_json=as_json)
            return
        code = analyze.follow(
            relay, analysis, stats=False, on_interrupt=on_interrupt, quiet=quiet, as_json=as_json
        )
    ctx.exit(code)
