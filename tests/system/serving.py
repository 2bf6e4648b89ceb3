"""A file service of a test's own, which needs no broker."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from relayq.signing import Signer, load_key
from relayq.transfer import PATH, Service
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent


class Serving:
    """A process of `relayq serve` whose broker isn't there, with its home."""

    def __init__(self, home: Path, port: int, environ: Mapping[str, str]) -> None:
        self.home = home
        self.port = port
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RELAYQ_HOME": str(home),
            "RELAYQ_BROKER__PORT": str(free_port()),
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        with (self.home / "test-serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relayq", "serve", "--port", str(self.port)],
                env=self._environ,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self.is_up, within=30, what=self.log)

    def is_up(self) -> bool:
        """Tell whether it answers."""
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal and wait for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(15)

    def log(self) -> str:
        """Return what it wrote."""
        return (self.home / "test-serve.log").read_text()

    def signer(self) -> Signer:
        """Return what makes its tokens."""
        return Signer(load_key(self.home / "fleet.key"))

    def service(self, port: int | None = None) -> Service:
        """Return it as a client knows it, at another port if a link is in between."""
        return Service(f"http://127.0.0.1:{port or self.port}", self.signer().bearer("files", 600))

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request with a good token; `path` may be a sha256 alone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        path = path if path.startswith("/") else PATH + path
        if path != "/health":
            headers = {"Authorization": f"Bearer {self.service().token}", **headers}
        try:
            connection.putrequest(
                method, path, skip_host="Host" in headers, skip_accept_encoding=True
            )
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None and "Content_Length" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            facts = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, facts, answer.read()
        finally:
            connection.close()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(home: Path | None = None, **environ: str) -> Iterator[Serving]:
    """Run a file service for a while."""
    with tempfile.TemporaryDirectory(prefix="rq-serve-", dir="/tmp") as own:
        one = Serving(home or Path(own), free_port(), environ)
        try:
            yield one
        finally:
            one.end()
