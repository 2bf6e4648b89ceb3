"""Whether what is installed as a service here is what it should be."""

from __future__ import annotations

from collections.abc import Iterator

from relayq.config import Config
from relayq.doctor.findings import Finding, ok, problem, warning
from relayq.embedded.managed import SYSTEMD, Installed, State
from relayq.host import services
from relayq.model.units import Role

#: Starts that follow each other: it doesn't live for long.
_MANY = 3
_SHORT = 60.0


def examine_services(config: Config, here: str) -> Iterator[Finding]:
    """Look at each program of this home that is a service."""
    for role in Role:
        service, state = services.find(config, role), services.state(config, role)
        if service is not None and state is not None:
            yield judged(service, state, here, lingers=services.lingers(service))


def judged(service: Installed, state: State, here: str, *, lingers: bool) -> Finding:
    """Judge how a service fares by what its manager says."""
    name, role = service.name, service.role
    if state.word == "failed":
        return problem(here, f"{name} has failed", f"relayq {role} restart, relayq {role} logs")
    if state.word == "unknown":
        return problem(here, f"{name} isn't loaded", f"relayq {role} install")
    if not lingers:
        said = f"{name} ends with the last login of {service.user}"
        return problem(here, said, f"loginctl enable-linger {service.user}")
    if not state.is_enabled:
        return warning(here, f"{name} isn't started at boot", f"relayq {role} install")
    if not state.is_up:
        return warning(here, f"{name} is stopped until the next boot", "relayq up")
    if state.restarts >= _MANY and (state.uptime or 0.0) < _SHORT:
        said = f"{name} has been started again {state.restarts} times"
        return problem(here, said, f"relayq {role} logs")
    if state.word != "active":
        return warning(here, f"{name} is being started", f"relayq {role} logs")
    by = "systemd" if service.by == SYSTEMD else "launchd"
    return ok(here, f"{name} runs, and starts at boot ({by})")
