"""Texts that people type, as values: `5h`, `200MB`, a host's name.

Each function raises `ValueError` with what it expected; the caller knows where the text stood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relayq import tls

Parse = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """A parser made to measure, with the JSON Schema of what it takes."""

    parse: Parse
    schema: Mapping[str, Any]

    def __call__(self, text: str) -> Any:
        """Return the value that the text means."""
        return self.parse(text)


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw])\s*)+|\d+(?:\.\d+)?")
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", re.IGNORECASE)
_WORDS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]*")
_CAPABILITY = re.compile(r"[a-z0-9][a-z0-9._:+-]*")
_ADDRESS = re.compile(r"([\w][\w.-]*@)?[\w\[:][\w.:%\[\]-]*")
_WEB_URL = re.compile(r"https?://[\w.\[:\]%-]+(/[\w./~-]*)?")
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


def fits(pattern: str, value: str) -> bool:
    """Tell whether a value is the pattern, in which each star stands for any text."""
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), value, re.DOTALL) is not None


def size_from(low: str) -> Parse:
    """Return the parser of sizes that aren't below this one."""

    def checked(text: str) -> int:
        if (value := size(text)) < size(low):
            raise ValueError(f"expected a size of {low} or more")
        return value

    return Checked(checked, {**schema(size), "minimum": size(low)})


def size_text(count: float) -> str:
    """Return a number of bytes as people read it: `98 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def positive(parse: Callable[[str], float]) -> Parse:
    """Return the parser that also refuses 0."""

    def checked(text: str) -> Any:
        if (value := parse(text)) <= 0:
            raise ValueError("expected more than 0")
        return value

    return Checked(checked, {**schema(parse), "exclusiveMinimum": 0})


def whole(low: int, high: int | None = None) -> Parse:
    """Return the parser of whole numbers in this range, both ends included."""
    expected = f"a whole number from {low} to {high}" if high else f"a whole number from {low} on"

    def checked(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= (high or int(text)):
            raise ValueError(f"expected {expected}")
        return int(text)

    bounds = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
    return Checked(checked, {"type": "integer", **bounds})


def number(low: float) -> Parse:
    """Return the parser of numbers that aren't below `low`."""

    def checked(text: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) or float(text) < low:
            raise ValueError(f"expected a number from {low:g} on")
        return float(text)

    return Checked(checked, {"type": "number", "minimum": low})


def user_name(text: str) -> str:
    """Return the name of a user of this machine."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", text):
        raise ValueError("expected the name of a user, such as fred")
    return text


def yes_or_no(text: str) -> bool:
    """Return what `yes`, `no`, `true`, `false`, `on` or `off` means."""
    if text.lower() not in _WORDS:
        raise ValueError(f"expected {', '.join(_WORDS)}")
    return _WORDS[text.lower()]


def choice(*words: str, fold: Callable[[str], str] = str) -> Parse:
    """Return the parser of one of these words; `fold` makes spellings equal."""

    def checked(text: str) -> str:
        if fold(text) not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return fold(text)

    spelled = [word for word in map(str.lower, words) if fold(word) in words]
    return Checked(checked, {"enum": list(dict.fromkeys([*words, *spelled]))})


def is_host_name(text: str) -> bool:
    """Whether a text can be a host's name, which is part of a queue's name."""
    return _HOST_NAME.fullmatch(text) is not None


def host_name(text: str) -> str:
    """Return the text if it can be a host's name."""
    if not is_host_name(text):
        raise ValueError("expected a host's name: lower-case letters, digits, '-', '_' and '.'")
    return text


def word(text: str) -> str:
    """Return the text if it is a plain word: a kind, a named slot."""
    return _word(text, _WORD, "a word of lower-case letters, digits, '-', '_' and '.'")


def label(text: str) -> str:
    """Return the text if it can be a host's label."""
    return _word(text, _WORD, "a label: lower-case letters, digits, '-', '_' and '.'")


def alias(text: str) -> str:
    """Return the text if it can be another name of a host."""
    if not is_host_name(text):
        raise ValueError("expected a host's other name, in lower-case letters")
    return text


def capability(text: str) -> str:
    """Return the text if it can be a capability: `ffmpeg`, `agent:claude`."""
    return _word(text, _CAPABILITY, "a capability such as ffmpeg or agent:claude")


def declared_capability(text: str) -> str:
    """Return the text if it is a capability, or one that is taken away: `-docker`."""
    minus = "-" if text.startswith("-") else ""
    return minus + capability(text.removeprefix("-"))


