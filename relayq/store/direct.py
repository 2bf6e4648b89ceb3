"""A plain connection to Redis for commands that ask little and end at once.

To import redis-py costs a command three times as much as all of its own code and its answer. So the
command line asks over `Direct`: it knows the reading commands and scripts that most screens need,
and hands everything else to redis-py, which is imported then. It answers as redis-py does. Workers
and Python programs never use it: they live long.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_Shape = Callable[[Any], Any]


class Refused(Exception):
    """Redis answered with an error."""


class PasswordRefused(Exception):
    """Redis wants another password."""


class Unreachable(Exception):
    """Redis isn't there, doesn't answer in time, or isn't ready yet."""


class _Closed(Unreachable):
    """Redis closed the connection, perhaps long ago."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis listens, and how to log in: a path or host and port, and a database.

    `ca` is the file with whom to trust, empty for all that this machine trusts; None without TLS.
    """

    path: str
    host: str
    port: int
    database: int
    login: tuple[str, ...]
    ca: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address | None:
        """Read a URL; None if it asks for more than this module knows."""
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query))
        database = asked.pop("db", None)
        is_encrypted = parts.scheme == "rediss" and asked.pop("ssl_cert_reqs", "") == "required"
        ca = asked.pop("ssl_ca_certs", "") if is_encrypted else None
        if not (is_encrypted or parts.scheme in ("redis", "unix")) or asked:
            return None
        is_path = parts.scheme == "unix"
        if not is_path and database is None:
            database = parts.path.strip("/")
        try:
            number, port = int(database or 0), parts.port or 6379
        except ValueError:
            return None
        login = tuple(unquote(word) for word in (parts.username, parts.password) if word)
        if parts.username and not parts.password:
            return None
        path = unquote(parts.path) if is_path else ""
        return cls(path, unquote(parts.hostname or "localhost"), port, number, login, ca)

    def connect(self, patience: float) -> socket.socket:
        """Connect."""
        if not self.path:
            reached = socket.create_connection((self.host, self.port), timeout=min(patience, 3.5))
            reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            reached = socket.socket(socket.AF_UNIX)
            try:
                reached.settimeout(min(patience, 3.5))
                reached.connect(self.path)
            except BaseException:
                reached.close()
                raise
        reached.settimeout(patience)
        return reached if self.ca is None else self._encrypted(reached)

    def _encrypted(self, plain: socket.socket) -> socket.socket:
        """Speak TLS from now on, to whom a trusted certificate names."""
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            return context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class _Link:
    """One connection, logged in."""

    def __init__(self, address: Address, patience: float) -> None:
        try:
            self._socket = address.connect(patience)
        except OSError as error:
            why = f"Error {error.errno} connecting to {address}. {error.strerror or error}"
            raise Unreachable(why) from error
        self._answers = self._socket.makefile("rb")
        try:
            self._greet(address)
        except BaseException:
            self.close()
            raise

    def _greet(self, address: Address) -> None:
        greeting: list[Sequence[Any]] = []
        if address.login:
            greeting.append(("AUTH", *address.login))
        if address.database:
            greeting.append(("SELECT", address.database))
        answers = self.roundtrip(b"".join(map(_packed, greeting)), len(greeting))
        for command, answer in zip(greeting, answers, strict=True):
            if isinstance(answer, Refused) and command[0] == "AUTH":
                raise PasswordRefused(str(answer))
            if isinstance(answer, Exception):
                raise answer

    def roundtrip(self, request: bytes, count: int) -> list[Any]:
        """Send commands and return so many answers."""
        self._socket.sendall(request)
        return [_read(self._answers) for _ in range(count)]

    def close(self) -> None:
        """Close it."""
        self._answers.close()
        self._socket.close()


