"""`relayq join`: this machine becomes one of a fleet, by a token of the broker's machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli.options import address, json_option
from relayq.cli.services import answer, load_config, remark
from relayq.cli.texts import number_of
from relayq.cli.tokens import host_name_option
from relayq.errors import BrokerUnavailable, Conflict, RelayqError, WaitTimeout

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.config import Config
    from relayq.embedded.managed import Installed
    from relayq.joining import Answer
    from relayq.model.hosts import Host

#: How long a worker may take to be there, and an echo job.
_THERE, _ECHO = 40.0, 30.0
_LOOK = 0.1
_CAPABILITIES_SHOWN = 8


@click.command()
@click.argument("token", required=False)
@click.option(
    "--name", metavar="NAME", callback=host_name_option, help="What the fleet calls this machine."
)
@click.option("--client", "as_client", is_flag=True, help="Only submit and look; run no jobs.")
@click.option("--slots", type=click.IntRange(1), metavar="N", help="How many jobs run at a time.")
@click.option("--no-service", is_flag=True, help="Start the worker now, and not at each boot.")
@click.option("--system", is_flag=True, help="Install the service for the whole machine (root).")
@json_option
def join(
    token: str | None,
    name: str | None,
    as_client: bool,
    slots: int | None,
    no_service: bool,
    system: bool,
    as_json: bool,
) -> None:
    """Join a fleet with a TOKEN, which relayq broker token prints on the broker's machine.

    Writes the broker's address and this machine's own credentials into ~/.relayq, installs the
    worker as a service, starts it, and has it do a first job. `-` reads the token from the input,
    where no list of processes shows it.

    Example: relayq join rq1.eyJ1Ijoi... --name pi4
    """
    from relayq import joining
    from relayq.model.joining import read_token

    if no_service and system:
        raise click.UsageError("--no-service and --system exclude each other")
    read = read_token(_typed(token))
    config = load_config()
    _check_idle(config)
    is_named = name is not None or config.origins["worker.name"].startswith("RELAYQ_")
    given = joining.ask(
        read,
        name=name or config.worker.name,
        is_named=is_named,
        install=_install_of(config),
        as_client=as_client,
        remark=remark,
    )
    aside = joining.keep(config, given, slots=slots)
    if aside is not None:
        remark(f"this machine had the key of another fleet, which is in {aside} now")
    steps = _Steps(load_config(), given, as_json)
    steps.check()
    if given.admission.role == "client":
        steps.end_as_client()
    else:
        steps.end_as_worker(no_service=no_service, system=system)


def _typed(token: str | None) -> str:
    """Return the token's text, from the arguments, the input or a person."""
    if token == "-":
        return sys.stdin.readline(8192)
    if token is None:
        if not sys.stdin.isatty():
            raise click.UsageError("give the TOKEN, or - to read it from the input")
        return str(click.prompt("Token", hide_input=True, err=True))
    return token


def _check_idle(config: Config) -> None:
    """Refuse on a machine whose jobs would belong to nobody afterwards."""
    from relayq import joining
    from relayq.cli import left

    joining.check_unbound(config)
    joining.check_changeable(config)
    if os.geteuid() == 0 and (person := os.environ.get("SUDO_USER")):
        raise Conflict(
            f"with sudo root would join, and not {person}", hint="relayq join TOKEN, without sudo"
        )
    if running := left.running_here(config):
        raise Conflict(
            f"{number_of(len(running), 'job')} of its fleet until now still on this machine",
            hint="relayq worker stop --drain waits for them; join then",
        )


def _install_of(config: Config) -> str:
    from relayq.config import install_id

    return install_id(config.home)


