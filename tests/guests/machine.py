"""Guests: each a Debian with a systemd of its own, on a network that has nothing but them.

The bridge lies in a namespace of its own, too, so this machine's network never learns of them. A
guest's disk is memory laid over the bare Debian, and goes with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from tests.guests import install
from tests.waiting import until

#: Longest from power to the last unit that is started at boot; alone on two processors it is 5 s.
_BOOTS_WITHIN = 90.0
_ENDS_WITHIN = 40.0
PERSON = "fred"


class Network:
    """A bridge in a network namespace of its own."""

    def __init__(self) -> None:
        self.name = f"rqguests{os.getpid()}"
        self._leave = ExitStack()
        self._hosts: dict[str, str] = {}

    def __enter__(self) -> Network:
        self.add_namespace(self.name, self._leave)
        ip("-n", self.name, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.name, "link", "set", "bridge", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.close()

    @staticmethod
    def add_namespace(name: str, leave: ExitStack) -> None:
        """Make a network namespace with a loopback."""
        ip("netns", "add", name)
        leave.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")

    def attach(self, namespace: str, name: str) -> str:
        """Give a namespace an address on the bridge, and return that."""
        address = f"10.87.0.{len(self._hosts) + 1}"
        self._hosts[name] = address
        ends = ["type", "veth", "peer", "name", "eth0", "netns", namespace]
        ip("-n", self.name, "link", "add", f"to-{name}", *ends)
        ip("-n", self.name, "link", "set", f"to-{name}", "master", "bridge", "up")
        ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        return address


class Guest:
    """One machine: booted, spoken to, rebooted, and gone without a trace."""

    def __init__(
        self, name: str, network: Network, shared: Mapping[str, Path], *, is_usual: bool = False
    ) -> None:
        self.name = name
        self._is_usual = is_usual
        self.machine = f"{network.name}-{name}"
        self._network = network
        self._shared = {install.WITHIN: install.machines() / "packages", **shared}
        self._leave = ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guest:
        try:
            self._make()
            self.boot()
        except BaseException:
            self._leave.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.close()

    def _make(self) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="rq-guest-"))
        self._leave.callback(shutil.rmtree, scratch, ignore_errors=True)
        run("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(scratch))
        self._leave.callback(run, "umount", str(scratch))
        self.root = scratch / "root"
        for directory in ("upper", "work", "root"):
            (scratch / directory).mkdir()
        made = install.machines()
        below = [str(made / "usual")] if self._is_usual else []
        lower = ":".join([*below, str(made / "rootfs")])
        layers = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
        run("mount", "-t", "overlay", "-o", layers, "overlay", str(self.root))
        self._leave.callback(run, "umount", str(self.root))
        Network.add_namespace(self.machine, self._leave)
        self.address = self._network.attach(self.machine, self.name)
        run("chroot", str(self.root), "useradd", "-m", "-s", "/bin/bash", PERSON)
        hosts = f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n"
        (self.root / "etc/hosts").write_text(hosts, encoding="utf-8")
        may = self.root / "etc/sudoers.d/people"
        may.write_text(f"{PERSON} ALL=(ALL) NOPASSWD: ALL\n", encoding="utf-8")
        # What is on this disk is in memory, and needs no fsync.
        (self.root / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n", encoding="utf-8")
        # Where groups of processes are of the first version, a login that comes while the last
        # one's manager ends waits 90 s for it, about once in a hundred times: none ends.
        stays = self.root / "etc/systemd/logind.conf.d/stay.conf"
        stays.parent.mkdir(parents=True)
        stays.write_text("[Login]\nUserStopDelaySec=infinity\n", encoding="utf-8")
        self._leave.callback(self.cut_power)

    def boot(self) -> None:
        """Switch it on, and wait until all that starts at boot did."""
        binds = [f"--bind-ro={path}:{within}" for within, path in self._shared.items()]
        self._nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
                *(f"--directory={self.root}", f"--machine={self.machine}"),
                *(f"--hostname={self.name}", "--resolv-conf=off", "--timezone=off"),
                f"--network-namespace-path=/run/netns/{self.machine}",
                *binds,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until(self._has_booted, within=_BOOTS_WITHIN, what=f"{self.name} to boot")

    def reboot(self) -> None:
        """Switch it off in order, and on again."""
        self.power_off()
        self.boot()

    def power_off(self) -> None:
        """Switch it off in order; if it doesn't end, as if the current failed."""
        if self._nspawn is None:
            return
        if self._leader() is not None:
            self._within("systemctl", "poweroff", "--no-block")
        try:
            self._nspawn.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.cut_power()
        self._nspawn = None
        self._tidy()

    def cut_power(self) -> None:
        """End it at once: with its first process go all others."""
        if self._nspawn is None:
            return
        leader = self._leader()
        if leader is not None:
            with suppress(ProcessLookupError):
                os.kill(leader, signal.SIGKILL)
        self._nspawn.wait(_ENDS_WITHIN)
        self._nspawn = None
        self._tidy()

    def _tidy(self) -> None:
        # What nspawn leaves where /run is no tmpfs.
        with suppress(OSError):
            Path("/run/systemd/nspawn/propagate", self.machine).rmdir()

    def run(
        self,
        command: str,
        *,
        user: str = "root",
        stdin: str = "",
        within: float = 240.0,
        fails: bool = False,
    ) -> str:
        """Run a shell line as a person who logged in; return what it printed, errors as well."""
        login = ["-p", f"User={user}", "-p", "PAMName=login", "-p", "WorkingDirectory=~"]
        line = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *login]
        done = self._within(*line, "sh", "-c", f"exec 2>&1; {command}", stdin=stdin, within=within)
        if (done.returncode != 0) is not fails:
            raise AssertionError(f"{self.name}$ {command}\n{done.stdout}\n(exit {done.returncode})")
        return done.stdout

    def _within(
        self, *words: str, stdin: str = "", within: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self._leader()), "-m", "-u", "-i", "-n", "-p", "--"]
        return subprocess.run(
            [*enter, *words],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def _leader(self) -> int | None:
        """Return this machine's number for the guest's first process."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._nspawn.pid).children():
                return int(child.pid)
        return None

    def _has_booted(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"{self.name} ended while it booted"
        if self._leader() is None:
            return False
        asked = self._within("systemctl", "is-system-running")
        return asked.stdout.strip() in {"running", "degraded"}


def ip(*words: str) -> None:
    """Run ip(8)."""
    run("ip", *words)


def run(*words: str) -> None:
    """Run a command of this machine."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
