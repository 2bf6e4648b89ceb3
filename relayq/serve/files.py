"""The routes of files: PUT takes an upload on, HEAD says how far it is, GET gives all or a span."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from starlette.types import Receive, Scope, Send

from relayq import clock
from relayq.errors import NoRoom
from relayq.serve.application import Guard, Refused
from relayq.serve.connections import taken_over
from relayq.serve.shelf import Mismatch, Shelf, Upload, is_sha256
from relayq.transfer import PATH

T = TypeVar("T")

_PIECE = 1 << 20
_LARGEST = 1 << 50
_CLOSE = {"Connection": "close"}
_LINGER = 5.0
#: How many may send at a time.
_RECEIVERS = 64
#: How long who sends may be silent.
SILENCE = 30.0
#: After 2 s of silence every 2 s, 5 times.
_PROBES = {"TCP_KEEPIDLE": 2, "TCP_KEEPALIVE": 2, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 5}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,16})-(\d{1,16})|\*)/(\d{1,16})")
_RANGE = re.compile(r"bytes=(\d{0,16})-(\d{0,16})")


def files_router(
    shelf: Shelf, guard: Guard, threads: Executor, make_room: Callable[[int], None]
) -> APIRouter:
    """Return the routes; `make_room` for so many bytes is called where there isn't enough."""
    files = _Files(shelf, threads, make_room)
    router = APIRouter(prefix=PATH.rstrip("/"), dependencies=[Depends(guard)])
    router.add_api_route("/{sha256}", files.head, methods=["HEAD"])
    router.add_api_route("/{sha256}", files.get, methods=["GET"])
    router.add_api_route("/{sha256}", files.put, methods=["PUT"])
    return router


class _Files:
    def __init__(self, shelf: Shelf, threads: Executor, make_room: Callable[[int], None]) -> None:
        self._shelf = shelf
        self._threads = threads
        self._make_room = make_room
        # A slow sender keeps its thread busy, and must not keep a reader waiting.
        self._receivers = ThreadPoolExecutor(_RECEIVERS, thread_name_prefix="receiver")

    async def head(self, sha256: str) -> Response:
        """Say that a content is complete (200), or how much of it is here (404)."""
        _check(sha256)
        size = self._shelf.touch(sha256)
        if size is not None:
            return Response(headers={**_facts(sha256), "Content-Length": str(size)})
        return Response(status_code=404, headers=self._offset(sha256))

    async def get(self, sha256: str, request: Request) -> Response:
        """Give a content, or one span of it."""
        _check(sha256)
        opened = self._shelf.open(sha256)
        if opened is None:
            raise Refused(
                404,
                "not_found",
                f"no file {sha256} is here, or not all of it yet",
                headers=self._offset(sha256),
            )
        descriptor, size = opened
        try:
            span = _span(request.headers, size, etag=f'"{sha256}"')
            return _Span(descriptor, size, span, _facts(sha256), self._threads)
        except BaseException:
            os.close(descriptor)
            raise

    async def put(self, sha256: str, request: Request) -> Response:
        """Take an upload, or go on with it where Content-Range says that it was."""
        _check(sha256)
        start, length, total = _declared(request.headers)
        if self._shelf.touch(sha256) is not None:
            return Response(headers={**_facts(sha256), **_CLOSE})
        upload = await self._begun(sha256, start, total)
        try:
            await self._take(upload, request, length)
            if upload.offset == total:
                await self._in_thread(upload.finish)
        except Mismatch as error:
            message = f"{error}, and not {sha256}: it was removed"
            raise Refused(422, "content_mismatch", message, "hash the file again") from error
        except NoRoom as error:
            await self._in_thread(upload.discard)
            raise _no_room(error) from error
        finally:
            upload.close()
        if upload.offset < total:
            raise Refused(
                409,
                "incomplete",
                f"{total - upload.offset} bytes are missing",
                "go on from Upload-Offset",
                headers={**self._offset(sha256), **_CLOSE},
            )
        return Response(status_code=201, headers={**_facts(sha256), **_CLOSE})

    async def _begun(self, sha256: str, start: int, total: int) -> Upload:
        if self._shelf.is_busy(sha256):
            raise self._busy(sha256)
        offset = self._shelf.offset(sha256)
        if start not in (0, offset):
            raise Refused(
                409,
                "wrong_offset",
                f"{offset} bytes of it are here, and what comes begins at {start}",
                "go on from Upload-Offset",
                headers={**self._offset(sha256), **_CLOSE},
            )
        try:
            if self._shelf.missing_room(total - start):
                await self._in_thread(self._make_room, total - start)
            upload = self._shelf.begin(sha256, start, total)
        except NoRoom as error:
            raise _no_room(error) from error
        if upload is None:
            raise self._busy(sha256)
        return upload

    def _busy(self, sha256: str) -> Refused:
        return Refused(
            423,
            "busy",
            "somebody else sends this file just now",
            "wait until it is here",
            headers={**self._offset(sha256), **_CLOSE, "Retry-After": "1"},
        )

    async def _take(self, upload: Upload, request: Request, length: int) -> None:
        """Write what comes, in a thread of its own that reads the connection itself.

        Through h11 and the event loop, each byte is copied five times: 1.7 times the CPU in all.
        """
        if not length:
            return
        early, connection = taken_over(request).take_body()
        connection.settimeout(SILENCE)
        _probe(connection)
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._receivers, upload.receive, connection, early, length
            )
        except TimeoutError as error:
            message = f"nothing came for {SILENCE:.0f} s"
            raise Refused(408, "silence", message, headers=_CLOSE) from error
        finally:
            if upload.offset < upload.total:
                self._receivers.submit(_drain, connection)
            else:
                connection.close()

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _offset(self, sha256: str) -> dict[str, str]:
        return {"Upload-Offset": str(self._shelf.offset(sha256)), "Cache-Control": "no-store"}


