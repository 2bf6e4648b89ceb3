"""A link that can be cut: a TCP relay that hangs up when so many bytes have passed."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress


class Link:
    """Relays connections to a port; the nth is cut after `cuts[n]` bytes, later ones never.

    `is_abrupt`: what is in the buffers then is lost as well. `sent` and `received` count what
    passed to the server and from it, over all connections.
    """

    def __init__(self, port: int, cuts: Sequence[int] = (), *, is_abrupt: bool = True) -> None:
        self._is_abrupt = is_abrupt
        self._target = port
        self.cuts = list(cuts)
        self.sent = 0
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nothing more."""
        # A close alone wouldn't wake the thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        left = [self.cuts.pop(0)] if self.cuts else [1 << 60]
        server = socket.create_connection(("127.0.0.1", self._target))
        back = threading.Thread(
            target=self._pump, args=(server, client, left, "received"), daemon=True
        )
        back.start()
        self._pump(client, server, left, "sent")
        back.join()
        client.close()
        server.close()

    def _pump(
        self, source: socket.socket, target: socket.socket, left: list[int], count: str
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(min(65536, left[0]) or 1):
                piece = piece[: left[0]]
                target.sendall(piece)
                setattr(self, count, getattr(self, count) + len(piece))
                left[0] -= len(piece)
                if left[0] <= 0:
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
        # As a link does that is gone: what is on its way is lost, and both sides get a reset.
        for one in (source, target):
            with suppress(OSError):
                if self._is_abrupt:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)


class TlsProxy:
    """Speaks TLS with clients and relays to a port, as a reverse proxy does."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=context)
        self._server = asyncio.run_coroutine_threadsafe(started, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._pump(reader, to_server), self._pump(from_server, writer))
        finally:
            for one in (writer, to_server):
                one.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                target.write(piece)
                await target.drain()
        target.close()

    async def _end(self) -> None:
        self._server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def close(self) -> None:
        """End it."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
