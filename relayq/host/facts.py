"""What a host says of itself: who it is, and what it has."""

from __future__ import annotations

import base64
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from relayq import clock, kinds
from relayq.agents import adapters
from relayq.config import Config, Entry, install_id
from relayq.errors import ConfigError
from relayq.host import credentials, probes, secrets
from relayq.host.engines import weights
from relayq.host.logins import Logins
from relayq.model import machines
from relayq.model.hosts import capabilities_of
from relayq.model.secrets import key_of, need_of
from relayq.privileges import as_owner
from relayq.sealedsecrets import Locker, mark_of, note_name
from relayq.signing import Signer
from relayq.store.leases import Registration

log = logging.getLogger(__name__)

_DAY = 86_400.0

#: What a job gets of the worker's own environment. The rest, above all relayq's own settings and
#: secrets, stays with the worker.
_PASSED_ON = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR DISPLAY XAUTHORITY SSH_AUTH_SOCK "
    "DBUS_SESSION_BUS_ADDRESS".split()
)
_PASSED_ON_PREFIXES = ("LC_", "XDG_")


def registration(host: str, home: Path) -> Registration:
    """Return who speaks for this host; makes the install's uuid at first use."""
    return Registration(host=host, install=install_id(home), boot=clock.boot_id())


class Sheet:
    """What this host says of itself: what was found, and what its configuration declares.

    At the start it has what can be seen at a glance, and what an earlier worker found out. `look`
    asks what is new, from a thread of its own; then `revision` grows and `on_change` is called.
    """

    def __init__(self, config: Config, broker_url: str = "", signer: Signer | None = None) -> None:
        self._config = config
        self._signer = signer
        self._broker_url = broker_url
        probes.begin()
        self._memory = probes.Memory(str(config.home / "cache" / "probes.json"))
        self._asked_at = -_DAY
        self._seen: list[Any] = []
        self.revision = 0
        self._looking = threading.Lock()
        self.on_change: Callable[[], None] = lambda: None
        config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._agents = tuple(adapters.load(config.adapters).values())
        self._logins = Logins(str(config.home / "cache" / "logins.json"), self._login_files)
        self._found = probes.glance(self._memory, os.environ, self._agents)
        self._facts = self._composed(self._found)

    def current(self) -> dict[str, Any]:
        """Return the facts, as they are published."""
        return dict(self._facts)

    def look(self) -> None:
        """Ask the tools if they changed or a day has passed; cheap otherwise."""
        with self._looking, suppress(probes.GivenUp):
            self._look()

    def _look(self) -> None:
        path = os.environ.get("PATH", os.defpath)
        seen = [*probes.fingerprint(path, self._agents), self._weights()]
        if seen == self._seen and clock.boottime() < self._asked_at + _DAY:
            self.look_again()
            return
        self._found = probes.examine(self._memory, os.environ, self._agents)
        self._seen, self._asked_at = seen, clock.boottime()
        self.look_again()

    def look_again(self) -> None:
        """See which agents are logged in, and which secrets there are; no program is asked."""
        found = self._composed(self._found)
        if found != self._facts:
            self._facts = found
            self.revision += 1
            self.on_change()

    def heed(self, account: str, refusal: str | None) -> None:
        """Take what a run found out of an account: why it isn't logged in here, or that it is."""
        if refusal is None:
            is_news = self._logins.accept(account)
        else:
            is_news = self._logins.refuse(account, refusal)
        if is_news:
            log.info("%s %s", account, f"isn't logged in here: {refusal}" if refusal else "works")
            self.look_again()

    def _login_files(self, account: str) -> list[str]:
        agent = account.partition("/")[0]
        files = [file for one in self._agents if one.name == agent for file in one.login_files]
        return [*files, str(self._config.home / "agents.env")]

    def _weights(self) -> dict[str, list[str]]:
        """Return the models of speech engines that lie here; a job may have brought another one."""
        return weights.at_hand(weights.directory(os.environ, str(self._config.home)), os.environ)

    def _keys(self) -> frozenset[str]:
        try:
            return frozenset(credentials.read_keys(str(self._config.home / "agents.env")))
        except ConfigError as error:
            log.warning("%s", error)
            return frozenset()

    def _secrets(self) -> set[str]:
        """Return the names of this host's secrets, as capabilities."""
        try:
            with as_owner():
                known = secrets.read(str(self._config.home / secrets.FILE))
            return {need_of(name) for name in known}
        except ConfigError as error:
            log.warning("%s", error)
            return set()

    def _sealing(self) -> bytes | None:
        """Return the public key for secrets that only this host can open, None without one."""
        try:
            with as_owner():
                return None if self._signer is None else Locker(self._config.home).public()
        except (ConfigError, OSError) as error:
            log.warning("%s", error)
            return None

    def _models(self, keys: frozenset[str]) -> set[str]:
        """Return the models that can be asked from here: of one's own, or by a key."""
        own = self._config.agents
        return {
            f"agent:{one.name}"
            for one in self._agents
            if one.is_http and ("url" in own.get(one.name, {}) or one.key_env in keys)
        }

    def _composed(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return what was found with what is declared."""
        worker = self._config.worker
        entry = self._config.hosts.get(worker.name, Entry())
        keys = self._keys()
        agents = probes.agents_in(
            found["tools"],
            self._agents,
            home=os.path.expanduser("~"),
            keys=keys,
            named=self._config.agents,
        )
        machine = probes.machine(str(self._config.home))
        facts = {**machine, **found, "agents": agents, "models": self._weights()}
        weighs = self._config.origins.get("worker.weight", "default") != "default"
        seen = machines.capabilities_in(facts, kinds.names()) | self._models(keys) | self._secrets()
        public, sealing = self._sealing(), None
        if public is not None and self._signer is not None:
            # Signed, or whoever writes to Redis could have secrets sealed for themselves.
            seen |= {key_of(mark_of(public))}
            encoded = base64.b64encode(public)
            sealing = self._signer.sign_note(note_name(worker.name), encoded).decode()
        slots = {**machines.resources_in(facts["gpus"]), **worker.resources}
        return {
            **facts,
            "capabilities": list(
                capabilities_of(seen, (*worker.capabilities, *entry.capabilities))
            ),
            "labels": sorted(worker.labels),
            "aliases": list(dict.fromkeys((*worker.aliases, *entry.aliases))),
            "weight": worker.weight if weighs or entry.weight is None else entry.weight,
            "address": worker.address or entry.address or own_address(self._broker_url),
            "resources": {name: count for name, count in slots.items() if count},
            "limits": dict(worker.limits),
            "wake": {"mac": worker.wake.mac, "via": list(worker.wake.via)},
            "prefer_for": list(entry.prefer_for),
            "unfit": dict(self._logins.refused()),
            "paths": sorted(worker.paths),
            "install": install_id(self._config.home),
            "sealing": sealing,
        }


def own_address(broker_url: str) -> str | None:
    """Return this machine's address on the way to the broker, None if that is on this machine."""
    way = urlsplit(broker_url.replace("sentinel://", "redis://").partition(";")[0])
    try:
        where, port = way.hostname, way.port or 6379
        if where is None or not way.scheme.startswith("redis"):
            return None
        # Of a name only what /etc/hosts or the resolver says at once; nothing is sent.
        sort, _, _, _, target = socket.getaddrinfo(where, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(sort, socket.SOCK_DGRAM) as way_there:
            way_there.connect(target)
            address = str(way_there.getsockname()[0])
    except (OSError, ValueError):
        return None
    return None if ipaddress.ip_address(address.partition("%")[0]).is_loopback else address


def current_load(home: Path) -> dict[str, Any]:
    """Return what changes from beat to beat; CPU is the percentage since the last call."""
    disk = os.statvfs(home)
    load: dict[str, Any] = {
        "load": round(os.getloadavg()[0], 2),
        "cpu": psutil.cpu_percent(interval=None),
        "memory_free_bytes": psutil.virtual_memory().available,
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
    }
    # Not on every system, and without a battery nothing.
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None:
        load["power"] = {"plugged": bool(battery.power_plugged), "percent": battery.percent}
    return load


def job_environment(
    own: Mapping[str, str], asked: Mapping[str, str], *, id: str, attempt: int
) -> dict[str, str]:
    """Return a job's environment: the allowed part of the worker's, what was asked, its id."""
    allowed = {
        name: value
        for name, value in own.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    allowed.setdefault("PATH", os.defpath)
    return {**allowed, **asked, "RELAYQ_JOB_ID": id, "RELAYQ_ATTEMPT": str(attempt)}
