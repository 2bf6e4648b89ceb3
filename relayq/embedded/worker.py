"""The worker in the background, beside the private broker."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from relayq.config import Config
from relayq.embedded import managed
from relayq.embedded.processes import detach, end_of, is_gone, is_held, locked, wait_for, write
from relayq.errors import RelayqError
from relayq.model.units import Role
from relayq.privileges import as_owner, regain

START_LIMIT = 20.0
#: How long a service manager may take to notice that a process has ended.
_NOTICED = 2.0
#: What becomes of the jobs when the worker stops.
LEAVE, DRAIN, HAND_BACK = "leave", "drain", "hand_back"


def worker_pid(config: Config) -> int | None:
    """Return the pid of this home's worker, None if none holds the spool."""
    path = config.spool / "worker.lock"
    try:
        match = re.search(r"\d+", path.read_text())
    except FileNotFoundError:
        return None
    # The lock of a dead process isn't looked at: a new worker may be about to take it, and would
    # find it taken for that instant.
    if match is None or is_gone(int(match[0])) or not is_held(path):
        return None
    return int(match[0])


def start_worker(config: Config) -> int:
    """Start a worker in the background unless one runs; return its pid once it has the spool."""
    running = worker_pid(config)
    if running is not None:
        return running
    with locked(config.home / "broker" / "up.lock"):
        return worker_pid(config) or launch_worker(config)


def stop_worker(config: Config, *, within: float = 20.0) -> bool:
    """Stop the worker, and its service until the next boot; return False when there was none."""
    service = managed.installed(config, Role.WORKER)
    was_up = service is not None and managed.state(service).is_up
    if service is not None and service.by == managed.LAUNCHD:
        # Else it is started again as soon as it ends.
        managed.stop(service)
    had_one = end_worker(config, within=within)
    # A worker that was asked to end isn't started again by systemd, whoever may command that.
    if service is not None and not wait_for(lambda: not managed.state(service).is_up, _NOTICED):
        managed.stop(service)
    return had_one or was_up


def end_worker(config: Config, *, within: float = 20.0) -> bool:
    """Ask the worker to end and wait for that; return False when there was none."""
    pid = ask_to_stop(config, LEAVE)
    if pid is None:
        return False
    if not wait_for(lambda: is_gone(pid), within):
        raise RelayqError(f"the worker (pid {pid}) didn't end in {within:g} s", hint=f"kill {pid}")
    return True


def ask_to_stop(config: Config, how: str) -> int | None:
    """Ask the worker to end and return its pid, None when there is none.

    Its jobs go on under their shims (LEAVE), are waited for (DRAIN), or are ended and given back
    to their queues (HAND_BACK). Asked again it leaves them, whatever was asked before.
    """
    pid = worker_pid(config)
    if pid is None:
        return None
    write(_stop_file(config), how.encode())
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    return pid


def asked_stop(config: Config) -> str | None:
    """Return how the worker is to stop, once; None, which means LEAVE, if nobody said."""
    path = _stop_file(config)
    try:
        # Whoever asks may be root, and this worker somebody else.
        with as_owner():
            how = path.read_text()
            path.unlink()
    except FileNotFoundError:
        return None
    return how if how in (DRAIN, HAND_BACK) else LEAVE


def _stop_file(config: Config) -> Path:
    return config.spool / "stop"


def ask_to_renew(config: Config) -> int | None:
    """Ask a worker in the background to become a new program in its own place; return its pid.

    None when there is none. Who is below one of its jobs can start no worker that outlives the job.
    """
    pid = worker_pid(config)
    if pid is None:
        return None
    write(_renew_file(config), f"{pid}\n".encode())
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    return pid


def is_renewed(config: Config) -> bool:
    """Tell whether the worker that was asked has done so, or is gone."""
    path = _renew_file(config)
    with suppress(FileNotFoundError, ValueError):
        return is_gone(int(path.read_text()))
    return True


def renew_if_asked(config: Config) -> None:
    """Become a new program, if this process was asked to; the caller has ended all that it did."""
    path = _renew_file(config)
    try:
        with as_owner():
            is_meant = path.read_text().strip() == str(os.getpid())
            path.unlink()
    except FileNotFoundError:
        return
    if is_meant:
        argv = [sys.executable, "-P", "-m", "relayq", "worker", "start"]
        os.execve(sys.executable, argv, own_environment(config, regain()))


def _renew_file(config: Config) -> Path:
    return config.spool / "renew"


def launch_worker(config: Config) -> int:
    """Start a worker; the caller holds `up.lock` and knows that none runs."""
    service = managed.installed(config, Role.WORKER)
    if service is not None:
        managed.start(service)
        if not wait_for(lambda: worker_pid(config), START_LIMIT):
            raise RelayqError("the worker's service has no worker", hint="relayq worker logs")
        return worker_pid(config) or 0
    log = config.logging.file
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    home = Path.home() if Path.home().is_dir() else Path("/")
    # -P: a file random.py in the home directory is no module of ours.
    argv = [sys.executable, "-P", "-m", "relayq", "worker", "start"]
    pid = detach(argv, env=own_environment(config), cwd=home, log=log)
    if not wait_for(lambda: worker_pid(config) or is_gone(pid), START_LIMIT):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    started = worker_pid(config)
    if started is None:
        raise RelayqError(f"the worker didn't start\n{end_of(log, begin)}")
    return started


def own_environment(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return our environment without what belongs to a job that we may be part of."""
    env = {
        name: value
        for name, value in environ.items()
        if not name.startswith("RELAYQ_") or "__" in name or name == "RELAYQ_REDIS_SERVER"
    }
    env["RELAYQ_HOME"] = str(config.home)
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), env.get("PYTHONPATH")]))
    return env
