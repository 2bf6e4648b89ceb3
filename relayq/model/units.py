"""What a service manager is told of relayq's programs: units of systemd, lists of launchd.

Only texts are made here; who writes and loads them is another's affair. Keys are those of systemd
247 and newer. Facts behind single lines: systemd.exec(5), systemd.kill(5), launchd.plist(5).
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

#: How long a service may be silent before systemd ends and restarts it.
WATCHDOG = 120
#: How a worker ends that was asked to by `relayq worker stop`: it isn't started again.
STOPPED = 93
#: Where programs are that people install for themselves; a service manager's own PATH has neither.
PLACES = ("~/.local/bin", "/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin")


class Role(StrEnum):
    """The programs that run as services."""

    WORKER = "worker"
    BROKER = "broker"
    SERVE = "serve"

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return f"relayq-{self}.service"

    @property
    def label(self) -> str:
        """The label of its launchd job."""
        return f"dev.relayq.{self}"


_SAID = {
    Role.WORKER: "relayq worker: runs jobs of this fleet",
    Role.BROKER: "relayq broker: Redis with the jobs of this fleet",
    Role.SERVE: "relayq file service",
}


@dataclass(frozen=True, slots=True)
class Service:
    """One program that is to run from boot on.

    `argv` begins with an absolute path. `user` is for a service of the whole machine only, `home`
    the home of whom it runs as. `may_sudo` leaves out what would keep a worker's jobs from sudo.
    """

    role: Role
    argv: Sequence[str]
    home: str
    relayq_home: str
    user: str | None = None
    niceness: int = 0
    stops_within: int = 90
    may_sudo: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment that it gets, beside what its manager gives everybody."""
        places = ":".join(place.replace("~", self.home) for place in PLACES)
        return {"PATH": places, "RELAYQ_HOME": self.relayq_home, **self.environment}


def systemd_unit(service: Service) -> str:
    """Return the unit file of a service: of the machine if it names a user, else of the user."""
    is_system = service.user is not None
    lines = [
        f"# Written by relayq; `relayq {service.role} install` writes it anew.",
        "[Unit]",
        f"Description={_SAID[service.role]}",
        # A user's manager knows no network; the programs themselves wait for theirs.
        *(["Wants=network-online.target", "After=network-online.target"] if is_system else []),
        # Where both start at boot; a worker without its broker only waits for it.
        *([f"After={Role.BROKER.unit}"] if service.role is not Role.BROKER else []),
        # Whatever goes wrong, it is tried again, however often.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(_word(word.replace('$', '$$')) for word in service.argv)}",
        *([f"User={service.user}"] if is_system else []),
        *(f"Environment={_word(f'{name}={text}')}" for name, text in service.variables.items()),
        "Restart=always",
        "RestartSec=5",
        f"TimeoutStopSec={service.stops_within}",
        "UMask=0077",
        "LimitNOFILE=65536",
        *_OF_ROLE[service.role],
        *([f"Nice={service.niceness}"] if service.niceness else []),
        *_hardening(service, is_system=is_system),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if is_system else 'default.target'}",
        "",
    ]
    return "\n".join(lines)


def _hardening(service: Service, *, is_system: bool) -> Sequence[str]:
    if service.role is not Role.WORKER:
        return (*_SEALED, *(_HARD if is_system else ()))
    # A user's manager may drop no capabilities (218/CAPABILITIES), and what it can do forbids sudo.
    return _FIRM if is_system and not service.may_sudo else ()


_OF_ROLE: Mapping[Role, Sequence[str]] = {
    Role.WORKER: (
        f"WatchdogSec={WATCHDOG}",
        f"RestartPreventExitStatus={STOPPED}",
        f"SuccessExitStatus={STOPPED}",
        # Its jobs run on under their shims when it is stopped or restarted, and the next one adopts
        # them: only the worker itself gets the signal.
        "KillMode=process",
        "CPUSchedulingPolicy=batch",
        "IOSchedulingClass=idle",
        "CPUWeight=20",
        "IOWeight=20",
        # Of everything on this machine its jobs are what the kernel ends first for memory, and one
        # that is ended so must not end the worker.
        "OOMScoreAdjust=500",
        "OOMPolicy=continue",
        "TasksMax=4096",
    ),
    Role.BROKER: (
        # Redis is ready when it has read its data, and says nothing to a watchdog.
        "TimeoutStartSec=infinity",
        # It writes out what it has before it ends.
        "KillSignal=SIGTERM",
        "OOMScoreAdjust=-500",
    ),
    Role.SERVE: (f"WatchdogSec={WATCHDOG}",),
}
#: For a worker: jobs need a home, devices, namespaces, JIT and a shared /tmp.
_FIRM = (
    "ProtectSystem=full",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictRealtime=yes",
)
#: For what runs no jobs: what any manager can do.
_SEALED = (
    "NoNewPrivileges=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "LockPersonality=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "SystemCallArchitectures=native",
)
#: For what runs no jobs, where the manager is root.
_HARD = (*_FIRM, "ProtectControlGroups=yes", "PrivateTmp=yes", "PrivateDevices=yes")


def launchd_plist(service: Service, *, efficiency_cores: bool = False) -> bytes:
    """Return the property list of a service: an agent of a user, or a daemon if it names a user.

    With `efficiency_cores` macOS keeps it, and its jobs, to the slow cores of Apple silicon.
    """
    log = f"{service.relayq_home}/{service.role}.launchd.log"
    listed: dict[str, object] = {
        "Label": service.role.label,
        "ProgramArguments": list(service.argv),
        "EnvironmentVariables": dict(service.variables),
        "RunAtLoad": True,
        # Also after an end that looks like success: it is to run.
        "KeepAlive": True,
        "ThrottleInterval": 5,
        "ExitTimeOut": service.stops_within,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "Umask": 0o077,
    }
    if service.user is not None:
        listed["UserName"] = service.user
    if service.role is Role.WORKER:
        # Its jobs are in its process group's tree: launchd would end them with it.
        listed |= {
            "AbandonProcessGroup": True,
            "Nice": service.niceness,
            "LowPriorityIO": True,
            "LowPriorityBackgroundIO": True,
            "ProcessType": "Background" if efficiency_cores else "Standard",
        }
    return plistlib.dumps(listed, sort_keys=False)


def is_of_home(text: bytes, relayq_home: str) -> bool:
    """Tell whether a unit or property list that was written here is one of this home."""
    if text.startswith(b"<?xml"):
        return bool(plistlib.loads(text)["EnvironmentVariables"]["RELAYQ_HOME"] == relayq_home)
    own = f"Environment={_word(f'RELAYQ_HOME={relayq_home}')}"
    return own.encode() in text.splitlines()


def _word(text: str) -> str:
    """Return a text as one word of a unit file, whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    escaped = escaped.replace("%", "%%")
    return f'"{escaped}"' if not text or any(c in text for c in " \t\"'\\;\n") else escaped
