"""The catalogue of capabilities: how each is looked for on a host, and how it is installed.

What a host can do is found by its worker (host/probes.py); this is for what isn't there yet, and
for what a person wants to see with their own eyes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from relayq.errors import ConfigError, RelayqError

_PACKAGED = Path(__file__).with_name("caps.yml")
#: A user's own entries, in the home.
FILE = "caps.yml"
_APT = (
    'if [ "$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi; '
    "$as_root apt-get update -qq && "
    "$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}"
)
_WAYS = {
    "apt": _APT,
    "brew": "brew install {}",
    "npm": 'npm install -g --prefix "$HOME/.local" {}',
    "uv": "uv tool install {}",
}
#: What is tried where, the best first.
_BY_SYSTEM = {"linux": ("linux", "apt", "npm", "uv"), "darwin": ("macos", "brew", "npm", "uv")}


@dataclass(frozen=True, slots=True)
class Entry:
    """A capability: `check` is a line for a shell that succeeds where it is there.

    `apt`, `brew`, `npm` and `uv` name what these install it from; `linux` and `macos` are lines
    for a shell.
    """

    name: str
    category: str = "custom"
    about: str = ""
    check: str = ""
    apt: str = ""
    brew: str = ""
    npm: str = ""
    uv: str = ""
    linux: str = ""
    macos: str = ""

    @property
    def check_line(self) -> str:
        """The line that looks for it, by its name on the PATH if none is given."""
        return self.check or f"command -v {self.name}"

    def recipe(self, os: str) -> str:
        """Return the shell's line that installs it on a system (`linux`, `darwin`), or ""."""
        for way in _BY_SYSTEM.get(os, ()):
            if named := getattr(self, way):
                return _WAYS[way].format(named) if way in _WAYS else str(named)
        return ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries by name."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories, in the order of the catalogue."""
        return tuple(dict.fromkeys(entry.category for entry in self.entries.values()))

    def find(self, name: str) -> Entry:
        """Return an entry; `agent:claude` is looked up as its program."""
        entry = self.entries.get(name.removeprefix("agent:"))
        if entry is None:
            from difflib import get_close_matches

            close = get_close_matches(name, self.entries, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise RelayqError(f"the catalogue has no {name}{meant}", hint="relayq caps available")
        return entry

    def of(self, category: str | None) -> Iterable[Entry]:
        """Return the entries of a category, or all."""
        if category is not None and category not in self.categories:
            known = ", ".join(self.categories)
            raise RelayqError(f"no such category: {category}; there is {known}")
        return [e for e in self.entries.values() if category in (None, e.category)]


def load(home: Path) -> Catalogue:
    """Read the catalogue that came with relayq, and the user's own over it."""
    entries: dict[str, dict[str, str]] = {}
    for path in (_PACKAGED, home / FILE):
        if path.exists():
            _read(path, entries)
    return Catalogue({name: Entry(name, **texts) for name, texts in entries.items()})


def _read(path: Path, entries: dict[str, dict[str, str]]) -> None:
    from relayq import yamlfile
    from relayq.parsing import capability

    known = [f.name for f in fields(Entry) if f.name != "name"]
    problems: list[ConfigError] = []
    whole = yamlfile.read(path, str(path))
    for name, place, value in whole.table(path.name, problems):
        try:
            capability(name)
        except ValueError as error:
            raise ConfigError(str(error), place=place) from error
        entry = entries.setdefault(name, {})
        for key, where, text in value.table(name, problems):
            if key not in known:
                raise ConfigError(f"{name} has no {key!r}; it has {', '.join(known)}", place=where)
            entry[key] = text.text(key)
    if problems:
        raise problems[0]
