"""The service as a process: its lock, its sockets, its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO
from urllib.parse import urlsplit

import uvicorn

from relayq import clock, embedded
from relayq.artifacts import SCOPE
from relayq.config import Config
from relayq.embedded.admission import Gate
from relayq.errors import RelayqError
from relayq.notify import Supervisor
from relayq.rotation import signer_of
from relayq.serve.application import guard, make_application
from relayq.serve.border import Border
from relayq.serve.connections import BoundedProtocol
from relayq.serve.files import files_router
from relayq.serve.join import join_router
from relayq.serve.keeping import Keeping
from relayq.serve.shelf import Shelf

#: Requests at a time, and connections.
_CONNECTIONS = 200
_THREADS = 8
_LOOKED_AT = 1.0
_HEAD_BYTES = 16_384


def run(config: Config, *, say: Callable[[str], None], is_background: bool = False) -> None:
    """Be the service until SIGTERM or SIGINT.

    In the background only as long as it is wanted there: who stops it may come before its lock.
    """
    supervisor = Supervisor()
    signal.signal(signal.SIGTERM, _end)
    folder = embedded.files_folder(config)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = signer_of(config)
    with (folder / "lock").open("a+") as lock:
        _take(lock)
        hosts, port = embedded.files_place(config)
        sockets = [_bound(host, port) for host in hosts]
        embedded.remember_files(config, port=port)
        # Who reads the pid finds all in place; who finds none to stop has said so before this.
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        if is_background and not embedded.are_files_wanted(config):
            return
        shelf = Shelf(config.home / "artifacts", quota=config.serve.quota)
        keeping = Keeping(config, shelf, signer, host=hosts[-1], port=port)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="disk") as threads:
            may = guard(signer, SCOPE)
            files = files_router(shelf, may, threads, keeping.make_room)
            routers = [files, join_router(Gate(config))]
            settings = uvicorn.Config(
                Border(make_application(signer, routers, SCOPE), _names(config)),
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                h11_max_incomplete_event_size=_HEAD_BYTES,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=3,
            )
            keeping.start()
            say(f"files at {' and '.join(_shown(host, port) for host in hosts)}")
            try:
                asyncio.run(_serve(uvicorn.Server(settings), sockets, supervisor))
            finally:
                keeping.close()


async def _serve(
    server: uvicorn.Server, sockets: list[socket.socket], supervisor: Supervisor
) -> None:
    """Serve, and tell the service manager so as long as the loop turns."""
    watchdog = asyncio.create_task(_reassure(supervisor))
    try:
        await server.serve(sockets=sockets)
    finally:
        supervisor.stopping()
        watchdog.cancel()


async def _reassure(supervisor: Supervisor) -> None:
    # The sockets are open: who connects from now on is answered.
    supervisor.ready()
    while supervisor.patience is not None:
        supervisor.alive()
        await asyncio.sleep(supervisor.patience / 4)


def _end(number: int, frame: object) -> None:
    # uvicorn sends itself the signal again once it has ended in order: what comes after that, above
    # all to tell the fleet that nobody serves files any more, would never be done.
    raise SystemExit(0)


def _names(config: Config) -> list[str]:
    """Return the public names that the service is asked by."""
    url = urlsplit(config.serve.url or "").hostname
    return [*config.serve.names, *([url] if url else [])]


def _take(lock: IO[str]) -> None:
    # Who looks whether it is held, holds it for that instant.
    end = clock.boottime() + _LOOKED_AT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if clock.boottime() > end:
                raise RelayqError(
                    "the file service of this home runs already", hint="relayq down stops it"
                ) from error
        clock.sleep(0.02)
    lock.truncate(0)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise RelayqError(
            f"can't listen on {host} port {port}: {error.strerror}",
            hint="relayq serve --port N takes another port",
        ) from error
    return bound


def _shown(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
