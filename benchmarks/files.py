"""A file to the file service and back, beside a bare HTTP copy of it; both end on the disk.

`python -m benchmarks.files DIRECTORY` is the bare server.
"""

from __future__ import annotations

import http.client
import http.server
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Protocol

from benchmarks.figures import Figures
from benchmarks.processes import (
    Redis,
    cpu_seconds,
    end,
    environment,
    free_port,
    launch,
    peak_bytes,
    python,
)
from relayq import clock, transfer
from relayq.signing import Signer, load_key

_MB = 1_000_000
_PIECE = 1 << 20
_LASTS = 3600.0


class Readable(Protocol):
    """What fills a buffer."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Return how many bytes came."""


def files(figures: Figures, redis: Redis, *, rounds: int, size: int) -> None:
    """Send a file and fetch it back, by a bare copy and by the file service in turn."""
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as name:
        folder = Path(name)
        bare_port, port = free_port(), free_port()
        env = environment(RELAYQ_HOME=str(folder / "home"), RELAYQ_BROKER__URL=redis.url)
        served = folder / "bare"
        served.mkdir()
        bare = launch(
            python("-m", "benchmarks.files", str(served), str(bare_port)), folder / "log", env
        )
        argv = python("-m", "relayq", "serve", "--port", str(port))
        relayq = launch(argv, folder / "serve.log", env)
        try:
            _wait(bare_port)
            _wait(port)
            signer = Signer(load_key(folder / "home" / "fleet.key"))
            service = transfer.Service(f"http://127.0.0.1:{port}", signer.bearer("files", _LASTS))
            for _ in range(rounds):
                _round(figures, folder, size, bare_port, service, (bare.pid, relayq.pid))
            peak = peak_bytes(relayq.pid) / _MB
            figures.add("files: most memory of the server", "relayq", "MB", peak)
        finally:
            end(relayq)
            end(bare)


def _round(
    figures: Figures,
    folder: Path,
    size: int,
    bare_port: int,
    service: transfer.Service,
    servers: tuple[int, int],
) -> None:
    source, back = folder / "source", folder / "back"
    _fill(source, size)
    digest = transfer.hash_file(source)
    at = f"{size / _MB:.0f} MB"
    moves: dict[tuple[str, str], Callable[[], object]] = {
        ("PUT", "floor"): partial(_bare_put, bare_port, source),
        ("PUT", "relayq"): lambda: transfer.put(service, source, transfer.hash_file(source)),
        ("GET", "floor"): partial(_bare_get, bare_port, back),
        ("GET", "relayq"): lambda: transfer.get(service, digest, back),
        ("sha256 of it alone", "floor"): partial(transfer.hash_file, source),
    }
    for (what, who), move in moves.items():
        # What one has left to the disk must not be the next one's burden.
        os.sync()
        server = servers[who == "relayq"]
        used, own = cpu_seconds([server]), time.process_time()
        began = time.perf_counter()
        move()
        taken = time.perf_counter() - began
        figures.add(f"{at}: {what}", who, "MB/s", size / _MB / taken)
        cpu = cpu_seconds([server]) - used + time.process_time() - own
        figures.add(f"{at}: {what}, CPU of both sides", who, "s", cpu)
        back.unlink(missing_ok=True)
    (folder / "bare" / "file").unlink()


def _fill(path: Path, size: int) -> None:
    """Write what nobody has seen before."""
    block = os.urandom(_PIECE)
    with path.open("wb") as file:
        for at in range(0, size, _PIECE):
            file.write((at.to_bytes(8) + block)[: min(_PIECE, size - at)])
        # What is still on its way to the disk would be in the way of the first to be measured.
        os.fsync(file.fileno())


def _bare_put(port: int, source: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, blocksize=_PIECE)
    with source.open("rb") as file:
        headers = {"Content-Length": str(source.stat().st_size)}
        connection.request("PUT", "/file", file, headers)
        connection.getresponse().read()
    connection.close()


def _bare_get(port: int, target: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/file")
    answer = connection.getresponse()
    with target.open("wb", buffering=0) as file:
        _copy(answer, file, int(answer.headers["Content-Length"]))
    connection.close()


def _copy(source: Readable, target: FileIO, left: int) -> None:
    """Copy as fast as it can be written down."""
    buffer = memoryview(bytearray(_PIECE))
    while left and (count := source.readinto(buffer[: min(left, _PIECE)])):
        target.write(buffer[:count])
        left -= count
    os.fsync(target.fileno())


def _wait(port: int) -> None:
    deadline = time.perf_counter() + 20
    while time.perf_counter() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
            return
        except OSError:
            clock.sleep(0.02)
        finally:
            connection.close()
    raise SystemExit(f"nothing answers at port {port}")


class _Bare(http.server.SimpleHTTPRequestHandler):
    """The standard library's server of files, which also takes them."""

    def do_PUT(self) -> None:  # noqa: N802
        """Write what comes to a file."""
        with open(self.translate_path(self.path), "wb", buffering=0) as file:
            _copy(self.rfile, file, int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(sys.argv[2])), partial(_Bare, directory=sys.argv[1])
    ).serve_forever()
