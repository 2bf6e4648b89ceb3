"""Accounts of agents: what the fleet may use of each, and how it stands with them.

An account is `<agent>/<name>`, such as `claude/default`. Whether a job may start on one is decided
by the claim (store/lua/claim.lua), for the whole fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relayq.model.placement import constraints_of


@dataclass(frozen=True, slots=True)
class Quota:
    """What the fleet may use of an account.

    At most `limit` jobs at a time, which start `stagger` seconds apart, or up to twice that;
    nothing more once its jobs have cost `budget_usd` on a day, which begins at midnight UTC.
    """

    limit: int = 3
    budget_usd: float | None = None
    stagger: float = 2.0


@dataclass(frozen=True, slots=True)
class AccountPause:
    """Until when nothing starts on an account: an instant, or so many seconds from now on.

    One that `slows` was told that its requests are too many: fewer jobs follow than before.
    """

    account: str
    until: float | None = None
    seconds: float | None = None
    reason: str = ""
    slows: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt used; the cost is the agent's own estimate, None where it makes none."""

    cost_usd: float | None = None
    input: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """How it stands with an account.

    It is paused `until` an instant, for a `reason`; then it is `probing`: one job at a time, until
    one ends well or has run for a minute. `active` are the ids of the jobs that use it, `queued`
    counts those that may. Cost and tokens are those of today; limit and budget are those of the
    last claim. `room` is how many jobs may run now, fewer than the limit after its API had too
    many.
    """

    name: str
    until: float | None = None
    reason: str = ""
    probing: bool = False
    next_at: float | None = None
    active: tuple[str, ...] = ()
    limit: int | None = None
    room: int | None = None
    budget_usd: float | None = None
    spent_usd: float = 0.0
    tokens: int = 0
    queued: int = 0
    used_at: float | None = None


#: So long without a refusal, and one job more may run.
_QUIET = 300.0


def room(limit: int, eased: int | None, since: float, now: float) -> int:
    """Return how many jobs of an account may run now, of which `eased` might `since` an instant.

    Its API's "too many requests" halves them, to 1 at least; each quiet 5 minutes gives one back.
    """
    if eased is None:
        return limit
    return min(limit, eased + max(0, int((now - since) // _QUIET)))


def accounts_of(queue: str) -> tuple[str, ...]:
    """Return the accounts that the jobs of a queue may use, none for any other queue."""
    if "account=" not in queue:
        return ()
    try:
        return constraints_of(queue).accounts
    except ValueError:
        return ()


def why_not(account: Account, now: float, when: Callable[[float], str]) -> str:
    """Say why no job starts on an account now, "" if one may; `when` puts an instant into words."""
    if account.until is not None and account.until > now:
        reason = f" ({account.reason})" if account.reason else ""
        return f"{account.name} waits for its limit until {when(account.until)}{reason}"
    if account.budget_usd and account.spent_usd >= account.budget_usd:
        return (
            f"{account.name} has spent ${account.spent_usd:.2f} of ${account.budget_usd:.2f} today"
        )
    if account.probing and account.active:
        return f"{account.name} was at its limit: {account.active[0]} tries it, alone"
    most = account.limit if account.room is None else account.room
    if most is not None and len(account.active) >= most:
        fewer = f" (its limit is {account.limit}; its API had too many)" * (most != account.limit)
        return f"{account.name} has {len(account.active)} of {most} jobs running{fewer}"
    return ""


def lines(accounts: Sequence[Account], now: float, when: Callable[[float], str]) -> list[str]:
    """Say of each account why no job starts on it; nothing when one may start."""
    said = [why_not(account, now, when) for account in accounts]
    return said if all(said) else []
