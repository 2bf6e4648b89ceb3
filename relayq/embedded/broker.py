"""The private broker: a Redis server in `<home>/broker`, which its owner alone can read.

There are `redis.conf`, the users with their secrets (see `userfile`), `redis.log`, the append-only
file, `ballast`, `broker.json` (port, address, version, pid, ...), the certificates of one over TLS,
and two locks. `start.lock` is held while somebody starts or stops. `alive` is locked by the server
itself: it inherits the descriptor, so the lock ends with the process and no stale pid can mislead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

from relayq import clock
from relayq.config import Config
from relayq.embedded import ballast, userfile
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
from relayq.embedded.server import dotted, find_redis_server, parsed, supervision, version_of
from relayq.embedded.settings import FSYNC, Encryption, Settings
from relayq.embedded.sockets import (
    Answer,
    addresses,
    ask,
    check_free,
    check_listen,
    free_port,
    is_everywhere,
)
from relayq.embedded.userfile import LOCAL
from relayq.errors import RelayqError
from relayq.model.access import ADMIN
from relayq.tls import query as tls_query

_START_LIMIT = 20.0  # without any answer
_LOAD_LIMIT = 300.0  # while the server says that it reads its data
_STOP_LIMIT = 10.0
_LOG_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """A running private broker."""

    url: str
    port: int
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What `broker.json` keeps from one start to the next.

    `is_wanted` until it is stopped; `is_managed` while something else starts it again.
    """

    port: int
    listen: str
    version: str
    pid: int
    fsync: str = FSYNC[0]
    ballast: int = ballast.SIZE
    is_wanted: bool = True
    is_managed: bool = False
    tls: bool = False
    tls_names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a start asks for; None is what it was before, at first the default.

    `ballast` is the size in bytes of the file that is given up when the disk is full, 0 for none.
    `tls_names` are further names by which others call this machine.
    """

    listen: str | None = None
    port: int | None = None
    fsync: str | None = None
    ballast: int | None = None
    tls: bool | None = None
    tls_names: Sequence[str] | None = None


_NO_WISHES = Wishes()


def start_broker(
    config: Config,
    *,
    listen: str | None = None,
    port: int | None = None,
    fsync: str | None = None,
    ballast: int | None = None,
    tls: bool | None = None,
    tls_names: Sequence[str] | None = None,
) -> BrokerFacts:
    """Start the broker unless it runs, and return its facts once it answers.

    What was asked for is remembered, so later starts need not say it. Any number of processes may
    call this at once.
    """
    wishes = Wishes(listen, port, fsync, ballast, tls, tls_names)
    folder = broker_folder(config)
    _check_place(_recall(folder), wishes)
    facts = running_broker(config)
    if facts is None:
        with locked(folder / "start.lock"):
            facts = start_locked(folder, wishes)
    _check_wishes(_recall(folder), wishes)
    return facts


def _check_place(before: _Remembered | None, wishes: Wishes) -> None:
    """Refuse to listen where this broker mustn't."""
    if before is None:
        before = _Remembered(port=0, listen="127.0.0.1", version="", pid=0)
    is_encrypted = before.tls if wishes.tls is None else wishes.tls
    listen = before.listen if wishes.listen is None else wishes.listen
    check_listen(listen, is_encrypted=is_encrypted)


_SHOWN = {
    "port": "port",
    "listen": "address",
    "fsync": "fsync",
    "ballast": "ballast",
    "tls": "TLS",
    "tls_names": "names",
}


def _check_wishes(has: _Remembered | None, wishes: Wishes) -> None:
    """Refuse what the broker that runs isn't."""
    for name, what in _SHOWN.items():
        asked, is_so = getattr(wishes, name), getattr(has, name, None)
        if asked is not None and asked != is_so:
            so, other = _said(is_so), _said(asked)
            raise RelayqError(
                f"the private broker runs already, with {what} {so} and not {other}",
                hint="relayq down, then relayq up again",
            )


