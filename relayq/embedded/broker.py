"""The private broker: a Redis server in `<home>/broker`, which its owner alone can read.

There are `redis.conf`, `password`, `redis.log`, the append-only file, `broker.json` (port,
address, version, pid) and two locks. `start.lock` is held while somebody starts or stops.
`alive` is locked by the server itself: it inherits the descriptor, so the lock ends with the
process and no stale pid can mislead.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from relayq import clock
from relayq.config import Config
from relayq.embedded.processes import (
    detach,
    end_of,
    is_gone,
    is_held,
    locked,
    takes,
    wait_for,
    write,
)
from relayq.embedded.server import dotted, find_redis_server, parsed, version_of
from relayq.embedded.sockets import addresses, ask, check_free, check_listen, free_port
from relayq.errors import RelayqError

_START_LIMIT = 20.0  # without any answer
_LOAD_LIMIT = 300.0  # while the server says that it reads its data
_STOP_LIMIT = 10.0

_CONFIGURATION = """\
# Written by relayq at each start.
bind {addresses}
port {port}
protected-mode yes
requirepass {password}
tcp-keepalive 60
daemonize no
supervised no
dir {folder}
pidfile {pidfile}
logfile {logfile}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
"""
_SINCE_7 = """\
enable-protected-configs no
enable-debug-command no
enable-module-command no
"""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """A running private broker."""

    url: str
    port: int
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What `broker.json` keeps from one start to the next."""

    port: int
    listen: str
    version: str
    pid: int


def start_broker(
    config: Config, *, listen: str | None = None, port: int | None = None
) -> BrokerFacts:
    """Start the broker unless it runs, and return its facts once it answers.

    The port and the address are remembered, so later starts need neither. Any number of
    processes may call this at once.
    """
    if listen is not None:
        check_listen(listen)
    folder = _folder(config)
    facts = running_broker(config)
    if facts is None:
        with locked(folder / "start.lock"):
            facts = _start(folder, listen, port)
    remembered = _recall(folder)
    has_address = remembered.listen if remembered else None
    for what, asked, has in (("port", port, facts.port), ("address", listen, has_address)):
        if asked is not None and asked != has:
            raise RelayqError(
                f"the private broker runs already, with {what} {has} and not {asked}",
                hint="relayq down, then relayq up again",
            )
    return facts


def broker_url(config: Config) -> str | None:
    """Return the URL of this home's broker, running or not; None before its first start."""
    folder = _folder(config)
    remembered, password = _recall(folder), _password(folder)
    return _url(remembered.port, password) if remembered and password else None


def running_broker(config: Config) -> BrokerFacts | None:
    """Return the broker's facts if it answers now and is the one that was started here."""
    folder = _folder(config)
    remembered, password = _recall(folder), _password(folder)
    if not remembered or not password or not is_held(folder / "alive"):
        return None
    pid = ask(remembered.port, password).ready_pid
    if pid is None or pid != remembered.pid:
        return None
    return BrokerFacts(_url(remembered.port, password), remembered.port, pid, remembered.version)


def stop_broker(config: Config) -> bool:
    """End the broker, its data on disk; return False when there was none."""
    folder = _folder(config)
    alive = folder / "alive"
    if not is_held(alive):
        return False
    with locked(folder / "start.lock"):
        remembered = _recall(folder)
        if remembered is None:
            raise RelayqError(f"{folder} has lost broker.json: end the broker by hand")
        deadline = clock.boottime() + _STOP_LIMIT
        while is_held(alive) and clock.boottime() < deadline:
            ask(remembered.port, _password(folder) or "", "SHUTDOWN")
            wait_for(lambda: not is_held(alive), 0.5)
        # Nothing that was answered is lost: the server syncs before it answers.
        if is_held(alive) and _looks_like_server(remembered):
            os.killpg(os.getpgid(remembered.pid), signal.SIGKILL)
        if not wait_for(lambda: not is_held(alive), 5.0):
            raise RelayqError(f"the private broker (pid {remembered.pid}) doesn't end")
        wait_for(lambda: not remembered.pid or is_gone(remembered.pid), 2.0)
    return True


