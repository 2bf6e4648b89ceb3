"""Which queues a host serves, and which of them have jobs that it has room for now.

All jobs of a queue are of one kind and take the same of a host. So the host's limits and resources
are looked at here, by queue, from the attempts that run here; the claim only has to be told. Called
with the claim's lock held, or from the heartbeat.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from relayq.model.accounts import Quota
from relayq.model.hosts import overlaid, queues_of
from relayq.model.placement import (
    KIND,
    UNIVERSAL,
    Constraints,
    HostFacts,
    constraints_of,
    has_agent,
    lacks,
    serves,
)
from relayq.store.leases import Registry

_UNKNOWN = Registry("", (), "")
_QUOTA = Quota()
#: A batch is commands, also to whom only so many of them may run at a time.
_COMMANDS = frozenset(one.removeprefix(KIND) for one in UNIVERSAL)
_COMMAND = "run_command"


class Queues:
    """The queues of one host."""

    def __init__(
        self, host: str, limits: Mapping[str, int], quotas: Mapping[str, Quota] | None = None
    ) -> None:
        self._host = host
        self._limits = limits
        #: What the fleet may use of each account; any other has the default one.
        self._quotas = quotas or {}
        self._facts: Mapping[str, Any] = {}
        self._registry = _UNKNOWN
        self._served: list[str] = queues_of(host)
        self._as_host = HostFacts(host)
        #: Whether something was kept back that the end of an attempt may let go on.
        self.is_holding = False

    @property
    def version(self) -> str:
        """The version of the registry that is known here."""
        return self._registry.version

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Take what this host says of itself from now on."""
        self._facts = facts
        self._look()

    def learn(self, registry: Registry) -> None:
        """Take the queues of needs that there are, and what the fleet says of this host."""
        self._registry = registry
        self._look()

    def _look(self) -> None:
        labels = overlaid(self._facts.get("labels", ()), self._registry.labels)
        # A host that was renamed still is what its old name means, also to `--not`.
        aliases = [*self._facts.get("aliases", ()), *self._registry.names]
        able = overlaid(self._facts.get("capabilities", ()), self._registry.capabilities)
        told = {**self._facts, "labels": labels, "aliases": aliases, "capabilities": able}
        self._as_host = HostFacts.read(self._host, told)
        own = [*queues_of(self._host), *(f"host.{alias}" for alias in self._as_host.aliases)]
        self._served = [*own, *(q for q in self._registry.queues if self.serves(q))]

    def serves(self, queue: str) -> bool:
        """Whether this host can run the jobs of a queue at all."""
        return serves(queue, self._as_host)

    def may_run(self, queue: str) -> bool:
        """Whether a job that was signed for a queue may run here; its login is for it to try."""
        return serves(queue, replace(self._as_host, unfit={}))

    def is_one_of(self, places: tuple[str, ...]) -> bool:
        """Whether these names, patterns and labels of hosts mean this one."""
        return not lacks(Constraints(on=places), self._as_host)

    def offer(self, running: Iterable[bytes]) -> list[tuple[str, str]]:
        """Return the queues to claim from, and what the jobs of each take of this host.

        A "!" is before what isn't free now; a queue whose kind is at its limit isn't named.
        `running` are the signed specs of the attempts here.
        """
        used: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for signed in running:
            kind, resources = _taken(signed)
            kinds[kind] += 1
            used.update(resources)
        offered = []
        for queue in self._served:
            kind, wanted, accounts, on = _wanted(queue)
            if kind in self._limits and kinds[kind] >= self._limits[kind]:
                continue
            is_free = all(
                used[name] + count <= self._as_host.resources.get(name, 0)
                for name, count in wanted.items()
            )
            words = [*wanted, *(self._quota(account, on) for account in accounts)]
            offered.append((queue, ("" if is_free else "!") + " ".join(words)))
        self.is_holding = len(offered) < len(self._served) or any(w[:1] == "!" for _, w in offered)
        return offered

    def spacing(self, account: str) -> float:
        """Return the seconds between the starts of two jobs of an account, at most."""
        return 2.0 * self._quotas.get(account, _QUOTA).stagger

    def _quota(self, account: str, on: Sequence[str]) -> str:
        """Return what the claim is told of an account; with a "!" if its agent isn't here."""
        quota = self._quotas.get(account, _QUOTA)
        missing = "" if has_agent(account, self._as_host, on) else "!"
        budget = round((quota.budget_usd or 0) * 1_000_000)
        # Sessions that start together are refused together: a chance apart, and not in step.
        stagger = quota.stagger * (1 + random.random())
        return f"@{missing}{account}={quota.limit}:{budget}:{stagger:.3f}"

    def takes_commands(self, running: Iterable[bytes]) -> bool:
        """Whether the limit of commands leaves room: their nudges are for any host."""
        limit = self._limits.get(_COMMAND)
        return limit is None or sum(_taken(one)[0] == _COMMAND for one in running) < limit


@lru_cache(maxsize=256)
def _taken(signed: bytes) -> tuple[str, Mapping[str, int]]:
    """Return a running job's kind and what it takes; its spec was checked before it ran."""
    try:
        spec = json.loads(signed.split(b" ", 2)[2])
        kind = str(spec["kind"])
        return _COMMAND if kind in _COMMANDS else kind, dict(spec.get("resources", {}))
    except (ValueError, IndexError, KeyError, TypeError):
        return "", {}


@lru_cache(maxsize=1024)
def _wanted(queue: str) -> tuple[str, Mapping[str, int], tuple[str, ...], tuple[str, ...]]:
    """Return the kind of a queue's jobs, what each takes, its accounts, and for which hosts."""
    asked = constraints_of(queue)
    kinds = (need.removeprefix(KIND) for need in asked.needs if need.startswith(KIND))
    return next(kinds, _COMMAND), asked.resources, asked.accounts, asked.on
