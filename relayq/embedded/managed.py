"""Programs of this home that the machine's service manager runs: asked, started, stopped by it.

`<home>/services.json` says which; `relayq.host.services` writes it when it installs them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from relayq.config import Config
from relayq.embedded.processes import locked, wait_for, write
from relayq.errors import RelayqError
from relayq.model.units import Role

SYSTEMD, LAUNCHD = "systemd", "launchd"
#: A stop lasts at most as long as a unit says, a start of a broker as long as it reads its data.
_PATIENCE = 330.0
_LOOK_PATIENCE = 10.0
_RUNTIME = Path("/run/user")


@dataclass(frozen=True, slots=True)
class Installed:
    """A program that is installed as a service.

    `path` is its unit or property list. Of launchd `domain` is where it is loaded, such as
    `gui/501`; of systemd it is `user` or `system`. `lingers` says that for it the user's manager
    was made to run without a login.
    """

    role: Role
    by: str
    domain: str
    path: str
    user: str
    lingers: bool = False

    @property
    def is_of_machine(self) -> bool:
        """Whether it is the machine's, and not a user's."""
        return self.domain == "system"

    @property
    def name(self) -> str:
        """What its manager calls it."""
        return self.role.unit if self.by == SYSTEMD else f"{self.domain}/{self.role.label}"


@dataclass(frozen=True, slots=True)
class State:
    """How a service fares, in its manager's words: `active`, `activating`, `inactive`, `failed`."""

    word: str
    pid: int | None = None
    uptime: float | None = None
    restarts: int = 0
    is_enabled: bool = False
    status: str = ""

    @property
    def is_up(self) -> bool:
        """Whether it runs, or is just being started."""
        return self.word in ("active", "activating", "reloading")


def own_manager() -> str:
    """Return which service manager this sort of machine has."""
    return LAUNCHD if sys.platform == "darwin" else SYSTEMD


def installed(config: Config, role: Role) -> Installed | None:
    """Return what is installed as a service of this home; None if its unit was taken away."""
    entry = _entries(config).get(role)
    if entry is None or not Path(str(entry["path"])).exists():
        return None
    by, domain, path, user = (str(entry[name]) for name in ("by", "domain", "path", "user"))
    return Installed(role, by, domain, path, user, lingers=bool(entry.get("lingers")))


def remember(config: Config, service: Installed) -> None:
    """Keep that a program is a service."""
    with locked(config.home / "broker" / "services.lock"):
        entries = {**_entries(config), service.role.value: asdict(service)}
        write(_file(config), json.dumps(entries, indent=2).encode() + b"\n")


def forget(config: Config, role: Role) -> None:
    """Keep that a program isn't a service any more."""
    with locked(config.home / "broker" / "services.lock"):
        entries = {name: entry for name, entry in _entries(config).items() if name != role}
        if entries:
            write(_file(config), json.dumps(entries, indent=2).encode() + b"\n")
        else:
            _file(config).unlink(missing_ok=True)


def _file(config: Config) -> Path:
    return config.home / "services.json"


def files(config: Config) -> list[Path]:
    """Return the files that this module writes."""
    return [_file(config), config.home / "broker" / "services.lock"]


