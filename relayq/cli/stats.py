"""`relayq stats`: what was done, by host, kind, agent or day."""

from __future__ import annotations

import math

import click

from relayq.cli import fleet
from relayq.cli.options import client, duration_option, json_option
from relayq.model.stats import DAY, GROUPS, Tally


def _days(ctx: click.Context, param: click.Parameter, text: str) -> int:
    return math.ceil(duration_option(text) / DAY)


@click.command()
@click.option("--by", type=click.Choice(GROUPS), default="host", help="A row for each of these.")
@click.option(
    "--since",
    "days",
    callback=_days,
    default="7d",
    metavar="DURATION",
    help="How far back, in whole days of UTC: 1d is today. 400d is all that is kept.",
)
@json_option
def stats(by: str, days: int, as_json: bool) -> None:
    """Show how many attempts succeeded and failed, how long they took and waited.

    Where agents worked, with their tokens and what they say that it cost.

    Example: relayq stats --by kind --since 30d
    """
    from relayq.cli import show, tables

    with client() as relay:
        groups = relay.job.stats(by=by, days=days)
    total = Tally()
    for tally in groups.values():
        total = total.plus(tally)
    if as_json:
        rows = [{by: name, **fleet.stats_as_json(tally)} for name, tally in groups.items()]
        # `days` is how many there are.
        key = "dates" if by == "day" else by + "s"
        show.print_json({"by": by, "days": days, key: rows, "total": fleet.stats_as_json(total)})
        return
    if not groups:
        click.echo(f"nothing ended in the last {days} days")
        return
    row = fleet.usage_row if total.tokens_in or total.cost_usd else fleet.stats_row
    rows_shown = [[name, *row(tally)] for name, tally in groups.items()]
    if len(groups) > 1:
        rows_shown.append(["all", *row(total)])
    columns = (*fleet.STATS_COLUMNS, *(fleet.USAGE_COLUMNS if row is fleet.usage_row else ()))
    tables.table([by.upper(), *columns], rows_shown)
