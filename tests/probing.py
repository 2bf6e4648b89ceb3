"""What this machine's tools answer a worker: asked once, and known in the homes of the tests.

A worker's first look asks thirty programs for their versions and has ffmpeg encode on trial: more
than a second of a processor, which most tests have no use for. It keeps the answers for the next
worker of its home, in a file; that is what a home gets here. The tests in private/ look for
themselves.
"""

from __future__ import annotations

import fcntl
import functools
import os
from hashlib import sha256
from pathlib import Path

from relayq.agents import adapters
from relayq.host import probes

#: As it is before a test changes it. An answer counts for the file that gave it, by whatever PATH.
PATH = os.environ.get("PATH", os.defpath)
#: Names the directory where xdist's workers find what the first of them asked.
SHARED = "RQ_TESTS_TOOLS"


@functools.cache
def _answers(path: str) -> bytes:
    file = Path(os.environ[SHARED], sha256(path.encode()).hexdigest())
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            agents = tuple(adapters.load().values())
            probes.examine(probes.Memory(str(file)), {**os.environ, "PATH": path}, agents)
        return file.read_bytes()


def remember(home: Path, path: str = PATH) -> None:
    """Have the workers of a home remember what the tools on this PATH answered."""
    cache = home / "cache"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    (cache / "probes.json").write_bytes(_answers(path))
