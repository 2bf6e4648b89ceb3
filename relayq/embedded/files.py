"""The file service beside the private broker, in the background: `<home>/serve`.

There are `lock`, which the service holds as long as it lives and which has its pid, `serve.log`,
and `serve.json`: its port, and whether it is to run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

from relayq.config import Config
from relayq.embedded import managed
from relayq.embedded.broker import broker_address
from relayq.embedded.processes import detach, end_of, is_gone, is_held, locked, wait_for, write
from relayq.embedded.sockets import addresses, free_port
from relayq.embedded.worker import own_environment
from relayq.errors import RelayqError
from relayq.model.units import Role

_START_LIMIT = 20.0
_STOP_LIMIT = 10.0
_LOG_LIMIT = 10_000_000


def files_folder(config: Config) -> Path:
    """Return where the file service has what isn't a file of a job's."""
    return config.home / "serve"


def can_serve_files() -> bool:
    """Tell whether the extra `serve` is installed."""
    return all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))


def files_pid(config: Config) -> int | None:
    """Return the pid of this home's file service, None if none runs."""
    path = files_folder(config) / "lock"
    try:
        match = re.search(r"\d+", path.read_text())
    except FileNotFoundError:
        return None
    if match is None or is_gone(int(match[0])) or not is_held(path):
        return None
    return int(match[0])


def files_place(config: Config) -> tuple[list[str], int]:
    """Return the addresses and the port that the file service listens on when nobody says more."""
    hosts = addresses(config.serve.host or broker_address(config))
    port = config.serve.port or _recall(config).get("port") or free_port(hosts[-1])
    return hosts, int(port)


def remember_files(
    config: Config, *, port: int | None = None, is_wanted: bool | None = None
) -> None:
    """Keep what the next start is to know; None is what it was."""
    with locked(files_folder(config) / "json.lock"):
        known = _recall(config)
        said = {
            "port": port or known.get("port"),
            "is_wanted": bool(known.get("is_wanted")) if is_wanted is None else is_wanted,
        }
        if said != known:
            write(files_folder(config) / "serve.json", json.dumps(said).encode() + b"\n")


def are_files_wanted(config: Config) -> bool:
    """Tell whether the file service is to run in the background."""
    return bool(_recall(config).get("is_wanted"))


def _recall(config: Config) -> dict[str, int | bool | None]:
    try:
        return dict(json.loads((files_folder(config) / "serve.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def start_files(config: Config, *, wait: bool = True) -> int | None:
    """Start the file service in the background unless it runs; return its pid.

    None where its extra isn't installed or it isn't wanted, and without `wait`.
    """
    if not config.serve.start or not can_serve_files():
        return None
    if (running := files_pid(config)) is not None:
        return running
    if (service := managed.installed(config, Role.SERVE)) is not None:
        managed.start(service)
        return files_pid(config)
    with locked(files_folder(config) / "start.lock"):
        return files_pid(config) or _launch(config, wait=wait)


def keep_files(config: Config) -> str | None:
    """Start a file service again that died, and say so; one that was stopped stays so."""
    if not config.serve.start or not are_files_wanted(config) or files_pid(config) is not None:
        return None
    if managed.installed(config, Role.SERVE) is not None:
        return None
    start_files(config, wait=False)
    return "the file service had died: started it again"


def _launch(config: Config, *, wait: bool) -> int | None:
    log = files_folder(config) / "serve.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name("serve.log.1"))
    begin = log.stat().st_size if log.exists() else 0
    argv = [sys.executable, "-P", "-m", "relayq", "serve", "--background"]
    # It ends by itself when it isn't wanted any more by the time that it has its lock.
    remember_files(config, is_wanted=True)
    pid = detach(argv, env=own_environment(config), cwd=files_folder(config), log=log)
    if not wait:
        return None
    if not wait_for(lambda: files_pid(config) or is_gone(pid), _START_LIMIT):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    started = files_pid(config)
    if started is None:
        raise RelayqError(f"the file service didn't start\n{end_of(log, begin)}")
    return started


def stop_files(config: Config) -> bool:
    """Stop the file service; what is being sent goes on when it is back. False without one."""
    service = managed.installed(config, Role.SERVE)
    was_up = service is not None and managed.state(service).is_up
    if service is not None and was_up:
        managed.stop(service)
    return end_files(config) or was_up


def end_files(config: Config) -> bool:
    """Stop the file service that runs in the background; False without one."""
    pid = files_pid(config)
    if (files_folder(config) / "serve.json").exists():
        remember_files(config, is_wanted=False)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not wait_for(lambda: is_gone(pid), _STOP_LIMIT):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: is_gone(pid), _STOP_LIMIT)
    return True
