"""What a host says of itself: who it is, and what it has."""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relayq import clock
from relayq.store.leases import Registration

#: What a job gets of the worker's own environment. The rest, above all relayq's own settings and
#: secrets, stays with the worker.
_PASSED_ON = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR DISPLAY XAUTHORITY SSH_AUTH_SOCK "
    "DBUS_SESSION_BUS_ADDRESS".split()
)
_PASSED_ON_PREFIXES = ("LC_", "XDG_")


def registration(host: str, home: Path) -> Registration:
    """Return who speaks for this host; makes the install's uuid at first use."""
    path = home / "install"
    try:
        install = path.read_text().strip()
    except FileNotFoundError:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        install = uuid.uuid4().hex
        path.write_text(install + "\n")
    return Registration(host=host, install=install, boot=clock.boot_id())


def static_facts() -> dict[str, Any]:
    """Return what doesn't change while the worker runs."""
    return {
        "os": sys.platform,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count() or 1,
        "hostname": platform.node(),
        "model": _model(),
        "pid": os.getpid(),
    }


def _model() -> str:
    try:
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return ""


def current_load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def job_environment(
    own: Mapping[str, str], asked: Mapping[str, str], *, id: str, attempt: int
) -> dict[str, str]:
    """Return a job's environment: the allowed part of the worker's, what was asked, its id."""
    allowed = {
        name: value
        for name, value in own.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    allowed.setdefault("PATH", os.defpath)
    return {**allowed, **asked, "RELAYQ_JOB_ID": id, "RELAYQ_ATTEMPT": str(attempt)}
