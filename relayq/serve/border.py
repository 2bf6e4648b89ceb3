"""What every request has to get past, whatever it asks for: web pages don't, and nothing endless.

A browser lets a page of any origin send requests to this service, and a page whose own name is made
to lead here (rebinding) read the answers. Neither may find anything open to it, now or in a route
to come. Uploads are the exception to the limits: they have their own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relayq.serve.application import Refused

#: Of what isn't a file.
LARGEST_BODY = 65_536
BODY_LIMIT = 20.0
_CLOSE = {"Connection": "close"}
#: Nobody can have a domain in these; Tailscale answers for its own with its own addresses only.
_PRIVATE = (".local", ".lan", ".home", ".internal", ".home.arpa", ".localdomain", ".ts.net")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)


class Border:
    """The application behind the checks."""

    body_limit = BODY_LIMIT

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = frozenset(map(_plain, (*names, *_own_names())))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", "0") != "0"
        limited = scope["method"] != "PUT" and has_body

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                there = {name.lower() for name, _ in given}
                more = [pair for pair in _HEADERS if pair[0] not in there]
                message = {**message, "headers": [*given, *more]}
            await send(message)

        try:
            self._check(headers)
            if limited:
                _check_body(headers)
        except Refused as error:
            await error.answer()(scope, receive, answer)
            return
        await self._app(scope, self._hurried(receive) if limited else receive, answer)

    def _check(self, headers: dict[bytes, str]) -> None:
        host = headers.get(b"host", "")
        if not self.is_own(host):
            raise Refused(
                421,
                "wrong_host",
                f"this service doesn't go by the name {host[:100]!r}",
                "ask it by its address, or name it in serve.names on the broker's machine",
                headers=_CLOSE,
            )
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site", "none")
        if not (origin is None or _is_of(origin, host)) or site not in ("none", "same-origin"):
            raise Refused(
                403,
                "cross_origin",
                "no web page may ask this service",
                headers=_CLOSE,
            )

    def is_own(self, host: str) -> bool:
        """Tell whether a Host header names this service, and no name that a stranger can have."""
        name = _plain(host)
        if not name:
            return False
        try:
            ip_address(name)
        except ValueError:
            return "." not in name or name.endswith(_PRIVATE) or name in self._names
        return True

    def _hurried(self, receive: Receive) -> Receive:
        """Return `receive` with an end to patience, and to the size of what comes."""
        end: float | None = None
        size = 0

        async def hurried() -> Message:
            nonlocal end, size
            now = asyncio.get_running_loop().time()
            end = now + self.body_limit if end is None else end
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - now))
            except TimeoutError as error:
                raise Refused(
                    408, "silence", "the request didn't come to its end", headers=_CLOSE
                ) from error
            size += len(message.get("body", b""))
            if size > LARGEST_BODY:
                raise _too_large()
            return message

        return hurried


def _check_body(headers: dict[bytes, str]) -> None:
    sort = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if sort != "application/json":
        raise Refused(415, "wrong_type", "what is said here is application/json", headers=_CLOSE)
    length = headers.get(b"content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        raise _too_large()


def _too_large() -> Refused:
    return Refused(413, "too_large", f"at most {LARGEST_BODY} bytes", headers=_CLOSE)


def _is_of(origin: str, host: str) -> bool:
    """Tell whether a page comes from here; behind a proxy that speaks TLS by another scheme."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _plain(host: str) -> str:
    """Return a host without its port, its brackets and the dot at its end; "" for nonsense."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    if any(mark in host for mark in "/@?#\\ "):
        return ""
    return name.rstrip(".").lower()


def _own_names() -> set[str]:
    return {"localhost", socket.gethostname()}
