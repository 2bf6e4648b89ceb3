"""A broker on three machines, as `relayq broker sentinels` makes it: each a loopback address."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from relayq.embedded.nodes import MASTER, Plan, write_nodes
from tests.waiting import until

REDIS, SENTINEL = "redis", "sentinel"
AWAY = (redis.ConnectionError, redis.TimeoutError)


class Nodes:
    """Three machines, each with a Redis and a sentinel."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        users: Sequence[str] = ("worker",),
        is_encrypted: bool = False,
    ) -> None:
        if sys.platform != "linux":
            pytest.skip("needs loopback addresses besides 127.0.0.1, as Linux has them")
        self.binary, self.folder = binary, folder
        net = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250) + 2}"
        self.addresses = [f"{net}.{number}" for number in (1, 2, 3)]
        plan = Plan(
            self.addresses,
            folder,
            has_own_places=True,
            users=users,
            down=2.0,
            is_encrypted=is_encrypted,
        )
        self.ca = folder / "ca.crt"
        self._tls = {"ssl": True, "ssl_ca_certs": str(self.ca)} if is_encrypted else {}
        self._url = write_nodes(folder, plan).replace("/path/to/ca.crt", str(self.ca))
        self._running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}

    def secret(self, user: str) -> str:
        return (self.folder / f"{user}.password").read_text().strip()

    def url(self, user: str = "worker") -> str:
        """Return the broker's URL for a user, as the configuration makes it."""
        return self._url.replace("://", f"://{user}:{self.secret(user)}@")

    def start(self) -> None:
        """Start all, and wait until each sentinel knows of all the others."""
        for address in self.addresses:
            self.run(address, REDIS)
        until(lambda: self.replicas(self.addresses[0]) == 2, within=60, what="both replicas")
        for address in self.addresses:
            self.run(address, SENTINEL)
        for address in self.addresses:
            until(lambda a=address: self._is_ready(a), within=60, what=f"sentinel {address}")

    def run(self, address: str, what: str) -> None:
        """Start one of a machine's two programs."""
        argv = [str(self.binary), str(self.folder / address / f"{what}.conf")]
        self._running[address, what] = subprocess.Popen(
            [*argv, *(["--sentinel"] if what == SENTINEL else [])], start_new_session=True
        )

    def kill(self, address: str, what: Sequence[str] = (REDIS, SENTINEL)) -> None:
        """Kill programs of a machine, all at once as when its power is cut."""
        ended = [self._running.pop((address, one)) for one in what]
        for process in ended:
            process.kill()
        for process in ended:
            process.wait()

    def follow(self, address: str, primary: str) -> None:
        """Make a Redis a replica of another machine's."""
        with self.ask(address) as asked:
            asked.replicaof(primary, self.port(REDIS))
            asked.config_rewrite()

    def signal(self, address: str, what: str, number: int) -> None:
        self._running[address, what].send_signal(number)

    def close(self) -> None:
        """Kill what runs."""
        for address, what in list(self._running):
            self.kill(address, (what,))

    def ask(self, address: str, what: str = REDIS, user: str = "admin") -> Any:
        """Return a connection to one of a machine's programs."""
        login = {"username": user, "password": self.secret(user), "socket_timeout": 2.0}
        return redis.Redis(host=address, port=self.port(what), **login, **self._tls)

    @staticmethod
    def port(what: str) -> int:
        return 6379 if what == REDIS else 26379

    def replicas(self, address: str) -> int:
        """Return how many replicas a Redis has that are up to date."""
        with suppress(*AWAY), self.ask(address) as asked:
            info = asked.info("replication")
            count = info.get("connected_slaves", 0)
            return sum(info[f"slave{n}"]["state"] == "online" for n in range(count))
        return 0

    def primary(self) -> str | None:
        """Return the address of the primary that most sentinels name, None while they don't."""
        named = []
        for address in self.addresses:
            with suppress(*AWAY), self.ask(address, SENTINEL) as asked:
                named.append(asked.sentinel_get_master_addr_by_name(MASTER)[0].decode())
        return next((one for one in named if named.count(one) >= 2), None)

    def is_whole(self) -> bool:
        """Whether there is a primary, and the two others have what it has."""
        primary = self.primary()
        return primary is not None and self.replicas(primary) == 2

    def refusals(self) -> list[str]:
        """Return what users weren't allowed, everywhere."""
        found = []
        for address in self.addresses:
            for what in (REDIS, SENTINEL):
                with suppress(*AWAY), self.ask(address, what) as asked:
                    found += [f"{what} {address}: {entry}" for entry in asked.acl_log()]
        return found

    def _is_ready(self, address: str) -> bool:
        with suppress(*AWAY), self.ask(address, SENTINEL) as asked:
            seen = asked.sentinel_master(MASTER)
            return bool(seen["num-other-sentinels"] == 2 and seen["num-slaves"] == 2)
        return False
