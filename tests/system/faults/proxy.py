"""A TCP link that a test can spoil: slow, held, lossy, cut, closed, in both directions or in one.

with Link(broker.port) as link:      # 127.0.0.1:link.port leads to the broker
    link.hold()                      # as when a cable is pulled: nobody hears anything
    link.heal()                      # what was on its way arrives now, as TCP has it
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

#: From who connects to who listens, and back.
REQUESTS, REPLIES = "requests", "replies"
BOTH = (REQUESTS, REPLIES)

_CHUNK = 65_536
#: Closing a socket with it sends RST: the other end learns at once, and nothing is sent after it.
_ABORT = struct.pack("ii", 1, 0)


@dataclass
class Faults:
    """What is wrong with the link now; `Link` changes it in its own thread."""

    delay: float = 0.0
    jitter: float = 0.0
    held: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    limit: int | None = None
    cut_each: float | None = None


class Link:
    """A proxy for one address; each of its ways to be broken lasts until `heal`."""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target = target
        #: How many connections were made, and how many of those the link itself cut.
        self.made = self.cut_off = 0
        self._faults = Faults()
        self._random = random.Random(seed)
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._listener = self._bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._serving: asyncio.Task[None] | None = None
        self._cutting: asyncio.Task[None] | None = None
        self._thread.start()
        self._do(self._open)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def slow(self, delay: float, jitter: float = 0.0) -> None:
        """Let everything arrive that many seconds later, give or take; nothing is reordered."""
        self._do(lambda: self._set(delay=delay, jitter=jitter))

    def hold(self, *directions: str) -> None:
        """Let nothing through; what is sent meanwhile arrives after `heal`."""
        self._do(lambda: self._set(held=directions or BOTH))

    def lose(self, *directions: str) -> None:
        """Let nothing through for good; such connections are cut by `heal`."""
        self._do(lambda: self._set(lost=directions or BOTH))

    def limit(self, size: int) -> None:
        """Cut each connection after about that many bytes, also in the middle of an answer."""
        self._do(lambda: self._set(limit=size))

    def cut(self) -> None:
        """Reset all connections now; new ones are welcome."""
        self._do(self._cut_all)

    def cut_each(self, interval: float) -> None:
        """Reset all connections every so many seconds."""
        self._do(lambda: self._set(cut_each=interval))

    def refuse(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._do(self._refuse)

    def heal(self) -> None:
        """Be a good link again."""
        self._do(self._heal)

    @contextmanager
    def held(self, *directions: str) -> Iterator[None]:
        """Hold everything for the length of a block."""
        self.hold(*directions)
        try:
            yield
        finally:
            self.heal()

    def close(self) -> None:
        """End the proxy and its connections."""
        if self._thread.is_alive():
            self._do(self._refuse)
            self._run(self._finish())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def _do(self, act: Callable[[], None]) -> None:
        async def acting() -> None:
            act()

        self._run(acting())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    @staticmethod
    def _bound(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.setblocking(False)
        return listener

    def _open(self) -> None:
        self._listener.listen(128)
        self._serving = self._loop.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.made += 1
            pair = _Pair(self, client)
            self._pairs.add(pair)
            pair.start()

    def _set(self, **faults: Any) -> None:
        for name, value in faults.items():
            setattr(self._faults, name, value)
        if self._cutting is None and self._faults.cut_each is not None:
            self._cutting = self._loop.create_task(self._cut_again())

    async def _cut_again(self) -> None:
        while (interval := self._faults.cut_each) is not None:
            await asyncio.sleep(interval)
            self._cut_all()

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            self.cut_off += 1
            pair.cut()

    def _refuse(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            self._serving = None
        self._listener.close()
        self._cut_all()

    def _heal(self) -> None:
        self._faults = Faults()
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None
        for pair in [pair for pair in self._pairs if pair.is_torn]:
            pair.cut()
        if self._serving is None:
            self._listener = self._bound(self.port)
            self._open()

    async def _finish(self) -> None:
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Pair:
    """One connection through the link: two sockets, two directions."""

    def __init__(self, link: Link, client: socket.socket) -> None:
        self._link = link
        self._client = client
        self._server = socket.socket()
        self._tasks: list[asyncio.Task[None]] = []
        self._passed = 0
        #: Whether bytes were lost: then nothing that comes after them makes sense.
        self.is_torn = False

    def start(self) -> None:
        self._tasks.append(self._link._loop.create_task(self._join()))

    async def _join(self) -> None:
        loop = self._link._loop
        for end in (self._client, self._server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A cable that is unplugged carries no new connection either.
        await self._until_open(REQUESTS)
        try:
            await loop.sock_connect(self._server, ("127.0.0.1", self._link.target))
        except OSError:
            self.cut()
            return
        for direction, source, sink in (
            (REQUESTS, self._client, self._server),
            (REPLIES, self._server, self._client),
        ):
            queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
            self._tasks.append(loop.create_task(self._read(source, queue)))
            self._tasks.append(loop.create_task(self._write(direction, sink, queue)))

    async def _read(self, source: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop, link = self._link._loop, self._link
        with suppress(OSError):
            while data := await loop.sock_recv(source, _CHUNK):
                faults = link._faults
                late = faults.delay + faults.jitter * (2 * link._random.random() - 1)
                await queue.put((loop.time() + max(0.0, late), data))
        await queue.put((loop.time(), b""))

    async def _write(
        self, direction: str, sink: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop, link = self._link._loop, self._link
        with suppress(OSError):
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await self._until_open(direction)
                if not data:
                    break
                if direction in link._faults.lost:
                    self.is_torn = True
                    continue
                limit = link._faults.limit
                if limit is not None and self._passed + len(data) > limit:
                    await loop.sock_sendall(sink, data[: max(0, limit - self._passed)])
                    link.cut_off += 1
                    break
                self._passed += len(data)
                await loop.sock_sendall(sink, data)
        self.cut()

    async def _until_open(self, direction: str) -> None:
        while direction in self._link._faults.held:
            await asyncio.sleep(0.005)

    def cut(self) -> None:
        """Reset both ends."""
        self._link._pairs.discard(self)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        # A cancelled read leaves the selector by its descriptor, which must not be reused before.
        self._link._loop.call_soon(self._reset)

    def _reset(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            end.close()
