"""Pauses: what people asked to stand still, and what does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from relayq.model.jobs import Token
from relayq.store.leases import Registration
from relayq.store.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Wish:
    """A person's wish that something stand still; `left` is None for one without an end."""

    who: str
    reason: str
    left: float | None = None

    def __str__(self) -> str:
        said = f": {self.reason}" if self.reason else ""
        return f"by {self.who}{said}" if self.who else f"by hand{said}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What people asked of a host: for all of it, and for each attempt that it named."""

    host: Wish | None
    attempts: Sequence[Wish | None]


class Pauses:
    """What is to stand still."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def pause(
        self,
        *,
        id: str = "",
        host: str = "",
        seconds: float | None = None,
        reason: str = "",
        who: str = "",
    ) -> Sequence[str]:
        """Pause a job, else a host, else the fleet.

        Returns "paused" and the hosts that were told, "unfit" and the state of a job that doesn't
        run, "gone" for no job, or "no_host".
        """
        lasts = "" if seconds is None else seconds
        answer = self._scripts.call(
            "pause", id=id, host=host, seconds=lasts, reason=reason, who=who
        )
        return [word.decode() for word in answer]

    def resume(self, *, id: str = "", host: str = "", who: str = "") -> Sequence[str]:
        """Take such a pause back.

        Returns "resumed" and the hosts that were told, "unpaused" when there was none, or as
        `pause` does.
        """
        answer = self._scripts.call("resume", id=id, host=host, who=who)
        return [word.decode() for word in answer]

    def report(self, who: Registration, attempts: Iterable[tuple[Token, str]]) -> Wishes | None:
        """Note why each attempt of a host stands still ("" for one that runs).

        Returns what people asked for, None when the host isn't this install's any more.
        """
        rest: list[str | int] = []
        for token, why in attempts:
            rest += [token.id, token.attempt, token.uid, why]
        answer = self._scripts.call("report", rest, host=who.host, install=who.install)
        if not answer:
            return None
        host, fleet, *wishes = [_wish(raw) for raw in answer]
        return Wishes(host or fleet, wishes)


def _wish(raw: bytes) -> Wish | None:
    if not raw:
        return None
    said: dict[str, Any] = json.loads(raw)
    left = said.get("left")
    return Wish(
        who=str(said.get("who", "")),
        reason=str(said.get("reason", "")),
        left=None if left is None else float(left),
    )
