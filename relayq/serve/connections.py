"""What a connection may not do: be silent before its request is there, or never read its answer.

uvicorn 0.54 waits for ever in both cases, and counts such connections against nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from ipaddress import ip_address
from typing import Any, ClassVar

import h11
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Until a whole request head is there.
HEAD_LIMIT = 20.0
#: Until some of what was sent was read.
READ_LIMIT = 60.0


#: How many connections one other machine may have; a proxy on this one is no other machine.
PER_PEER = 100
_SELF = "relayq.connection"


def taken_over(request: Request) -> BoundedProtocol:
    """Return the connection of a request."""
    connection = request.scope[_SELF]
    assert isinstance(connection, BoundedProtocol)
    return connection


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP, with an end to patience."""

    head_limit = HEAD_LIMIT
    read_limit = READ_LIMIT
    per_peer = PER_PEER
    #: How many connections there are, by address.
    peers: ClassVar[Counter[str]] = Counter()
    _peer = ""
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        application = self.app

        async def with_connection(scope: Any, receive: Any, send: Any) -> None:
            await application({**scope, _SELF: self}, receive, send)

        self.app = with_connection

    def take_body(self) -> tuple[bytes, socket.socket]:
        """Stop reading; return what came of the body, and the socket with the rest of it.

        The answer must close the connection, since h11 never hears of that rest.
        """
        self.flow.pause_reading()
        early = bytes(self.cycle.body)
        self.cycle.body = bytearray()
        if self.cycle.waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.transport.write(self.conn.send(go_on))
            self.cycle.waiting_for_100_continue = False
        own = self.transport.get_extra_info("socket")
        return early, socket.socket(own.family, own.type, own.proto, fileno=os.dup(own.fileno()))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        place = transport.get_extra_info("peername") or ("",)
        self._peer = str(place[0])
        self.peers[self._peer] += 1
        if self.peers[self._peer] > self.per_peer and not _is_here(self._peer):
            transport.abort()
            return
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of an unfinished head don't start the wait anew."""
        super().data_received(data)
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        elif not is_answering and self._head_timer is None:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_limit, self._give_up)

    def pause_writing(self) -> None:
        """Begin to wait for the other side to read."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(self.read_limit, self._give_up)

    def resume_writing(self) -> None:
        """Go on, since it reads."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        for timer in (self._head_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
        self.peers[self._peer] -= 1
        if self.peers[self._peer] < 1:
            del self.peers[self._peer]
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self.transport.abort()


def _is_here(peer: str) -> bool:
    try:
        return ip_address(peer).is_loopback
    except ValueError:
        return True
