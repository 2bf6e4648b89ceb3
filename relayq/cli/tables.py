"""Tables: as wide as the terminal and no line wrapped, plain and aligned elsewhere.

Cells are made inert here: a job's own text can't move a cursor or choose a colour.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence

import click

from relayq.cli.texts import inert

_GAP = "  "
#: The longest cell where no terminal says how much room there is.
_WIDEST = 60
#: Columns that are cut when the room is short, and down to what. A host's state has its reason.
_GIVING_WAY = {
    "STATE": 32,
    **dict.fromkeys(("WHAT", "TYPE", "NAME", "META", "LABELS", "GROUP", "SUBMITTER"), 12),
    **dict.fromkeys(("LAST LINE", "CAN", "STEP", "NOTE"), 12),
    "PROGRESS": 19,
}
#: Columns that a narrow terminal does without, the first one first; never the first of a table.
_DISPENSABLE = (
    *("KIND", "LOAD", "TYPE", "ON", "CPU", "SEEN", "AGE", "DONE/FAIL 24h", "CAN"),
    *("TIME", "PROGRESS", "HOST"),
)
_COLOURS = {
    "running": "cyan",
    "paused": "yellow",
    "succeeded": "green",
    "failed": "red",
    "lost": "yellow",
    "needs_human": "magenta",
    "cancelled": "bright_black",
    "offline": "red",
    "online": "green",
    "drained": "yellow",
    "draining": "yellow",
}


def painted(text: str, word: str) -> str:
    """Return a state's text in the state's colour; click drops it where none belongs."""
    colour = _COLOURS.get(word)
    return click.style(text, fg=colour) if colour else text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings."""
    click.echo("\n".join(laid_out(columns, rows, room())))


def room() -> int | None:
    """Return how many columns there are, None where no terminal is."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def joined(parts: Sequence[str]) -> list[str]:
    """Return the parts of a sentence as a line, on a narrow terminal as more than one."""
    width = room()
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]} . {part}"
        if width is None or width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def laid_out(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return coloured lines, none wider than `width`."""
    cells = [list(columns), *([inert(cell) for cell in row] for row in rows)]
    if width is None:
        cells = [[cut(cell, _WIDEST) for cell in row] for row in cells]
        return _lines(columns, cells, _widths(cells))
    kept = [i for i, _ in enumerate(columns) if not _is_monotonous(columns, cells, i)]
    for name in _DISPENSABLE:
        if _total(_floors(columns, cells, kept)) <= width:
            break
        kept = [i for i in kept if i == 0 or columns[i] != name]
    headings = [columns[i] for i in kept]
    cells = [[row[i] for i in kept] for row in cells]
    widths = _fitted(headings, _widths(cells), width)
    fitting = [[cut(c, w) for c, w in zip(row, widths, strict=True)] for row in cells]
    return _lines(headings, fitting, widths)


def _is_monotonous(columns: Sequence[str], cells: Sequence[Sequence[str]], i: int) -> bool:
    """Whether a person learns nothing from a column: every job is a plain command."""
    told = {row[i] for row in cells[1:]}
    if columns[i] == "TYPE":
        return len(told) == 1 and len(cells) > 2
    return columns[i] == "KIND" and told <= {"run_command"}


def _floors(
    columns: Sequence[str], cells: Sequence[Sequence[str]], kept: Sequence[int]
) -> list[int]:
    """Return the least width of each column that is kept."""
    widths = _widths(cells)
    return [min(widths[i], _GIVING_WAY.get(columns[i], widths[i])) for i in kept]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _fitted(columns: Sequence[str], widths: Sequence[int], width: int) -> list[int]:
    """Take from the widest of the columns that give way until all fit."""
    fitted = list(widths)
    while _total(fitted) > width:
        giving = [i for i, n in enumerate(columns) if fitted[i] > _GIVING_WAY.get(n, fitted[i])]
        widest = max(giving or range(len(fitted)), key=lambda i: fitted[i])
        if fitted[widest] <= 1:
            break
        fitted[widest] -= 1
    return fitted


def _lines(
    columns: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int]
) -> list[str]:
    lines = []
    for number, row in enumerate(cells):
        parts = []
        for column, cell, width in zip(columns, row, widths, strict=True):
            shown = painted(cell, cell.split(" ")[0]) if column == "STATE" else cell
            shown = click.style(cell, bold=True) if number == 0 else shown
            parts.append(shown + " " * (width - width_of(cell)))
        lines.append(_GAP.join(parts).rstrip())
    return lines


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width_of, column)) for column in zip(*cells, strict=True)]


def cut(cell: str, width: int) -> str:
    """Return a text no wider than that, with a mark where it goes on."""
    if len(cell) * 2 <= width or width_of(cell) <= width:
        return cell
    mark = ellipsis()
    kept, room = [], width - len(mark)
    for character in cell:
        room -= width_of(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + mark[:width]


def ellipsis() -> str:
    """Return what says that a text goes on, in characters that the output can hold."""
    # While rich draws, sys.stdout is its own and names no encoding.
    stream = sys.__stdout__ or sys.stdout
    encoding = (stream.encoding or "ascii").lower()
    return "…" if encoding.startswith("utf") else "..."


def width_of(text: str) -> int:
    """Return how many columns a terminal gives the text."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
