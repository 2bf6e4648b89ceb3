"""Files on their way to the file service and back: resumed after a cut, checked by their sha256.

Standard library only, for it also runs in a job's own process tree. Contents are named by their
sha256: what the service has is never sent again, and what arrives is what was sent, or refused.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

from relayq import clock
from relayq.contents import Digest, Part, Progress, changed, hash_file, open_part, reading
from relayq.errors import NoRoom, ServiceAway, TransferFailed

#: Called with a line for people when the service doesn't answer, and it is tried again.
Remark = Callable[[str], None]

#: Where the service has its files.
PATH = "/api/v1/files/"

__all__ = ["Digest", "Progress", "Remark", "Service", "ask", "get", "hash_file", "put"]

_RECEIVED_AT_ONCE = 1 << 18
_SENT_AT_ONCE = 1 << 20
#: How often a content may arrive damaged.
_DAMAGED = 3
#: Of silence, until a connection is given up.
_SILENCE = 30.0
#: How long a server may think about whether it takes a file, before it is simply sent.
_LEAVE = 5.0
#: How long a server may take to have a file on its disk.
_SAVING = 300.0
_GO_ON = b"HTTP/1.1 100"
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0


@dataclass(frozen=True, slots=True)
class Service:
    """A file service and the bearer token for it."""

    url: str
    token: str = field(repr=False)


def put(
    service: Service,
    path: str | os.PathLike[str],
    digest: Digest,
    *,
    progress: Progress | None = None,
    remark: Remark | None = None,
    patience: float = 600.0,
) -> None:
    """Have the service keep a file; nothing is sent that it has already.

    Goes on where a cut left it, and tries again until no byte moved for `patience` seconds.
    """
    pace = _Pace(progress, remark, patience, digest.size)
    damaged = 0
    with reading(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size != digest.size:
            raise changed(path)
        while True:
            try:
                offset = _offset(service, digest)
                if offset is None:
                    pace.moved(digest.size)
                    return
                pace.moved(offset)
                _send(service, file, digest, offset, pace)
                return
            except _Damaged as error:
                after = os.fstat(file.fileno())
                is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
                if not is_same or hash_file(path) != digest:
                    raise changed(path) from error
                damaged += 1
                if damaged == _DAMAGED:
                    raise TransferFailed(
                        f"{os.fspath(path)} arrives damaged, {damaged} times now: {error}",
                        hint="check memory and disk of this machine and of the broker's",
                    ) from error
            except _RETRIED as error:
                pace.wait(error, f"{os.fspath(path)} can't be sent")


def get(
    service: Service,
    digest: Digest,
    path: str | os.PathLike[str],
    *,
    mode: int | None = None,
    progress: Progress | None = None,
    remark: Remark | None = None,
    patience: float = 600.0,
) -> None:
    """Fetch a content into a file, which appears under its name when it is whole, and replaces.

    What has arrived lies in `<path>.<first 8 of the sha256>.part` until then, also over a cut, an
    error or another call. Tries again until no byte moved for `patience` seconds.
    """
    pace = _Pace(progress, remark, patience, digest.size)
    target = os.fspath(path)
    with open_part(target, digest, mode) as part:
        damaged = 0
        while True:
            try:
                if part.size < digest.size:
                    _receive(service, digest, part, pace)
                if part.is_whole(digest):
                    part.finish(target, mode)
                    pace.moved(digest.size)
                    return
                damaged += 1
                part.begin_anew()
                if damaged == _DAMAGED:
                    raise TransferFailed(
                        f"{target} arrives damaged, {damaged} times now",
                        hint="check memory and disk of this machine and of the broker's",
                    )
            except _RETRIED as error:
                pace.wait(error, f"{target} can't be fetched")


def ask(service: Service) -> None:
    """Ask the service for what it hasn't; raises TransferFailed unless it answers as it should."""
    try:
        _offset(service, Digest("0" * 64, 0))
    except _RETRIED as error:
        raise TransferFailed(
            f"no file service answers at {service.url}: {_words(error)}",
            hint="relayq up, on the broker's machine; can this one reach that port?",
        ) from error


