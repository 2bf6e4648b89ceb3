"""upgrade: the host's relayq is replaced by another version, and its worker runs that.

The job runs on while its own worker is restarted, as every job does.
"""

from __future__ import annotations

import os.path
import sys
from dataclasses import dataclass

from relayq.kinds import Command, Ended, HostFacts, Verdict, kind
from relayq.model.installs import check_source
from relayq.model.jobs import JobState, Reason

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass(frozen=True, slots=True)
class UpgradePayload:
    """Where the other version comes from; None is where this one came from."""

    source: str | None = None

    def __post_init__(self) -> None:
        if self.source is not None:
            if not isinstance(self.source, str):
                raise TypeError("the source must be text")
            check_source(self.source)


@kind("upgrade")
class Upgrade:
    """Replace relayq itself."""

    Payload = UpgradePayload

    def plan(self, payload: UpgradePayload, host: HostFacts) -> Command:
        """Return the command that a person would type there."""
        source = () if payload.source is None else ("--source", payload.source)
        relayq_home = os.path.dirname(host.state_dir)
        # Where relayq runs from a checkout, Python finds it only so.
        path = {} if "site-packages" in _ROOT else {"PYTHONPATH": _ROOT}
        return Command(
            argv=(sys.executable, "-P", "-m", "relayq", "worker", "upgrade", "--json", *source),
            cwd=host.home,
            env={"RELAYQ_HOME": relayq_home, **path},
        )

    def interpret(self, ended: Ended) -> Verdict:
        """Return success for exit code 0, else failure."""
        if ended.exit_code == 0 and ended.reason == Reason.EXIT:
            return Verdict(JobState.SUCCEEDED, Reason.EXIT)
        return Verdict(JobState.FAILED, ended.reason, error=ended.error)
