"""What jobs with `--git` changed: shown, and applied to a repository here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import client, complete, json_option
from relayq.cli.texts import inert

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.model.changes import Changes, FileChange
    from relayq.model.jobs import Outcome, Spec

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
_HEADERS = ("diff ", "index ", "--- ", "+++ ")


@click.command()
@click.argument("job", shell_complete=complete("jobs"))
@click.option("--stat", is_flag=True, help="Only which files, and how much of each.")
@json_option
def diff(job: str, stat: bool, as_json: bool) -> None:
    """Show what a job changed in its worktree (--git), as git does.

    It may be piped into `git apply`, though `relayq apply` merges and takes back.
    """
    from relayq.cli import show

    with client() as relay:
        result = _found(relay, job)
        changes = result.committed()
        patch = b"" if stat else result.patch_of(changes)
    if as_json:
        told = as_dict(changes)
        text = {} if stat else {"diff": patch.decode("utf-8", "replace")}
        show.print_json({"id": result.id, "git": told, **text})
    elif stat:
        click.echo("\n".join(_stat(changes)))
    else:
        _print(patch)


def _found(relay: Relay, job: str) -> JobResult:
    return relay.job.select([job])[0]


def _print(patch: bytes) -> None:
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(patch)
        sys.stdout.flush()
        return
    for line in patch.decode("utf-8", "replace").splitlines():
        is_header = line.startswith(_HEADERS)
        style: dict[str, Any] = {"bold": True} if is_header else {"fg": _COLOURS.get(line[:1])}
        click.secho(inert(line, longest=None), **style)


def _stat(changes: Changes) -> Iterable[str]:
    widest = max((len(inert(one.path)) for one in changes.stat), default=0)
    for one in changes.stat:
        yield f"{inert(one.path):<{widest}}  {_lines(one)}"
    if len(changes.stat) < changes.files:
        yield f"... and {changes.files - len(changes.stat)} more files"
    yield changes.summary


def _lines(one: FileChange) -> str:
    return "binary" if one.added is None else f"+{one.added} -{one.removed}"


@click.command()
@click.argument("job", shell_complete=complete("jobs"))
@click.option("--to", metavar="DIR", default=".", help="A repository here (default: this one).")
@click.option("--check", is_flag=True, help="Only say whether it would go, and change nothing.")
@json_option
def apply(job: str, to: str, check: bool, as_json: bool) -> None:
    """Apply what a job changed in its worktree (--git) to the repository here.

    What was changed here since is merged. The files and the index have it then; nothing is
    committed. When there is a conflict, or a file has changes of your own, nothing is changed.
    """
    from relayq.cli import show
    from relayq.host import patches

    with client() as relay:
        result = _found(relay, job)
        changes = result.committed()
        patch = result.patch_of(changes)
    if not patch:
        if as_json:
            show.print_json({"id": result.id, "repository": None, "files": [], "applied": False})
        else:
            click.echo(f"{result.id} changed nothing")
        return
    done = patches.apply(patch, os.path.abspath(to), only_check=check)
    if as_json:
        told = {"repository": done.repository, "files": list(done.files), "applied": not check}
        show.print_json({"id": result.id, **told})
        return
    verb = "would go into" if check else "is in"
    click.echo(f"{changes.extent}: {verb} {inert(done.repository, longest=None)}")


def as_dict(changes: Changes) -> dict[str, Any]:
    """Return the changes as JSON shows them."""
    return {**asdict(changes), "stat": [asdict(one) for one in changes.stat]}


def of_result(result: JobResult) -> dict[str, Any] | None:
    """Return what a job did with a repository, as JSON shows it."""
    changes = result.changes
    return None if changes is None else as_dict(changes)


def tell(result: JobResult) -> None:
    """Say what a job that ended made of its repository, and how that is had."""
    from relayq.cli import show

    changes = result.changes
    if changes is None:
        return
    for note in changes.notes:
        show.remark(f"{result.id}  {inert(note)}")
    show.remark(f"{result.id}  {inert(changes.summary)}")
    if changes.patch:
        show.hint(f"relayq diff {result.id}, or relayq apply {result.id}")


def directory(spec: Spec) -> str:
    """Return the remark on a job's directory that is a worktree, "" of another."""
    if spec.git is None:
        return ""
    return f" @ {spec.git} (a worktree of its own)"


def committed(outcome: Outcome) -> Iterable[tuple[str, str]]:
    """Yield what `show` says of a repository."""
    if outcome.git is None:
        return
    from relayq.model.changes import Changes

    changes = Changes.from_dict(outcome.git)
    where = f"of {changes.repository} on {outcome.host}, in {changes.worktree}"
    yield "Git", "\n".join((changes.summary, where, *changes.notes))
