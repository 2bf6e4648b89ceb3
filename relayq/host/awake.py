"""Keeps this machine awake while a job runs, and wakes others.

A tool of the system holds the machine awake as long as the `cat` below it runs, and that runs as
long as our end of its pipe is open: so nothing is left over even when the worker is killed.
"""

from __future__ import annotations

import ipaddress
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

from relayq.model.waking import magic_packet

log = logging.getLogger(__name__)

_DISCARD = 9
#: Two addresses or one have nobody else to tell.
_POINT_TO_POINT = 31
_PATIENCE = 2.0


def holding_argv(
    platform: str = sys.platform, which: Callable[[str], str | None] = shutil.which
) -> list[str] | None:
    """Return the command that keeps this machine awake until its input ends, None without one."""
    if platform == "darwin" and (tool := which("caffeinate")):
        return [tool, "-i", "-m", "-s", "cat"]
    if platform == "linux" and (tool := which("systemd-inhibit")):
        said = ["--who=relayq", "--why=a job runs", "--mode=block"]
        return [tool, "--what=idle:sleep", *said, "cat"]
    return None


def delaying_argv(
    platform: str = sys.platform, which: Callable[[str], str | None] = shutil.which
) -> list[str] | None:
    """Return the command that delays sleep and halt a moment, until its input ends."""
    if platform == "linux" and (tool := which("systemd-inhibit")):
        said = ["--who=relayq", "--why=tells its fleet", "--mode=delay"]
        return [tool, "--what=sleep:shutdown", *said, "cat"]
    return None


class Inhibitor:
    """Holds the machine awake from `hold` to `release`; where it can't, it says so once."""

    def __init__(
        self,
        argv: list[str] | None,
        purpose: str = "keep this machine awake while jobs run",
        *,
        level: int = logging.INFO,
    ) -> None:
        self._argv = argv
        self._purpose = purpose
        self._level = level
        self._process: subprocess.Popen[bytes] | None = None
        self._is_tried = False

    def hold(self) -> None:
        """Keep the machine awake from now on."""
        if self._process is not None and self._process.poll() is not None:
            # Refused: without logind for instance, or by its policy.
            self._complain(f"{self._argv[0] if self._argv else 'its tool'} failed")
            self._close()
            self._argv = None
        if self._process is not None or (self._argv is None and self._is_tried):
            return
        if self._argv is None:
            self._complain("there is no tool for it")
        else:
            self._process = self._started(self._argv)
        self._is_tried = True

    def _started(self, argv: list[str]) -> subprocess.Popen[bytes] | None:
        try:
            return subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            self._complain(str(error))
            self._argv = None
            return None

    def _complain(self, why: str) -> None:
        log.log(self._level, "can't %s: %s", self._purpose, why)

    def release(self) -> None:
        """Let the machine sleep again."""
        if self._process is not None:
            self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send_magic(mac: str, *, address: str | None = None, port: int = _DISCARD) -> None:
    """Wake the machine whose card has that address, on any network of this one."""
    packet = magic_packet(mac)
    reached = []
    for one in networks() if address is None else [address]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel, suppress(OSError):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            channel.sendto(packet, (one, port))
            reached.append(one)
    if reached:
        log.info("sent what wakes %s to %s", mac, ", ".join(reached))
    else:
        log.warning("can't send what wakes %s: this machine is on no network", mac)


def networks() -> list[str]:
    """Return the broadcast address of each network that this machine is on."""
    # 255.255.255.255 would leave by the default route alone, and without one not at all.
    found = set()
    for own in [one for card in psutil.net_if_addrs().values() for one in card]:
        if own.family == socket.AF_INET and own.netmask:
            network = ipaddress.ip_interface(f"{own.address}/{own.netmask}").network
            if not network.is_loopback and network.prefixlen < _POINT_TO_POINT:
                found.add(str(network.broadcast_address))
    return sorted(found)
