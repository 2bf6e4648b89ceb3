"""Installing services, with managers that only note what they are asked."""

from __future__ import annotations

import os
import plistlib
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relayq import config as configuration
from relayq.config import Config
from relayq.doctor.services import judged
from relayq.embedded import managed
from relayq.embedded.managed import (
    LAUNCHD,
    SYSTEMD,
    Installed,
    State,
    launchd_state,
    systemd_state,
)
from relayq.errors import RelayqError
from relayq.host import serviceplans, services
from relayq.host.serviceplans import Wanted, plan
from relayq.model.units import Role

PROGRAM = """#!/bin/sh
echo "{name} $*" >> {folder}/calls
for word in {name} "$@"; do
    refusal={folder}/refuses-$(printf %s "$word" | tr / _)
    if [ -f $refusal ]; then cat $refusal >&2; exit 1; fi
done
case "{name} $*" in
    "loginctl enable-linger fred") touch {folder}/linger/fred ;;
    "loginctl disable-linger fred") rm {folder}/linger/fred ;;
    *" show "*|"launchctl print "*/dev.relayq.*) cat {folder}/state 2>/dev/null || exit 113 ;;
    "launchctl bootout "*) rm -f {folder}/state ;;
esac
"""


@dataclass
class Machine:
    """A person's machine whose service managers are scripts."""

    folder: Path
    config: Config

    def calls(self) -> list[str]:
        """Return what the managers were asked to do since the last time, without the looks."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if " show" not in line and " print " not in line]

    def refuse(self, word: str, why: str) -> None:
        (self.folder / f"refuses-{word.replace('/', '_')}").write_text(why)

    def say(self, state: str) -> None:
        (self.folder / "state").write_text(state)


@pytest.fixture
def become(monkeypatch, tmp_path) -> Callable[..., None]:
    accounts = {
        name: pwd.struct_passwd((name, "x", uid, uid, "", str(tmp_path / name), "/bin/sh"))
        for name, uid in (("fred", 1000), ("root", 0))
    }

    def become(uid: int, **variables: str) -> None:
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: accounts["fred" if uid else "root"])
        monkeypatch.setattr(pwd, "getpwnam", accounts.__getitem__)
        monkeypatch.setattr(os, "getuid", lambda: uid)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        for name, text in variables.items():
            monkeypatch.setenv(name, text)

    monkeypatch.delenv("SUDO_USER", raising=False)
    return become


@pytest.fixture
def machine(monkeypatch, tmp_path, become) -> Machine:
    for folder in ("bin", "linger", "system", "runs-systemd", "fred", "run/systemd"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/systemd/private").touch()
    for name in ("systemctl", "loginctl", "launchctl"):
        path = tmp_path / "bin" / name
        path.write_text(PROGRAM.format(name=name, folder=tmp_path))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(serviceplans, "_SYSTEM_UNITS", tmp_path / "system")
    monkeypatch.setattr(serviceplans, "_DAEMONS", tmp_path / "system")
    monkeypatch.setattr(services, "_LINGERING", tmp_path / "linger")
    monkeypatch.setattr(services, "_RUNS_SYSTEMD", tmp_path / "runs-systemd")
    become(1000)
    config = configuration.load(
        {"RELAYQ_HOME": str(tmp_path / "fred" / ".relayq"), "HOME": str(tmp_path / "fred")}
    )
    return Machine(tmp_path, config)


@pytest.fixture
def mac(monkeypatch, machine) -> Machine:
    monkeypatch.setattr(managed, "own_manager", lambda: LAUNCHD)
    monkeypatch.setattr(serviceplans, "own_manager", lambda: LAUNCHD)
    monkeypatch.setattr(services, "_UNLOADED_LIMIT", 0.5)
    return machine


# systemd


def test_a_worker_becomes_a_service_of_who_installs_it_from_boot_on(machine):
    service = services.install(machine.config, Role.WORKER)

    unit = machine.folder / "fred/.config/systemd/user/relayq-worker.service"
    assert service == Installed(Role.WORKER, SYSTEMD, "user", str(unit), "fred", lingers=True)
    assert services.described(service) == "service relayq-worker (systemd --user, linger on)"
    assert "worker start --service" in unit.read_text()
    assert f"RELAYQ_HOME={machine.config.home}" in unit.read_text()
    assert unit.stat().st_mode & 0o777 == 0o600
    assert machine.calls() == [
        "loginctl enable-linger fred",
        "systemctl --user daemon-reload",
        "systemctl --user enable --quiet relayq-worker.service",
        "systemctl --user restart relayq-worker.service",
    ]


def test_what_an_installation_needs_is_made_when_nothing_speaks_against_it(machine):
    made = []
    machine.refuse("show-environment", "Failed to connect to bus")
    with pytest.raises(RelayqError):
        services.install(machine.config, Role.BROKER, prepare=lambda: made.append("too early"))
    (machine.folder / "refuses-show-environment").unlink()

    services.install(machine.config, Role.BROKER, prepare=lambda: made.append("a broker"))

    assert made == ["a broker"]


def test_done_again_it_is_written_anew_and_restarted(machine):
    services.install(machine.config, Role.WORKER)
    before = machine.calls()

    again = services.install(machine.config, Role.WORKER)

    assert again.lingers
    assert machine.calls() == before[1:]


def test_uninstalled_nothing_of_it_is_left(machine):
    services.install(machine.config, Role.WORKER)
    machine.calls()

    assert services.uninstall(machine.config, Role.WORKER)

    assert machine.calls() == [
        "systemctl --user stop relayq-worker.service",
        "systemctl --user disable --quiet relayq-worker.service",
        "systemctl --user daemon-reload",
        "systemctl --user reset-failed relayq-worker.service",
        "loginctl disable-linger fred",
    ]
    assert not list((machine.folder / "fred/.config/systemd/user").iterdir())
    assert not (machine.config.home / "services.json").exists()
    assert not services.uninstall(machine.config, Role.WORKER)


def test_it_is_uninstalled_also_where_the_user_s_manager_has_ended(machine):
    service = services.install(machine.config, Role.WORKER)
    wants = Path(service.path).parent / "default.target.wants"
    wants.mkdir()
    (wants / "relayq-worker.service").symlink_to(service.path)
    machine.refuse("show-environment", "Failed to connect to bus")

    assert services.uninstall(machine.config, Role.WORKER)

    assert not list(wants.iterdir())
    assert not Path(service.path).exists()


def test_lingering_ends_with_the_last_service_that_needed_it_and_never_what_a_person_wanted(
    machine,
):
    services.install(machine.config, Role.BROKER)
    services.install(machine.config, Role.WORKER)
    machine.calls()

    services.uninstall(machine.config, Role.BROKER)
    assert "loginctl disable-linger fred" not in machine.calls()
    services.uninstall(machine.config, Role.WORKER)
    assert "loginctl disable-linger fred" in machine.calls()

    (machine.folder / "linger/fred").touch()
    services.install(machine.config, Role.WORKER)
    services.uninstall(machine.config, Role.WORKER)
    assert not [call for call in machine.calls() if "linger" in call]


def test_the_manager_of_a_user_whose_jobs_run_goes_on(machine):
    services.install(machine.config, Role.WORKER)

    services.uninstall(machine.config, Role.WORKER, may_stop_manager=False)

    assert (machine.folder / "linger/fred").exists()


def test_root_installs_a_service_of_the_machine_which_runs_as_its_user(
    machine, become, monkeypatch
):
    become(0, SUDO_USER="fred")
    monkeypatch.setattr(os, "chown", lambda *arguments, **options: None)

    service = services.install(machine.config, Role.WORKER, system=True, user="fred")

    text = (machine.folder / "system/relayq-worker.service").read_text()
    assert service.is_of_machine
    assert "\nUser=fred\n" in text
    assert f"PATH={machine.folder}/fred/.local/bin:" in text
    assert machine.calls()[0] == "systemctl daemon-reload"


def test_plain_root_needs_not_say_that_it_is_the_machine_s(machine, become):
    become(0)

    assert services.install(machine.config, Role.WORKER).is_of_machine


@pytest.mark.parametrize(
    ("uid", "sudo", "system", "why", "hint"),
    [
        (1000, "", True, "only root can install", "worker install --system --user fred"),
        (0, "fred", False, "with sudo this would be a service of root's", "--system --user fred"),
    ],
)
def test_a_wrong_scope_is_refused_with_the_right_command(
    machine, become, uid, sudo, system, why, hint
):
    become(uid, **({"SUDO_USER": sudo} if sudo else {}))

    with pytest.raises(RelayqError, match=why) as refused:
        services.install(machine.config, Role.WORKER, system=system)

    assert hint in refused.value.hint
    assert not machine.calls()


def test_a_second_installation_of_the_other_scope_is_refused(machine, become):
    services.install(machine.config, Role.WORKER)
    become(0)

    with pytest.raises(RelayqError, match="installed already, as a service of fred") as refused:
        services.install(machine.config, Role.WORKER, system=True)

    assert "worker uninstall" in refused.value.hint


def test_the_service_of_another_home_is_not_replaced(machine, become):
    become(0)
    services.install(machine.config, Role.WORKER)
    other = configuration.load({"RELAYQ_HOME": str(machine.folder / "other")})

    with pytest.raises(RelayqError, match="is the service of another home"):
        services.install(other, Role.WORKER)


def test_the_service_of_a_home_whose_name_begins_the_same_is_not_replaced(machine, become):
    become(0)
    longer = configuration.load({"RELAYQ_HOME": f"{machine.config.home}-two"})
    services.install(longer, Role.WORKER)

    with pytest.raises(RelayqError, match="is the service of another home"):
        services.install(machine.config, Role.WORKER)


def test_a_service_of_another_person_is_refused_unless_root_asks(machine, become, monkeypatch):
    ann = pwd.struct_passwd(("ann", "x", 1001, 1001, "", str(machine.folder / "ann"), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: ann)

    with pytest.raises(RelayqError, match="only root can install a service of ann") as refused:
        services.install(machine.config, Role.WORKER, user="ann")

    assert "--system --user ann" in refused.value.hint
    assert not machine.calls()


def test_root_leaves_the_service_of_a_person_whose_manager_it_does_not_reach(machine, become):
    service = services.install(machine.config, Role.WORKER)
    machine.calls()
    become(0, SUDO_USER="fred")

    with pytest.raises(RelayqError, match="is a service of fred") as refused:
        services.uninstall(machine.config, Role.WORKER)

    assert "as fred, without sudo" in refused.value.hint
    assert not machine.calls()
    assert Path(service.path).exists()


def test_lingering_that_was_switched_on_for_nothing_is_switched_off(machine):
    def fail() -> None:
        raise RelayqError("the port is taken")

    with pytest.raises(RelayqError, match="the port is taken"):
        services.install(machine.config, Role.BROKER, prepare=fail)

    assert machine.calls() == ["loginctl enable-linger fred", "loginctl disable-linger fred"]


def test_without_systemd_it_says_what_else_can_be_done(machine):
    (machine.folder / "runs-systemd").rmdir()

    with pytest.raises(RelayqError, match="systemd doesn't run here") as refused:
        services.install(machine.config, Role.WORKER)

    assert "relayq up" in refused.value.hint
    assert "-m relayq worker start" in refused.value.hint


def test_without_the_right_to_linger_it_says_what_root_must_do(machine):
    machine.refuse("enable-linger", "Could not enable linger: Access denied")

    with pytest.raises(RelayqError, match=r"end with the last login: .*Access denied") as refused:
        services.install(machine.config, Role.WORKER)

    assert "sudo loginctl enable-linger fred" in refused.value.hint
    assert not (machine.config.home / "services.json").exists()


def test_without_a_manager_of_the_user_it_says_what_is_missing(machine):
    machine.refuse("show-environment", "Failed to connect to bus: No medium found")

    with pytest.raises(RelayqError, match="no service manager answers for fred") as refused:
        services.install(machine.config, Role.WORKER)

    assert "apt install libpam-systemd dbus-user-session" in refused.value.hint


def test_a_service_finds_the_programs_of_the_shell_that_installed_it(machine, monkeypatch):
    own = machine.folder / "own bin"
    own.mkdir()
    monkeypatch.setenv("PATH", f"relative:{own}:/usr/bin:/nonexistent/x:{own}")

    text = plan(machine.config, Role.WORKER, Wanted()).text.decode()

    assert f"PATH={machine.folder}/fred/.local/bin:{own}:/opt/homebrew/bin" in text
    assert "relative" not in text
    assert "/nonexistent/x" not in text


def test_secrets_of_the_environment_are_not_written(machine, monkeypatch):
    monkeypatch.setenv("RELAYQ_BROKER__PASSWORD", "sesame")

    assert b"sesame" not in plan(machine.config, Role.WORKER, Wanted()).text


def test_a_unit_that_was_taken_away_is_no_service_any_more(machine):
    service = services.install(machine.config, Role.WORKER)
    Path(service.path).unlink()

    assert services.find(machine.config, Role.WORKER) is None


def test_what_its_manager_refuses_is_told_with_the_command_for_root(machine):
    service = Installed(Role.BROKER, SYSTEMD, "system", "/x", "fred")
    machine.refuse("start", "Access denied")

    with pytest.raises(RelayqError, match="Access denied") as refused:
        managed.start(service)

    assert refused.value.hint == "sudo systemctl start relayq-broker.service"


def test_all_is_stopped_or_nothing(machine, monkeypatch):
    managed.remember(machine.config, Installed(Role.BROKER, SYSTEMD, "system", "/dev/null", "fred"))

    with pytest.raises(RelayqError, match="only root can stop"):
        services.check_stoppable(machine.config)


def test_a_session_of_su_finds_the_user_s_manager(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.name)
    monkeypatch.setattr(managed, "_RUNTIME", tmp_path.parent)

    assert managed.environment()["XDG_RUNTIME_DIR"] == str(tmp_path)


def test_a_session_of_su_does_not_take_the_manager_of_who_typed_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "root"))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/root/bus")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.name)
    monkeypatch.setattr(managed, "_RUNTIME", tmp_path.parent)

    environment = managed.environment()

    assert environment["XDG_RUNTIME_DIR"] == str(tmp_path)
    assert "DBUS_SESSION_BUS_ADDRESS" not in environment


def test_the_state_of_a_unit_is_read():
    said = (
        "MainPID=501\nNRestarts=2\nStatusText=2 jobs, 4 slots\nActiveState=active\n"
        "UnitFileState=enabled\nActiveEnterTimestampMonotonic=60000000\n"
    )

    state = systemd_state(said, now=100.0)

    assert (state.word, state.pid, state.uptime, state.restarts) == ("active", 501, 40.0, 2)
    assert state.is_up
    assert state.is_enabled
    assert systemd_state("", now=1.0).word == "unknown"
    assert systemd_state("ActiveState=inactive\nMainPID=0\n", now=1.0).pid is None


@pytest.mark.parametrize(
    ("state", "lingers", "level", "text"),
    [
        (State("active", is_enabled=True), True, "ok", "runs, and starts at boot"),
        (State("active", is_enabled=True), False, "problem", "ends with the last login of fred"),
        (State("active"), True, "warning", "isn't started at boot"),
        (State("inactive", is_enabled=True), True, "warning", "stopped until the next boot"),
        (State("activating", is_enabled=True), True, "warning", "is being started"),
        (State("failed", is_enabled=True), True, "problem", "has failed"),
        (State("unknown"), True, "problem", "isn't loaded"),
        (State("active", uptime=5.0, restarts=4, is_enabled=True), True, "problem", "4 times"),
    ],
)
def test_doctor_says_of_a_service_what_is_wrong(state, lingers, level, text):
    service = Installed(Role.WORKER, SYSTEMD, "user", "/x", "fred")

    finding = judged(service, state, "pi4", lingers=lingers)

    assert finding.level == level
    assert finding.text.startswith("relayq-worker.service ")
    assert text in finding.text
    assert level == "ok" or finding.fix


# launchd


def test_on_a_mac_it_is_an_agent_of_the_user(mac):
    service = services.install(mac.config, Role.WORKER, efficiency_cores=True)

    path = mac.folder / "fred/Library/LaunchAgents/dev.relayq.worker.plist"
    assert service == Installed(Role.WORKER, LAUNCHD, "gui/1000", str(path), "fred")
    listed = plistlib.loads(path.read_bytes())
    assert listed["ProgramArguments"][-3:] == ["worker", "start", "--service"]
    assert listed["ProcessType"] == "Background"
    assert mac.calls() == [
        "launchctl enable gui/1000/dev.relayq.worker",
        f"launchctl bootstrap gui/1000 {path}",
    ]


def test_who_is_logged_in_by_ssh_only_has_another_domain(mac):
    mac.refuse("gui/1000", "Could not find domain")

    assert services.install(mac.config, Role.WORKER).domain == "user/1000"


def test_on_a_mac_a_restart_ends_it_in_order_and_a_stop_unloads_it(mac):
    services.install(mac.config, Role.WORKER)
    mac.calls()
    mac.say("gui/1000/dev.relayq.worker = {\n\tstate = running\n\tpid = 77\n\truns = 3\n}\n")

    services.restart(mac.config, Role.WORKER)
    assert mac.calls() == ["launchctl kill SIGTERM gui/1000/dev.relayq.worker"]

    services.uninstall(mac.config, Role.WORKER)
    assert mac.calls() == ["launchctl bootout gui/1000/dev.relayq.worker"]
    assert not list((mac.folder / "fred/Library/LaunchAgents").iterdir())


def test_what_launchd_says_is_read():
    said = (
        "gui/501/dev.relayq.worker = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 77\n"
        "\truns = 3\n\tendpoints = {\n\t\tstate = other\n\t}\n}\n"
    )

    state = launchd_state(said)

    assert (state.word, state.pid, state.restarts) == ("active", 77, 2)
    assert launchd_state("Could not find service").word == "unknown"
    assert launchd_state("x = {\n\tstate = not running\n}").word == "inactive"
