"""`relayq progress`, inside a job: it says how far it is, to `ps`, `show` and whoever waits.

It is laid on the job's desk, from where the worker brings it on: no broker is needed here.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict

import click

from relayq.cli.options import duration_option, json_option
from relayq.errors import RelayqError

_LIKE_A_NUMBER = re.compile(r"[-+]?[\d.]+(%|/[-\d.]+)?")


@click.command()
@click.argument("words", metavar="[FRACTION] [MESSAGE]...", nargs=-1)
@click.option(
    "--eta", type=duration_option, metavar="DURATION", help="How long it will take, such as 90s."
)
@click.option("--rate", default="", metavar="TEXT", help="How fast it is, such as '12 MB/s'.")
@json_option
def progress(words: tuple[str, ...], eta: float | None, rate: str, as_json: bool) -> None:
    """Say from inside a job how far it is: 42%, 0.42 or 21/50, and what it does.

    Who looks sees what was said last: relayq ps, show, top, and whoever waits for the job.

    Example: relayq progress 42% --eta 90s second pass
    """
    from relayq.host.progress import tell
    from relayq.model.progress import Progress, fraction_of

    if not os.environ.get("RELAYQ_DESK"):
        raise RelayqError(
            "this isn't inside a job, and there is nobody to tell",
            hint="relayq run 'relayq progress 50%; sleep 9'",
        )
    fraction, message = None, " ".join(words)
    if words and _LIKE_A_NUMBER.fullmatch(words[0]):
        try:
            fraction, message = fraction_of(words[0]), " ".join(words[1:])
        except ValueError as error:
            raise click.UsageError(f"{error}, got {words[0]!r}") from error
    if fraction is None and eta is None and not (message.strip() or rate.strip()):
        raise click.UsageError("nothing is said; try: relayq progress 42% second pass")
    said = Progress(fraction, message, eta, rate)
    tell(os.environ, said, at_once=True)
    if as_json:
        from relayq.cli import show

        show.print_json({"progress": asdict(said)})
