"""A person's word to a job that asks: it goes on with it."""

from __future__ import annotations

import sys

import click

from relayq.cli.options import client, complete, json_option
from relayq.model.reviews import VERDICTS


@click.command()
@click.argument("job", metavar="JOB", shell_complete=complete("jobs"))
@click.argument("words", metavar="[TEXT]", nargs=-1)
@click.option(
    "-c", "--choice", type=click.IntRange(1), metavar="N", help="One of its choices, by its number."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="TOOL",
    help="The agent may use this from now on without asking, such as 'Bash(git push)'.",
)
@click.option("--force", is_flag=True, help="Its lost attempt is gone for certain.")
@json_option
def answer(
    job: str,
    words: tuple[str, ...],
    choice: int | None,
    allow: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Answer what a job asks: with TEXT (- for what is piped in), a choice, or both.

    An agent goes on in the same session on the same host. A text that is one of the choices is that
    choice. `relayq review` shows what is asked.
    """
    from relayq.cli import show

    text = sys.stdin.read() if words == ("-",) else " ".join(words)
    if not text.strip() and choice is None and not allow:
        raise click.UsageError("what is the answer? a text, --choice N, or --allow TOOL")
    with client(needs_worker=True) as relay:
        [result] = relay.job.select([job])
        record = result.record
        session = result.agent.session_id if result.agent is not None else None
        word = result.answer(text, choice=choice, allow=allow, force=force)
    if as_json:
        show.print_json({"id": result.id, "became": word})
        return
    click.echo(f"{result.id}  {_said(word, session, record.host)}")


def _said(word: str, session: str | None, host: str | None) -> str:
    if word in VERDICTS:
        return f"resolved as {word}"
    if word == "told":
        return f"answered; it goes on on {host}"
    if word == "already":
        return "was answered so before"
    return f"answered; session {session} goes on on {host}" if session else "answered; it goes on"
