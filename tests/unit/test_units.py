from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from relayq.model.units import STOPPED, Role, Service, is_of_home, launchd_plist, systemd_unit

WORKER = Service(
    Role.WORKER,
    [sys.executable, "-m", "relayq", "worker", "start"],
    home="/home/fred",
    relayq_home="/home/fred/.relayq",
    niceness=10,
)


@pytest.mark.parametrize("home", ["/home/fred/.relayq", '/vol/100% "mine" & more/.relayq'])
def test_a_service_is_known_by_its_home_however_that_is_written(home):
    service = replace(WORKER, relayq_home=home)

    for text in (systemd_unit(service).encode(), launchd_plist(service)):
        assert is_of_home(text, home)
        assert not is_of_home(text, f"{home}2")
        assert not is_of_home(text, home[:-1])


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_a_worker_that_is_stopped_leaves_its_jobs_running():
    assert settings(systemd_unit(WORKER))["KillMode"] == ["process"]
    assert plistlib.loads(launchd_plist(WORKER))["AbandonProcessGroup"] is True


def test_a_service_is_started_again_for_ever():
    unit = settings(systemd_unit(WORKER))

    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert plistlib.loads(launchd_plist(WORKER))["KeepAlive"] is True


def test_only_a_service_of_the_machine_names_a_user_and_waits_for_the_network():
    own, machines = (settings(systemd_unit(one)) for one in (WORKER, replace(WORKER, user="fred")))

    assert "User" not in own
    assert own["WantedBy"] == ["default.target"]
    assert machines["User"] == ["fred"]
    assert machines["WantedBy"] == ["multi-user.target"]
    assert machines["After"] == ["network-online.target", "relayq-broker.service"]


def test_jobs_of_a_worker_keep_what_they_need():
    unit = settings(systemd_unit(WORKER))

    for taken in (
        *("ProtectHome", "PrivateTmp", "MemoryDenyWriteExecute", "RestrictNamespaces"),
        *("PrivateDevices", "RestrictAddressFamilies", "SystemCallFilter", "ProtectControlGroups"),
    ):
        assert taken not in unit


def test_jobs_that_may_sudo_have_nothing_that_forbids_new_privileges():
    unit = systemd_unit(replace(WORKER, may_sudo=True))

    assert "Protect" not in unit
    assert "Restrict" not in unit


def test_what_a_user_s_manager_may_not_do_is_left_to_that_of_the_machine():
    # PrivateDevices and whatever else drops capabilities ends the start: 218/CAPABILITIES.
    for role in Role:
        assert "Protect" not in systemd_unit(replace(WORKER, role=role))
        assert "Private" not in systemd_unit(replace(WORKER, role=role))
    # What needs no privileges forbids them to jobs: sudo.
    assert "NoNewPrivileges" not in systemd_unit(WORKER)
    assert "NoNewPrivileges=yes" in systemd_unit(replace(WORKER, role=Role.SERVE))
    assert "PrivateDevices=yes" in systemd_unit(replace(WORKER, role=Role.SERVE, user="fred"))


def test_redis_which_says_nothing_to_a_watchdog_has_none_and_may_read_its_data_for_long():
    broker, worker, serve = (
        settings(systemd_unit(replace(WORKER, role=role)))
        for role in (Role.BROKER, Role.WORKER, Role.SERVE)
    )

    assert "WatchdogSec" not in broker
    assert broker["TimeoutStartSec"] == ["infinity"]
    assert worker["WatchdogSec"] == serve["WatchdogSec"] == ["120"]


def test_a_worker_that_was_asked_to_end_is_not_started_again():
    unit = settings(systemd_unit(WORKER))

    assert unit["RestartPreventExitStatus"] == unit["SuccessExitStatus"] == [str(STOPPED)]


def test_programs_of_the_user_are_found():
    paths = WORKER.variables["PATH"].split(":")

    assert paths[0] == "/home/fred/.local/bin"
    assert "/opt/homebrew/bin" in paths


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("user", [None, "root"])
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_every_line(tmp_path, role, user):
    odd = {"ODD": 'a "b" $c 50% ; \\ d'}
    service = replace(WORKER, role=role, user=user, relayq_home="/a b/%h", environment=odd)
    path = tmp_path / service.role.unit
    path.write_text(systemd_unit(service))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )

    # Unknown keys are only said, with exit code 0.
    assert path.name not in done.stderr
    assert done.returncode == 0


def test_a_property_list_has_the_command_word_by_word():
    service = replace(WORKER, argv=["/a b/relayq", "worker", "start"])

    listed = plistlib.loads(launchd_plist(service, efficiency_cores=True))

    assert listed["ProgramArguments"] == ["/a b/relayq", "worker", "start"]
    assert listed["EnvironmentVariables"]["RELAYQ_HOME"] == "/home/fred/.relayq"
    assert listed["ProcessType"] == "Background"
    assert listed["Nice"] == 10


#: Keys of launchd.plist(5) that are used, and what they must be.
LAUNCHD_KEYS = {
    "Label": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "RunAtLoad": bool,
    "KeepAlive": bool,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "Umask": int,
    "UserName": str,
    "AbandonProcessGroup": bool,
    "Nice": int,
    "LowPriorityIO": bool,
    "LowPriorityBackgroundIO": bool,
    "ProcessType": str,
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("user", [None, "fred"])
def test_a_property_list_has_keys_that_launchd_knows_with_values_of_their_type(role, user):
    listed = plistlib.loads(launchd_plist(replace(WORKER, role=role, user=user)))

    assert {name: type(value) for name, value in listed.items()} == {
        name: kind for name, kind in LAUNCHD_KEYS.items() if name in listed
    }
    assert ("UserName" in listed) is (user is not None)
    assert all(isinstance(text, str) for text in listed["EnvironmentVariables"].values())
    assert listed["ProgramArguments"][0].startswith("/")
