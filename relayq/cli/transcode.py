"""`relayq transcode`: video and sound to other formats, one job a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.joboptions import HeadedCommand, detach_option, interrupt_option, media_options
from relayq.cli.options import client, complete
from relayq.cli.submissions import asked_of, tell_plan, with_jobs
from relayq.errors import RelayqError
from relayq.mediajobs import KIND, batch, sent_by
from relayq.model import media
from relayq.model.locations import read_location
from relayq.model.transcoding import HARDWARE

if TYPE_CHECKING:
    from relayq.client import JobResult
    from relayq.model.jobs import JobRecord

#: What may be typed for ffmpeg's own.
_OWN = "relayq.ffmpeg"


class _Transcode(HeadedCommand):
    """The command, which leaves what comes after `--` to ffmpeg."""

    headings = {
        "What is made": "to ending preset options input_options hw overwrite skip_existing "
        "no_check presets",
        "Where it runs": "on prefer overflow excluded with_job needs gpu slots strategy private "
        "wait_for_host",
        "Its limits": "timeout memory processes max_output",
        "When, and what if": "priority due_at delay expires after after_any unique retries on_lost",
        "What it is called": "name group labels meta note",
    }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take away what is ffmpeg's."""
        if "--" in args and not ctx.resilient_parsing:
            at = args.index("--")
            ctx.meta[_OWN] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say where ffmpeg's own options go."""
        return [*super().collect_usage_pieces(ctx), "[-- FFMPEG OPTIONS]"]


def _show_presets(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    width = max(map(len, media.preset_names()))
    for name, preset in media.PRESETS.items():
        click.echo(f"{name.ljust(width)}  .{preset.ending:<5}{preset.says}")
        click.echo(f"{' ' * width}         {preset.options}")
    click.echo(f"{media.AUDIO_ONLY.ljust(width)}        its sound, by the output's ending")
    aliases = ", ".join(f"{name} is {meant}" for name, meant in media.ALIASES.items())
    click.echo(f"Also: {aliases}")
    ctx.exit(0)


def _known_preset(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    if name is not None:
        try:
            media.find_preset(name)
        except RelayqError as error:
            raise click.BadParameter(error.message) from error
    return name


@click.command(cls=_Transcode)
@click.option(
    "--to", metavar="DIR", help="A job for each IN; the outputs go here (HOST:DIR for a host's)."
)
@click.option("--ext", "ending", metavar="EXT", help="With --to: the outputs' ending, such as mkv.")
@click.option(
    "-p",
    "--preset",
    metavar="NAME",
    callback=_known_preset,
    shell_complete=lambda ctx, param, typed: [
        n for n in media.preset_names() if n.startswith(typed)
    ],
    help="What to make (--presets).",
)
@click.option("--options", metavar="TEXT", help="ffmpeg's options for the output, quoted as one.")
@click.option("--input-options", metavar="TEXT", help="ffmpeg's options before each input.")
@click.option(
    "--hw",
    type=click.Choice(HARDWARE),
    help="Encode by the host's hardware if that works (default: as the preset says).",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--skip-existing", is_flag=True, help="With --to: leave out what has its output.")
@click.option("--no-check", is_flag=True, help="Take an output that is shorter than its inputs.")
@click.option(
    "--presets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_presets,
    help="List the presets.",
)
@detach_option
@interrupt_option
@media_options
@click.argument(
    "files", metavar="IN... [OUT]", nargs=-1, required=True, shell_complete=complete("files")
)
@click.pass_context
def transcode(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    to: str | None,
    ending: str | None,
    skip_existing: bool,
    detach: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Make OUT of IN by ffmpeg on a host that has it, with its progress.

    Several IN are the inputs of one OUT; with --to each becomes a file of that directory. A file is
    one here, HOST:PATH on a host, :PATH on whatever host runs it, or a URL. What comes after -- is
    ffmpeg's, and no shell sees it.
    """
    from relayq.cli import batches

    asked = _asked(ctx, options)
    if to is None:
        if ending or skip_existing:
            raise click.UsageError("--ext and --skip-existing go with --to DIR")
        if len(files) < 2:
            raise click.UsageError(
                f"what is to be made? relayq transcode {files[0]} OUT, or --to DIR"
            )
        pairs: list[tuple[Sequence[str], str]] = [(files[:-1], files[-1])]
    else:
        pairs = [([one], out) for one, out in _batch(files, to, ending, skip_existing, asked)]
        if not pairs:
            return
    with client(starts=True, quiet=quiet) as relay:
        made = sent_by(relay.job, pairs, asked)
        if dry_run:
            for one in made:
                tell_plan(relay.job.plan(KIND, **with_jobs(relay, one)), as_json=as_json)
            return
        _make_directory(to)
        if detach:
            batches.detach(relay, KIND, made, quiet=quiet, as_json=as_json)
            return
        how: dict[str, Any] = {"on_interrupt": on_interrupt, "quiet": quiet, "as_json": as_json}
        if to is not None:
            tell = partial(_tell, as_json=as_json)
            ctx.exit(batches.run_all(relay, KIND, made, tell, **how))
        code = batches.run_one(relay, KIND, made[0], **how)
        if code == 0 and not as_json:
            click.echo(files[-1])
        ctx.exit(code)


def _asked(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the client's keywords for what was typed, without the files."""
    text, words = options.pop("options"), ctx.meta.get(_OWN)
    if text is not None and words is not None:
        raise click.UsageError("ffmpeg's options come after --, or with --options; not both")
    is_checked = not options.pop("no_check")
    given = asked_of(env=(), env_files=(), **options)
    given |= {"options": text if text is not None else words} if text or words else {}
    return given if is_checked else {**given, "check": False}


def _batch(
    files: Sequence[str], to: str, ending: str | None, skip_existing: bool, asked: dict[str, Any]
) -> Sequence[tuple[str, str]]:
    pairs = batch(files, to, preset=asked.get("preset"), ending=ending)
    if not skip_existing:
        return pairs
    left = [(one, out) for one, out in pairs if not _is_here(out)]
    if len(left) < len(pairs):
        click.echo(f"relayq: {len(pairs) - len(left)} of {len(pairs)} are there already", err=True)
    return left


def _is_here(output: str) -> bool:
    place = read_location(output)
    return place.is_here and os.path.exists(os.path.expanduser(place.path))


def _make_directory(to: str | None) -> None:
    if to is not None and read_location(os.path.join(to, "x")).is_here:
        try:
            os.makedirs(os.path.expanduser(to), exist_ok=True)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise RelayqError(f"{to} can't be made: {reason}", hint="--to DIR") from error


def _tell(result: JobResult, record: JobRecord, nth: int, *, as_json: bool) -> None:
    """Bring a job's output here and name it, or say why there is none."""
    from relayq.cli import show, transfers
    from relayq.cli.texts import inert

    line = show.verdict(record, result.outcome())
    if line is not None:
        show.remark(f"{inert(show.command_of(record.spec))}: {line}")
        return
    transfers.bring(result, record, quiet=True)
    outcome = result.outcome()
    if not as_json and outcome is not None and isinstance(outcome.result, dict):
        click.echo(_shorter(str(outcome.result.get("output", ""))))


def _shorter(path: str) -> str:
    """Return the shorter of a path's two forms."""
    if not os.path.isabs(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