class Part(NamedTuple):
    """Which bytes are asked for; `is_all` when the answer is the whole content."""

    start: int
    end: int
    is_all: bool


class _Span(Response):
    """Some bytes of an open file; the next are read while the ones before them are sent."""

    def __init__(
        self, descriptor: int, size: int, part: Part, facts: Mapping[str, str], threads: Executor
    ) -> None:
        headers = {**facts, "Content-Length": str(part.end - part.start)}
        if not part.is_all:
            headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
        super().__init__(status_code=200 if part.is_all else 206, headers=headers)
        self._descriptor = descriptor
        self._part = part
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        loop = asyncio.get_running_loop()
        at, end, _ = self._part

        def read(at: int) -> asyncio.Future[bytes]:
            return loop.run_in_executor(
                self._threads, os.pread, self._descriptor, min(_PIECE, end - at), at
            )

        coming = read(at)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            while at < end and (piece := await coming):
                at += len(piece)
                coming = read(at)
                await send({"type": "http.response.body", "body": piece, "more_body": at < end})
            if at == self._part.start:
                await send({"type": "http.response.body", "body": b""})
        finally:
            # A thread may still read from it.
            coming.add_done_callback(lambda _: os.close(self._descriptor))


def _drain(connection: socket.socket) -> None:
    """Read on for a while, since the answer is lost when a connection is closed with bytes unread.

    uvicorn closes its own descriptor only, and the connection lives as long as this one.
    """
    end = clock.boottime() + _LINGER
    with connection, suppress(OSError):
        connection.settimeout(_LINGER)
        while clock.boottime() < end and connection.recv(_PIECE):
            continue


def _probe(connection: socket.socket) -> None:
    """Have a connection whose other end is gone noticed soon: it is in its successor's way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Darwin's first name is another one.
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _PROBES[name])


def _check(sha256: str) -> None:
    if not is_sha256(sha256):
        raise Refused(
            400, "bad_name", "a file is called by its sha256, 64 lower-case hexadecimal digits"
        )


def _facts(sha256: str) -> dict[str, str]:
    return {
        "ETag": f'"{sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }


def _no_room(error: NoRoom) -> Refused:
    return Refused(507, "no_room", error.message, error.hint or "", headers=_CLOSE)


def _declared(headers: Mapping[str, str]) -> tuple[int, int, int]:
    """Return where what comes begins, its length, and how long the whole is to be."""
    length = headers.get("content-length", "")
    if not re.fullmatch(r"\d{1,16}", length):
        raise Refused(411, "length_required", "an upload says its Content-Length")
    said = headers.get("content-range")
    if said is None:
        start, total = 0, int(length)
    else:
        match = _CONTENT_RANGE.fullmatch(said)
        if match is None:
            raise Refused(400, "bad_range", f"can't read Content-Range {said[:100]!r}")
        first, last, size = match.groups()
        total = int(size)
        start = total if first is None else int(first)
        if (0 if first is None else int(last) - start + 1) != int(length) or start > total:
            raise Refused(400, "bad_range", "Content-Range and Content-Length don't agree")
    if start + int(length) > total or total > _LARGEST:
        raise Refused(413, "too_large", f"{start + int(length)} bytes are more than {total}")
    return start, int(length), total


def _span(headers: Mapping[str, str], size: int, *, etag: str) -> Part:
    """Return what the Range asks for; one of several spans, or in other units, is for all."""
    everything = Part(0, size, True)
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-" or headers.get("if-range", etag) != etag:
        return everything
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return everything
    else:
        start, end = max(0, size - int(last)), size
    if start >= size:
        raise Refused(
            416,
            "bad_range",
            f"the file has {size} bytes only",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return Part(start, end, False)
