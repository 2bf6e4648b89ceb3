"""Installs relayq's programs as services of this machine: writes, loads and starts them.

What their managers are told is in `relayq.model.units`; what is installed, and how it is started
and stopped from then on, in `relayq.embedded.managed`.
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from relayq.config import Config
from relayq.embedded import managed
from relayq.embedded.managed import LAUNCHD, SYSTEMD, Installed, State, journal_argv, run
from relayq.embedded.processes import wait_for
from relayq.errors import RelayqError
from relayq.host.serviceplans import PROGRAMS, Wanted, plan
from relayq.model.units import Role, is_of_home

__all__ = [
    "Installed",
    "State",
    "check_stoppable",
    "described",
    "find",
    "install",
    "lingers",
    "logs_argv",
    "restart",
    "state",
    "uninstall",
]

_LINGERING = Path("/var/lib/systemd/linger")
_RUNS_SYSTEMD = Path("/run/systemd/system")
#: How long a user's manager may take to start, and launchd to let go of what it has unloaded.
_BUS_LIMIT = 15.0
_UNLOADED_LIMIT = 10.0


def find(config: Config, role: Role) -> Installed | None:
    """Return what is installed as a service of this home, None if that isn't."""
    return managed.installed(config, role)


def state(config: Config, role: Role) -> State | None:
    """Return how the service fares, None if it isn't installed."""
    service = find(config, role)
    return None if service is None else managed.state(service)


def restart(config: Config, role: Role) -> None:
    """Start the service anew; jobs that run go on."""
    managed.restart(_found(config, role))


def lingers(service: Installed) -> bool:
    """Return whether it goes on when its user logs out, and starts without a login."""
    is_users = service.by == SYSTEMD and not service.is_of_machine
    return not is_users or (_LINGERING / service.user).exists()


def check_stoppable(config: Config) -> None:
    """Refuse to stop all of this home where only root may: nothing is stopped by half."""
    found = [service for role in Role if (service := find(config, role)) is not None]
    if os.geteuid() != 0 and any(service.is_of_machine for service in found):
        names = " ".join(service.role.unit for service in found)
        raise RelayqError(
            "what runs here are services of the whole machine, which only root can stop",
            hint=f"sudo systemctl stop {names}; or for the worker alone: relayq worker stop",
        )


def logs_argv(config: Config, role: Role) -> list[str]:
    """Return the command that shows what its manager kept of the service's output."""
    return journal_argv(_found(config, role))


def _found(config: Config, role: Role) -> Installed:
    service = find(config, role)
    if service is None:
        raise RelayqError(
            f"the {role} isn't installed as a service here", hint=f"relayq {role} install"
        )
    return service


def install(
    config: Config,
    role: Role,
    *,
    system: bool = False,
    user: str | None = None,
    may_sudo: bool = False,
    efficiency_cores: bool = False,
    prepare: Callable[[], None] = lambda: None,
) -> Installed:
    """Write the service, have it start at each boot, and start it now; return it.

    Without `system` it is one of who installs it; `user` is whom one of the machine runs as.
    `may_sudo` and `efficiency_cores` are a worker's: see `relayq.model.units`. It takes over from
    what runs in the background of this home; jobs that run go on. Done again, it writes all anew
    and restarts the service. `prepare` is called when nothing speaks against it any more.
    """
    wanted = Wanted(system, user, may_sudo, efficiency_cores)
    made = plan(config, role, wanted)
    service, before = made.installed, find(config, role)
    _check(service, before)
    _check_home(config, made.path, role)
    was_switched_on = False
    if service.by == SYSTEMD and not service.is_of_machine:
        was_switched_on = _linger(service.user, role)
        service = replace(service, lingers=was_switched_on or bool(before and before.lingers))
    try:
        prepare()
        _write(made.path, made.text, is_shared=service.is_of_machine)
        managed.remember(config, service)
    except BaseException:
        if was_switched_on:
            # Nobody would know later that this was for us.
            run(["loginctl", "disable-linger", service.user])
        raise
    _give(config, service.user)
    if service.by == SYSTEMD:
        _must([*managed.systemctl(service), "daemon-reload"])
        _must([*managed.systemctl(service), "enable", "--quiet", service.name])
        managed.restart(service)
    else:
        _load(service)
    return service


def described(service: Installed) -> str:
    """Return a service in a few words, as the end of a line."""
    if service.by == LAUNCHD:
        return f"service {service.role.label} (launchd, {service.domain})"
    how = f"systemd, as {service.user}" if service.is_of_machine else "systemd --user, linger on"
    return f"service {service.role.unit.removesuffix('.service')} ({how})"


def _check(service: Installed, before: Installed | None) -> None:
    """Refuse what can't be, before anything is written."""
    role, system = service.role, service.is_of_machine
    if managed.own_manager() == SYSTEMD and not _RUNS_SYSTEMD.is_dir():
        argv = shlex.join([sys.executable, "-m", "relayq", *PROGRAMS[role]])
        raise RelayqError(
            "systemd doesn't run here: this is a container, or has another service manager",
            hint=f"relayq up starts it in the background; or have your manager run: {argv}",
        )
    if system and os.geteuid() != 0:
        raise RelayqError(
            "only root can install a service of the whole machine",
            hint=f"sudo {_self()} {role} install --system --user {_own_name()}",
        )
    if os.geteuid() != 0 and service.user != _own_name():
        raise RelayqError(
            f"only root can install a service of {service.user}",
            hint=f"sudo {_self()} {role} install --system --user {service.user}",
        )
    if not system and os.geteuid() == 0 and (person := os.environ.get("SUDO_USER")):
        raise RelayqError(
            f"with sudo this would be a service of root's own, and not of {person}",
            hint=f"without sudo; or sudo {_self()} {role} install --system --user {person}",
        )
    if before is not None and before.is_of_machine != system:
        has = "the whole machine" if before.is_of_machine else before.user
        raise RelayqError(
            f"the {role} is installed already, as a service of {has}",
            hint=f"{'sudo ' if before.is_of_machine else ''}{_self()} {role} uninstall, then again",
        )