class Direct:
    """A connection, made when it is first used; a further one while that is busy.

    `whole` makes the client of redis-py that does what this one can't.
    """

    def __init__(self, address: Address, *, patience: float, whole: Callable[[], Any]) -> None:
        self._address = address
        self._patience = patience
        self._make_whole = whole
        # A signal's handler may ask in the middle of an answer, and so may another thread.
        self._idle: list[_Link] = []

    @cached_property
    def whole(self) -> Any:
        """The client of redis-py."""
        return self._make_whole()

    def __getattr__(self, name: str) -> Any:
        if name not in _KNOWN:
            return getattr(self.whole, name)

        def ask(*arguments: Any, **options: Any) -> Any:
            command, shape = _KNOWN[name](*arguments, **options)
            return shape(self.ask([command])[0])

        return ask

    def pipeline(self, transaction: bool = True) -> Any:
        """Return what gathers commands, to send them in one go."""
        return self.whole.pipeline(transaction=True) if transaction else Pipeline(self)

    def info(self, *sections: str) -> dict[str, Any]:
        """Return what Redis says of itself."""
        if sections:
            return dict(self.whole.info(*sections))
        lines = self.ask([("INFO",)])[0].decode(errors="replace").splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return {name: _number(value) for name, value in pairs}

    def register_script(self, source: str) -> Script:
        """Return a script to call."""
        return Script(self, source)

    def ask(self, commands: Sequence[Sequence[Any]], *, raise_on_error: bool = True) -> list[Any]:
        """Send commands and return their answers; raises the first error among them."""
        request = b"".join(map(_packed, commands))
        try:
            answers = self._exchange(request, len(commands))
        except _Closed:
            # While it was idle: Redis ends such connections. Scripts may be sent twice.
            self._close_idle()
            answers = self._exchange(request, len(commands))
        for answer in answers if raise_on_error else ():
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self) -> None:
        """Close every connection."""
        self._close_idle()
        if "whole" in self.__dict__:
            self.whole.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, request: bytes, count: int) -> list[Any]:
        link: _Link | None = None
        try:
            link = self._idle.pop() if self._idle else _Link(self._address, self._patience)
            answers = link.roundtrip(request, count)
        except BaseException as error:
            # Half a command, or an answer that is still to come, must not meet the next one.
            if link is not None:
                link.close()
            if isinstance(error, TimeoutError):
                raise Unreachable(f"Timeout reading from {self._address}") from error
            if isinstance(error, (ConnectionError, EOFError)):
                raise _Closed(f"Connection to {self._address} closed: {error}") from error
            raise
        self._idle.append(link)
        return answers


class Pipeline:
    """Commands that are sent in one go; a command that isn't known here makes it redis-py's."""

    def __init__(self, connection: Direct) -> None:
        self._connection = connection
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._whole: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._whole is None and name not in _KNOWN:
            self._whole = self._connection.whole.pipeline(transaction=False)
            for known, arguments, options in self._calls:
                getattr(self._whole, known)(*arguments, **options)
        if self._whole is not None:
            return getattr(self._whole, name)

        def note(*arguments: Any, **options: Any) -> Pipeline:
            self._calls.append((name, arguments, options))
            return self

        return note

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands and return their answers, errors among them if they aren't raised."""
        if self._whole is not None:
            return list(self._whole.execute(raise_on_error))
        made = [_KNOWN[name](*given, **options) for name, given, options in self._calls]
        self._calls.clear()
        commands = [command for command, _ in made]
        answers = self._connection.ask(commands, raise_on_error=raise_on_error) if made else []
        return [
            answer if isinstance(answer, Exception) else shape(answer)
            for (_, shape), answer in zip(made, answers, strict=True)
        ]


