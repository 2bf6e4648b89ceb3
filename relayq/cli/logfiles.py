"""The end of a log, and what is added to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from relayq import clock
from relayq.errors import RelayqError

_LOOK_AGAIN = 0.2
_PIECE = 1 << 16
#: More than the lines that are asked for have on average.
_LONG_LINE = 400

tail_option = click.option(
    "-n", "--tail", type=click.IntRange(0), default=50, metavar="N", help="Lines (50)."
)
follow_option = click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")


def print_log(where: Callable[[], Path], tail: int, follow: bool, *, hint: str) -> None:
    """Print the last lines of a log, which may be another file later, and what is added to it."""
    path = where()
    if not path.exists():
        raise RelayqError(f"there is no log: {path} is missing", hint=hint)
    size_now = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size_now - tail * _LONG_LINE))
        lines = file.read(size_now - file.tell()).decode(errors="replace").splitlines()
    click.echo("\n".join(lines[-tail:] if tail else []), nl=bool(tail and lines))
    while follow:
        clock.sleep(_LOOK_AGAIN)
        path, size_now = _printed_on(path, where(), size_now)


def _printed_on(path: Path, newest: Path, position: int) -> tuple[Path, int]:
    """Print what was added to a log; go on with a newer one, or one that was begun anew."""
    position = _print_from(path, position)
    return (path, position) if newest == path else (newest, _print_from(newest, 0))


def _print_from(path: Path, position: int) -> int:
    if not path.exists():
        return 0
    if path.stat().st_size < position:
        position = 0
    with path.open("rb") as file:
        file.seek(position)
        while piece := file.read(_PIECE):
            click.echo(piece.decode(errors="replace"), nl=False)
            position += len(piece)
    return position