@dataclass(frozen=True, slots=True)
class _Steps:
    """What follows once this machine has been let in."""

    config: Config
    given: Answer
    as_json: bool

    @property
    def name(self) -> str:
        """What the fleet calls this machine."""
        return self.given.admission.host

    def check(self) -> None:
        """Say so where this machine can't reach the broker by what it was given."""
        from relayq import __version__

        other = self.given.admission.version
        if other != __version__:
            remark(f"relayq is {__version__} here and {other} there: relayq hosts upgrade")
        if not self.given.admission.is_own:
            remark(
                "the broker isn't relayq's own: this machine has the password that all have, and "
                "only a new one of it can shut this machine out"
            )
        try:
            self._relay().session().store.hosts.names()
        except BrokerUnavailable as error:
            raise RelayqError(
                f"{self.name} joined {self.given.admission.fleet} and has all it needs, but the "
                f"broker can't be reached from here: {error.message}",
                hint="a firewall? Once it is open: relayq worker install (relayq doctor looks)",
            ) from error

    def _relay(self) -> Relay:
        from relayq.client import Relay

        return Relay(say=remark, is_brief=True)

    def end_as_client(self) -> None:
        """Say how it went on a machine without a worker."""
        line = f"{self.name} joined {self.given.admission.fleet} as a client: it runs nothing here"
        answer(line, self.as_json, self._json())
        if not self.as_json:
            remark("relayq hosts shows the machines, relayq run --on NAME hostname asks one")

    def end_as_worker(self, *, no_service: bool, system: bool) -> None:
        """Start the worker, have it do a job, and say how it went."""
        began = clock.now()
        service = None if no_service else self._installed(system=system)
        if service is None:
            self._start()
        relay = self._relay()
        host = self._there(relay, began)
        took = self._echoed(relay, host)
        runs_as = service or "no service: relayq up after the next boot"
        line = f"{self.name} joined {self.given.admission.fleet}: {_described(self.config, host)}"
        value = self._json(host, service=service, echo=took)
        answer(f"{line}  {runs_as}", self.as_json, value)
        if not self.as_json:
            if took is not None:
                remark(f"an echo job took {took:.2f} s there and back")
            remark(f"from any machine of the fleet: relayq run --on {self.name} hostname")

    def _installed(self, *, system: bool) -> str | None:
        """Install the worker as a service; return how to call that, None where it can't be."""
        from relayq.host import services
        from relayq.model.units import Role

        try:
            made = services.install(self.config, Role.WORKER, system=system)
        except RelayqError as error:
            if system or services.find(self.config, Role.WORKER) is not None:
                fleet = self.given.admission.fleet
                raise RelayqError(
                    f"{self.name} joined {fleet} and has all it needs, but its service doesn't "
                    f"start: {error.message}",
                    hint=error.hint,
                ) from error
            remark(f"no service was installed: {error.message}")
            if error.hint:
                remark(f"  {error.hint}; then relayq worker install")
            return None
        return _service_text(made)

    def _start(self) -> None:
        """Start the worker in the background, with what it is to know now."""
        from relayq import embedded

        embedded.stop_worker(self.config)
        embedded.start_worker(self.config)

    def _there(self, relay: Relay, began: float) -> Host:
        """Wait until the worker speaks for this machine."""
        from relayq.config import install_id

        own, store = install_id(self.config.home), relay.session().store
        end = clock.boottime() + _THERE
        while True:
            for host in store.hosts.list(online_within=self.config.lease.length):
                if host.name == self.name and host.install == own and host.is_online:
                    return host
            if clock.boottime() > end:
                raise RelayqError(
                    f"{self.name} joined {self.given.admission.fleet}, but its worker isn't there "
                    f"after {_THERE:g} s",
                    hint="relayq worker status, relayq worker logs, relayq doctor",
                )
            clock.sleep(_LOOK)

    def _echoed(self, relay: Relay, host: Host) -> float | None:
        """Have the worker do a first job; returns how long that took, None if it may take none."""
        if not host.takes_work:
            remark(f"no echo job yet: {self.name} is {': '.join(filter(None, host.standing))}")
            return None
        began = clock.boottime()
        words = f"hello from {self.name}"
        job = relay.job.run(
            ["echo", words],
            host=self.name,
            priority="urgent",
            timeout=_ECHO,
            on_lost="fail",
            name="relayq join",
        )
        try:
            said = job.get(timeout=_ECHO)
        except WaitTimeout:
            # Its owner came back just now, or it is drained: it works when it may again.
            remark(f"no host has taken the echo job yet: relayq why {job.id}")
            return None
        if said != words:
            raise RelayqError(f"an echo job gave {said!r}", hint="relayq doctor")
        return round(clock.boottime() - began, 3)

    def _json(self, host: Host | None = None, **more: Any) -> dict[str, Any]:
        from relayq.cli.fleet import host_as_json

        return {
            "name": self.name,
            "fleet": self.given.admission.fleet,
            "role": self.given.admission.role,
            "broker": address(self.config.broker_url or ""),
            "host": None if host is None else host_as_json(host),
            **{"service": None, "echo": None, **more},
        }


def _service_text(made: Installed) -> str:
    """Return how a person would look for the service."""
    if made.by == "launchd":
        return f"service {made.name} (launchd)"
    how = "systemd" if made.is_of_machine else "systemd --user, linger on"
    return f"service {made.name.removesuffix('.service')} ({how})"


def _described(config: Config, host: Host) -> str:
    from relayq.cli.fleet import shown_capabilities

    told = shown_capabilities(host)
    more = len(told) - _CAPABILITIES_SHOWN
    shown = ", ".join(
        ["command", *told[:_CAPABILITIES_SHOWN], *([f"{more} more"] if more > 0 else [])]
    )
    return f"{number_of(host.slots, 'slot')}, nice {config.worker.niceness}, caps {shown}"
