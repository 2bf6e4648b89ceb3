"""`relayq output`, inside a job: values for the steps after it; and how they are shown.

They are added to a file of the job's own, which its worker reads at the end: no broker is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from relayq.cli.options import json_option
from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, Outcome

#: How much of a value `show` shows.
_SHOWN = 160
#: How many of the jobs that a step became it names.
_MOST = 20


@click.command()
@click.argument("words", metavar="NAME=VALUE... | NAME -", nargs=-1, required=True)
@json_option
def output(words: tuple[str, ...], as_json: bool) -> None:
    """Give values to the steps after this job, from inside of it.

    They read them as ${{ steps.STEP.outputs.NAME }}; relayq show has them, too. With - the value
    is the standard input, without its final newline. Of a name that is given twice the last counts.

    Example: relayq output version=1.4.2 tag=v1.4.2
    """
    from relayq.model import outputs

    named = (os.environ.get(name, "") for name in outputs.VARIABLES)
    path = next(filter(os.path.isabs, named), None)
    if not os.environ.get("RELAYQ_JOB_ID") or path is None:
        raise RelayqError(
            "this isn't inside a job, and there is no step after it",
            hint="relayq run 'relayq output version=1.4.2'",
        )
    given = _read(words)
    raw = outputs.written(given, end=f"end-{os.urandom(8).hex()}")
    _append(path, raw, outputs.LARGEST)
    if as_json:
        from relayq.cli import show

        show.print_json({"outputs": given})


def _read(words: tuple[str, ...]) -> dict[str, str]:
    """Return the values that were typed."""
    from relayq.model.outputs import check_name

    if len(words) == 2 and words[1] == "-":
        text = sys.stdin.buffer.read().decode(errors="replace")
        pairs = [(words[0], text.removesuffix("\n"))]
    else:
        pairs = [_pair(word) for word in words]
    try:
        return {check_name(name): value for name, value in pairs}
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _pair(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not sign:
        raise click.UsageError(f"{word!r} is no NAME=VALUE; from the standard input: {word} -")
    # What isn't UTF-8 in the arguments would not be in the file either.
    return name, os.fsencode(value).decode(errors="replace")


def _append(path: str, raw: bytes, most: int) -> None:
    """Add to the job's file in one piece: others may write to it as well."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size + len(raw) > most:
            raise RelayqError(
                f"the outputs of a job have at most {most >> 20} MiB in all",
                hint="bring it back as a file: relayq run --out FILE",
            )
        if os.write(fd, raw) != len(raw):
            raise RelayqError(f"no room for it on this disk: {path}", hint="df -h")
    finally:
        os.close(fd)


def given(outcome: Outcome) -> Iterable[tuple[str, str]]:
    """Yield what `show` says of a job's outputs."""
    if outcome.outputs:
        lines = (f"{name} = {_short(value)}" for name, value in outcome.outputs.items())
        yield "Outputs", "\n".join(lines)


def became(record: JobRecord, outcome: Outcome | None) -> Iterable[tuple[str, str]]:
    """Yield what `show` says of the jobs that a step became, one for each item of its list."""
    if not record.fanned:
        return
    result = outcome.result if outcome is not None and isinstance(outcome.result, dict) else {}
    ends = {one["id"]: one["result"] for one in result.get("jobs", ())}
    lines = [f"{id} {ends.get(id, '')}".rstrip() for id in record.fanned[:_MOST]]
    more = len(record.fanned) - len(lines)
    yield "Became", "\n".join([*lines, *([f"and {more} more"] if more else [])])


def _short(value: str) -> str:
    lines = value.splitlines() or [""]
    more = f" ... ({len(lines)} lines)" if len(lines) > 1 else ""
    first = lines[0] if len(lines[0]) <= _SHOWN else lines[0][:_SHOWN] + "..."
    return first + more
