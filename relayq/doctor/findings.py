"""What `doctor` finds: values that say what is so, how bad it is, and what to type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  #: it works, and won't for ever
    PROBLEM = "problem"  #: something doesn't work, or a promise doesn't hold


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `host` is where, `fix` what to type about it.

    `repair` mends it where that can't do harm: a file's mode, a missing directory.
    """

    level: Level
    host: str
    text: str
    fix: str | None = None
    repair: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> Mapping[str, Any]:
        """Return it as JSON shows it."""
        return {
            "level": self.level.value,
            "host": self.host,
            "text": self.text,
            "fix": self.fix,
            "repairable": self.repair is not None,
        }


def ok(host: str, text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(Level.OK, host, text)


def warning(
    host: str, text: str, fix: str | None = None, repair: Callable[[], None] | None = None
) -> Finding:
    """Say that something works, and won't for ever."""
    return Finding(Level.WARNING, host, text, fix, repair)


def problem(
    host: str, text: str, fix: str | None = None, repair: Callable[[], None] | None = None
) -> Finding:
    """Say that something doesn't work, or that a promise doesn't hold."""
    return Finding(Level.PROBLEM, host, text, fix, repair)
