"""Jobs as steps of something larger: what one gives to those after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relayq.model.jobs import Outcome


class WithOutputs:
    """What a `JobResult` knows of its outputs."""

    outcome: Callable[[], Outcome | None]

    @property
    def outputs(self) -> Mapping[str, str]:
        """What it wrote to $RELAYQ_OUTPUT, or said with `relayq output`; empty before its end."""
        outcome = self.outcome()
        return {} if outcome is None else outcome.outputs
