"""Bars with names and numbers, as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.figures import number

_WIDTH, _NAMES, _ROW, _HEAD, _EDGE = 760, 230, 22, 40, 16
_NUMBERS = 70
#: From the middle of a line of text to its baseline.
_DOWN = 5
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#d6dae2}.title{font-weight:600}"
    ".name{text-anchor:end}.number{fill:#8a909c}"
    ".bar{fill:#68a0ec}.strong{fill:#84c46e}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One value; a strong one is in another colour."""

    name: str
    value: float
    is_strong: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars to one scale, under a title."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """Its height in the picture."""
        return _HEAD + _ROW * len(self.bars)


def picture(panels: Sequence[Panel]) -> str:
    """Return the panels, one below the other, as an SVG."""
    lines, top = [], _EDGE
    for panel in panels:
        lines += _drawn(panel, top)
        top += panel.height + _EDGE
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
    card = f'<rect width="{_WIDTH}" height="{top}" rx="8" fill="#181a1f"/>'
    return "\n".join([head, card, *lines, "</svg>"]) + "\n"


def _drawn(panel: Panel, top: int) -> list[str]:
    lines = [f'<text class="title" x="{_EDGE}" y="{top + 18}">{escape(panel.title)}</text>']
    room = _WIDTH - _NAMES - _NUMBERS - 2 * _EDGE
    longest = max(bar.value for bar in panel.bars) or 1.0
    left = _NAMES + _EDGE
    for place, bar in enumerate(panel.bars):
        middle = top + _HEAD + _ROW * place + _ROW // 2
        width = max(1.0, room * bar.value / longest)
        sort = "bar strong" if bar.is_strong else "bar"
        lines.append(
            f'<text class="name" x="{left - 8}" y="{middle + _DOWN}">{escape(bar.name)}</text>'
        )
        lines.append(
            f'<rect class="{sort}" x="{left}" y="{middle - 7}" width="{width:.1f}" height="14"/>'
        )
        shown = number(bar.value)
        lines.append(
            f'<text class="number" x="{left + width + 8:.1f}" y="{middle + _DOWN}">{shown}</text>'
        )
    return lines