class _Again(Exception):
    """The service can't do it now."""


class _Damaged(Exception):
    """What the service got isn't what it was to be."""


_RETRIED = (OSError, http.client.HTTPException, _Again)


class _Pace:
    """Patience that every byte restores, and what is told meanwhile."""

    def __init__(
        self, progress: Progress | None, remark: Remark | None, patience: float, total: int
    ) -> None:
        self._progress = progress
        self._remark = remark
        self._patience = patience
        self._total = total
        self._done = -1
        self._moved_at = clock.boottime()
        self._delay = _FIRST_WAIT
        self._said = ""

    def moved(self, done: int) -> None:
        """Note how far it is; only getting further counts."""
        if done > self._done:
            # That a connection was made isn't news: bytes are.
            if self._done >= 0:
                self._moved_at, self._delay, self._said = clock.boottime(), _FIRST_WAIT, ""
            self._done = done
        if self._progress is not None:
            self._progress(done, self._total)

    def wait(self, error: Exception, what: str) -> None:
        """Sleep until the next try; raises when patience is at its end."""
        why = _words(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            raise TransferFailed(
                f"{what}: {why}", hint="SSL_CERT_FILE may name the certificates that you trust"
            ) from error
        silent = clock.boottime() - self._moved_at
        if silent + self._delay > self._patience:
            raise ServiceAway(
                f"{what}: {why}; nothing moved for {silent:.0f} s",
                hint="is the file service up (on the broker's machine: relayq serve)? "
                "What arrived is kept: try again",
            ) from error
        if self._remark is not None and why != self._said:
            self._remark(f"{what}: {why}; trying again")
            self._said = why
        clock.sleep(self._delay * (0.5 + os.urandom(1)[0] / 510))
        self._delay = min(2 * self._delay, _LONGEST_WAIT)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the file service doesn't answer"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) or type(error).__name__


@contextmanager
def _connection(
    service: Service, timeout: float = _SILENCE
) -> Iterator[http.client.HTTPConnection]:
    url = urlsplit(service.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise TransferFailed(
            f"{service.url!r} can't be a file service's URL", hint="relayq config get serve.url"
        )
    sort = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = sort(url.hostname, url.port, timeout=timeout)
    try:
        connection.connect()
        yield connection
    finally:
        connection.close()


def _begin(
    connection: http.client.HTTPConnection,
    service: Service,
    method: str,
    digest: Digest,
    **headers: str,
) -> None:
    """Send a request without its body."""
    connection.putrequest(method, urlsplit(service.url).path.rstrip("/") + PATH + digest.sha256)
    connection.putheader("Authorization", f"Bearer {service.token}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()


def _offset(service: Service, digest: Digest) -> int | None:
    """Return how many bytes the service has of an upload, None when it has the whole file."""
    with _connection(service) as connection:
        _begin(connection, service, "HEAD", digest)
        answer = connection.getresponse()
        answer.read()
        if answer.status == http.HTTPStatus.OK:
            return None
        if answer.status == http.HTTPStatus.NOT_FOUND and answer.headers["Upload-Offset"]:
            return int(answer.headers["Upload-Offset"])
        raise _refusal(service, answer)


def _send(service: Service, file: IO[bytes], digest: Digest, offset: int, pace: _Pace) -> None:
    """Send what the service doesn't have yet; returns when it has all."""
    with _connection(service) as connection:
        # What a TLS connection has to say can't be looked at before it is read.
        is_plain = not isinstance(connection.sock, ssl.SSLSocket)
        span = f"{offset}-{digest.size - 1}" if offset < digest.size else "*"
        _begin(
            connection,
            service,
            "PUT",
            digest,
            Content_Length=str(digest.size - offset),
            Content_Range=f"bytes {span}/{digest.size}",
            Content_Type="application/octet-stream",
            **({"Expect": "100-continue"} if is_plain else {}),
        )
        try:
            if not is_plain or _is_wanted(connection.sock, _LEAVE):
                while offset < digest.size:
                    count = min(_SENT_AT_ONCE, digest.size - offset)
                    sent = connection.sock.sendfile(file, offset, count)
                    if not sent:
                        raise changed(file.name)
                    offset += sent
                    pace.moved(offset)
                    if is_plain and not _is_wanted(connection.sock, 0):
                        break
        except ConnectionError:
            # It may have said why before it hung up.
            connection.sock.settimeout(1.0)
        else:
            connection.sock.settimeout(_SAVING)
        answer = connection.getresponse()
        if answer.status in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
            pace.moved(digest.size)
            return
        raise _refusal(service, answer)


def _is_wanted(sock: socket.socket, patience: float) -> bool:
    """Wait for the word that the file may come; False when there is an answer instead."""
    said = b""
    # http.client passes over the interim answer, or over none: it is looked for in front of it.
    while b"\r\n\r\n" not in said:
        if not select.select([sock], [], [], patience)[0]:
            return True
        said = sock.recv(1024, socket.MSG_PEEK)
        if not said or said[: len(_GO_ON)] != _GO_ON[: len(said)]:
            return False
        if b"\r\n\r\n" not in said:
            clock.sleep(0.01)
    sock.recv(said.index(b"\r\n\r\n") + 4)
    return True


def _receive(service: Service, digest: Digest, part: Part, pace: _Pace) -> None:
    """Fetch what is missing."""
    with _connection(service) as connection:
        pace.moved(part.size)
        _begin(connection, service, "GET", digest, Range=f"bytes={part.size}-")
        answer = connection.getresponse()
        if answer.status == http.HTTPStatus.OK:
            part.begin_anew()
        elif answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            raise _refusal(service, answer)
        buffer = memoryview(bytearray(_RECEIVED_AT_ONCE))
        while part.size < digest.size:
            count = answer.readinto(buffer)
            part.write(buffer[:count])
            if not count:
                raise _Again("the connection was cut")
            pace.moved(part.size)


def _refusal(service: Service, answer: http.client.HTTPResponse) -> Exception:
    """Return the error of an answer that isn't what was asked for."""
    status = http.HTTPStatus
    said: dict[str, Any] = {}
    with suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
        said = dict(json.loads(answer.read(1 << 16))["error"])
    message = str(said.get("message") or f"the file service answers {answer.status}")
    hint = str(said.get("hint") or "relayq status")
    match answer.status:
        case status.UNAUTHORIZED | status.FORBIDDEN:
            why = answer.headers["WWW-Authenticate"] or ""
            why = why.partition('error_description="')[2].partition('"')[0]
            return TransferFailed(
                f"the file service at {service.url} refuses the token{f': {why}' if why else ''}",
                hint="compare fleet.key and the clocks of both machines (relayq doctor)",
            )
        case status.INSUFFICIENT_STORAGE:
            return NoRoom(message, hint=hint)
        case status.UNPROCESSABLE_ENTITY:
            return _Damaged(message)
        case status.CONFLICT | status.LOCKED | status.REQUEST_TIMEOUT | status.TOO_MANY_REQUESTS:
            return _Again(message)
        case status.NOT_FOUND if not answer.headers["Upload-Offset"]:
            # Our service says it first of all; http.client takes a head that was cut for a whole.
            if answer.headers["Content-Length"] is None:
                return _Again("the connection was cut")
            return TransferFailed(
                f"what answers at {service.url} isn't relayq's file service",
                hint="relayq config get serve.url",
            )
        case status.NOT_FOUND:
            return TransferFailed(
                f"the file service at {service.url} doesn't have this file (any more)",
                hint="submit the job again, or run the one again that made it",
            )
        case code if code >= status.INTERNAL_SERVER_ERROR:
            return _Again(message)
    return TransferFailed(message, hint=hint)
