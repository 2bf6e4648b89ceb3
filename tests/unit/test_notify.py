"""What is said to a service manager arrives, and nothing of it reaches other processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from relayq.notify import Supervisor


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket, and what NOTIFY_SOCKET says of it."""
    path = str(tmp_path / "notify")
    address, said = (path, path) if request.param == "path" else (f"\0{path}", f"@{path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(2)
        yield said, channel


def test_a_manager_hears_that_the_start_is_over_and_that_all_is_well(manager):
    address, channel = manager
    supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "120000000"})

    supervisor.ready("pi4: 4 slots")
    supervisor.alive("2 jobs\nREADY=0")
    supervisor.stopping()

    assert supervisor.patience == 120
    assert channel.recv(1000) == b"READY=1\nSTATUS=pi4: 4 slots"
    assert channel.recv(1000) == b"WATCHDOG=1\nSTATUS=2 jobs READY=0"
    assert channel.recv(1000) == b"STOPPING=1"


def test_what_is_started_from_here_knows_nothing_of_the_manager(manager):
    environ = {"NOTIFY_SOCKET": manager[0], "WATCHDOG_USEC": "9", "WATCHDOG_PID": "7", "HOME": "/"}

    Supervisor(environ)

    assert environ == {"HOME": "/"}


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path):
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        supervisor = Supervisor(environ)

        supervisor.ready()
        supervisor.alive()

        assert supervisor.patience is None


@pytest.mark.parametrize(
    ("label", "ours"), [("dev.relayq.worker", True), ("application.com.apple.Terminal", False)]
)
def test_launchd_is_known_by_the_label_of_our_job(label, ours):
    assert Supervisor({"XPC_SERVICE_NAME": label}).is_launchd is ours