def _entries(config: Config) -> dict[str, dict[str, object]]:
    try:
        return dict(json.loads(_file(config).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def systemctl(service: Installed) -> list[str]:
    """Return the beginning of a command to its systemd."""
    return ["systemctl", *([] if service.is_of_machine else ["--user"])]


def start(service: Installed) -> None:
    """Have its manager start it, and wait until it says that it is ready."""
    if service.by == SYSTEMD:
        _ask(service, [*systemctl(service), "start", service.name])
    elif state(service).word == "unknown":
        _ask(service, ["launchctl", "bootstrap", service.domain, service.path])
    else:
        _ask(service, ["launchctl", "kickstart", service.name])


def stop(service: Installed) -> None:
    """Have its manager stop it until the next boot or start."""
    if service.by == SYSTEMD:
        _ask(service, [*systemctl(service), "stop", service.name])
    elif state(service).word != "unknown":
        _ask(service, ["launchctl", "bootout", service.name])


def restart(service: Installed) -> None:
    """Have its manager start it anew, also if it doesn't run."""
    pid = state(service).pid
    if service.by == LAUNCHD and pid is not None:
        # Not `kickstart -k`, which kills: what gets the signal ends in order, and is started again.
        _ask(service, ["launchctl", "kill", "SIGTERM", service.name])
    elif service.by == LAUNCHD:
        start(service)
    elif pid is not None and service.is_of_machine and os.geteuid() != 0:
        _restart_as_user(service, pid)
    else:
        _ask(service, [*systemctl(service), "restart", service.name])


def _restart_as_user(service: Installed, pid: int) -> None:
    """End a service of the machine that runs as this user; systemd starts it again in 5 s."""
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        _ask(service, [*systemctl(service), "restart", service.name])
        return

    def is_back() -> bool:
        now = state(service)
        return now.word == "active" and now.pid not in (None, pid)

    if not wait_for(is_back, _PATIENCE):
        raise RelayqError(
            f"{service.name} didn't come back", hint=f"systemctl status {service.name}"
        )


def state(service: Installed) -> State:
    """Return how a service fares; `unknown` where its manager doesn't know it or doesn't answer."""
    if service.by == LAUNCHD:
        said = run(["launchctl", "print", service.name], patience=_LOOK_PATIENCE).stdout
        return launchd_state(said)
    asked = "ActiveState,MainPID,NRestarts,StatusText,UnitFileState,ActiveEnterTimestampMonotonic"
    argv = [*systemctl(service), "show", service.name, f"--property={asked}"]
    done = run(argv, patience=_LOOK_PATIENCE)
    return systemd_state(done.stdout, monotonic())


def systemd_state(text: str, now: float) -> State:
    """Read `systemctl show`; `now` is on the monotonic clock."""
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    pid, since = (_number(said.get(k)) for k in ("MainPID", "ActiveEnterTimestampMonotonic"))
    word = said.get("ActiveState") or "unknown"
    return State(
        word=word,
        pid=pid or None,
        uptime=max(0.0, now - since / 1e6) if since and word == "active" else None,
        restarts=_number(said.get("NRestarts")),
        is_enabled=said.get("UnitFileState") == "enabled",
        status=said.get("StatusText", ""),
    )


def launchd_state(text: str) -> State:
    """Read `launchctl print`, of which only this much has looked the same for years."""
    said = dict(re.findall(r"^\t(state|pid|runs) = (.+)$", text, re.MULTILINE))
    if "state" not in said:
        return State("unknown")
    pid = _number(said.get("pid")) or None
    word = "active" if said["state"] == "running" else "inactive"
    return State(word, pid=pid, restarts=max(0, _number(said.get("runs")) - 1), is_enabled=True)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def run(argv: Sequence[str], *, patience: float = _PATIENCE) -> subprocess.CompletedProcess[str]:
    """Ask a manager, whatever it answers; 127 if the program isn't there."""
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            env=environment(),
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]} isn't on this machine")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer in {patience:g} s")


def environment() -> Mapping[str, str]:
    """Return our environment with the way to the user's own manager."""
    kept = dict(os.environ)
    own = runtime_folder()
    if kept.get("XDG_RUNTIME_DIR") != str(own):
        # Of `su` it may be that of who typed it, and then so is this.
        kept.pop("DBUS_SESSION_BUS_ADDRESS", None)
        kept.pop("XDG_RUNTIME_DIR", None)
    found = {"XDG_RUNTIME_DIR": str(own)} if own.is_dir() else {}
    return {**kept, **found, "SYSTEMD_PAGER": "", "LC_ALL": "C"}


def runtime_folder() -> Path:
    """Return where the user's own manager listens: `su` gives no such place, or another's."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    is_ours = given and os.access(given, os.R_OK | os.W_OK)
    return Path(given) if given and is_ours else _RUNTIME / str(os.getuid())


def _ask(service: Installed, argv: Sequence[str]) -> None:
    done = run(argv)
    if done.returncode == 0:
        return
    said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    is_roots = service.is_of_machine and os.geteuid() != 0
    raise RelayqError(
        f"{' '.join(argv)}: {said}",
        hint=f"sudo {' '.join(argv)}" if is_roots else " ".join(journal_argv(service)),
    )


def journal_argv(service: Installed) -> list[str]:
    """Return the command that shows what a service wrote."""
    if service.by == LAUNCHD:
        return ["launchctl", "print", service.name]
    whose = "--unit" if service.is_of_machine else "--user-unit"
    return ["journalctl", f"{whose}={service.name}", "--no-pager", "--lines=50"]
