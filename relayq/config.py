"""The configuration: four layers, one loader, one frozen `Config`.

Layers, the later one wins: the defaults here, `~/.relayq/config.yml`, a project's `.relayq.yml`
(only `defaults`), `RELAYQ_SECTION__KEY` in the environment. Flags are the command line's own.
An empty value means the default. Nothing is clamped: what can't be used is a `ConfigError` that
names its place. A YAML value is read as it is written, so `no` is a name and `010` is ten.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from relayq import yamlfile
from relayq.agentsections import AGENT_KEYS, Free, Privacy
from relayq.errors import ConfigError
from relayq.parsing import duration, is_host_name, schema, size
from relayq.sections import (
    ENTRY_KEYS,
    KEYS,
    SECTIONS,
    Audit,
    Broker,
    Defaults,
    Entry,
    Lease,
    Logging,
    Retry,
    Scheduler,
    Serve,
    Worker,
    assembled,
)

__all__ = [
    "KEYS",
    "Audit",
    "Broker",
    "Config",
    "Defaults",
    "Entry",
    "Lease",
    "Logging",
    "Privacy",
    "Retry",
    "Scheduler",
    "Serve",
    "Worker",
    "duration",
    "home_directory",
    "load",
    "problems",
    "size",
]


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured; `origins` has the source of each key's value."""

    home: Path
    broker: Broker = field(default_factory=Broker)
    worker: Worker = field(default_factory=Worker)
    logging: Logging = field(default_factory=Logging)
    defaults: Defaults = field(default_factory=Defaults)
    retry: Retry = field(default_factory=Retry)
    scheduler: Scheduler = field(default_factory=Scheduler)
    serve: Serve = field(default_factory=Serve)
    audit: Audit = field(default_factory=Audit)
    lease: Lease = field(default_factory=Lease)
    hosts: Mapping[str, Entry] = field(default_factory=dict)
    #: By agent: changes of its adapter, its accounts, and what this machine allows it.
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: The agent of a job that names none.
    default_agent: str = "claude"
    #: How long a job waits for the host with its session before it begins anew elsewhere.
    resume_elsewhere_after: float = 6 * 3600.0
    privacy: Mapping[str, Privacy] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def spool(self) -> Path:
        """The directory of this machine's attempts."""
        return self.home / "spool"

    @property
    def fleet_key_path(self) -> Path:
        """The file with the key that signs specs and outcomes."""
        return self.home / "fleet.key"

    def host_called(self, name: str) -> str:
        """Return the host that an alias of `hosts:` means; any other name as it is."""
        return next((host for host, e in self.hosts.items() if name in e.aliases), name)

    def mode_of(self, agent: str) -> str:
        """Return the permission mode of a job of this agent that asks for none."""
        return str(self.agents.get(agent, {}).get("mode", "edit"))

    @property
    def adapters(self) -> Mapping[str, Mapping[str, Any]]:
        """What is said of the agents' adapters, without what is said of their use."""
        return {
            agent: {k: v for k, v in entry.items() if k not in (*AGENT_KEYS, "accounts")}
            for agent, entry in self.agents.items()
        }

    @property
    def broker_url(self) -> str | None:
        """The configured broker's URL with its password, or None."""
        return self.broker.full_url if self.broker.is_configured else None


# A key makes void what lower layers say about these; in one layer they exclude each other.
_RIVALS = {
    "broker.url": ("broker.host", "broker.port", "broker.db", "broker.tls", "broker.ca_file"),
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


def install_id(home: Path) -> str:
    """Return the uuid of what is installed in relayq's home; makes it at first use."""
    path = home / "install"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"install.{secrets.token_hex(4)}")
    draft.write_text(uuid.uuid4().hex + "\n")
    try:
        # A link fails where a rename would replace what another process made meanwhile.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


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
    sections = assembled(values)
    was_given = any(layers.sets(f"broker.{key}") for key in ("url", "host", "port"))
    sections["broker"] = replace(sections["broker"], was_given=was_given)
    origins |= layers.entry_origins | layers.free.origins
    wide = sections.pop("agents")
    return Config(
        home=home,
        origins=origins,
        hosts=layers.hosts(),
        agents=layers.free.agents,
        default_agent=wide.default,
        resume_elsewhere_after=wide.resume_elsewhere_after,
        privacy=layers.free.privacy,
        **sections,
    ), []


