"""The configuration: four layers, one loader, one frozen `Config`.

Layers, the later one wins: the defaults here, `~/.relayq/config.yml`, a project's `.relayq.yml`
(only `defaults`), `RELAYQ_SECTION__KEY` in the environment. Flags are the command line's own.
An empty value means the default. Nothing is clamped: what can't be used is a `ConfigError` that
names its place. A YAML value is read as it is written, so `no` is a name and `010` is ten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from relayq import yamlfile
from relayq.errors import ConfigError
from relayq.parsing import (
    Parse,
    broker_url,
    choice,
    duration,
    host_name,
    memory_size,
    number,
    output_size,
    positive,
    size,
    whole,
    yes_or_no,
)

__all__ = [
    "KEYS",
    "Broker",
    "Config",
    "Defaults",
    "Lease",
    "Logging",
    "Retry",
    "Worker",
    "duration",
    "home_directory",
    "load",
    "problems",
    "size",
]

_NICENESS = {"normal": 0, "low": 10, "idle": 19}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _own_name() -> str:
    short = os.uname().nodename.partition(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", short)[:63].strip("-_") or "localhost"


def _key(
    parse: Parse, default: Any = MISSING, about: str = "", *, secret: bool = False, **options: Any
) -> Any:
    metadata = {"parse": parse, "about": about, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata, **options)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where Redis is; without any of url, host and port it is a private one on this machine."""

    url: str | None = _key(
        broker_url, None, "The broker's URL, instead of host, port and db.", secret=True
    )
    host: str = _key(str, "127.0.0.1", "The broker's machine.")
    port: int = _key(whole(1, 65_535), 6379, "The broker's port.")
    db: int = _key(whole(0), 0, "The number of the database.")
    password: str | None = _key(
        str, None, "The broker's password, better kept in password_file.", secret=True
    )
    password_file: Path | None = _key(Path, None, "A file with the broker's password.")
    was_given: bool = field(default=False, repr=False)

    @property
    def is_configured(self) -> bool:
        """Whether a file or the environment names a broker."""
        return self.was_given or self.url is not None

    @property
    def full_url(self) -> str:
        """The URL with the password."""
        from urllib.parse import quote

        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        if self.url is not None:
            # Each address of a sentinel:// list gets it.
            return self.url.replace("://", f"://{secret}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{secret}{host}:{self.port}/{self.db}"


@dataclass(frozen=True, slots=True)
class Worker:
    """This machine's worker."""

    name: str = _key(
        host_name, about="What the fleet calls this machine.", default_factory=_own_name
    )
    priority: str = _key(
        choice(*_NICENESS), "low", "Niceness of the worker and its jobs: normal 0, low 10, idle 19."
    )
    max_concurrent: int = _key(whole(1), 2, "Slots: how many jobs run at a time.")
    cpu_threshold: int = _key(
        whole(1, 100), 80, "Percent of CPU that others use, above which no new job is taken."
    )

    @property
    def niceness(self) -> int:
        """What the priority means to the scheduler of the machine."""
        return _NICENESS[self.priority]


@dataclass(frozen=True, slots=True)
class Logging:
    """The worker's own log."""

    level: str = _key(
        choice(*_LEVELS, fold=str.upper), "INFO", "The least level that the worker logs."
    )
    file: Path = _key(Path, Path("worker.log"), "The worker's own log.")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a job gets when its submitter doesn't say."""

    timeout: float = _key(positive(duration), 5 * 3600.0, "The limit of a job's run time.")
    retries: int = _key(whole(0), 0, "Further attempts after a failure of the command's own.")
    max_log: int = _key(
        size, 1 << 20, "How much of a large output the broker keeps, of its head and its tail."
    )
    memory: int | None = _key(
        memory_size, None, "The limit of the memory of a job's processes, none by default."
    )
    processes: int | None = _key(
        whole(1), None, "The limit of the number of a job's processes, none by default."
    )
    max_output: int | None = _key(
        output_size, None, "The limit of what a job may write, none by default."
    )
    keep_results: float = _key(duration, 30 * 86_400.0, "How long ended jobs are kept.")
    keep_jobs: int = _key(whole(1), 1_000_000, "How many ended jobs are kept, the newest.")
    grace: float = _key(duration, 10.0, "From TERM to KILL.")


@dataclass(frozen=True, slots=True)
class Retry:
    """When an attempt that failed is followed by another."""

    max: int = _key(
        whole(0), 3, "Retries of a job whose submitter says when to retry, but not how often."
    )
    base: float = _key(positive(duration), 1.0, "The delay before the first retry.")
    cap: float = _key(positive(duration), 60.0, "The longest delay before a retry.")
    factor: float = _key(number(1), 2.0, "By how much each delay is longer than the one before.")
    jitter: bool = _key(yes_or_no, True, "Whether delays are spread over their upper half.")
    crash_limit: int = _key(
        whole(1), 3, "Lost attempts, or such as their host couldn't start, before a job is failed."
    )


@dataclass(frozen=True, slots=True)
class Lease:
    """The times of the lease protocol; relayq/README.md has the protocol. Tests scale them."""

    length: float = _key(positive(duration), 60.0, "An attempt without a beat is lost after this.")
    beat: float = _key(positive(duration), 15.0, "Between two beats of a worker with jobs.")
    idle_beat: float = _key(positive(duration), 30.0, "Between two beats of one without.")
    permit: float = _key(positive(duration), 45.0, "What an answered beat gives the shims.")
    extend: float = _key(positive(duration), 15.0, "What a worker without a broker gives them.")
    park: float = _key(positive(duration), 900.0, "How long a planned stop may last.")
    lost_min: float = _key(duration, 30.0, "From lost to the verdict, at least.")
    lost_max: float = _key(duration, 900.0, "From lost to the verdict, at most.")
    pull: float = _key(positive(duration), 5.0, "How often an idle slot claims without a nudge.")
    check: float = _key(positive(duration), 2.0, "How often a shim reads its permit.")
    tick: float = _key(positive(duration), 5.0, "How often the reaper looks for what is due.")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured; `origins` has the source of each key's value."""

    home: Path
    broker: Broker = field(default_factory=Broker)
    worker: Worker = field(default_factory=Worker)
    logging: Logging = field(default_factory=Logging)
    defaults: Defaults = field(default_factory=Defaults)
    retry: Retry = field(default_factory=Retry)
    lease: Lease = field(default_factory=Lease)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def spool(self) -> Path:
        """The directory of this machine's attempts."""
        return self.home / "spool"

    @property
    def fleet_key_path(self) -> Path:
        """The file with the key that signs specs and outcomes."""
        return self.home / "fleet.key"

    @property
    def broker_url(self) -> str | None:
        """The configured broker's URL with its password, or None."""
        return self.broker.full_url if self.broker.is_configured else None


_SECTIONS: dict[str, type] = {
    "broker": Broker,
    "worker": Worker,
    "logging": Logging,
    "defaults": Defaults,
    "retry": Retry,
    "lease": Lease,
}
KEYS: Mapping[str, Field[Any]] = {
    f"{section}.{key.name}": key
    for section, kind in _SECTIONS.items()
    for key in fields(kind)
    if key.metadata
}
# A key makes void what lower layers say about these; in one layer they exclude each other.
_RIVALS = {
    "broker.url": ("broker.host", "broker.port", "broker.db"),
    "broker.host": ("broker.url",),
    "broker.password": ("broker.password_file",),
    "broker.password_file": ("broker.password",),
}
# A beat that is answered in time must find the permit and the lease standing, for instance.
_ASCENDING = (
    ("lease.beat", "lease.permit"),
    ("lease.idle_beat", "lease.length"),
    ("lease.permit", "lease.length"),
    ("lease.lost_min", "lease.lost_max"),
    ("retry.base", "retry.cap"),
)


class _Setting(NamedTuple):
    """A key's value as one layer sets it."""

    value: Any
    is_default: bool
    place: str  # for errors
    origin: str
    layer: int


def home_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory with everything of relayq's on this machine; reads no file."""
    return Path(
        os.path.abspath(_expanded(environ.get("RELAYQ_HOME") or "~/.relayq", _user(environ)))
    )


def load(environ: Mapping[str, str] = os.environ, *, path: Path | None = None) -> Config:
    """Read all layers; `path` stands for the home's `config.yml` and must then exist."""
    config, found = _read(environ, path)
    if config is None:
        number = f" shows all {len(found)} problems" if len(found) > 1 else ""
        raise ConfigError(found[0].message, hint=f"relayq config check{number}")
    return config


def problems(
    environ: Mapping[str, str] = os.environ, *, path: Path | None = None
) -> list[ConfigError]:
    """Return everything for which `load` would refuse the configuration, not just the first."""
    return _read(environ, path)[1]


def _read(
    environ: Mapping[str, str], path: Path | None
) -> tuple[Config, list[ConfigError]] | tuple[None, list[ConfigError]]:
    home, user_home = home_directory(environ), _user(environ)
    if path is not None and not path.exists():
        return None, [ConfigError("no such file", place=path)]
    layers = _Layers()
    layers.read(environ, path or home / "config.yml", user_home)
    given = layers.given
    values = {name: _value(key, given.get(name)) for name, key in KEYS.items()}
    origins = {name: given[name].origin if name in given else "default" for name in KEYS}
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = home / _expanded(value, user_home)
    layers.check_together(values)
    if (file := values["broker.password_file"]) is not None:
        values["broker.password"] = layers.password(file)
        origins["broker.password"] = str(file)
    if layers.problems:
        return None, layers.problems
    sections = {
        section: kind(**{f.name: values[f"{section}.{f.name}"] for f in fields(kind) if f.metadata})
        for section, kind in _SECTIONS.items()
    }
    was_given = any(layers.sets(f"broker.{key}") for key in ("url", "host", "port"))
    sections["broker"] = replace(sections["broker"], was_given=was_given)
    return Config(home=home, origins=origins, **sections), []


class _Layers:
    """What the layers set, the lowest first, and every problem with that."""

    def __init__(self) -> None:
        self.given: dict[str, _Setting] = {}
        self.problems: list[ConfigError] = []
        self._broken: set[str] = set()

    def read(self, environ: Mapping[str, str], own: Path, user_home: Path) -> None:
        """Read each layer."""
        self._read_file(own, user_home, layer=1)
        if (project := _project_file()) is not None:
            self._read_file(project, user_home, layer=2, only="defaults")
        for variable in sorted(environ):
            if variable.startswith("RELAYQ_") and "__" in variable:
                self._read_variable(variable, environ[variable])

    def sets(self, name: str) -> bool:
        """Whether a layer gives this key a value of its own."""
        return name in self.given and not self.given[name].is_default

    def _add(self, place: object, text: str, key: str = "") -> None:
        self.problems.append(ConfigError(text, place=place))
        self._broken.add(key)

    def _read_file(
        self, path: Path, user_home: Path, *, layer: int, only: str | None = None
    ) -> None:
        inside = path.is_relative_to(user_home)
        shown = f"~/{path.relative_to(user_home)}" if inside else str(path)
        try:
            document = yamlfile.read(path, shown)
            for section, place, table in document.table("the file", self.problems):
                if section not in _SECTIONS:
                    self._add(place, _unknown(section, section, _names()))
                elif only not in (None, section):
                    self._add(place, f"a project's file can set {only!r} only, not {section!r}")
                else:
                    self._read_section(section, table, shown, layer)
        except FileNotFoundError:
            return
        except ConfigError as error:
            self.problems.append(error)

    def _read_section(self, section: str, table: yamlfile.Value, shown: str, layer: int) -> None:
        try:
            for key, place, value in table.table(section, self.problems):
                name = f"{section}.{key}"
                if name not in KEYS:
                    self._add(place, _unknown(name, key, _names(section)))
                    continue
                try:
                    text = value.text(name)
                except ConfigError as error:
                    self.problems.append(error)
                    self._broken.add(name)
                else:
                    self._set(name, text, str(value.place), f"{shown}:{place.line}", layer)
        except ConfigError as error:
            self.problems.append(error)

    def _read_variable(self, variable: str, text: str) -> None:
        variables = {name: f"RELAYQ_{name.replace('.', '__').upper()}" for name in KEYS}
        name = variable.removeprefix("RELAYQ_").replace("__", ".", 1).lower()
        if variables.get(name) != variable:
            self._add(variable, _unknown(name, name, variables))
        else:
            self._set(name, text, variable, variable, layer=3)

    def _set(self, name: str, text: str, place: str, origin: str, layer: int) -> None:
        text = text.strip()
        value = None
        if text:
            try:
                value = KEYS[name].metadata["parse"](text)
            except ValueError as error:
                shown = "" if KEYS[name].metadata["secret"] else f", got {text!r}"
                self._add(place, f"{name}: {error}{shown}", name)
                return
        for rival in _RIVALS.get(name, ()) if text else ():
            if self.sets(rival):
                if self.given[rival].layer == layer:
                    self._add(place, f"{name} and {rival} exclude each other: keep one", name)
                    return
                del self.given[rival]
        self.given[name] = _Setting(value, not text, place, origin, layer)

    def check_together(self, values: Mapping[str, Any]) -> None:
        """Find what is right by itself and wrong beside something else."""
        for low, high in _ASCENDING:
            # A value that can't be read isn't known to be too large.
            if not self._broken & {low, high} and values[low] > values[high]:
                place = next(self.given[name].place for name in (low, high) if name in self.given)
                self._add(
                    place, f"{low} ({values[low]:g} s) can't exceed {high} ({values[high]:g} s)"
                )
        for key in ("broker.port", "broker.db"):
            if values["broker.url"] is not None and self.sets(key):
                self._add(self.given[key].place, f"{key} goes into broker.url, which is set")
        has_password = any(self.sets(f"broker.{key}") for key in ("password", "password_file"))
        if has_password and "@" in (values["broker.url"] or ""):
            self._add(
                self.given["broker.url"].place,
                "broker.url has a password, and so has broker.password or its file: keep one",
            )

    def password(self, path: Path) -> str | None:
        """Return the password in a file."""
        place = self.given["broker.password_file"].place
        try:
            password = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self._add(place, f"broker.password_file: can't be read: {error}")
            return None
        if not password:
            self._add(place, f"broker.password_file: {path} is empty")
        return password or None


def _project_file() -> Path | None:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # somebody deleted the directory
        return None
    files = (folder / ".relayq.yml" for folder in (here, *here.parents))
    return next((file for file in files if file.is_file()), None)


def _names(section: str = "") -> dict[str, str]:
    """Return what may have been meant in a section (or as one), each with how to call it there."""
    elsewhere = {name.partition(".")[2]: name for name in KEYS}
    here = [name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")]
    return elsewhere | {name: name for name in (here or _SECTIONS)}


def _unknown(name: str, typed: str, known: Mapping[str, str]) -> str:
    from difflib import get_close_matches

    suggestions = [
        f" (did you mean {known[match]!r}?)" for match in get_close_matches(typed, known, 1)
    ]
    return f"unknown key {name!r}{''.join(suggestions)}"


def _value(key: Field[Any], setting: _Setting | None) -> Any:
    if setting is not None and not setting.is_default:
        return setting.value
    return key.default if key.default_factory is MISSING else key.default_factory()


def _user(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _expanded(path: Path | str, user_home: Path) -> Path:
    parts = Path(path).parts
    return user_home.joinpath(*parts[1:]) if parts and parts[0] == "~" else Path(path)
