"""`python -m benchmarks`: relayq beside the bare work and other queues, in one interleaved run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.away import away
from benchmarks.backlog import backlog
from benchmarks.contest import contest
from benchmarks.figures import Figures, as_json, table
from benchmarks.files import files
from benchmarks.flows import flows
from benchmarks.idle import idle
from benchmarks.map import mapped
from benchmarks.media import media
from benchmarks.output import output
from benchmarks.peers import PEERS
from benchmarks.placement import PICTURE, placement
from benchmarks.processes import BROKER, Redis, a_redis
from benchmarks.shell import shell
from benchmarks.views import views

SUBJECTS = (
    "peers",
    "backlog",
    "output",
    "idle",
    "shell",
    "away",
    "placement",
    "views",
    "files",
    "media",
    "map",
    "flows",
)


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)} or all; peers"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each load (5)")
    parser.add_argument("--jobs", type=int, default=600, help="most jobs of one load (600)")
    parser.add_argument("--seconds", type=float, default=5.0, help="most time of one load (5)")
    parser.add_argument("--only", action="append", help="only this peer; may be repeated")
    parser.add_argument("--durable", action="store_true", help="Redis syncs before each answer")
    parser.add_argument("--small", action="store_true", help="tiny counts: does it run at all?")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.subjects) - {*SUBJECTS, "all"}:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    if "all" in chosen.subjects:
        chosen.subjects = list(SUBJECTS)
    return chosen


def measures(chosen: argparse.Namespace) -> dict[str, Callable[[Figures, Redis], None]]:
    """Return what measures each subject."""
    small, rounds = chosen.small, 1 if chosen.small else chosen.rounds
    jobs, seconds = (6, 2.0) if small else (chosen.jobs, chosen.seconds)
    depths, few = ((5, 10) if small else (1_000, 100_000)), min(rounds, 3)
    peers = [
        peer
        for peer in PEERS
        if peer.is_installed() and (not chosen.only or peer.name in chosen.only)
    ]
    return {
        "peers": partial(contest, peers=peers, rounds=rounds, jobs=jobs, seconds=seconds),
        "backlog": partial(backlog, rounds=few, depths=depths),
        "output": partial(output, peers=peers, rounds=few, size=100_000 if small else 100_000_000),
        "idle": partial(idle, peers=peers, seconds=1.0 if small else 60.0),
        "shell": partial(shell, rounds=2 * few, listed=5 if small else 10_000),
        "views": partial(
            views,
            rounds=2 * rounds,
            hosts=3 if small else 50,
            jobs=100 if small else 100_000,
        ),
        "placement": partial(
            placement,
            hosts=20 if small else 200,
            jobs=200 if small else 100_000,
            picture_to=None if small else PICTURE,
        ),
        "files": partial(files, rounds=rounds, size=2_000_000 if small else 1_000_000_000),
        "media": partial(
            media,
            rounds=1 if small else few,
            seconds=1 if small else 60,
            size="160x120" if small else "1920x1080",
        ),
        "map": partial(mapped, rounds=few, items=40 if small else 2_000, only=chosen.only),
        "flows": partial(
            flows, rounds=few, steps=5 if small else 100, large=20 if small else 1_000
        ),
        "away": partial(away, peers=peers, round_trip=0.02, jobs=2 if small else 20),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for and print one table."""
    chosen = options(arguments)
    figures = Figures()
    for name in [name for name in os.environ if name.startswith("RELAYQ_")]:
        del os.environ[name]
    for peer in PEERS:
        if not peer.is_installed():
            print(f"{peer.name} isn't installed: pip install -e '.[bench]'", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as name:
        os.environ["RELAYQ_HOME"] = name
        with a_redis(Path(name, "redis"), durable=chosen.durable) as redis:
            os.environ[BROKER] = redis.url
            for subject in chosen.subjects or ["peers"]:
                print(f"measuring {subject} ...", file=sys.stderr)
                measures(chosen)[subject](figures, redis)
            version = redis.connection.info("server")["redis_version"]
    if chosen.json:
        about = {"python": platform.python_version(), "redis": version, "cpus": os.cpu_count()}
        print(json.dumps({"schema": 1, **about, "figures": as_json(figures.all())}))
    else:
        print(table(figures.all()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
