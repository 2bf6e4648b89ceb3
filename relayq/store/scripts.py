"""Loads the scripts of `lua/` and calls them by keyword.

A script names its arguments in its header (`-- args: offset id ...`, and `-- rest:` for those
that repeat), so nobody counts positions. This is the only caller of `register_script`, and the
place where Redis' errors become relayq's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import redis

from relayq.errors import BrokerUnavailable
from relayq.store.keys import Keys

_ARGS = re.compile(r"^-- args: (.+)$", re.MULTILINE)


@contextmanager
def broker_errors(what: str = "the broker") -> Iterator[None]:
    """Turn what Redis and its client raise into `BrokerUnavailable`."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise BrokerUnavailable(
            f"{what} refuses the password: {error}", hint="check broker.password_file in config.yml"
        ) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise BrokerUnavailable(
            f"can't reach {what}: {str(error).rstrip('.')}",
            hint="is its machine up, and on the network? (broker.host in config.yml)",
        ) from error
    except redis.exceptions.ResponseError as error:
        out_of_memory = isinstance(error, redis.exceptions.OutOfMemoryError)
        if out_of_memory or "OOM command" in str(error) or "MISCONF" in str(error):
            raise BrokerUnavailable(
                f"{what} takes no new work: {error}",
                hint="free memory or disk on the broker's machine",
            ) from error
        raise


class Scripts:
    """The scripts of one data set; `offset` shifts Redis' clock in tests and is 0 otherwise."""

    def __init__(self, connection: redis.Redis, keys: Keys, offset: Callable[[], float]) -> None:
        self._connection = connection
        self._keys = keys
        self.offset = offset
        self._loaded: dict[str, tuple[Any, list[str]]] = {}

    def call(self, script_name: str, rest: Sequence[Any] = (), **arguments: Any) -> Any:
        """Run one script atomically; bytes stay bytes, words are bytes too."""
        script, names = self._script(script_name)
        arguments["offset"] = self.offset()
        if set(arguments) != set(names):
            raise TypeError(f"{script_name} takes {names}, not {sorted(arguments)}")
        with broker_errors():
            return script(
                keys=[self._keys("meta")], args=[*(arguments[name] for name in names), *rest]
            )

    def _script(self, name: str) -> tuple[Any, list[str]]:
        if name not in self._loaded:
            source, names = self._source(name)
            self._loaded[name] = (self._connection.register_script(source), names)
        return self._loaded[name]

    def _source(self, name: str) -> tuple[str, list[str]]:
        folder = resources.files("relayq.store") / "lua"
        body = (folder / f"{name}.lua").read_text()
        prelude = (folder / "prelude.lua").read_text()
        found = _ARGS.search(body)
        if found is None:
            raise ValueError(f"{name}.lua has no `-- args:` line")
        names = found[1].split()
        values = ", ".join(f"ARGV[{i + 1}]" for i in range(len(names)))
        header = f"{self._keys.lua_table()}\nlocal {', '.join(names)} = {values}\n"
        header += f"local rest = {len(names) + 1}\n"
        if "template" not in names:
            header += "local template\n"
        return header + prelude + body, names
