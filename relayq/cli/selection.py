"""Which jobs a command is about: the selectors, `--filter` and `--all` that they share."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relayq.cli.options import complete, is_interactive
from relayq.cli.texts import number_of
from relayq.errors import RelayqError
from relayq.model.jobs import JobState

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

_Function = TypeVar("_Function", bound=Callable[..., Any])
#: So many of the jobs are named before a question about them.
_NAMED = 5
_ASKED = ("ID", "STATE", "HOST", "WHAT")

yes_option = click.option("-y", "--yes", is_flag=True, help="Don't ask before a bulk act.")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was typed to say which jobs are meant."""

    selectors: tuple[str, ...]
    filters: tuple[str, ...]
    everything: bool

    @property
    def is_bulk(self) -> bool:
        """Whether the jobs were described rather than named."""
        return bool(self.filters) or self.everything

    @property
    def is_one(self) -> bool:
        """Whether one job was named: JSON shows it by itself then, not as a list of one."""
        return (
            not self.is_bulk
            and len(self.selectors) == 1
            and not self.selectors[0].startswith("@")
            and not self.selectors[0].endswith("]")
        )

    def results(self, relay: Relay, states: Collection[JobState]) -> list[JobResult]:
        """Find the jobs; of those that were only described, the ones that are in these states."""
        if not self.selectors and not self.is_bulk:
            raise click.UsageError("which job? an id, a name, last, @group, --filter or --all")
        found = self._found(relay)
        if self.is_bulk and not any(text.startswith("state=") for text in self.filters):
            records = relay.session().store.jobs.fetch_many(result.id for result in found)
            fitting = {record.id for record in records if record.state in states}
            found = [result for result in found if result.id in fitting]
        if not found and not click.get_current_context().params.get("quiet"):
            click.echo("relayq: there is no such job", err=True)
        return found

    def _found(self, relay: Relay) -> list[JobResult]:
        from relayq.model.selectors import read_filters

        filters = read_filters(self.filters)
        return list(
            relay.job.select(self.selectors, filters=filters or None, everything=self.everything)
        )


def selecting(function: _Function) -> _Function:
    """Give a command `chosen`: the jobs that its arguments name or describe."""

    @functools.wraps(function)
    def command(
        *args: Any,
        selectors: tuple[str, ...],
        filters: tuple[str, ...],
        everything: bool,
        **rest: Any,
    ) -> Any:
        return function(*args, chosen=Chosen(selectors, filters, everything), **rest)

    for add in (all_option, filter_option, _argument):
        command = add(command)
    return command  # type: ignore[return-value]


_argument = click.argument(
    "selectors", metavar="[JOB]...", nargs=-1, shell_complete=complete("jobs")
)
filter_option = click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Jobs whose state, host, kind, name, label, group or meta.KEY is so (* for any text).",
)
all_option = click.option(
    "--all", "everything", is_flag=True, help="Every job that this can be done to."
)


def confirm(results: Sequence[JobResult], chosen: Chosen, act: str, *, yes: bool) -> None:
    """Ask before jobs are ended or forgotten that nobody named one by one."""
    if yes or not chosen.is_bulk or len(results) < 2:
        return
    jobs = number_of(len(results), "job")
    if not is_interactive():
        raise click.UsageError(f"this would {act} {jobs}; to do so without a question: -y")
    from relayq.cli import show, tables

    rows = show.job_rows([result.record for result in results[:_NAMED]], 0.0, _ASKED)
    width = shutil.get_terminal_size().columns
    click.echo("\n".join(tables.laid_out(_ASKED, rows, width)), err=True)
    if len(results) > _NAMED:
        click.echo(f"and {len(results) - _NAMED} more", err=True)
    ask(f"{act} {jobs}?")


def ask(question: str) -> None:
    """Ask a person; no is the end of the command, with 1."""
    if not click.confirm(question, err=True):
        raise click.exceptions.Exit(1)


def each(results: Sequence[JobResult], act: Callable[[JobResult], Any]) -> int:
    """Do it to each job, whatever becomes of the others; returns the exit code."""
    if len(results) == 1:
        act(results[0])
        return 0
    code = 0
    for result in results:
        try:
            act(result)
        except RelayqError as error:
            click.echo(f"relayq: {error.message}", err=True)
            click.echo(f"  hint: {error.hint or f'relayq show {result.id}'}", err=True)
            code = error.exit_code
    return code
