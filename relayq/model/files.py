"""Files that travel with a job: what it takes along, what it brings back, and how both are written.

Paths only, no file is touched here. A submitter and its hosts needn't share a disk: where they do,
`mapped` says by which name a host knows a submitter's file.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from relayq.errors import RelayqError

#: Up to this size a file travels through Redis; a larger one needs the file service.
INLINE = 256 * 1024
#: What may have become of a result file.
PLACES = ("inline", "service", "host", "placed")

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


@dataclass(frozen=True, slots=True)
class _Written:
    """What is kept as JSON: without what has its default."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        return {
            f.name: value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.default is MISSING
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote; anything else is a ValueError."""
        types = {f.name: str(f.type) for f in fields(cls)}
        for name, value in raw.items():
            if name not in types:
                raise ValueError(f"a file has no {name!r}")
            if type(value) not in _PLAIN[types[name]]:
                raise ValueError(f"a file's {name} can't be {value!r:.40}")
        try:
            return cls(**raw)
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class FileIn(_Written):
    """A file that a job takes along: `dest`, relative to its directory, is where it finds it.

    `source` is the absolute path at the submitter, whose RELAYQ_HOME has the install id `at`, or a
    URL, which has neither hash nor size.
    """

    dest: str
    source: str
    sha256: str = ""
    size: int = 0
    mode: int = 0o644
    mtime: float = 0.0
    at: str = ""
    is_url: bool = False

    def __post_init__(self) -> None:
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"no sha256: {self.sha256!r:.80}")
        if self.size < 0:
            raise ValueError(f"a file can't have {self.size} bytes")


@dataclass(frozen=True, slots=True)
class FileOut(_Written):
    """Files that a job brings back: `pattern` is a glob relative to its directory.

    `dest` is an absolute path at the submitter, whose RELAYQ_HOME has the install id `at`; with "/"
    at its end it is the directory to put them into. Without it they keep their names in the
    directory that they are fetched to. One that `is_optional` may match nothing. What is at `dest`
    already is replaced only with `overwrite`.
    """

    pattern: str
    dest: str = ""
    at: str = ""
    is_optional: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Kept(_Written):
    """A file that a job brought back, under its `name` in the job's directory.

    `dest` is where it is meant to be at the submitter, "" if nobody said. `place` says where it is:
    `inline` in Redis, in the file `service`, `placed` at `dest` already, or still on its `host` at
    `path`, because of `error`. Another one's `error` says why it wasn't placed.
    """

    name: str
    sha256: str
    size: int
    mode: int = 0o644
    dest: str = ""
    place: str = "inline"
    path: str = ""
    error: str = ""

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"a result file's place is one of {', '.join(PLACES)}")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"no sha256: {self.sha256!r:.80}")


def is_url(text: str) -> bool:
    """Tell whether a text names a file by a URL."""
    return _URL.match(text) is not None


def parse_in(text: str) -> FileIn:
    """Return the input that `FILE[:DEST]` means; the source stands as it was typed.

    The last colon parts the two, so a name with a colon of its own gets one more at its end:
    `take:2.mov:`. The colons before the path of a URL don't count.
    """
    source, dest = _parted(text, what="--in FILE[:DEST]")
    return file_in(source, dest)


def file_in(source: str, dest: str = "") -> FileIn:
    """Return the input from this path or URL; a `dest` with "/" at its end is a directory."""
    if "\0" in source or not source:
        raise RelayqError(f"no file can be called {source!r}")
    url = is_url(source)
    if not dest or dest.endswith("/"):
        path = unquote(urlsplit(source).path) if url else source
        name = path.rpartition("/")[2]
        if name in ("", ".", ".."):
            what = "has no file name" if url else "is a directory, and files travel one by one"
            fix = f"{source}:NAME" if url else f"tar czf {_packed(source)} {source}"
            raise RelayqError(f"{source} {what}", hint=fix)
        dest += name
    return FileIn(inside(dest), source, is_url=url)


def _packed(source: str) -> str:
    name = os.path.basename(source.rstrip("/"))
    return f"{name if name.strip('.') else 'files'}.tgz"


def parse_out(text: str) -> FileOut:
    """Return the outputs that `PATTERN[:DEST]` means; the destination stands as it was typed."""
    pattern, dest = _parted(text, what="--out PATTERN[:DEST]")
    return file_out(pattern, dest)


def file_out(pattern: str, dest: str = "", *, is_optional: bool = False) -> FileOut:
    """Return the outputs of this pattern; a `dest` with "/" at its end is a directory."""
    if "\0" in dest:
        raise RelayqError(f"no file can be called {dest!r}")
    return FileOut(inside(pattern), dest, is_optional=is_optional)


def _parted(text: str, *, what: str) -> tuple[str, str]:
    """Return what is before and after the last colon that isn't part of a URL's beginning."""
    start = _URL.match(text)
    begin = start.end() if start else 0
    before, colon, after = text[begin:].rpartition(":")
    if not colon:
        before, after = text[begin:], ""
    source = text[:begin] + before
    if not source:
        raise RelayqError(f"{text!r} names no file", hint=f"{what}; run `relayq run --help`")
    return source, after


def inside(path: str) -> str:
    """Return a path within a job's directory without its detours; any other is an error."""
    why = ""
    if not path.strip() or "\0" in path:
        why = "that is no file's name"
    elif path.startswith("/"):
        why = "it must be relative to the job's directory"
    elif ".." in path.split("/"):
        why = "it leads out of the job's directory"
    else:
        path, given = os.path.normpath(path), path
        if path == "." or given.endswith("/"):
            why, path = "it is a directory", given
        elif not path.strip():
            why, path = "that is no file's name", given
    if why:
        raise RelayqError(f"{path!r} can't be a file of a job: {why}")
    return path


def mapped(path: str, maps: Mapping[str, str]) -> str | None:
    """Return this host's name of a submitter's file by the longest map that fits, or None."""
    path = os.path.normpath(path)
    fitting = [prefix for prefix in maps if _is_below(path, os.path.normpath(prefix))]
    if not fitting:
        return None
    prefix = max(fitting, key=lambda one: len(os.path.normpath(one)))
    rest = os.path.relpath(path, os.path.normpath(prefix))
    return os.path.normpath(os.path.join(maps[prefix], rest))


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")