class Script:
    """A script, sent whole only when Redis doesn't have it."""

    def __init__(self, connection: Direct, source: str) -> None:
        import hashlib

        self._connection = connection
        self._source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it."""
        rest = (len(keys), *keys, *args)
        try:
            return self._connection.ask([("EVALSHA", self.sha, *rest)])[0]
        except Refused as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        loading = ("SCRIPT", "LOAD", self._source)
        return self._connection.ask([loading, ("EVALSHA", self.sha, *rest)])[1]


def _packed(command: Sequence[Any]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _read(answers: BufferedReader) -> Any:
    line = answers.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError("Connection closed by server.")
    sort, value = line[:1], line[1:-2]
    if sort == b"$":
        size = int(value)
        text = answers.read(size + 2) if size >= 0 else None
        if text is not None and len(text) < size + 2:
            raise EOFError("Connection closed by server.")
        return None if text is None else text[:-2]
    if sort == b"*":
        return None if value == b"-1" else [_read(answers) for _ in range(int(value))]
    if sort == b":":
        return int(value)
    if sort == b"+":
        return value
    if sort == b"-":
        return _error(value.decode(errors="replace"))
    raise Unreachable("what answers there isn't Redis")


def _error(text: str) -> Exception:
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return PasswordRefused(text)
    if text.startswith(("LOADING", "MASTERDOWN")):
        return Unreachable(text.partition(" ")[2])
    return Refused(text.removeprefix("ERR "))


def _number(text: str) -> int | float | str:
    for make in (int, float):
        try:
            return make(text)
        except ValueError:
            continue
    return text


def _same(answer: Any) -> Any:
    return answer


def _pairs(answer: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _optional_float(answer: Any) -> float | None:
    return None if answer is None else float(answer)


def _scored(answer: Sequence[Any]) -> list[tuple[Any, float]]:
    return [(one, float(score)) for one, score in zip(answer[::2], answer[1::2], strict=True)]


def _entries(answer: Sequence[Any]) -> list[tuple[Any, dict[Any, Any]]]:
    return [(id, _pairs(fields)) for id, fields in answer]


def _plain(word: str, shape: _Shape = _same) -> Callable[..., tuple[Sequence[Any], _Shape]]:
    """Return what makes a command whose arguments are sent as they are, lists unpacked."""

    def made(*given: Any) -> tuple[Sequence[Any], _Shape]:
        unpacked = (one if isinstance(one, (list, tuple)) else (one,) for one in given)
        return (word, *(part for some in unpacked for part in some)), shape

    return made


def _zrange(
    key: str, start: int, end: int, desc: bool = False, withscores: bool = False
) -> tuple[Sequence[Any], _Shape]:
    command = ["ZREVRANGE" if desc else "ZRANGE", key, start, end]
    return (command + ["WITHSCORES"], _scored) if withscores else (command, _same)


def _between(word: str) -> Callable[..., tuple[Sequence[Any], _Shape]]:
    """Return what makes a command for a part of a sorted set."""

    def made(
        key: str, low: Any, high: Any, start: int | None = None, num: int | None = None
    ) -> tuple[Sequence[Any], _Shape]:
        limit = () if start is None else ("LIMIT", start, num)
        return (word, key, low, high, *limit), _same

    return made


def _xrevrange(
    key: str, max: str = "+", min: str = "-", count: int | None = None
) -> tuple[Sequence[Any], _Shape]:
    limit = () if count is None else ("COUNT", count)
    return ("XREVRANGE", key, max, min, *limit), _entries


#: What is asked here, by the name of redis-py's method.
_KNOWN: Mapping[str, Callable[..., tuple[Sequence[Any], _Shape]]] = {
    **{
        name: _plain(name.upper())
        for name in "exists get hget hmget llen lrange mget scard zcard zrank zrevrange".split()
    },
    "hgetall": _plain("HGETALL", _pairs),
    "smembers": _plain("SMEMBERS", set),
    "time": _plain("TIME", lambda answer: tuple(map(int, answer))),
    "zscore": _plain("ZSCORE", _optional_float),
    "zmscore": _plain("ZMSCORE", lambda answer: list(map(_optional_float, answer))),
    "zrange": _zrange,
    "zrangebyscore": _between("ZRANGEBYSCORE"),
    "zrangebylex": _between("ZRANGEBYLEX"),
    "xrevrange": _xrevrange,
}
