"""What relayq knows of a host, and which queues it serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def is_host_name(name: str) -> bool:
    """Whether `name` can be a host's: lower-case letters, digits, dots, dashes, underscores."""
    return _NAME.fullmatch(name) is not None


def queues_of(host: str) -> list[str]:
    """Return the queues that a host serves."""
    return [f"host.{host}", "any"]


@dataclass(frozen=True, slots=True)
class Host:
    """One of the owner's machines, as its worker last reported it.

    `seen_at` is the last heartbeat on the broker's clock; `is_online` says that it was recent.
    """

    name: str
    install: str
    boot: str
    slots: int
    seen_at: float
    is_online: bool
    version: str = ""
    active: int = 0
    queued: int = 0
    finished: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def os(self) -> str:
        """The operating system as `sys.platform` names it."""
        return str(self.facts.get("os", ""))

    @property
    def model(self) -> str:
        """The board or machine model, where the system says it: a Raspberry Pi does."""
        return str(self.facts.get("model", ""))
