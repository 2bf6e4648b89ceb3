"""`relayq get`: the files that jobs brought back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from relayq.cli.options import client, complete, json_option, quiet_option
from relayq.cli.texts import inert
from relayq.errors import RelayqError
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.client import JobResult

_COLUMNS = ("NAME", "SIZE", "WHERE")


@click.command()
@click.argument("job", metavar="JOB", shell_complete=complete("jobs"))
@click.argument("dest", metavar="[DEST]", required=False, shell_complete=complete("files"))
@click.option(
    "--only", "names", multiple=True, metavar="PATTERN", help="Only files of these names."
)
@click.option("-l", "--list", "lists", is_flag=True, help="Say which there are, and fetch none.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@quiet_option
@json_option
def get(
    job: str,
    dest: str | None,
    names: tuple[str, ...],
    lists: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fetch the files that a job brought back; those of several, such as @GROUP, all together.

    DEST is a directory, or the new name of one file. Without it they go where their job's --out
    said, else into this directory. A fetch that was cut goes on where it was.
    """
    with client(quiet=quiet) as relay:
        results = relay.job.select([job])
        if lists:
            _list(results, as_json=as_json)
            return
        _fetch(results, dest, names, overwrite=overwrite, quiet=quiet, as_json=as_json)


def _list(results: Sequence[JobResult], *, as_json: bool) -> None:
    from relayq.cli import files, show, tables

    if as_json:
        jobs = [{"id": one.id, "files": files.of_result(one.files)} for one in results]
        show.print_json(jobs[0] if len(jobs) == 1 else {"jobs": jobs})
        return
    rows = [
        [inert(kept.name), size_text(kept.size), inert(files.where(kept, one.host))]
        for one in results
        for kept in one.files
    ]
    tables.table(_COLUMNS, rows)


def _fetch(
    results: Sequence[JobResult],
    dest: str | None,
    names: Sequence[str],
    *,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    from relayq.cli import show

    if dest is not None and len(results) > 1:
        dest = os.path.join(dest, "")
    _check_apart(results, dest, names, overwrite=overwrite)
    found = [
        (one.id, path)
        for one in results
        for path in one.fetch(dest, names=names, overwrite=overwrite)
    ]
    if as_json:
        show.print_json({"fetched": [{"id": id, "path": path} for id, path in found]})
        return
    for _, path in found:
        click.echo(inert(path, longest=None))


def _check_apart(
    results: Sequence[JobResult], dest: str | None, names: Sequence[str], *, overwrite: bool
) -> None:
    """Raise before anything is fetched if a file of one job would be where another one's is."""
    whose: dict[str, str] = {}
    for one in results if len(results) > 1 else ():
        for way in one.ways(dest, names=names, overwrite=overwrite).values():
            if way.path in whose:
                raise RelayqError(
                    f"{way.path} would be of both {whose[way.path]} and {one.id}",
                    hint=f"relayq get {one.id} DIR",
                )
            whose[way.path] = one.id