def address(text: str) -> str:
    """Return the text if ssh can take it for a destination."""
    # One that began with a minus sign would be an option.
    return _word(text, _ADDRESS, "an address such as 100.64.0.7 or me@mini.local")


def ip_address(text: str) -> str:
    """Return the text if it is an address of one machine, to listen on."""
    from ipaddress import ip_address as parse

    try:
        address = parse(text)
    except ValueError:
        raise ValueError("expected an IP address of this machine") from None
    if (getattr(address, "ipv4_mapped", None) or address).is_unspecified:
        raise ValueError("expected one address of this machine, not every network that it is in")
    return text


def web_url(text: str) -> str:
    """Return the text if it is the URL of a web server, without the slash at its end."""
    if not _WEB_URL.fullmatch(text):
        raise ValueError("expected a URL such as https://files.example or http://100.64.0.1:8000")
    return text.rstrip("/")


def _word(text: str, pattern: re.Pattern[str], expected: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"expected {expected}")
    return text


def words(parse: Callable[[str], str]) -> Parse:
    """Return the parser of lists, as text with commas; each word stands once."""

    def checked(text: str) -> tuple[str, ...]:
        parts = (part.strip() for part in text.split(","))
        return tuple(dict.fromkeys(parse(part) for part in parts if part))

    return Checked(checked, {"type": ["array", "string"], "items": {"type": "string"}})


def counts(parse: Callable[[str], str]) -> Parse:
    """Return the parser of tables of whole numbers, as text `name=2,other=1`."""

    def checked(text: str) -> dict[str, int]:
        table: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, found, number = part.partition("=")
            if not found:
                raise ValueError("expected numbers by name, such as cuda: 1")
            table[parse(name.strip())] = whole(0)(number.strip())
        return table

    counted = {"type": "integer", "minimum": 0}
    return Checked(checked, {"type": ["object", "string"], "additionalProperties": counted})


def path_map(text: str) -> dict[str, str]:
    """Return the table that `/submitter/s/name=/own/name,...` means, of absolute paths."""
    table = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        theirs, found, ours = (piece.strip() for piece in part.partition("="))
        if not found or not theirs.startswith("/") or not ours.startswith("/"):
            raise ValueError("expected absolute paths by path, such as /Volumes/media: /mnt/media")
        table[theirs] = ours
    return table


def mac_address(text: str) -> str:
    """Return a network card's address in its usual form."""
    digits = re.sub(r"[:.-]", "", text.lower())
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("expected a hardware address such as a8:20:66:1b:0c:4d")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def broker_url(text: str) -> str:
    """Return the text if relayq can speak to a broker of this scheme."""
    scheme, found, rest = text.partition("://")
    if scheme not in _SCHEMES or not found or not rest.strip("/"):
        raise ValueError(f"expected a URL that begins with one of {', '.join(_SCHEMES)}")
    if (why := tls.fault(text)) is not None:
        raise ValueError(f"{why}; write {tls.right_form(text)}")
    return text


_NUMBER_OR_TEXT = {"type": ["number", "string"], "minimum": 0}
_SCHEMAS: Mapping[Callable[..., Any], Mapping[str, Any]] = {
    duration: {**_NUMBER_OR_TEXT, "pattern": f"^({_DURATION.pattern})$"},
    yes_or_no: {"enum": [True, False, *_WORDS]},
    size: {**_NUMBER_OR_TEXT, "pattern": r"^\d+(\.\d+)?\s*([KMGkmg][Ii]?)?[Bb]?$"},
    path_map: {"type": ["object", "string"], "additionalProperties": {"type": "string"}},
    address: {"type": "string", "pattern": f"^{_ADDRESS.pattern}$"},
    web_url: {"type": "string", "pattern": f"^{_WEB_URL.pattern}$"},
    host_name: {"type": "string", "pattern": f"^{_HOST_NAME.pattern}$"},
    broker_url: {"type": "string", "pattern": f"^({'|'.join(map(re.escape, _SCHEMES))})://."},
}


def schema(parse: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the JSON Schema of what a parser takes, for editors."""
    return parse.schema if isinstance(parse, Checked) else _SCHEMAS.get(parse, {"type": "string"})


#: A limit of memory: a program needs that much to start at all.
memory_size = size_from("4MiB")
#: A limit of an output.
output_size = size_from("1B")