def _start(folder: Path, listen: str | None, port: int | None) -> BrokerFacts:
    """Start the broker unless it is alive; the caller holds the lock."""
    broker = _recall(folder)
    log = folder / "redis.log"
    begin = log.stat().st_size if log.exists() else 0
    pid = _answered(folder, broker) if broker else None
    if broker is None or pid is None:
        broker = _launch(folder, broker, listen, port)
        pid = _answered(folder, broker)
    if pid is None:
        raise RelayqError(f"the private broker didn't start\n{end_of(log, begin)}")
    _remember(folder, replace(broker, pid=pid))
    return BrokerFacts(_url(broker.port, _password(folder) or ""), broker.port, pid, broker.version)


def _launch(
    folder: Path, before: _Remembered | None, listen: str | None, port: int | None
) -> _Remembered:
    """Start a server process, which may end at once; return what to remember when it answers."""
    server, version = _suitable_server(folder, before)
    listen = listen or (before.listen if before else "127.0.0.1")
    port = port or (before.port if before else free_port(listen))
    broker = _Remembered(port=port, listen=listen, version=dotted(version), pid=0)
    with (folder / "alive").open("ab") as alive:
        if not wait_for(lambda: takes(alive.fileno()), 2.0):
            raise RelayqError(f"a broker of {folder} runs, and broker.json doesn't know it")
        for address in addresses(listen):
            check_free(address, port)
        write(folder / "redis.conf", _configuration(folder, listen, port, version))
        # The version counts once the server touched the data; the rest must outlive a crash here.
        _remember(folder, replace(broker, version=before.version) if before else broker)
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        argv = [str(server), str(folder / "redis.conf")]
        detach(argv, env=env, cwd=folder, log=folder / "redis.log", pass_fds=[alive.fileno()])
    return broker


def _suitable_server(folder: Path, before: _Remembered | None) -> tuple[Path, tuple[int, ...]]:
    """Return the server and its version; an older one would find no data, or refuse them."""
    server = find_redis_server(os.environ)
    version = version_of(server)
    if before and version[:2] < parsed(before.version)[:2]:
        raise RelayqError(
            f"{server} is version {dotted(version)}, too old for the data in {folder}: "
            f"version {before.version} wrote them",
            hint="name that one in RELAYQ_REDIS_SERVER",
        )
    return server, version


def _answered(folder: Path, broker: _Remembered) -> int | None:
    """Return the server's pid once it answers, or None if it isn't alive any more."""
    password = _password(folder) or ""
    end = clock.boottime() + _LOAD_LIMIT
    patience = clock.boottime() + _START_LIMIT
    while is_held(folder / "alive"):
        answer = ask(broker.port, password)
        if answer.ready_pid is not None:
            return answer.ready_pid
        if answer.is_loading:
            patience = clock.boottime() + _START_LIMIT
        if clock.boottime() > min(patience, end):
            raise RelayqError(
                f"the private broker runs and doesn't answer\n{end_of(folder / 'redis.log')}",
                hint="relayq down, then relayq up",
            )
        clock.sleep(0.01)
    return None


def _configuration(folder: Path, listen: str, port: int, version: tuple[int, ...]) -> bytes:
    password = _password(folder)
    if password is None:
        password = secrets.token_hex(32)
        write(folder / "password", f"{password}\n".encode())
    text = _CONFIGURATION.format(
        addresses=" ".join(addresses(listen)),
        port=port,
        password=password,
        folder=_quoted(folder),
        pidfile=_quoted(folder / "redis.pid"),
        logfile=_quoted(folder / "redis.log"),
    )
    return os.fsencode(text + (_SINCE_7 if version >= (7,) else ""))


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _folder(config: Config) -> Path:
    return config.home / "broker"


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _password(folder: Path) -> str | None:
    return (_text(folder / "password") or "").strip() or None


def _recall(folder: Path) -> _Remembered | None:
    path = folder / "broker.json"
    text = _text(path)
    try:
        return None if text is None else _Remembered(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise RelayqError(f"{path} can't be understood: {error}") from error


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RelayqError(f"the private broker can't be used: {error}") from error


def _remember(folder: Path, broker: _Remembered) -> None:
    write(folder / "broker.json", json.dumps(asdict(broker)).encode() + b"\n")


def _looks_like_server(broker: _Remembered) -> bool:
    """Tell whether the remembered pid is still the server's, by the title that it gives itself."""
    argv = ["ps", "-o", "command=", "-p", str(broker.pid)]
    title = subprocess.run(argv, capture_output=True, text=True).stdout
    return "-server" in title and f":{broker.port}" in title