class _Layers:
    """What the layers set, the lowest first, and every problem with that."""

    def __init__(self) -> None:
        self.given: dict[str, _Setting] = {}
        self.problems: list[ConfigError] = []
        self.entry_origins: dict[str, str] = {}
        self.free = Free(problems=self.problems)
        self._entries: dict[str, dict[str, Any]] = {}
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
                if section not in (*SECTIONS, "hosts", "privacy") or "." in section:
                    self._add(place, _unknown(section, section, _names()))
                elif only not in (None, section):
                    self._add(place, f"a project's file can set {only!r} only, not {section!r}")
                elif section == "hosts":
                    self._guarded(self._read_entries, table, shown)
                elif section == "privacy":
                    self._guarded(self.free.read_privacy, table, shown)
                else:
                    self._guarded(self._read_section, section, table, shown, layer)
        except FileNotFoundError:
            return
        except ConfigError as error:
            self.problems.append(error)

    def _guarded(self, read: Callable[..., None], *arguments: Any) -> None:
        """Read on after a value that has another shape than it should."""
        try:
            read(*arguments)
        except ConfigError as error:
            self.problems.append(error)

    def _read_section(self, section: str, table: yamlfile.Value, shown: str, layer: int) -> None:
        for key, place, value in table.table(section, self.problems):
            name = f"{section}.{key}"
            if name in SECTIONS:
                self._guarded(self._read_section, name, value, shown, layer)
                continue
            if section == "agents" and name not in KEYS:
                self._guarded(self.free.read_agent, key, value, shown)
                continue
            if name not in KEYS:
                self._add(place, _unknown(name, key, _names(section)))
                continue
            try:
                text = value.flat(name, _shapes(KEYS[name]))
            except ConfigError as error:
                self.problems.append(error)
                self._broken.add(name)
            else:
                self._set(name, text, str(value.place), f"{shown}:{place.line}", layer)

    def _read_entries(self, table: yamlfile.Value, shown: str) -> None:
        for host, place, value in table.table("hosts", self.problems):
            if not is_host_name(host):
                self._add(place, f"{host!r} can't be a host's name")
                continue
            self._entries[host] = {}
            self._guarded(self._read_entry, host, value, shown)

    def _read_entry(self, host: str, table: yamlfile.Value, shown: str) -> None:
        for key, place, value in table.table(f"hosts.{host}", self.problems):
            name = f"hosts.{host}.{key}"
            if key not in ENTRY_KEYS:
                self._add(place, _unknown(name, key, {known: known for known in ENTRY_KEYS}))
                continue
            text = value.flat(name, _shapes(ENTRY_KEYS[key])).strip()
            try:
                parsed = ENTRY_KEYS[key].metadata["parse"](text) if text else None
            except ValueError as error:
                self._add(value.place, f"{name}: {error}, got {text!r}")
                continue
            if parsed is not None:
                self._entries[host][key] = parsed
                self.entry_origins[name] = f"{shown}:{place.line}"

    def hosts(self) -> dict[str, Entry]:
        """Return the entries of `hosts:`."""
        return {host: Entry(**values) for host, values in self._entries.items()}

    def _read_variable(self, variable: str, text: str) -> None:
        variables = {name: f"RELAYQ_{name.replace('.', '__').upper()}" for name in KEYS}
        name = variable.removeprefix("RELAYQ_").replace("__", ".").lower()
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
        for key in ("broker.port", "broker.db", "broker.tls", "broker.ca_file"):
            if values["broker.url"] is not None and self.sets(key):
                self._add(self.given[key].place, f"{key} goes into broker.url, which is set")
        self._check_tls(values)
        names = Counter(a for values in self._entries.values() for a in values.get("aliases", ()))
        for taken in [alias for alias, n in names.items() if n > 1 or alias in self._entries]:
            self._add("hosts", f"{taken!r} is the name of more than one host")
        has_password = any(self.sets(f"broker.{key}") for key in ("password", "password_file"))
        if has_password and "@" in (values["broker.url"] or ""):
            self._add(
                self.given["broker.url"].place,
                "broker.url has a password, and so has broker.password or its file: keep one",
            )
        if self.sets("broker.user") and not has_password:
            self._add(self.given["broker.user"].place, "broker.user needs broker.password_file")

    def _check_tls(self, values: Mapping[str, Any]) -> None:
        """Find a certificate that nothing is checked with, or that isn't there."""
        if not self.sets("broker.ca_file"):
            return
        place, file = self.given["broker.ca_file"].place, values["broker.ca_file"]
        if not values["broker.tls"] and values["broker.url"] is None:
            self._add(place, "broker.ca_file is only used with broker.tls: true")
        elif not os.access(file, os.R_OK):
            self._add(place, f"broker.ca_file: can't be read: {file}")

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
    except OSError:  # deleted; or, on macOS, not for us to look into
        return None
    files = (folder / ".relayq.yml" for folder in (here, *here.parents))
    # Not is_file(), which raises where `su` left somebody in a directory that is not theirs.
    return next((file for file in files if os.path.isfile(file)), None)


def _names(section: str = "") -> dict[str, str]:
    """Return what may have been meant in a section (or as one), each with how to call it there."""
    elsewhere = {name.partition(".")[2]: name for name in KEYS}
    here = [name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")]
    return elsewhere | {name: name for name in (here or (*SECTIONS, "hosts", "privacy"))}


def _shapes(key: Field[Any]) -> tuple[str, ...]:
    """Return the types of JSON that a key may have in a file."""
    types = schema(key.metadata["parse"]).get("type", ())
    return (types,) if isinstance(types, str) else tuple(types)


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
