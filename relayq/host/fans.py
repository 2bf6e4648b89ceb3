"""A step that becomes a job for each item of a list: submitted by the worker that claimed it.

The ids of these jobs follow from its own, so whoever does it again, after a worker that died in its
middle, makes the same jobs. Then it waits, holds no slot, and is claimed again when all have ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relayq.config import Config
from relayq.dispatch import Dispatcher
from relayq.errors import BrokerFull
from relayq.kinds import Verdict
from relayq.model.fans import child_of, collected
from relayq.model.jobs import JobState, Reason, Spec
from relayq.model.steps import Ended
from relayq.signing import Signer
from relayq.store import Store

#: How long a broker without room is left alone, in seconds.
_UNTIL_ROOM = 30.0
#: Why an attempt ends whose job waits for those that it became.
FANNED = "fanned"


class Fans:
    """Makes the jobs that steps become, and says what these came to."""

    def __init__(self, store: Store, signer: Signer, config: Config) -> None:
        self._store = store
        self._signer = signer
        self._config = config

    def out(self, spec: Spec, values: Sequence[Mapping[str, Any]]) -> Verdict:
        """Submit a job for each of these, and say that the step waits for them."""
        if not values:
            return self.collected(())
        children = [child_of(spec, number, one) for number, one in enumerate(values)]
        dispatcher = Dispatcher(self._store, self._signer)
        placed, placements = dispatcher.locate(
            children,
            online_within=self._config.lease.length,
            balance=self._config.scheduler.balance,
            wait_for_host=True,
        )
        try:
            dispatcher.submit(placed, placements=placements)
        except BrokerFull as error:
            # Nothing is wrong with the step, and what is there of its jobs is found again.
            return Verdict(JobState.SCHEDULED, Reason.HOST, error=str(error), delay=_UNTIL_ROOM)
        return self.waits([child.id for child in placed])

    def waits(self, ids: Sequence[str]) -> Verdict:
        """Return the verdict on a step that waits for its jobs."""
        return Verdict(JobState.WAITING, FANNED, result=list(ids))

    def collected(self, jobs: Sequence[Ended]) -> Verdict:
        """Return the verdict on a step whose jobs have ended."""
        result, outputs, why = collected(jobs)
        if why:
            # Not a failure of its own: that of its job was counted.
            return Verdict(
                JobState.FAILED, Reason.UPSTREAM, result=result, error=why, outputs=outputs
            )
        return Verdict(JobState.SUCCEEDED, Reason.EXIT, result=result, outputs=outputs)
