"""`python -m benchmarks.faults`: break things under jobs of relayq, Celery and RQ, and look."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.faults.rows import ROWS, Row
from benchmarks.faults.seen import Seen
from benchmarks.faults.systems import SYSTEMS, Relayq, System

FOOT = f"""\
Every system has a Redis of its own that syncs each write, and workers with two slots (RQ: one).
Long times are scaled. Celery's visibility timeout: 5 s (an hour by default), its search for what
exceeded it: every second (100 s). RQ's maintenance and monitoring: every 5 s (10 minutes, 30 s).
relayq's leases: {Relayq.SCALED["LENGTH"]} s (60 s), its other times likewise a tenth.
`task_track_started` is set, so that Celery says what runs. Times count from the fault or the start.
After the second fault, and after a worker had exited, another job came every 5 s: RQ looks for lost
ones between two jobs.
"""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(names)}; all of them")
    parser.add_argument("--only", action="append", help="only this system; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.rows) - set(names):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if unknown := set(chosen.only or ()) - {system.name for system in SYSTEMS}:
        parser.error(f"no such system: {', '.join(sorted(unknown))}")
    return chosen


class Round:
    """One fault, which happens to all systems side by side."""

    def __init__(self, row: Row, kinds: Sequence[type[System]], directory: Path) -> None:
        self._row = row
        self._kinds = kinds
        self._directory = directory
        self._open: dict[str, System] = {}
        self._seen: dict[str, Seen | str] = {}

    def measure(self) -> dict[str, Seen | str]:
        """Return what was seen of each system; none outlives this, and none lasts for ever."""
        threads = [threading.Thread(target=self._cell, args=(k,), daemon=True) for k in self._kinds]
        deadline = monotonic() + self._row.limit
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        for system in list(self._open.values()):
            system.close()
        hung = f"not measured: hung for {self._row.limit:.0f} s"
        return {kind.name: self._seen.get(kind.name, hung) for kind in self._kinds}

    def _cell(self, kind: type[System]) -> None:
        directory = self._directory / f"{self._row.name}-{kind.__name__}"
        directory.mkdir()
        try:
            self._open[kind.name] = system = kind(directory)
            self._seen[kind.name] = self._row.happen(system)
        except Exception as error:  # a broken cell shouldn't cost the others
            traceback.print_exc()
            self._seen[kind.name] = f"not measured: {type(error).__name__}"
        finally:
            if opened := self._open.pop(kind.name, None):
                opened.close()


def markdown(rows: dict[Row, dict[str, Seen | str]], kinds: Sequence[type[System]]) -> str:
    """Return the table."""
    heads = ["fault", *(kind.name for kind in kinds)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row, seen in rows.items():
        lines.append(f"| {' | '.join([row.fault, *(str(seen[kind.name]) for kind in kinds)])} |")
    return "\n".join(lines)


def versions(kinds: Sequence[type[System]], redis: str) -> dict[str, str]:
    """Return what was measured."""
    packages = {kind.needs: kind.version() for kind in kinds}
    return {"python": platform.python_version(), "redis": redis, **packages}


def redis_version() -> str:
    """Return the version of the Redis that is started."""
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    return next((word[2:] for word in said.split() if word.startswith("v=")), "?")


def main(arguments: Sequence[str] | None = None) -> int:
    """Have what was asked for happen, and print one table."""
    chosen = options(arguments)
    for name in [name for name in os.environ if name.startswith("RELAYQ_")]:
        del os.environ[name]
    kinds = [kind for kind in SYSTEMS if not chosen.only or kind.name in chosen.only]
    for kind in [kind for kind in kinds if not kind.is_installed()]:
        print(f"{kind.name} isn't installed: pip install -e '.[bench]'", file=sys.stderr)
        kinds.remove(kind)
    rows: dict[Row, dict[str, Seen | str]] = {}
    with tempfile.TemporaryDirectory(prefix="relayq-faults-", ignore_cleanup_errors=True) as name:
        for row in ROWS:
            if not chosen.rows or row.name in chosen.rows:
                print(f"{row.name}: {row.fault} ...", file=sys.stderr)
                rows[row] = Round(row, kinds, Path(name)).measure()
    about = versions(kinds, redis_version())
    if chosen.json:
        print(json.dumps({"schema": 1, "versions": about, "rows": as_json(rows)}))
    else:
        listed = ", ".join(f"{package} {number}" for package, number in about.items())
        print(f"{markdown(rows, kinds)}\n\n{FOOT}Versions: {listed}.")
    return 0


def as_json(rows: dict[Row, dict[str, Seen | str]]) -> list[dict[str, Any]]:
    """Return what was seen as plain data."""
    return [
        {
            "row": row.name,
            "fault": row.fault,
            "seen": {
                who: {"words": one} if isinstance(one, str) else one.as_json()
                for who, one in seen.items()
            },
        }
        for row, seen in rows.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