def _said(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def become_broker(config: Config, wishes: Wishes, *, takes_over: bool = False) -> NoReturn:
    """Turn this process into the broker, for a service manager that watches it.

    It may take over from one that runs in the background.
    """
    folder = broker_folder(config)
    _check_place(_recall(folder), wishes)
    if takes_over:
        stop_broker(config)
    elif (running := running_broker(config)) is not None:
        raise RelayqError(
            f"the private broker runs already (pid {running.pid})", hint="relayq broker stop"
        )
    with locked(folder / "start.lock"):
        before = _recall(folder)
        server, broker = _wanted(folder, before, wishes)
        supervised, told = supervision(server)
        with (folder / "alive").open("ab") as alive:
            _prepare(folder, server, broker, alive.fileno())
            # exec keeps the pid and this descriptor, whose lock says that the broker is alive.
            _remember(folder, replace(broker, pid=os.getpid(), is_managed=True))
            os.set_inheritable(alive.fileno(), True)
            os.chdir(folder)
            argv = [str(server), str(folder / "redis.conf")]
            os.execve(server, [*argv, *supervised], {**_environment(), **told})


def keep_broker(config: Config) -> str | None:
    """Start the broker again if it died, and give up its ballast if need be; return what was done.

    One that was stopped on purpose, or never started, stays as it is, and one that a service
    manager runs is that one's to start. For what calls this again
    and again beside a worker: under `appendfsync always` a full disk ends Redis.
    """
    folder = broker_folder(config)
    broker = _recall(folder)
    if broker is None or not broker.is_wanted:
        return None
    if not is_held(folder / "alive"):
        if broker.is_managed:
            return None
        start_broker(config)
        return "the private broker had died: started it again"
    if ballast.make_room(folder):
        return f"the disk of {folder} is nearly full: gave up the broker's ballast"
    ballast.restore(folder, broker.ballast)
    return None


def wanted_ballast(config: Config) -> int:
    """Return how large the ballast should be; 0 without a private broker, too."""
    broker = _recall(broker_folder(config))
    return broker.ballast if broker is not None else 0


def wanted_fsync(config: Config) -> str | None:
    """Return how the private broker's answers reach the disk, None before its first start."""
    broker = _recall(broker_folder(config))
    return None if broker is None else broker.fsync


def wanted_port(config: Config) -> int | None:
    """Return the port that the private broker has or will have, None before its first start."""
    broker = _recall(broker_folder(config))
    return None if broker is None else broker.port


def is_dead(config: Config) -> bool:
    """Tell whether the broker should run and doesn't."""
    folder = broker_folder(config)
    broker = _recall(folder)
    return broker is not None and broker.is_wanted and not is_held(folder / "alive")


def broker_url(config: Config) -> str | None:
    """Return the URL of this home's broker, running or not; None before its first start."""
    return url_of(broker_folder(config), LOCAL)


def url_of(folder: Path, name: str) -> str | None:
    """Return the URL for `local` or `admin`, None before the broker's first start."""
    remembered, secret = _recall(folder), userfile.secret_of(folder, name)
    return _url(folder, remembered, name, secret) if remembered and secret else None


def answered_url(folder: Path) -> str | None:
    """Return the URL for `admin` once a broker that is alive answers, None if there is none."""
    broker = _recall(folder)
    if broker is None or _answered(folder, broker) is None:
        return None
    return url_of(folder, ADMIN)


def broker_address(config: Config) -> str:
    """Return the address of this machine at which others find the broker, if it is here.

    That is what the private one listens on, or a configured one's where this machine has it.
    """
    if not config.broker.is_configured:
        broker = _recall(broker_folder(config))
        return broker.listen if broker and not is_everywhere(broker.listen) else "127.0.0.1"
    try:
        check_listen(config.broker.host)
        check_free(config.broker.host, 0)
    except RelayqError:
        return "127.0.0.1"
    return config.broker.host


def running_broker(config: Config) -> BrokerFacts | None:
    """Return the broker's facts if it answers now and is the one that was started here."""
    folder = broker_folder(config)
    remembered, url = _recall(folder), url_of(folder, LOCAL)
    if not remembered or not url or not is_held(folder / "alive"):
        return None
    pid = _ask(folder, remembered, LOCAL).ready_pid
    if pid is None or pid != remembered.pid:
        return None
    return BrokerFacts(url, remembered.port, pid, remembered.version)


def stop_broker(config: Config) -> bool:
    """End the broker, its data on disk; return False when there was none."""
    folder = broker_folder(config)
    alive = folder / "alive"
    remembered = _recall(folder)
    if not is_held(alive):
        if remembered is not None and remembered.is_wanted:
            with locked(folder / "start.lock"):
                _unwant(folder)
        return False
    with locked(folder / "start.lock"):
        remembered = _recall(folder)
        if remembered is None:
            raise RelayqError(f"{folder} has lost broker.json: end the broker by hand")
        deadline = clock.boottime() + _STOP_LIMIT
        while is_held(alive) and clock.boottime() < deadline:
            _ask(folder, remembered, ADMIN, "SHUTDOWN")
            wait_for(lambda: not is_held(alive), 0.5)
        # Nothing that was answered is lost: the server syncs before it answers.
        if is_held(alive) and _looks_like_server(remembered):
            os.killpg(os.getpgid(remembered.pid), signal.SIGKILL)
        if not wait_for(lambda: not is_held(alive), 5.0):
            raise RelayqError(f"the private broker (pid {remembered.pid}) doesn't end")
        wait_for(lambda: not remembered.pid or is_gone(remembered.pid), 2.0)
        _remember(folder, replace(remembered, is_wanted=False))
    return True


def _unwant(folder: Path) -> None:
    """Have nobody start a broker again that died before it was stopped; the lock is held."""
    broker = _recall(folder)
    if broker is not None and not is_held(folder / "alive"):
        _remember(folder, replace(broker, is_wanted=False))


def start_locked(folder: Path, wishes: Wishes = _NO_WISHES) -> BrokerFacts:
    """Start the broker unless it is alive; the caller holds the lock."""
    broker = _recall(folder)
    log = folder / "redis.log"
    begin = log.stat().st_size if log.exists() else 0
    pid = _answered(folder, broker) if broker else None
    if broker is None or pid is None:
        broker = _launch(folder, broker, wishes)
        pid = _answered(folder, broker)
    if pid is None:
        raise RelayqError(f"the private broker didn't start\n{end_of(log, begin)}")
    _remember(folder, replace(broker, pid=pid, is_wanted=True))
    return BrokerFacts(url_of(folder, LOCAL) or "", broker.port, pid, broker.version)


def _launch(folder: Path, before: _Remembered | None, wishes: Wishes) -> _Remembered:
    """Start a server process, which may end at once; return what to remember when it answers."""
    server, broker = _wanted(folder, before, wishes)
    with (folder / "alive").open("ab") as alive:
        _prepare(folder, server, broker, alive.fileno())
        # The version counts once the server touched the data; the rest must outlive a crash here.
        _remember(folder, replace(broker, version=before.version) if before else broker)
        argv = [str(server), str(folder / "redis.conf")]
        log = folder / "redis.log"
        detach(argv, env=_environment(), cwd=folder, log=log, pass_fds=[alive.fileno()])
    return broker


def _wanted(folder: Path, before: _Remembered | None, wishes: Wishes) -> tuple[Path, _Remembered]:
    """Return the server to start, and the broker that it will be."""
    server, version = _suitable_server(folder, before)
    listen = wishes.listen or (before.listen if before else "127.0.0.1")
    port = wishes.port or (before.port if before else free_port(listen))
    broker = before or _Remembered(port=port, listen=listen, version="", pid=0)
    return server, replace(
        broker,
        port=port,
        listen=listen,
        version=dotted(version),
        pid=0,
        is_wanted=True,
        is_managed=False,
        fsync=broker.fsync if wishes.fsync is None else wishes.fsync,
        ballast=broker.ballast if wishes.ballast is None else wishes.ballast,
        tls=broker.tls if wishes.tls is None else wishes.tls,
        tls_names=broker.tls_names if wishes.tls_names is None else wishes.tls_names,
    )


def _prepare(folder: Path, server: Path, broker: _Remembered, alive: int) -> None:
    """Take the server's lock, and make its files; raise where it couldn't start."""
    if not wait_for(lambda: takes(alive), 2.0):
        raise RelayqError(f"a broker of {folder} runs, and broker.json doesn't know it")
    for address in addresses(broker.listen):
        check_free(address, broker.port)
    ballast.make_room(folder)
    ballast.check_room(folder)
    ballast.restore(folder, broker.ballast)
    log = folder / "redis.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(folder / "redis.log.1")
    settings = Settings(
        folder=folder,
        addresses=tuple(addresses(broker.listen)),
        port=broker.port,
        users=userfile.make(folder),
        fsync=broker.fsync,
        version=parsed(broker.version),
        encryption=_encryption(folder, server, broker) if broker.tls else None,
    )
    write(folder / "redis.conf", settings.text())


def _encryption(folder: Path, server: Path, broker: _Remembered) -> Encryption:
    # Most brokers need neither: a mesh encrypts.
    from relayq.embedded.encryption import check_server, encryption

    check_server(server)
    return encryption(folder, broker.listen, broker.tls_names)


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


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
    end = clock.boottime() + _LOAD_LIMIT
    patience = clock.boottime() + _START_LIMIT
    while is_held(folder / "alive"):
        answer = _ask(folder, broker, LOCAL)
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


def _ask(folder: Path, broker: _Remembered, name: str, command: str = "PING") -> Answer:
    secret = userfile.secret_of(folder, name) or ""
    return ask(broker.port, name, secret, command, ca=_authority(folder) if broker.tls else None)


def broker_folder(config: Config) -> Path:
    """Return where the private broker has its files."""
    return config.home / "broker"


def _url(folder: Path, broker: _Remembered, name: str, secret: str) -> str:
    scheme, query = ("rediss", tls_query(_authority(folder))) if broker.tls else ("redis", "")
    return f"{scheme}://{name}:{secret}@127.0.0.1:{broker.port}/0{query}"


def _authority(folder: Path) -> Path:
    return folder / "ca.crt"


def broker_authority(config: Config) -> Path | None:
    """Return the certificate of who signs the private broker's; None where it isn't over TLS."""
    folder = broker_folder(config)
    broker = _recall(folder)
    return _authority(folder) if broker is not None and broker.tls else None


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
