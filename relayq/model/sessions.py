"""Sessions of agents: where each lives, so that it can be gone on with there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from relayq.errors import RelayqError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class Session:
    """An agent's session: it can be resumed on its host only, in its directory and home.

    `version` is the agent's, `job` the last one that used it. `turns` and `cost_usd` are sums over
    its jobs where the store gives it, and what an attempt adds where a worker does.
    """

    id: str
    agent: str
    account: str
    host: str
    cwd: str
    home: str = ""
    version: str = ""
    job: str = ""
    turns: int = 0
    cost_usd: float = 0.0
    at: float = 0.0

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise RelayqError(f"that can't be the id of a session: {self.id!r:.60}")
