"""Three machines from a bare Debian to a fleet, and back: the installers, in real systemds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.guests import install
from tests.guests.machine import PERSON, Guest, Network
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.guests, pytest.mark.timeout(600)]

#: Where an installation may leave something: packages of the distribution aren't ours.
OURS = "/home /root /etc/systemd /usr/local /opt /var/lib/systemd/linger"


class Trio:
    """The broker's machine and two workers, with how each is spoken to."""

    def __init__(self, vm: Guest, mini: Guest, pi4: Guest) -> None:
        self.vm, self.mini, self.pi4 = vm, mini, pi4
        self.before: dict[str, set[str]] = {}

    @property
    def all(self) -> list[Guest]:
        """The broker's machine first."""
        return [self.vm, self.mini, self.pi4]

    def relayq(self, words: str, *, within: float = 60.0) -> str:
        """Run a command of relayq on the broker's machine, and return what it printed."""
        return self.vm.run(f"relayq {words}", within=within)

    def token(self) -> str:
        """Return what one more machine joins by."""
        return self.vm.run("relayq broker token 2>/dev/null").strip()

    def workers(self) -> list[list[str]]:
        """Return name, version, and the first word of the state, of both workers' hosts."""
        listed = self.relayq("hosts ls --format '{{.name}} {{.version}} {{.state}}'")
        entries = [line.split()[:3] for line in listed.splitlines()]
        return [entry for entry in entries if entry[0] in ("mini", "pi4")]


@pytest.fixture
def trio(shared: dict[str, Path]) -> Iterator[Trio]:
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        trio = Trio(
            # With uv where its installer puts it; only the one in the middle is bare.
            stack.enter_context(Guest("vm", network, shared, is_usual=True)),
            stack.enter_context(Guest("mini", network, shared)),
            stack.enter_context(Guest("pi4", network, shared, is_usual=True)),
        )
        for guest in (trio.vm, trio.pi4):
            guest.run("ln -s /srv/uv /usr/local/bin/uv")
        trio.before = {guest.name: left_by(guest) for guest in trio.all}
        yield trio


def test_three_machines_are_a_fleet_through_reboots_and_upgrades_until_they_are_uninstalled(trio):
    install_broker(trio)
    side_by_side(lambda: install_worker(trio), lambda: install_pi(trio))
    each_does_a_job(trio)
    said = trio.vm.run("sh -s -- mini", stdin=script("test-relayq.sh"))
    assert "All is well." in said

    side_by_side(*(guest.reboot for guest in trio.all))
    each_does_a_job(trio)

    upgrade_while_jobs_run(trio)

    uninstall_all(trio)


def install_broker(trio: Trio) -> None:
    """Make the first guest the broker's machine, as root."""
    options = f"--source /srv/wheels --listen {trio.vm.address}"
    trio.vm.run(f"sh -s -- {options}", stdin=script("install-broker.sh"))
    # The distribution's own service would be a second Redis.
    assert "disabled" in trio.vm.run("systemctl is-enabled redis-server", fails=True)


def leave_alone(guest: Guest) -> None:
    """Have its worker not mind the processors, which it shares with all other tests."""
    text = "worker:\\n  cpu_threshold: 100\\n"
    guest.run(f"umask 077 && mkdir .relayq && printf '{text}' >.relayq/config.yml", user=PERSON)


def install_worker(trio: Trio) -> None:
    """Make the second guest a worker, as a person whose service it is."""
    leave_alone(trio.mini)
    said = trio.mini.run(
        f"sh -s -- --source /srv/wheels {trio.token()}",
        user=PERSON,
        stdin=script("install-worker.sh"),
    )
    assert "relayq works" in said


def install_pi(trio: Trio) -> None:
    """Make the third guest a worker by sudo: a service of the machine, run as who typed it."""
    leave_alone(trio.pi4)
    said = trio.pi4.run(
        f"sudo sh -s -- --source /srv/wheels --model 'Raspberry Pi 4 Model B' {trio.token()}",
        user=PERSON,
        stdin=script("install-worker-rpi.sh"),
    )
    assert "relayq works" in said


def each_does_a_job(trio: Trio) -> None:
    """Run a job on each worker, as the person whom it belongs to."""
    until(
        lambda: [state for _, _, state in trio.workers()] == ["online", "online"],
        within=60,
        what=lambda: f"both to be online: {trio.workers()}",
    )
    for host in ("mini", "pi4"):
        said = trio.relayq(f"run --on {host} -- sh -c 'hostname; id -un' 2>/dev/null")
        assert said.split() == [host, PERSON]


def upgrade_while_jobs_run(trio: Trio) -> None:
    """Upgrade all three while each worker has a job, which survives."""
    patient = "while [ ! -e /tmp/go ]; do sleep 0.2; done; echo survived"
    for host in ("mini", "pi4"):
        trio.relayq(f"submit --on {host} --name patient-{host} '{patient}'")
    until(
        lambda: trio.relayq("ps --filter state=running").count("patient") == 2,
        within=30,
        what="both jobs to run",
    )
    again = f"--source /srv/newer --listen {trio.vm.address}"
    trio.vm.run(f"sh -s -- {again}", stdin=script("install-broker.sh"))
    trio.relayq("hosts upgrade --source /srv/newer", within=180)
    until(
        lambda: [version for _, version, _ in trio.workers()] == ["99.0", "99.0"],
        within=30,
        what=lambda: f"both to be newer: {trio.workers()}",
    )
    for host, guest in (("mini", trio.mini), ("pi4", trio.pi4)):
        guest.run("touch /tmp/go", user=PERSON)
        trio.relayq(f"wait patient-{host}")
        assert "survived" in trio.relayq(f"result patient-{host}")
        shown = trio.relayq(f"show patient-{host} --json")
        assert '"attempt": 1,' in shown


def uninstall_all(trio: Trio) -> None:
    """Have the installers take away what they brought; nothing of it is left."""
    away = "sh -s -- --uninstall --purge"
    side_by_side(
        lambda: trio.pi4.run(f"sudo {away}", user=PERSON, stdin=script("install-worker-rpi.sh")),
        lambda: trio.mini.run(away, user=PERSON, stdin=script("install-worker.sh")),
    )
    until(
        lambda: {state for _, _, state in trio.workers()} == {"offline"},
        within=150,
        what=lambda: f"both to be offline: {trio.workers()}",
    )
    trio.relayq("hosts rm pi4")
    assert [name for name, _, _ in trio.workers()] == ["mini"]
    trio.vm.run(away, stdin=script("install-broker.sh"))
    for guest in trio.all:
        assert left_by(guest) - trio.before[guest.name] == set()
        assert guest.run("ps -eo args | grep '[r]elayq\\|[r]edis-server' || true") == ""


def left_by(guest: Guest) -> set[str]:
    """Return the files where an installation puts its own."""
    listed = guest.run(f"find {OURS} ! -type d 2>/dev/null || true").splitlines()
    # What uv and pip keep for the next installation, of whatever it is, is theirs.
    return {path for path in listed if "/.cache/" not in path and "/.local/share/uv/" not in path}


def script(name: str) -> str:
    """Return an installer's text."""
    return (install.TREE / name).read_text(encoding="utf-8")


def side_by_side(*actions: Callable[[], object]) -> None:
    """Do all at once, and wait for each."""
    with ThreadPoolExecutor(len(actions)) as pool:
        for done in [pool.submit(action) for action in actions]:
            done.result()
