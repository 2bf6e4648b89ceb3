"""Finds what is wrong: with the broker, the hosts, this machine, and the way between them.

The order is that in which one looks oneself: is Redis there, can one submit, is a worker there,
does a job come back; then what makes each of these last. Every finding is a value; nothing is
changed here, nor started.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from relayq import clock, embedded
from relayq.client import Relay
from relayq.config import Config
from relayq.doctor import broker, fleet, machine, managers
from relayq.doctor.echo import examine_hosts_by_jobs
from relayq.doctor.files import examine_files
from relayq.doctor.findings import Finding, Level, ok, problem, warning
from relayq.doctor.sentinels import examine_sentinels
from relayq.doctor.services import examine_services
from relayq.embedded.probes import machine_answers, redis_log
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.store import Store, connect
from relayq.version import __version__

__all__ = ["Examination", "Finding", "Level", "examine"]

_RECENT = 3600.0


@dataclass(frozen=True)
class Examination:
    """What to look at, and how long an echo job may take; 0 sends none."""

    config: Config
    timeout: float = 10.0

    @property
    def here(self) -> str:
        """What this machine is called."""
        return self.config.worker.name

    @property
    def is_private(self) -> bool:
        """Whether the broker is this machine's own."""
        return self.config.broker_url is None

    @property
    def is_local(self) -> bool:
        """Whether Redis runs on this machine."""
        if self.is_private or self.config.broker.url is not None:
            return self.is_private
        with suppress(RelayqError):
            # Only this machine's own addresses can be listened on.
            embedded.check_free(self.config.broker.host, 0)
            return True
        return False

    @property
    def where(self) -> str:
        """The name under which findings about Redis appear."""
        return self.here if self.is_local else "broker"

    @property
    def cli(self) -> str:
        """How one types a command to a configured Redis."""
        where = self.config.broker
        if where.url:
            return "redis-cli"
        checked = f" --cacert '{where.ca_file}'" if where.ca_file else ""
        over = f" --tls{checked}" if where.tls else ""
        return f"redis-cli -h {where.host} -p {where.port}{over}"

    @cached_property
    def store(self) -> Store | None:
        """The broker, None if the private one doesn't run."""
        url = self.config.broker_url
        if url is None:
            facts = embedded.running_broker(self.config)
            url = None if facts is None else facts.url
        return None if url is None else connect(url)

    @cached_property
    def owners(self) -> Store | None:
        """The private broker as its owner sees it, None for any other."""
        return connect(embedded.admin_url(self.config)) if self.is_private else None


def examine(this: Examination) -> Iterator[Finding]:
    """Yield what is found, the most basic things first."""
    yield ok(this.here, f"configuration valid, home {this.config.home}")
    try:
        yield from _examine_fleet(this)
    except BrokerUnavailable as error:
        yield problem(this.where, error.message, error.hint)
    yield from _examine_machine(this)


def _examine_fleet(this: Examination) -> Iterator[Finding]:
    """Look at Redis, the hosts, and the way there and back."""
    store = this.store
    if store is None:
        yield from _no_broker(this)
        return
    said, server = store.server.clock(), store.server.fetch()
    pauses = store.server.pauses(since=said.at - _RECENT)
    yield from broker.examine_latency(this.where, server.version, said, pauses)
    hosts = store.hosts.list(online_within=this.config.lease.length)
    online = [host.name for host in hosts if host.is_online]
    key_findings = list(machine.examine_key(this.config, this.here, store.key_id()))
    yield from machine.examine_worker(this.config, this.here, online)
    yield from fleet.examine_hosts(hosts, version=__version__, now=said.at, here=this.here)
    if this.timeout and any(finding.level is Level.PROBLEM for finding in key_findings):
        yield warning(this.here, "no echo job: this machine's key is no good, see below")
    elif this.timeout:
        with Relay(url=_url(this), home=this.config.home, say=lambda _: None) as relay:
            yield from examine_hosts_by_jobs(relay, hosts, this.here, timeout=this.timeout)
    yield from broker.examine_clock(this.where, this.here, said)
    owners = this.owners or store
    yield from broker.examine_server(
        this.where,
        server,
        owners.server.settings(),
        is_private=this.is_private,
        has_password=this.is_private or "@" in (this.config.broker_url or ""),
        cli=this.cli,
        clients=owners.server.clients(),
    )
    yield from examine_sentinels(this.where, this.config.broker_url, server.replicas)
    yield from broker.examine_restarts(
        this.where, server, store.seen_run_id(), ended_by=_ends(this)
    )
    yield from key_findings
    if not any(finding.level is Level.PROBLEM for finding in key_findings):
        yield from examine_files(this.config, store, this.here)


def _url(this: Examination) -> str | None:
    return this.config.broker_url or embedded.broker_url(this.config)


def _no_broker(this: Examination) -> Iterator[Finding]:
    if embedded.is_dead(this.config):
        yield problem(
            this.here,
            "this machine's private broker died: relayq broker logs says why",
            "relayq up",
        )
    else:
        yield problem(this.here, "no broker runs here, and none is configured", "relayq up")
    yield from machine.examine_port(this.config, this.here)
    yield from machine.examine_key(this.config, this.here, None)


def _ends(this: Examination) -> dict[str, int]:
    if not this.is_local:
        return {}
    return managers.ends_in_log(redis_log(_private_log(this)), clock.now())


def _private_log(this: Examination) -> Path | None:
    return embedded.broker_folder(this.config) / "redis.log" if this.is_private else None


def _examine_machine(this: Examination) -> Iterator[Finding]:
    """Look at this machine's directories, disks and services."""
    config, here = this.config, this.here
    yield from machine.examine_submitters(config, here)
    yield from machine.examine_directories(config, here)
    try:
        yield from machine.examine_disks(config, here, is_private=this.is_private)
        folder = embedded.broker_folder(config)
        if this.is_private and folder.exists():
            yield from machine.examine_ballast(config, here)
            yield from machine.examine_fsync(folder, here, embedded.wanted_fsync(config))
    except (OSError, RelayqError) as error:
        yield problem(here, f"can't look at the disk: {error}")
    answers = machine_answers()
    if this.is_local:
        found = managers.managers(answers)
        yield from managers.examine_managers(here, found, is_private=this.is_private)
    own = list(examine_services(config, here))
    yield from own
    known = " ".join(finding.text for finding in own)
    for unit in managers.failed_units(answers.get("units", "") + answers.get("user units", "")):
        if unit in known:
            continue
        yield problem(here, f"{unit} has failed", f"systemctl status {unit}")
