"""What relayq knows of a host, and which queues it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
