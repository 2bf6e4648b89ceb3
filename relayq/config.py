"""The configuration: four layers, one loader, one frozen `Config`.

Layers, the later one wins: the defaults here, `~/.relayq/config.yml`, a project's `.relayq.yml`
(only `defaults`), `RELAYQ_SECTION__KEY` in the environment. Flags are the command line's own.
An empty value means the default. Nothing is clamped: what can't be used is a `ConfigError` that
names its place. A YAML value is read as it is written, so `no` is a name and `010` is ten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from relayq import yamlfile
from relayq.errors import ConfigError
from relayq.parsing import Parse, broker_url, choice, duration, host_name, positive, size, whole

__all__ = [
    "KEYS",
    "Broker",
    "Config",
    "Defaults",
    "Lease",
    "Logging",
    "Worker",
    "duration",
    "load",
    "size",
]

_NICENESS = {"normal": 0, "low": 10, "idle": 19}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _own_name() -> str:
    short = os.uname().nodename.partition(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", short)[:63].strip("-_") or "localhost"


def _key(parse: Parse, default: Any = MISSING, *, secret: bool = False, **options: Any) -> Any:
    metadata = {"parse": parse, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata, **options)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where Redis is; without any of url, host and port it is a private one on this machine."""

    url: str | None = _key(broker_url, None, secret=True)
    host: str = _key(str, "127.0.0.1")
    port: int = _key(whole(1, 65_535), 6379)
    db: int = _key(whole(0), 0)
    password: str | None = _key(str, None, secret=True)
    password_file: Path | None = _key(Path, None)
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

    name: str = _key(host_name, default_factory=_own_name)
    priority: str = _key(choice(*_NICENESS), "low")
    max_concurrent: int = _key(whole(1), 2)
    cpu_threshold: int = _key(whole(1, 100), 80)

    @property
    def niceness(self) -> int:
        """What the priority means to the scheduler of the machine."""
        return _NICENESS[self.priority]


@dataclass(frozen=True, slots=True)
class Logging:
    """The worker's own log."""

    level: str = _key(choice(*_LEVELS, fold=str.upper), "INFO")
    file: Path = _key(Path, Path("worker.log"))


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a job gets when its submitter doesn't say."""

    timeout: float = _key(positive(duration), 5 * 3600.0)
    max_log: int = _key(size, 1 << 20)
    keep_results: float = _key(duration, 30 * 86_400.0)
    grace: float = _key(duration, 10.0)  # from TERM to KILL


@dataclass(frozen=True, slots=True)
class Lease:
    """The times of the lease protocol; relayq/README.md has the protocol. Tests scale them."""

    length: float = _key(positive(duration), 60.0)  # an attempt without a beat is lost
    beat: float = _key(positive(duration), 15.0)
    idle_beat: float = _key(positive(duration), 30.0)  # of a worker without jobs
    permit: float = _key(positive(duration), 45.0)  # what an answered beat gives the shims
    extend: float = _key(positive(duration), 15.0)  # what a worker without a broker gives them
    park: float = _key(positive(duration), 900.0)  # a planned stop
    lost_min: float = _key(duration, 30.0)  # from lost to the verdict
    lost_max: float = _key(duration, 900.0)
    pull: float = _key(positive(duration), 5.0)  # an idle slot claims without a nudge
    check: float = _key(positive(duration), 2.0)  # how often a shim reads its permit
    tick: float = _key(positive(duration), 5.0)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured; `origins` has the source of each key's value."""

    home: Path
    broker: Broker = field(default_factory=Broker)
    worker: Worker = field(default_factory=Worker)
    logging: Logging = field(default_factory=Logging)
    defaults: Defaults = field(default_factory=Defaults)
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
# A beat that is answered in time must find the permit and the lease standing.
_ASCENDING = (
    ("lease.beat", "lease.permit"),
    ("lease.idle_beat", "lease.length"),
    ("lease.permit", "lease.length"),
    ("lease.lost_min", "lease.lost_max"),
)


class _Setting(NamedTuple):
    """One key as one layer sets it."""

    key: str
    value: Any
    is_default: bool
    place: str  # for errors
    origin: str
    layer: int


def load(environ: Mapping[str, str] = os.environ, *, path: Path | None = None) -> Config:
    """Read all layers; `path` stands for the home's `config.yml` and must then exist."""
    user_home = Path(environ.get("HOME") or Path.home())
    home = Path(os.path.abspath(_expanded(environ.get("RELAYQ_HOME") or "~/.relayq", user_home)))
    if path is not None and not path.exists():
        raise ConfigError(f"no such file: {path}")
    given: dict[str, _Setting] = {}
    for setting in _settings(environ, path or home / "config.yml", user_home):
        _put(given, setting)
    values = {name: _value(key, given.get(name)) for name, key in KEYS.items()}
    origins = {name: given[name].origin if name in given else "default" for name in KEYS}
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = home / _expanded(value, user_home)
    _check_together(values, given)
    if (file := values["broker.password_file"]) is not None:
        values["broker.password"] = _password(file, given["broker.password_file"].place)
        origins["broker.password"] = str(file)
    sections = {
        section: kind(**{f.name: values[f"{section}.{f.name}"] for f in fields(kind) if f.metadata})
        for section, kind in _SECTIONS.items()
    }
    was_given = any(_is_set(given, f"broker.{key}") for key in ("url", "host", "port"))
    sections["broker"] = replace(sections["broker"], was_given=was_given)
    return Config(home=home, origins=origins, **sections)


