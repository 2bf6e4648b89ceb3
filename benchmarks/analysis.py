"""An analysis by the real claude, whose API is a mock that takes as long as a model does.

`python -m benchmarks.analysis DIR`: the same files with one session at a time and with several, and
what relayq itself takes beside the sessions. It needs the agents' programs
(`python -m tests.agents.install`).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Relayq
from benchmarks.processes import Redis, a_redis
from relayq.analyses import Analysis
from tests.agents import install
from tests.agents.replies import Reply, Say, Structured, Turn
from tests.agents.server import MockApi

_LISTED = re.compile(r"^- (\S+\.\w+)$", re.MULTILINE)
_CONFIG = """
agents:
  claude:
    env: {{ANTHROPIC_BASE_URL: "{url}", CLAUDE_CONFIG_DIR: "{home}/claude"}}
    accounts: {{default: {{limit: 20, stagger: 0}}}}
"""


@dataclass(frozen=True)
class Model:
    """Thinks for a while, then reports one finding a file."""

    pause: float

    def __call__(self, turn: Turn) -> Reply:
        """Return the reply to a turn."""
        if turn.results:
            return Say("done")
        files = _LISTED.findall(turn.said)
        issues = [
            {
                **{"file": path, "line": 1, "end_line": None, "severity": "low"},
                **{"category": "quality", "title": path, "detail": "", "code": None},
                **{"suggestion": None, "confidence": 0.5},
            }
            for path in files
        ]
        return Structured({"issues": issues, "files_analyzed": files}, pause=self.pause)


class Host(Relayq):
    """A worker with claude, logged in at the mock."""

    def __init__(self, url: str, directory: Path, *, slots: int, api: str) -> None:
        super().__init__(url, directory, slots=slots)
        (self.home / "config.yml").write_text(_CONFIG.format(url=api, home=directory))
        keys = self.home / "agents.env"
        keys.touch(mode=0o600)
        keys.write_text("ANTHROPIC_API_KEY=dummy\n")

    def environment(self) -> dict[str, str]:
        """Return its worker's environment, with claude on its path."""
        path = os.pathsep.join([str(install.programs(install.place())), os.environ["PATH"]])
        return {**super().environment(), "PATH": path}


@dataclass
class Timed:
    """How long a run took: all of it, its sessions, and what relayq did beside them."""

    wall: float
    sessions: float
    planning: float
    submitting: float
    gathering: float
    files: int
    shards: int

    @property
    def own(self) -> float:
        """Seconds in which no session could run, or its result was waited for."""
        return self.planning + self.submitting + self.gathering


def timed(host: Host, root: Path, *, workers: int, largest: int) -> Timed:
    """Analyse a directory from the start."""
    job = host.relay.job
    began = time.perf_counter()
    wishes = job.asked_of_analysis(agent="claude", workers=workers, largest=largest)
    plan = job.plan_analysis(root, wishes, fresh=True)
    planned = time.perf_counter()
    run = job.start_analysis(plan)
    submitted = time.perf_counter()
    waited = _waited(run)
    ended = time.perf_counter()
    assert not run.incomplete, run.report()
    return Timed(
        wall=ended - began,
        sessions=run.facts.session_time,
        planning=planned - began,
        submitting=submitted - planned,
        gathering=ended - submitted - waited,
        files=plan.files,
        shards=len(plan.parts),
    )


def _waited(run: Analysis) -> float:
    """Follow a run to its end; return how long there was nothing to do but wait."""
    waited = 0.0
    wait = run.harvest.wait

    def measured(*, patience: float = 2.0) -> None:
        nonlocal waited
        began = time.perf_counter()
        wait(patience=patience)
        waited += time.perf_counter() - began

    run.harvest.wait = measured  # type: ignore[method-assign]
    run.wait()
    return waited


@contextmanager
def _code(source: Path, directory: Path) -> Iterator[Path]:
    root = directory / "code"
    shutil.copytree(source, root, ignore=shutil.ignore_patterns(".git", ".relayq"))
    yield root


def compare(
    redis: Redis, source: Path, *, workers: list[int], largest: int, pause: float
) -> Iterator[tuple[int, Timed]]:
    """Analyse the same files with so many sessions at a time, one number after the other."""
    with MockApi() as api, tempfile.TemporaryDirectory(prefix="relayq-bench-") as at:
        api.play(Model(pause))
        host = Host(redis.url, Path(at), slots=max(workers), api=api.url)
        try:
            host.start()
            host.result(host.submit("echo ready"), 60)
            with _code(source, Path(at)) as root:
                for count in workers:
                    yield count, timed(host, root, workers=count, largest=largest)
        finally:
            host.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--max", type=int, default=60, dest="largest")
    parser.add_argument("--pause", type=float, default=8.0, help="how long the model thinks")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="relayq-bench-") as at,
        a_redis(Path(at, "redis")) as redis,
    ):
        found = {}
        for workers, one in compare(
            redis,
            asked.directory,
            workers=asked.workers,
            largest=asked.largest,
            pause=asked.pause,
        ):
            found[workers] = one
            print(
                f"{workers} workers: {one.files} files, {one.shards} shards, {one.wall:.1f} s; sum "
                f"of sessions {one.sessions:.1f} s; own {one.own:.2f} s (planning "
                f"{one.planning:.2f}, submitting {one.submitting:.2f}, gathering "
                f"{one.gathering:.2f})",
                flush=True,
            )
    print(f"{found[min(found)].wall / found[max(found)].wall:.2f} times as fast")


if __name__ == "__main__":
    main()
