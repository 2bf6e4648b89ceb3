"""`relayq transcribe`: what is said in sound and video files, as text or subtitles."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.joboptions import HeadedCommand, detach_option, interrupt_option, media_options
from relayq.cli.options import client, complete
from relayq.cli.submissions import asked_of, tell_plan, with_jobs
from relayq.errors import RelayqError
from relayq.model import transcripts
from relayq.model.transcripts import AUTO, DEFAULT_MODEL, ENGINES, FORMATS, MODELS
from relayq.speechjobs import KIND, explained, text_of

if TYPE_CHECKING:
    from relayq.client import JobResult
    from relayq.model.jobs import JobRecord


class _Transcribe(HeadedCommand):
    """The command, with its many options under headings."""

    headings = {
        "What is made": "output formats model language words translate prompt keywords overwrite",
        "How it is made": "engine options jobs",
        "Where it runs": "on prefer overflow excluded with_job needs gpu slots strategy private "
        "wait_for_host",
        "Its limits": "timeout memory processes max_output",
        "When, and what if": "priority due_at delay expires after after_any unique retries on_lost",
        "What it is called": "name group labels meta note",
    }


@click.command(cls=_Transcribe)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    shell_complete=complete("files"),
    help="The file to write, or a directory; HOST:PATH for a host's.",
)
@click.option(
    "-f",
    "--format",
    "formats",
    metavar="FORMAT[,FORMAT]",
    help=f"{', '.join(FORMATS)} (default: by the ending of OUT, else txt).",
)
@click.option(
    "-m",
    "--model",
    default=DEFAULT_MODEL,
    metavar="NAME",
    help=f"{', '.join(MODELS)}, or one of the host's (default: {DEFAULT_MODEL}).",
)
@click.option("-l", "--language", metavar="LANGUAGE", help="Such as en or german; else found out.")
@click.option("--words", is_flag=True, help="The times of words, too (in json).")
@click.option("--translate", is_flag=True, help="Into English.")
@click.option("--prompt", metavar="TEXT", help="Names and spelling to be expected.")
@click.option(
    "--keyword",
    "keywords",
    multiple=True,
    metavar="WORDS",
    help="Listen for this only, by pocketsphinx (English).",
)
@click.option(
    "--engine",
    type=click.Choice([AUTO, *ENGINES]),
    default=AUTO,
    help="What does it (default: what the host has).",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="An option of the engine, such as beam_size=1.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Deal several files out to N jobs (default: 2 a host, 1 if there is one host).",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@detach_option
@interrupt_option
@media_options
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, shell_complete=complete("files")
)
@click.pass_context
def transcribe(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    output: str | None,
    formats: str | None,
    jobs: int | None,
    detach: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Write down what is said in FILE, sound or video, on a host that has Whisper.

    Without -o the text is printed as it comes. A file is one here, HOST:PATH on a host, :PATH on
    whatever host runs it, or a URL. Several files are dealt out to a few jobs, each of which loads
    the model once; with -o DIR each of them becomes a file of that directory.
    """
    from relayq.cli import batches

    asked = _asked(options)
    asked["format"] = _formats(formats, output, files, detach=detach, as_json=as_json)
    with client(starts=True, quiet=quiet) as relay:
        if len(files) == 1:
            made = [relay.job.asked_of_transcript(files[0], output=output, **asked)]
        else:
            made = relay.job.asked_of_transcripts(files, output, jobs=jobs, **asked)
        with explained(asked.get("engine", AUTO)):
            if dry_run:
                for one in made:
                    tell_plan(relay.job.plan(KIND, **with_jobs(relay, one)), as_json=as_json)
                return
            how: dict[str, Any] = {"quiet": quiet, "as_json": as_json}
            if detach:
                batches.detach(relay, KIND, made, **how)
                return
            how["on_interrupt"] = on_interrupt
            if len(made) == 1:
                ctx.exit(batches.run_one(relay, KIND, made[0], **how))
            is_shown = [not (as_json or one.get("outputs")) for one in made]
            tell = partial(_tell, quiet=quiet, is_shown=is_shown)
            ctx.exit(batches.run_all(relay, KIND, made, tell, **how))


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the client's keywords for what was typed, without the files."""
    own = {}
    for text in options.pop("options"):
        name, sign, value = text.partition("=")
        own[name] = _value(value) if sign else True
    try:
        language = options["language"]
        if language is not None:
            options["language"] = language = transcripts.check_language(language)
        transcripts.check_model(options["model"], language=language, translate=options["translate"])
    except RelayqError as error:
        raise click.UsageError(
            f"{error.message}{f' ({error.hint})' if error.hint else ''}"
        ) from error
    options["keywords"] = list(options["keywords"])
    given = asked_of(env=(), env_files=(), **options)
    given = {name: value for name, value in given.items() if value != []}
    return {**given, "options": own} if own else given


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _formats(
    typed: str | None, output: str | None, files: Sequence[str], *, detach: bool, as_json: bool
) -> list[str]:
    """Return the formats that are meant."""
    if typed is None:
        ending = os.path.splitext(output or "")[1].removeprefix(".").lower()
        return [ending if ending in FORMATS else "txt"]
    try:
        formats = list(transcripts.check_formats(typed))
    except RelayqError as error:
        raise click.BadParameter(error.message, param_hint="--format") from error
    if output is None and not (detach or as_json):
        if len(formats) > 1:
            raise click.UsageError("several formats go into files: -o DIR")
        if len(files) > 1 and formats != ["txt"]:
            raise click.UsageError(f"several files as {formats[0]} go into a directory: -o DIR")
    return formats


def _tell(
    result: JobResult, record: JobRecord, nth: int, *, quiet: bool, is_shown: Sequence[bool]
) -> None:
    """Print a job's transcripts, or bring their files here; say what failed."""
    from relayq.cli import show, transfers

    line = show.verdict(record, result.outcome())
    if line is not None:
        show.remark(line)
    transfers.bring(result, record, quiet=quiet)
    if is_shown[nth] and result.transcripts:
        click.echo(text_of(result.transcripts, named=True), nl=False)