def _settings(environ: Mapping[str, str], own: Path, user_home: Path) -> Iterator[_Setting]:
    """Yield what each layer sets, the lowest layer first."""
    yield from _from_file(own, user_home, layer=1)
    if (project := _project_file()) is not None:
        yield from _from_file(project, user_home, layer=2, only="defaults")
    for variable in sorted(environ):
        if variable.startswith("RELAYQ_") and "__" in variable:
            name = _name_in(variable)
            yield _setting(name, environ[variable], variable, variable, layer=3)


def _from_file(
    path: Path, user_home: Path, *, layer: int, only: str | None = None
) -> Iterator[_Setting]:
    inside = path.is_relative_to(user_home)
    shown = f"~/{path.relative_to(user_home)}" if inside else str(path)
    try:
        document = yamlfile.read(path, shown)
    except FileNotFoundError:
        return
    for section, place, table in document.table("the file"):
        if section not in _SECTIONS:
            raise _unknown(str(place), section, section, _names())
        if only not in (None, section):
            raise ConfigError(f"{place}: a project's file can set {only!r} only, not {section!r}")
        for key, key_place, value in table.table(section):
            name = f"{section}.{key}"
            if name not in KEYS:
                raise _unknown(str(key_place), name, key, _names(section))
            origin = f"{shown}:{key_place.line}"
            yield _setting(name, value.text(name), str(value.place), origin, layer=layer)


def _project_file() -> Path | None:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # somebody deleted the directory
        return None
    files = (folder / ".relayq.yml" for folder in (here, *here.parents))
    return next((file for file in files if file.is_file()), None)


def _name_in(variable: str) -> str:
    """Return the key that an environment variable sets."""
    variables = {name: f"RELAYQ_{name.replace('.', '__').upper()}" for name in KEYS}
    name = variable.removeprefix("RELAYQ_").replace("__", ".", 1).lower()
    if variables.get(name) != variable:
        raise _unknown(variable, name, name, variables)
    return name


def _names(section: str = "") -> dict[str, str]:
    """Return what may have been meant in a section (or as one), each with how to call it there."""
    elsewhere = {name.partition(".")[2]: name for name in KEYS}
    here = [name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")]
    return elsewhere | {name: name for name in (here or _SECTIONS)}


def _unknown(place: str, name: str, typed: str, known: Mapping[str, str]) -> ConfigError:
    from difflib import get_close_matches

    suggestions = [
        f" (did you mean {known[match]!r}?)" for match in get_close_matches(typed, known, 1)
    ]
    return ConfigError(f"{place}: unknown key {name!r}{''.join(suggestions)}")


def _setting(name: str, text: str, place: str, origin: str, *, layer: int) -> _Setting:
    text = text.strip()
    if not text:
        return _Setting(name, None, True, place, origin, layer)
    try:
        value = KEYS[name].metadata["parse"](text)
    except ValueError as error:
        shown = "" if KEYS[name].metadata["secret"] else f", got {text!r}"
        raise ConfigError(f"{place}: {name}: {error}{shown}") from error
    return _Setting(name, value, False, place, origin, layer)


def _put(given: dict[str, _Setting], setting: _Setting) -> None:
    for rival in () if setting.is_default else _RIVALS.get(setting.key, ()):
        if _is_set(given, rival):
            if given[rival].layer == setting.layer:
                message = f"{setting.key} and {rival} exclude each other: keep one"
                raise ConfigError(f"{setting.place}: {message}")
            del given[rival]
    given[setting.key] = setting


def _is_set(given: Mapping[str, _Setting], name: str) -> bool:
    return name in given and not given[name].is_default


def _value(key: Field[Any], setting: _Setting | None) -> Any:
    if setting is not None and not setting.is_default:
        return setting.value
    return key.default if key.default_factory is MISSING else key.default_factory()


def _expanded(path: Path | str, user_home: Path) -> Path:
    parts = Path(path).parts
    return user_home.joinpath(*parts[1:]) if parts and parts[0] == "~" else Path(path)


def _check_together(values: Mapping[str, Any], given: Mapping[str, _Setting]) -> None:
    """Refuse what is right by itself and wrong beside something else."""
    for low, high in _ASCENDING:
        if values[low] > values[high]:
            place = next(given[name].place for name in (low, high) if name in given)
            facts = f"{low} ({values[low]:g} s) can't exceed {high} ({values[high]:g} s)"
            raise ConfigError(f"{place}: {facts}")
    for key in ("broker.port", "broker.db"):
        if values["broker.url"] is not None and _is_set(given, key):
            raise ConfigError(f"{given[key].place}: {key} goes into broker.url, which is set")
    has_password = any(_is_set(given, f"broker.{key}") for key in ("password", "password_file"))
    if has_password and "@" in (values["broker.url"] or ""):
        raise ConfigError(
            f"{given['broker.url'].place}: broker.url has a password, and so has "
            "broker.password or its file: keep one"
        )


def _password(path: Path, place: str) -> str:
    try:
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: broker.password_file: can't be read: {error}") from error
    if not password:
        raise ConfigError(f"{place}: broker.password_file: {path} is empty")
    return password
