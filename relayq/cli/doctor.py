"""`relayq doctor`: find what is wrong, and say what to type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from relayq.cli.options import duration_option, json_option
from relayq.cli.texts import inert, number_of

if TYPE_CHECKING:
    from relayq.doctor import Finding

_MARKS = {"ok": "ok", "warning": "!", "problem": "!!"}
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_WIDTH = 9


@click.command()
@click.option(
    "--timeout", default="10s", metavar="DURATION", help="Longest wait for an echo job (10s)."
)
@click.option("--no-job", is_flag=True, help="Send no echo job to the hosts.")
@click.option("--fix", "mend", is_flag=True, help="Mend file modes and missing directories.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, timeout: str, no_job: bool, mend: bool, as_json: bool) -> None:
    """Find what is wrong, and say what to do; exits with 1 when there is a problem.

    Looks at Redis, the hosts (with an echo job for each), this machine's key, disks and worker.
    Nothing is started or changed, except by --fix.
    """
    from relayq.cli import show

    patience = 0.0 if no_job else duration_option(timeout)
    shown, mended = [], 0
    for finding in _findings(patience):
        is_mended = mend and finding.repair is not None
        if is_mended and finding.repair is not None:
            finding.repair()
            mended += 1
        shown.append((finding, is_mended))
        if not as_json:
            _print(finding, is_mended=is_mended)
    left = [finding for finding, is_mended in shown if not is_mended]
    problems = sum(finding.level == "problem" for finding in left)
    warnings = sum(finding.level == "warning" for finding in left)
    if as_json:
        values = [{**finding.as_dict(), "mended": is_mended} for finding, is_mended in shown]
        show.print_json({"findings": values, "problems": problems, "warnings": warnings})
    else:
        parts = [number_of(problems, "problem"), number_of(warnings, "warning")]
        click.echo(", ".join([*parts, f"{mended} mended"] if mended else parts))
    ctx.exit(1 if problems else 0)


def _findings(patience: float) -> Iterator[Finding]:
    """Yield what is found; with a broken configuration nothing else can be looked at."""
    from relayq import config, doctor
    from relayq.doctor import Examination, Finding, Level

    broken = config.problems()
    for error in broken:
        yield Finding(Level.PROBLEM, "config", error.message, error.hint or "relayq config edit")
    if not broken:
        yield from doctor.examine(Examination(config.load(), timeout=patience))


def _print(finding: Finding, *, is_mended: bool) -> None:
    level = finding.level.value
    mark = click.style(f"{_MARKS[level]:<2}", fg=_COLOURS[level])
    click.echo(f"{inert(finding.host):<{_WIDTH}} {mark}  {inert(finding.text)}")
    if finding.fix is not None:
        word = "mended" if is_mended else "fix"
        click.echo(f"{'':<{_WIDTH}}     {word}: {inert(finding.fix)}")
