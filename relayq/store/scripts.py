"""Loads the scripts of `lua/` and calls them by keyword.

A script names its arguments in its header (`-- args: offset id ...`, and `-- rest:` for those
that repeat), so nobody counts positions; with `-- uses: ends` a file that comes before it, and with
`-- then: submit` the script that it goes on as, whose arguments it takes as well. This is the only
caller of `register_script`, and the place where Redis' errors become relayq's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayq.errors import BrokerFull, BrokerUnavailable, RelayqError
from relayq.store.direct import Direct, PasswordRefused, Refused, Unreachable
from relayq.store.replicas import NONE, Replicas

if TYPE_CHECKING:
    import redis
from relayq.store.keys import Keys

_FOLDER = Path(__file__).with_name("lua")
_ARGS = re.compile(r"^-- args: (.+)$", re.MULTILINE)
_USES = re.compile(r"^-- uses: (.+)$", re.MULTILINE)
#: Said to a command, and to a script: its caller needs the right to every command in it.
_NOT_ALLOWED = re.compile("^NOPERM|user executing the script can't")
_WRONG_TYPE = "WRONGTYPE"
_THEN = re.compile(r"^-- then: (\w+)$", re.MULTILINE)


@contextmanager
def broker_errors(what: str = "the broker") -> Iterator[None]:
    """Turn what Redis and its client raise into `BrokerUnavailable`."""
    try:
        yield
    except Exception as error:
        if (ours := _as_ours(error, what)) is None:
            raise
        raise ours from error


def executed(pipe: Any) -> list[Any]:
    """Send a pipeline; where a key isn't of the command's type, the answer is that error."""
    with broker_errors():
        answers = list(pipe.execute(raise_on_error=False))
        for answer in answers:
            if isinstance(answer, Exception) and _WRONG_TYPE not in str(answer):
                raise answer
    return answers


def _as_ours(error: Exception, what: str) -> RelayqError | None:
    """Return what relayq calls an error of Redis; None if it isn't one, or a mistake of ours."""
    if isinstance(error, (PasswordRefused, *_sorts("AuthenticationError"))):
        return BrokerUnavailable(
            f"{what} refuses the password: {error}",
            hint="broker.user and broker.password_file in config.yml; or join by a new token: "
            "relayq broker token on the broker's machine",
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return BrokerUnavailable(
            f"{what} shows a certificate that can't be trusted: {_reason(error)}",
            hint="is broker.ca_file the ca.crt of the broker's machine, and broker.host its name?",
        )
    if isinstance(error, (Unreachable, *_sorts("ConnectionError", "TimeoutError"))):
        return BrokerUnavailable(
            f"can't reach {what}: {str(error).rstrip('.')}",
            hint=_hint(str(error)),
        )
    if isinstance(error, (Refused, *_sorts("ResponseError"))):
        if isinstance(error, _sorts("NoPermissionError")) or _NOT_ALLOWED.search(str(error)):
            return RelayqError(
                f"{what} doesn't allow its user this: {error}",
                hint="on the broker's machine, relayq broker users says who is what",
            )
        if str(error).startswith("NOREPLICAS"):
            return BrokerUnavailable(
                f"{what} has too few replicas, and takes nothing that only it would have",
                hint="are their machines up, and Redis on them? relayq doctor",
            )
        if _WRONG_TYPE in str(error):
            return RelayqError(
                f"{what} has something else than relayq's under one of its keys: {error}",
                hint="its workers remove that within a day: relayq worker logs",
            )
        out_of_memory = isinstance(error, _sorts("OutOfMemoryError"))
        if out_of_memory or "OOM command" in str(error) or "MISCONF" in str(error):
            return BrokerFull(
                f"{what} takes no new work: {error}",
                hint="free memory or disk on the broker's machine",
            )
    return None


def _hint(error: str) -> str:
    """Return what to look at, for what can be told of a connection that failed."""
    if "handshake" in error or "WRONG_VERSION" in error:
        return "does it speak TLS at all? (broker.tls in config.yml)"
    if "reset by peer" in error:
        return "was it just restarted, or does it speak TLS only? (broker.tls in config.yml)"
    return "is its machine up, and on the network? (broker.host in config.yml)"


def _reason(error: Exception) -> str:
    """Return what OpenSSL says of a certificate, without its codes."""
    return str(error).rpartition("failed: ")[2].partition(" (_ssl")[0]


def _sorts(*names: str) -> tuple[type[Exception], ...]:
    """Return these errors of redis-py; none while nobody has imported it."""
    known: Any = sys.modules.get("redis.exceptions")
    return tuple(getattr(known, name) for name in names) if known is not None else ()


class _Sent:
    """A script that was sent, over a connection that nobody else uses until the answer was read."""

    def __init__(
        self, pool: Any, sha: str, keys: Sequence[str], values: Sequence[Any], replicas: Replicas
    ) -> None:
        # Untyped, since redis-py leaves its connections' methods so.
        self._pool = pool
        self._replicas = replicas
        self._connection = pool.get_connection()
        commands = [("EVALSHA", sha, len(keys), *keys, *values), *replicas.commands]
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
        except BaseException:
            self._drop()
            raise

    def answer(self) -> Any:
        """Wait for the answer."""
        try:
            answer, *reached = [self._read() for _ in range(1 + len(self._replicas.commands))]
            if isinstance(answer, Exception):
                raise answer
            self._replicas.check(reached)
        except BaseException as error:
            # The connection of an answer that is no more than an error is as good as before.
            self._drop(is_good=isinstance(error, _sorts("ResponseError")))
            raise
        self._pool.release(self._connection)
        return answer

    def _read(self) -> Any:
        try:
            return self._connection.read_response()
        except _sorts("ResponseError") as error:
            return error

    def _drop(self, *, is_good: bool = False) -> None:
        # Half a command, or an answer that is still to come, must not meet the next call.
        if not is_good:
            self._connection.disconnect()
        self._pool.release(self._connection)


class Scripts:
    """The scripts of one data set; `offset` shifts Redis' clock in tests and is 0 otherwise."""

    def __init__(
        self,
        connection: redis.Redis,
        keys: Keys,
        offset: Callable[[], float],
        replicas: Replicas = NONE,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self.offset = offset
        self._replicas = replicas
        self._loaded: dict[str, tuple[Any, list[str]]] = {}

    def call(self, script_name: str, rest: Sequence[Any] = (), **arguments: Any) -> Any:
        """Run one script atomically; bytes stay bytes, words are bytes too."""
        if self._replicas.are_waited_for(script_name):
            return self.send(script_name, rest, **arguments)()
        script, values = self._prepared(script_name, arguments)
        with self._errors():
            return script(keys=[self._keys("meta")], args=[*values, *rest])

    def call_all(
        self, script_name: str, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
    ) -> list[Any]:
        """Run one script several times, sent in one go; each time is atomic by itself.

        `calls` are pairs of `rest` and the named arguments.
        """
        if isinstance(self._connection, Direct):
            return [self.call(script_name, rest, **arguments) for rest, arguments in calls]
        with self._errors():
            # Untyped in redis-py.
            pipe: Any = self._connection.pipeline(transaction=False)
            for rest, arguments in calls:
                script, values = self._prepared(script_name, arguments)
                script(keys=[self._keys("meta")], args=[*values, *rest], client=pipe)
            for command in self._replicas.commands:
                pipe.execute_command(*command)
            answers = list(pipe.execute())
            self._replicas.check(answers[len(calls) :])
        return answers[: len(calls)]

    def send(
        self, script_name: str, rest: Sequence[Any] = (), **arguments: Any
    ) -> Callable[[], Any]:
        """Begin to `call`; the function that is returned waits for the answer, and is called once.

        So the caller can prepare the next call while Redis runs this one.
        """
        if isinstance(self._connection, Direct):
            # Its one connection can't be left with an answer that is still to come.
            answered = self.call(script_name, rest, **arguments)
            return lambda: answered
        script, values = self._prepared(script_name, arguments)
        keys, values = [self._keys("meta")], [*values, *rest]
        sent: _Sent | None = None
        pool = self._connection.connection_pool
        with self._errors(), suppress(*_sorts("ConnectionError")):
            sent = _Sent(pool, script.sha, keys, values, self._replicas)

        def answer() -> Any:
            with self._errors():
                try:
                    if sent is not None:
                        return sent.answer()
                except _sorts("NoScriptError", "ConnectionError"):
                    pass
                # As `call` would: it loads the script, and replaces a broken connection once.
                if not self._replicas.commands:
                    return script(keys=keys, args=values)
                self._connection.script_load(script.script)
                return _Sent(pool, script.sha, keys, values, self._replicas).answer()

        return answer

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """As `broker_errors`; a primary that is none any more is looked for anew."""
        try:
            with broker_errors():
                yield
        except BrokerUnavailable:
            if self._replicas.number:
                self._connection.connection_pool.disconnect(inuse_connections=False)
            raise

    def _prepared(self, name: str, arguments: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """Return a script and the values of its named arguments."""
        script, names = self._script(name)
        given = {**arguments, "offset": self.offset()}
        if set(given) != set(names):
            raise TypeError(f"{name} takes {names}, not {sorted(given)}")
        return script, [given[name] for name in names]

    def _script(self, name: str) -> tuple[Any, list[str]]:
        if name not in self._loaded:
            source, names = self._source(name)
            self._loaded[name] = (self._connection.register_script(source), names)
        return self._loaded[name]

    def _source(self, name: str) -> tuple[str, list[str]]:
        body = (_FOLDER / f"{name}.lua").read_text("utf-8")
        names = _names(name, body)
        if (then := _THEN.search(body)) is not None:
            goes_on = (_FOLDER / f"{then[1]}.lua").read_text("utf-8")
            body += goes_on
            names = list(dict.fromkeys([*names, *_names(then[1], goes_on)]))
        source = _shared(body) + body
        values = ", ".join(f"ARGV[{i + 1}]" for i in range(len(names)))
        header = f"{self._keys.lua_table(source)}\nlocal {', '.join(names)} = {values}\n"
        header += f"local rest = {len(names) + 1}\n"
        if "template" not in names:
            header += "local template\n"
        return header + source, names


def _shared(body: str) -> str:
    """Return what a script's text needs before it, each file after those that it uses itself."""
    texts = {"prelude": (_FOLDER / "prelude.lua").read_text("utf-8")}

    def add(names: str) -> None:
        for name in names.split():
            if name not in texts:
                text = (_FOLDER / f"{name}.lua").read_text("utf-8")
                for used in _USES.findall(text):
                    add(used)
                texts[name] = text

    for names in _USES.findall(body):
        add(names)
    return "".join(texts.values())


def _names(name: str, body: str) -> list[str]:
    found = _ARGS.search(body)
    if found is None:
        raise ValueError(f"{name}.lua has no `-- args:` line")
    return found[1].split()
