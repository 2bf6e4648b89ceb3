"""Hosts with agents, and jobs for them, as a worker and a client make them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from relayq.host.queues import Queues
from relayq.model.accounts import AccountPause, Quota
from relayq.model.jobs import JobState, Token
from relayq.store.leases import Claim, Further
from tests.redis.fleet import LEASE, Fleet, FleetHost

CLAUDE, CODEX = "claude/default", "codex/default"
#: No wait between two starts: what most tests aren't about.
AT_ONCE = {CLAUDE: Quota(stagger=0.0), CODEX: Quota(stagger=0.0)}


class AgentHost(FleetHost):
    """A host that has agents, and claims as its worker does: from what its `Queues` offer."""

    def __init__(
        self,
        fleet: Fleet,
        name: str = "pi4",
        agents: Iterable[str] = ("claude",),
        quotas: Mapping[str, Quota] = AT_ONCE,
        **facts: Any,
    ) -> None:
        super().__init__(fleet, fleet.host(name).who)
        self.queues = Queues(name, {}, quotas)
        found = ["kind:run_agent", *(f"agent:{agent}" for agent in agents)]
        self.queues.describe({"capabilities": found, **facts})

    def ask(self, *queues: str) -> Claim | str:
        """Claim once of everything that this host serves."""
        leases = self.fleet.store.leases
        self.queues.learn(leases.registry(self.name))
        offered = self.queues.offer([])
        return leases.claim(
            self.who,
            [queue for queue, _ in offered],
            wants=[wants for _, wants in offered],
            uid=secrets.token_hex(6),
            lease=LEASE,
            patience=60.0,
        )

    def got(self) -> tuple[str, str] | None:
        """Claim once; return the job and the account that it got, if there was one."""
        claim = self.ask()
        return (claim.token.id, claim.account) if isinstance(claim, Claim) else None

    def limited(
        self,
        token: Token,
        *,
        seconds: float = 3600.0,
        account: str = CLAUDE,
        slows: bool = False,
        **options: Any,
    ) -> str:
        """End an attempt as one that met its account's limit."""
        options.setdefault("delay", seconds)
        pause = AccountPause(account, seconds=seconds, reason="five_hour", slows=slows)
        return self.finish(
            token,
            JobState.SCHEDULED,
            reason="quota",
            counts="",
            further=Further(pause=pause),
            **options,
        )


def agent_job(fleet: Fleet, *accounts: str, **options: Any) -> str:
    """Submit a job of an agent, and return its id."""
    return fleet.submit(kind="run_agent", accounts=accounts or (CLAUDE,), **options)
