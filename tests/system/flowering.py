"""A process of `relayq flower`, and what it shows."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import missing
from tests.system.conftest import ROOT
from tests.system.serving import free_port
from tests.waiting import until


class Flowering:
    """A process of `relayq flower`."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        if importlib.util.find_spec("flower") is None:
            missing("needs Flower (pip: the extra flower)")
        self.home = home
        self.port = free_port()
        self.environ = {**environ, "RELAYQ_HOME": str(home), "PYTHONPATH": str(ROOT)}
        self.start()

    def start(self) -> None:
        log = self.home / "test-flower.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relayq", "flower", "--port", str(self.port)],
                env=self.environ,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        until(self.is_up, within=30, what=log.read_text)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)

    def is_up(self) -> bool:
        try:
            return self.ask("/healthcheck")[0] == 200
        except OSError:
            return False

    def ask(
        self, path: str, method: str = "GET", *, login: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        password = self.home / "flower" / "password"
        if login is None and password.exists():
            login = f"relayq:{password.read_text().strip()}"
        if login:
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def tasks(self) -> dict[str, dict[str, object]]:
        return json.loads(self.ask("/api/tasks")[1])
