"""What an installation of a service writes, and where."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from relayq.config import Config
from relayq.embedded.managed import LAUNCHD, SYSTEMD, Installed, own_manager, run
from relayq.embedded.worker import own_environment
from relayq.model.units import Role, Service, launchd_plist, systemd_unit

#: What each program is started with.
PROGRAMS: Mapping[Role, tuple[str, ...]] = {
    Role.WORKER: ("worker", "start", "--service"),
    Role.BROKER: ("broker", "start", "--foreground", "--service"),
    Role.SERVE: ("serve", "--service"),
}
_SYSTEM_UNITS = Path("/etc/systemd/system")
_DAEMONS = Path("/Library/LaunchDaemons")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a program is to be installed: what `install` takes."""

    system: bool = False
    user: str | None = None
    may_sudo: bool = False
    efficiency_cores: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an installation will write, and where."""

    installed: Installed
    text: bytes

    @property
    def path(self) -> Path:
        """The unit or property list."""
        return Path(self.installed.path)


def plan(config: Config, role: Role, wanted: Wanted) -> Plan:
    """Return what is to be written, and where.

    Root's own services are those of the machine, unless this is somebody by sudo.
    """
    system = wanted.system or (os.geteuid() == 0 and not os.environ.get("SUDO_USER"))
    account = pwd.getpwnam(wanted.user) if wanted.user else pwd.getpwuid(os.getuid())
    service = Service(
        role,
        [sys.executable, "-P", "-m", "relayq", *PROGRAMS[role]],
        home=account.pw_dir,
        relayq_home=str(config.home),
        user=account.pw_name if system else None,
        niceness=config.worker.niceness if role is Role.WORKER else 0,
        may_sudo=wanted.may_sudo,
    )
    service = replace(service, environment=_environment(config, service, account))
    if own_manager() == LAUNCHD:
        folder = _DAEMONS if system else Path(account.pw_dir, "Library/LaunchAgents")
        domain = "system" if system else _own_domain()
        path = folder / f"{role.label}.plist"
        text = launchd_plist(service, efficiency_cores=wanted.efficiency_cores)
        return Plan(Installed(role, LAUNCHD, domain, str(path), account.pw_name), text)
    folder = _SYSTEM_UNITS if system else Path(account.pw_dir, ".config/systemd/user")
    domain, path = "system" if system else "user", folder / role.unit
    text = systemd_unit(service).encode()
    return Plan(Installed(role, SYSTEMD, domain, str(path), account.pw_name), text)


def _environment(config: Config, service: Service, account: pwd.struct_passwd) -> dict[str, str]:
    """Return what a program needs of the environment of who installs it: where programs are."""
    kept = {}
    if server := os.environ.get("RELAYQ_REDIS_SERVER"):
        kept["RELAYQ_REDIS_SERVER"] = server
    if path := own_environment(config).get("PYTHONPATH"):
        absolute = [one for one in path.split(os.pathsep) if one.startswith("/")]
        kept["PYTHONPATH"] = os.pathsep.join(absolute)
    places = service.variables["PATH"].split(":")
    if account.pw_uid == os.getuid():
        # What is found in the shell of who installs it, its jobs find as well.
        own = [one for one in os.environ.get("PATH", "").split(os.pathsep) if one.startswith("/")]
        found = [one for one in own if one not in places and Path(one).is_dir()]
        places[1:1] = dict.fromkeys(found)
    if shutil.which("relayq", path=":".join(places)) is None:
        # Jobs say how far they are by `relayq progress`.
        places.append(str(Path(sys.executable).parent))
    return {**kept, "PATH": ":".join(places)}


def _own_domain() -> str:
    """Return where launchd has this user's agents: of who is only logged in by ssh, elsewhere."""
    screen = f"gui/{os.getuid()}"
    return screen if run(["launchctl", "print", screen]).returncode == 0 else f"user/{os.getuid()}"
