"""Asks this machine's service managers and logs about Redis and relayq; judges nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PATIENCE = 5.0
#: Name of the answer -> what to run. What a machine doesn't have is left out.
_QUESTIONS: Mapping[str, Sequence[str]] = {
    "units": ("systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager"),
    "user units": (
        *("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "--no-pager"),
    ),
    "crontab": ("crontab", "-l"),
    "launchd": ("launchctl", "list"),
    "processes": ("ps", "-A", "-o", "pid=,args="),
}
_CRON_FILES = ("/etc/crontab", "/etc/cron.d/*")
_REDIS_LOGS = (
    "/var/log/redis/redis-server.log",
    "/var/log/redis/redis.log",
    "/opt/homebrew/var/log/redis.log",
)
_END_OF_LOG = 200_000


def machine_answers() -> dict[str, str]:
    """Return what the machine's tools say, those that it has, by the name of the question."""
    answers = {name: _answer(argv) for name, argv in _QUESTIONS.items() if shutil.which(argv[0])}
    answers["cron files"] = "\n".join(_cron_lines())
    return answers


def _answer(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def _cron_lines() -> list[str]:
    lines = []
    for pattern in _CRON_FILES:
        for path in sorted(Path("/").glob(pattern.removeprefix("/"))):
            with suppress(OSError):
                text = path.read_text(errors="replace")
                lines += [f"{path}: {line}" for line in text.splitlines()]
    return lines


def redis_log(private: Path | None) -> str:
    """Return the end of Redis' log: of the private broker, else of the first one that is there."""
    for path in [private] if private is not None else map(Path, _REDIS_LOGS):
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _END_OF_LOG))
            return file.read().decode(errors="replace")
    return ""
