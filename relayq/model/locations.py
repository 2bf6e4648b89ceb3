"""Where a file lies that a media job reads or writes, as people type it.

`talk.mov` is the submitter's and travels with the job, `mini:Movies/talk.mov` is mini's own (scp's
form), `:/mnt/talk.mov` one of whatever host runs the job, and a URL stands for itself.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field

from relayq.errors import RelayqError
from relayq.model.files import is_url
from relayq.parsing import is_host_name

_HOST = re.compile(r"([^/:]*):(.*)", re.DOTALL)
#: A name that is the same in a pattern, a protocol and a command line.
_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_., +()-]*")
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Location:
    """A file: at the submitter, on a host (None: the one that runs the job), or behind a URL."""

    path: str
    is_here: bool = False
    is_url: bool = False
    host: str | None = None

    @property
    def name(self) -> str:
        """Return what comes after the last slash."""
        path = re.split(r"[?#]", self.path)[0] if self.is_url else self.path
        return path.rpartition("/")[2]


def read_location(text: str) -> Location:
    """Return where a file lies by what was typed.

    As with scp, a name of one's own with a colon is typed with its directory: `./a:b.mov`. A path
    on a host that doesn't begin with a slash begins at the worker's home.
    """
    if not text or "\0" in text:
        raise RelayqError(f"no file can be called {text!r}")
    if is_url(text):
        return Location(text, is_url=True)
    found = _HOST.fullmatch(text)
    if found is None:
        return Location(text, is_here=True)
    host, path = found[1], found[2]
    if host and not is_host_name(host.lower()):
        raise RelayqError(
            f"no host can be called {host!r}, as in {text!r}",
            hint=f"if that is a file here: ./{text}",
        )
    if not path or path.endswith("/"):
        raise RelayqError(f"{text!r} names no file", hint="HOST:PATH, or ./NAME for a file here")
    at_home = path.startswith(("/", "~/"))
    return Location(path if at_home else f"~/{path}", host=host.lower() or None)


@dataclass(slots=True)
class Luggage:
    """What a job takes along and brings back, and the host that has the rest of its files.

    `files_in` and `files_out` are pairs as `submit` takes them.
    """

    host: str | None = None
    files_in: list[tuple[str, str]] = field(default_factory=list)
    files_out: list[tuple[str, str]] = field(default_factory=list)

    def take(self, text: str, *, reads_urls: bool = False) -> str:
        """Return an input's path, or URL, on the host; a URL is fetched first unless it is read."""
        place = read_location(text)
        if place.is_url and (reads_urls or text.lower().startswith("file:")):
            return text
        if not (place.is_here or place.is_url):
            return self._on_host(place)
        name = place.name
        if name in ("", ".", ".."):
            raise RelayqError(f"{text} is no file", hint="name a file in it")
        taken = {dest for _, dest in self.files_in}
        ways = (f"in/{name}", *(f"in/{n}/{name}" for n in range(2, len(taken) + 3)))
        dest = next(way for way in ways if way not in taken)
        self.files_in.append((text, dest))
        return dest

    def bring(self, text: str) -> str:
        """Return an output's path, or URL, on the host."""
        place = read_location(text)
        if place.is_url:
            return text
        if not place.is_here:
            return self._on_host(place)
        if place.name in ("", ".", ".."):
            raise RelayqError(f"{text} is a directory", hint=f"{os.path.join(text, 'NAME')}")
        # The pattern is a glob, and a name may hold anything.
        name = place.name
        if not _HARMLESS.fullmatch(name):
            ending = os.path.splitext(name)[1]
            name = f"output{ending if _ENDING.fullmatch(ending) else ''}"
        name = f"out/{name}"
        self.files_out.append((name, os.path.abspath(os.path.expanduser(text))))
        return name

    def _on_host(self, place: Location) -> str:
        if place.host is not None:
            if self.host not in (None, place.host):
                raise RelayqError(
                    f"its files are on two hosts, {self.host} and {place.host}",
                    hint=f"relayq run --on {place.host} --out FILE true brings one of them here",
                )
            self.host = place.host
        return place.path
