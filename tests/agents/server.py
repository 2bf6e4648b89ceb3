"""The mock server: all the APIs on one port of loopback, playing one scenario at a time.

`python -m tests.agents.server "runs a command" --port 8123 command="sleep 60"` serves by hand.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from relayq.clock import now
from tests.agents.anthropic import Anthropic
from tests.agents.gemini import Gemini
from tests.agents.openai import Completions, Responses
from tests.agents.replies import Reply, Scenario, Silence, Turn
from tests.agents.scenarios import scenario
from tests.agents.wire import CutOff, Dialect, Pause, Stream, Whole, event

DIALECTS: tuple[Dialect, ...] = (Anthropic(), Responses(), Completions(), Gemini())


@dataclass(frozen=True)
class Asked:
    """A request that reached the model: when, its turn, and what it got."""

    at: float
    turn: Turn
    reply: Reply


class MockApi:
    """A server on loopback whose model plays a scenario and counts what it is asked."""

    def __init__(self, name: str = "text", /, *, port: int = 0, **arguments: Any) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._number = 0
        self.asked: list[Asked] = []
        self.unknown: list[str] = []
        self.play(name, **arguments)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._bound())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def play(self, name: str | Scenario, /, **arguments: Any) -> None:
        """Play this scenario from now on, beginning with its first turn."""
        played = scenario(name, **arguments) if isinstance(name, str) else name
        with self._lock:
            self._scenario, self._number = played, 0

    def close(self) -> None:
        """Stop answering; connections that wait are cut."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MockApi:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _bound(self) -> type[BaseHTTPRequestHandler]:
        return type("Connection", (Connection,), {"api": self})

    def _reply(self, dialect: Dialect, body: Mapping[str, Any]) -> Reply:
        with self._lock:
            self._number += 1
            turn = dialect.turn(body, self._number)
            reply = self._scenario(turn)
            self.asked.append(Asked(now(), turn, reply))
        return reply

    def wait(self, seconds: float) -> bool:
        """Wait that long; tell whether the server is being closed."""
        return self._closing.wait(seconds)


class Connection(BaseHTTPRequestHandler):
    """One connection of a program."""

    api: MockApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the tests read `asked`."""

    def do_GET(self) -> None:
        self._whole(Whole({"error": {"message": "not served here"}}, status=404))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = self._body()
        dialect = next((one for one in DIALECTS if one.reads(path)), None)
        if dialect is None:
            self.api.unknown.append(path)
            self._whole(Whole({"error": {"message": f"no {path} here"}}, status=404))
            return
        if dialect.is_aside(path, body):
            answer = dialect.answer_aside(path, body)
        else:
            reply = self.api._reply(dialect, body)
            if isinstance(reply, Silence):
                self.api.wait(3600)
                self.close_connection = True
                return
            answer = dialect.answer(reply, path, body)
        if isinstance(answer, Whole):
            self._whole(answer)
        else:
            self._stream(answer)

    def _body(self) -> Mapping[str, Any]:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        return json.loads(raw or b"{}")

    def _whole(self, answer: Whole) -> None:
        raw = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _stream(self, answer: Stream) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for one in answer.events:
                if not isinstance(one, Pause):
                    self._chunk(event(*one))
                elif self.api.wait(one.seconds):
                    raise CutOff
            self._chunk(b"")
        except (CutOff, ConnectionError):
            self.close_connection = True

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A mock of the agents' APIs on loopback.")
    parser.add_argument("scenario", nargs="?", default="text")
    parser.add_argument("arguments", nargs="*", help="name=value of the scenario")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    pairs = (one.partition("=") for one in given.arguments)
    arguments = {name: _number(value) for name, _, value in pairs}
    with MockApi(given.scenario, port=given.port, **arguments) as api:
        print(api.url, flush=True)
        try:
            while not api.wait(3600):
                pass
        except KeyboardInterrupt:
            return


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


if __name__ == "__main__":
    main()
