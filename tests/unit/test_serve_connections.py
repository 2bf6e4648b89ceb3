"""What a connection to the file service may not do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn")

import uvicorn

from relayq.serve.application import Refused
from relayq.serve.border import Border
from relayq.serve.connections import BoundedProtocol
from tests.waiting import until


class Impatient(BoundedProtocol):
    """The same with times that a test can wait for."""

    head_limit = 0.3
    read_limit = 0.3


async def much(scope, receive, send):
    """Answer with more than a connection's buffers hold."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(400):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def port():
    listener = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(
        much, http=Impatient, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1
    )
    server = uvicorn.Server(settings)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    until(lambda: server.started, what="the server to start")
    yield listener.getsockname()[1]
    server.should_exit = server.force_exit = True
    thread.join(10)


def is_hung_up(connection: socket.socket) -> bool:
    """Read until the end, whatever that looks like."""
    connection.settimeout(5)
    try:
        while connection.recv(1 << 16):
            continue
    except ConnectionError:
        return True
    return True


HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("said", [b"", b"G", HEAD])
def test_who_never_ends_a_request_is_hung_up_on(port, said):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(said)
        assert is_hung_up(connection)


def test_a_byte_now_and_then_is_no_reason_to_wait_longer(port):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 5:
                connection.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1):
                        break
    assert time.monotonic() - began < 4


def test_who_never_reads_the_answer_is_hung_up_on(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD + b"\r\n")
        time_up = time.monotonic() + 2
        until(lambda: time.monotonic() > time_up, what="the server to lose patience")
        got = 0
        connection.settimeout(5)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1 << 20):
                got += len(piece)
    assert got < 40_000_000


def test_who_reads_gets_all(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        got = 0
        connection.settimeout(5)
        while piece := connection.recv(1 << 16):
            got += len(piece)
    assert got > 40_000_000


def test_a_body_that_never_comes_is_not_waited_for():

    class Hurried(Border):
        body_limit = 0.05

    said = []

    async def app(scope, receive, send):
        await receive()

    async def silence():
        await asyncio.sleep(60)

    async def send(message):
        said.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [*headers, (b"content-length", b"9")],
    }

    with pytest.raises(Refused, match="didn't come to its end"):
        asyncio.run(Hurried(app)(scope, silence, send))
    assert said == []
