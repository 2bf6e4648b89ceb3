"""One command for each of many inputs: `job.map`.

What is planned and submitted is in `relayq.mapplans`, what becomes of it in `relayq.mapruns`; both
are loaded when somebody maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from relayq.client import Job
    from relayq.mapplans import MapPlan
    from relayq.mapruns import MapRun


class OfMaps:
    """What a `Job` does with many inputs."""

    def map(
        self,
        cmd: str | Sequence[str],
        inputs: Iterable[Any],
        *,
        concurrency: int | None = None,
        halt: str | None = None,
        ordered: bool = True,
        batch: int | str = "auto",
        **options: Any,
    ) -> MapRun:
        """Queue a command for each input, and return what tells of them all.

        In `cmd` stand GNU parallel's `{}`, `{.}`, `{/}`, `{//}`, `{/.}`, `{#}`, and `{1}`, `{2}` of
        inputs that are tuples; without any the input comes at its end. A text is a line for the
        shell, in which each input is quoted; a list is a program with its arguments. The same
        stand in `files_in` and `files_out`. At most `concurrency` run at a time, in the whole
        fleet. `halt` ends the rest early: "now,fail=1", "soon,fail=10%", "soon,success=1". `batch`
        says how many short ones travel together: a number, "auto" or "off". Takes the options of
        `run` besides; all is queued when it returns.
        """
        plan = self.plan_map(
            cmd, inputs, concurrency=concurrency, halt=halt, batch=batch, **options
        )
        return self.start_map(plan, ordered=ordered)

    def plan_map(self, cmd: str | Sequence[str], inputs: Iterable[Any], **options: Any) -> MapPlan:
        """Check what `map` would be asked, all of it, and return what it would submit."""
        from relayq import mapplans

        return mapplans.plan(cast("Job", self), cmd, inputs, **options)

    def start_map(self, plan: MapPlan, *, ordered: bool = True) -> MapRun:
        """Queue what was planned."""
        from relayq import mapplans

        return mapplans.start(cast("Job", self), plan, ordered=ordered)

    def map_of(self, group: str | None = None, *, ordered: bool = True) -> MapRun:
        """Find the newest map of a group, without a group the last of all."""
        from relayq import mapplans

        return mapplans.find(cast("Job", self), group, ordered=ordered)
