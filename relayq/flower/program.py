"""Flower as a process: its password, its place on this machine, its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flower.options import options
from flower.urls import settings
from tornado.ioloop import IOLoop

from relayq.app import make_app
from relayq.config import Config
from relayq.embedded.processes import takes
from relayq.errors import RelayqError
from relayq.flower.application import Told, Watching, show_depths
from relayq.store import Store

#: Nobody else can reach it; from another machine ssh does.
ADDRESS = "127.0.0.1"
USER = "relayq"
_TASKS = 10_000
_SAVE_EVERY = 60_000  # milliseconds


def folder_of(config: Config) -> Path:
    """Return where its password and what it remembers are."""
    return config.home / "flower"


@contextmanager
def alone(config: Config) -> Iterator[None]:
    """Be the only Flower of this home: another would take its user's password and its memory."""
    folder = folder_of(config)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("ab") as lock:
        if not takes(lock.fileno()):
            raise RelayqError("Flower runs here already", hint="end that one first: Ctrl-C, there")
        yield


def run(config: Config, url: str, store: Store, *, port: int, say: Callable[[str], None]) -> None:
    """Be Flower until SIGTERM or SIGINT; the caller is `alone`."""
    folder = folder_of(config)
    login = f"{USER}:{_password(folder / 'password')}"
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = IOLoop.current()
    _choose(folder, port, login)
    show_depths()
    told = Told(
        store,
        config,
        capp=None,
        io_loop=loop,
        db=options.db,
        persistent=True,
        state_save_interval=_SAVE_EVERY,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=_TASKS,
    )
    app = make_app(config, url)
    names = [f"{host}:{port}" for host in (ADDRESS, "localhost")]
    flower = Watching(
        told, names=names, login=login, options=options, capp=app, io_loop=loop, **settings
    )
    try:
        flower.start_http_server()
    except OSError as error:
        raise RelayqError(
            f"can't listen on {ADDRESS} port {port}: {error.strerror}",
            hint="relayq flower --port N takes another port",
        ) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.add_callback_from_signal(flower.stop))
    say(f"Flower is at http://{ADDRESS}:{port} for {USER}; password: {folder / 'password'}")
    flower.start()


def _choose(folder: Path, port: int, login: str) -> None:
    """Say in Flower's own options what holds here; its variables and its file aren't read."""
    options.address = ADDRESS
    options.port = port
    options.basic_auth = [login]
    options.db = str(folder / "state")
    options.persistent = True
    options.max_tasks = _TASKS
    # Whatever a button does in Celery, no job would feel it.
    options.read_only = True
    options.tasks_columns = "name,uuid,state,args,received,runtime,worker"


def _password(path: Path) -> str:
    """Return the password; made at the first start, for its owner only."""
    try:
        known = path.read_text().strip()
    except FileNotFoundError:
        known = ""
    if known:
        return known
    made = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{made}\n")
    return made
