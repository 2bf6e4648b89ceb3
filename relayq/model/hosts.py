"""What relayq knows of a host: its facts, its labels, how it stands, and which queues it serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: What `courtesy` says of a host that takes work.
_TAKES_WORK = "ok"
#: Why a worker takes nothing new that says good night.
GOES_TO_SLEEP = "the machine goes to sleep"
SHUTS_DOWN = "the machine shuts down"
_COURTESY_WORDS = {"no_new_work": "paused", "frozen": "paused"}


def queues_of(host: str) -> list[str]:
    """Return the queues that every host of this name serves."""
    return [f"host.{host}", "any"]


@dataclass(frozen=True, slots=True)
class Host:
    """One of the owner's machines, as its worker last reported it.

    `seen_at` is the last heartbeat on the broker's clock; `is_online` says that it was recent.
    `facts` are what the worker says of the machine and of its load; `drained_at` is when somebody
    asked it to take nothing new.
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
    drained_at: float | None = None
    drained_reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def os(self) -> str:
        """The operating system as `sys.platform` names it."""
        return str(self.facts.get("os", ""))

    @property
    def model(self) -> str:
        """The board or machine model, where the system says it: a Raspberry Pi does."""
        return str(self.facts.get("model", ""))

    @property
    def load(self) -> float | None:
        """The load average of the last minute, None if it isn't known."""
        load = self.facts.get("load")
        if isinstance(load, Mapping):
            load = load.get("average")
        return float(load) if isinstance(load, int | float) else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The words by which jobs may choose it."""
        return tuple(self.facts.get("labels", ()))

    @property
    def aliases(self) -> tuple[str, ...]:
        """The other names that it goes by."""
        return tuple(self.facts.get("aliases", ()))

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do."""
        return tuple(self.facts.get("capabilities", ()))

    @property
    def standing(self) -> tuple[str, str]:
        """Return in a word or two how it stands, and why: `paused`, `on battery`."""
        courtesy = self.facts.get("courtesy") or {}
        state, reason = str(courtesy.get("state", _TAKES_WORK)), str(courtesy.get("reason") or "")
        if not self.is_online:
            return self._absence(reason)
        if self.drained_at is not None:
            return ("draining" if self.active else "drained"), self.drained_reason
        if state != _TAKES_WORK:
            return _COURTESY_WORDS.get(state, state), reason
        return f"online {'busy' if self.active else 'idle'}", ""

    @property
    def takes_work(self) -> bool:
        """Whether it would take a job once it has room: neither away, drained nor paused."""
        return self.standing[0].startswith("online")

    @property
    def can_be_woken(self) -> bool:
        """Whether its worker said by which address."""
        wake = self.facts.get("wake")
        return isinstance(wake, Mapping) and bool(wake.get("mac"))

    def _absence(self, last_reason: str) -> tuple[str, str]:
        """Return what is known of a host that isn't heard of: perhaps it said where it went."""
        if last_reason == GOES_TO_SLEEP:
            return "asleep", "wake ok" if self.can_be_woken else ""
        return "offline", "shut down" if last_reason == SHUTS_DOWN else ""


def capabilities_of(found: Iterable[str], declared: Iterable[str]) -> tuple[str, ...]:
    """Return what was found and what was declared, without what was declared away (`-docker`)."""
    declared = list(declared)
    away = {one[1:] for one in declared if one.startswith("-")}
    named = {one for one in declared if not one.startswith("-")}
    return tuple(sorted(({*found} - away) | named))


def overlaid(own: Iterable[str], overlay: str) -> tuple[str, ...]:
    """Return a host's own labels, or capabilities, as the fleet changed them: `+heavy,-slow`."""
    labels = set(own)
    for change in filter(None, overlay.split(",")):
        (labels.add if change[0] == "+" else labels.discard)(change[1:])
    return tuple(sorted(labels))


def relabelled(overlay: str, changes: Sequence[str]) -> str:
    """Return the overlay with further changes; of each label the last one counts.

    A change is `+label`, `-label`, or `=label`: whatever the host itself says.
    """
    kept = {change[1:]: change[0] for change in filter(None, overlay.split(","))}
    for change in changes:
        sign, label = change[0], change[1:]
        kept.pop(label, None)
        if sign != "=":
            kept[label] = sign
    return ",".join(f"{sign}{label}" for label, sign in sorted(kept.items()))
