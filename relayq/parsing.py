"""Texts that people type, as values: `5h`, `200MB`, a host's name.

Each function raises `ValueError` with what it expected; the caller knows where the text stood.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Parse = Callable[[str], Any]

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw])\s*)+|\d+(?:\.\d+)?")
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", re.IGNORECASE)
_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel", "unix")


def duration(text: str) -> float:
    """Return the seconds that `5h`, `1h 30m`, `500ms` or a bare number of seconds means."""
    if not _DURATION.fullmatch(text):
        raise ValueError("expected a duration such as 30s, 5h or 1d")
    parts = re.findall(r"([\d.]+)(ms|[smhdw])?", text)
    return float(sum(float(number) * _UNITS[unit or "s"] for number, unit in parts))


def size(text: str) -> int:
    """Return the bytes that `200MB`, `1MiB` or a bare number of bytes means."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("expected a size such as 500kB, 200MB or 1MiB")
    return round(float(match[1]) * _SIZES[(match[2] or "").upper()])


def positive(parse: Callable[[str], float]) -> Parse:
    """Return the parser that also refuses 0."""

    def checked(text: str) -> Any:
        if (value := parse(text)) <= 0:
            raise ValueError("expected more than 0")
        return value

    return checked


def whole(low: int, high: int | None = None) -> Parse:
    """Return the parser of whole numbers in this range, both ends included."""
    expected = f"a whole number from {low} to {high}" if high else f"a whole number from {low} on"

    def checked(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= (high or int(text)):
            raise ValueError(f"expected {expected}")
        return int(text)

    return checked


def choice(*words: str, fold: Callable[[str], str] = str) -> Parse:
    """Return the parser of one of these words; `fold` makes spellings equal."""

    def checked(text: str) -> str:
        if fold(text) not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return fold(text)

    return checked


def host_name(text: str) -> str:
    """Return the text if it can be a host's name, which is part of a queue's name."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", text):
        raise ValueError("expected a host's name: lower-case letters, digits, '-', '_' and '.'")
    return text


def broker_url(text: str) -> str:
    """Return the text if relayq can speak to a broker of this scheme."""
    scheme, found, rest = text.partition("://")
    if scheme not in _SCHEMES or not found or not rest.strip("/"):
        raise ValueError(f"expected a URL that begins with one of {', '.join(_SCHEMES)}")
    return text
