"""What a job writes, on its way to a terminal: colours stay, what acts on a terminal does not.

A terminal obeys what it is sent: titles, the clipboard, answers as if they had been typed, lines
written over. Of a job only its text gets through, its colours, and what a progress bar does to its
own line. Into a file or a pipe everything goes byte for byte.
"""

from __future__ import annotations

import codecs
import re

#: How long a sequence without its end is waited for, before it is taken for text.
_LONGEST = 4096
_CSI = r"(?:\x1b\[|\x9b)"
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])"
#: Colours and the like, and the rest of the line erased.
_KEPT = re.compile(r"\x1b\[[0-9;:]*m|\x1b\[[0-2]?K")
_SEQUENCE = re.compile(
    rf"(?P<csi>{_CSI}[0-?]*[ -/]*[@-~])"
    rf"|(?P<string>{_STRING}[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c))"
    r"|(?P<other>\x1b[ -/]*[0-OQ-WYZ`-~\\])"
)
_BEGUN = re.compile(rf"(?:\x1b[ -/]*|{_CSI}[0-?]*[ -/]*|{_STRING}[^\x07\x1b\x9c]*\x1b?)\Z")
#: Controls of 7 and 8 bits but tab, newline, return and backspace; and what turns text around.
_CONTROL = re.compile(
    "[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\udc80-\udc9f]"
)


class Tamer:
    """One stream on its way to a terminal, in pieces cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._begun = ""

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown of the next bytes; the begin of a sequence waits for its end."""
        text = self._begun + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        self._begun = ""
        if begun is not None and len(begun[0]) < _LONGEST:
            self._begun = begun[0]
            text = text[: begun.start()]
        return "".join(_tamed(text)).encode("utf-8", "surrogateescape")


def _tamed(text: str) -> list[str]:
    parts, position = [], 0
    for found in _SEQUENCE.finditer(text):
        parts.append(_CONTROL.sub("", text[position : found.start()]))
        if _KEPT.fullmatch(found[0]):
            parts.append(found[0])
        position = found.end()
    parts.append(_CONTROL.sub("", text[position:]))
    return parts