def _check_home(config: Config, path: Path, role: Role) -> None:
    """Refuse to replace the service of another home: of each role a machine has one."""
    if path.exists() and not is_of_home(path.read_bytes(), str(config.home)):
        raise RelayqError(
            f"{path} is the service of another home than {config.home}",
            hint=f"sudo {_self()} {role} uninstall --user NAME, whose it is; or one of your own, "
            "without --system",
        )


def _self() -> str:
    # Root's PATH by sudo has no ~/.local/bin.
    own = Path(sys.argv[0])
    return (
        shlex.quote(str(own.absolute())) if own.name == "relayq" else f"{sys.executable} -m relayq"
    )


def _own_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _linger(user: str, role: Role) -> bool:
    """See that the user's own manager runs, from boot on; return whether that was switched on."""
    is_new = not (_LINGERING / user).exists()
    other_way = f"sudo {_self()} {role} install --system --user {user}"
    if is_new:
        done = run(["loginctl", "enable-linger", user])
        if done.returncode:
            raise RelayqError(
                f"services of {user} would end with the last login: {_said(done.stderr)}",
                hint=f"sudo loginctl enable-linger {user}, then again; or {other_way}",
            )
    wait_for((managed.runtime_folder() / "systemd" / "private").exists, _BUS_LIMIT)
    done = run(["systemctl", "--user", "show-environment"])
    if done.returncode:
        raise RelayqError(
            f"no service manager answers for {user}: {_said(done.stderr)}",
            hint=f"sudo apt install libpam-systemd dbus-user-session, log in again; or {other_way}",
        )
    return is_new


def _said(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason was given"


def _write(path: Path, text: bytes, *, is_shared: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(text)
    draft.chmod(0o644 if is_shared else 0o600)
    draft.replace(path)


def _give(config: Config, user: str) -> None:
    """Give what root has written into another one's home to that one."""
    account = pwd.getpwnam(user)
    if os.geteuid() == 0 and account.pw_uid != 0:
        for path in (config.home, config.home / "broker", *managed.files(config)):
            with suppress(FileNotFoundError):
                os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _must(argv: Sequence[str]) -> None:
    done = run(argv)
    if done.returncode:
        raise RelayqError(f"{shlex.join(argv)}: {_said(done.stderr)}", hint="relayq doctor")


def _load(service: Installed) -> None:
    """Have launchd read the property list anew, and start what it says."""
    managed.stop(service)
    wait_for(lambda: managed.state(service).word == "unknown", _UNLOADED_LIMIT)
    # One that was disabled by hand would be loaded and never run.
    run(["launchctl", "enable", service.name])
    managed.start(service)


def uninstall(config: Config, role: Role, *, may_stop_manager: bool = True) -> bool:
    """Stop the service and remove all that `install` wrote; False if it wasn't installed.

    Lingering that was switched on for it is switched off with the last of the user's services, if
    that `may_stop_manager`: its jobs would end.
    """
    service = find(config, role)
    if service is None:
        managed.forget(config, role)
        return False
    if service.is_of_machine and os.geteuid() != 0:
        raise RelayqError(
            f"the {role} is a service of the whole machine, which only root can remove",
            hint=f"sudo {_self()} {role} uninstall --user {service.user}",
        )
    if not service.is_of_machine and os.geteuid() == 0 and _own_name() != service.user:
        raise RelayqError(
            f"the {role} is a service of {service.user}, whose manager root doesn't reach",
            hint=f"as {service.user}, without sudo: {_self()} {role} uninstall",
        )
    _remove(service)
    managed.forget(config, role)
    if service.lingers:
        _stop_lingering(config, service, may_stop_manager=may_stop_manager)
    return True


def _remove(service: Installed) -> None:
    path = Path(service.path)
    if service.by == LAUNCHD:
        managed.stop(service)
        path.unlink(missing_ok=True)
        return
    systemctl = managed.systemctl(service)
    if not service.is_of_machine and run([*systemctl, "show-environment"]).returncode:
        # The user's manager doesn't run, so nothing of it does.
        (path.parent / "default.target.wants" / path.name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return
    managed.stop(service)
    _must([*systemctl, "disable", "--quiet", service.name])
    path.unlink(missing_ok=True)
    _must([*systemctl, "daemon-reload"])
    run([*systemctl, "reset-failed", service.name])


def _stop_lingering(config: Config, service: Installed, *, may_stop_manager: bool) -> None:
    for role in Role:
        other = find(config, role)
        if other is not None and not other.is_of_machine:
            managed.remember(config, replace(other, lingers=True))
            return
    if may_stop_manager:
        run(["loginctl", "disable-linger", service.user])
