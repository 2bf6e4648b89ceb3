"""A client and a worker that share a machine and a broker, but no home; a way between that holds.

Nothing of one is the other's own, so files travel as they do between two machines.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from relayq import embedded
from relayq.host.process import Shim, attempts
from relayq.signing import load_key
from tests.probing import remember
from tests.system.conftest import SCALED, Fleet
from tests.waiting import until


class Apart(Fleet):
    """A fleet whose worker has a home of its own."""

    def __init__(self, home: Path, there: Path) -> None:
        super().__init__(home)
        self.there = there

    def start_apart(self, **environ: str) -> None:
        """Start the worker in its own home."""
        there = self.there / ".relayq"
        there.mkdir(parents=True, mode=0o700, exist_ok=True)
        remember(there)
        key = there / "fleet.key"
        load_key(self.config.fleet_key_path)
        key.write_bytes(self.config.fleet_key_path.read_bytes())
        key.chmod(0o600)
        own = {"RELAYQ_HOME": str(there), "HOME": str(self.there)}
        self.start_worker(**own, RELAYQ_BROKER__URL=self.broker.url, **environ)

    def start_service(self) -> None:
        """Start the file service, and wait until it said so."""
        embedded.start_files(replace(self.config, serve=replace(self.config.serve, start=True)))
        announced = self.relay.session().store.artifacts.announced
        until(announced, within=15, what="the file service")

    def attempts(self) -> list[Path]:
        """Return the directories of the attempts there."""
        return attempts(self.there / ".relayq" / "spool")

    def close(self) -> None:
        """End the service, too."""
        for shim in [Shim(one) for one in self.attempts() if Shim(one).is_alive()]:
            shim.kill("cancel", 0.0)
            shim.wait(10)
        embedded.stop_files(self.config)
        super().close()


def start_apart(home: Path, there: Path, patch: pytest.MonkeyPatch) -> Iterator[Apart]:
    """Yield a client here with a worker there, and end both."""
    for name, value in SCALED.items():
        patch.setenv(f"RELAYQ_LEASE__{name}", value)
    patch.setenv("RELAYQ_DEFAULTS__GRACE", "1")
    patch.setenv("RELAYQ_WORKER__PRIORITY", "normal")
    patch.setenv("RELAYQ_WORKER__CPU_THRESHOLD", "100")
    patch.setenv("RELAYQ_WORKER__NAME", "there")
    patch.setenv("RELAYQ_WORKER__PATIENCE", "4s")
    fleet = Apart(home, there)
    try:
        fleet.start_apart()
        yield fleet
    finally:
        fleet.close()


class Gate:
    """A way to the file service that lets so many bytes pass each way, then none until opened."""

    def __init__(self, port: int, passes: int) -> None:
        self._port = port
        self._left = {"there": passes, "back": passes}
        self._opened = threading.Event()
        self.is_held = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def open(self) -> None:
        """Let everything pass."""
        self._opened.set()

    def close(self) -> None:
        """Take no further connection, and cut those that are left."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        for pair in self._pairs:
            for one in pair:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for one in pair:
                one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._pairs.append((near, far))
                for pair in ((near, far, "there"), (far, near, "back")):
                    self._threads.append(threading.Thread(target=self._pass, args=pair))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._left[way] -= len(data)
                if self._left[way] < 0 and not self._opened.is_set():
                    self.is_held.set()
                    self._opened.wait(60)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
