"""run_batch: many short commands, one after another under one shim.

The process is the program of `relayq.host.batching`, which gets its order on standard input.
`relayq map` makes such jobs (model/batches.py).
"""

from __future__ import annotations

import json
import os.path
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relayq.kinds import Command, Ended, HostFacts, Verdict, kind
from relayq.kinds.command import CommandPayload, expand
from relayq.model.jobs import JobState, Reason

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: How many failed items an error names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class BatchPayload:
    """`items` are pairs of a number and a command, as that of run_command.

    Each runs in `cwd` with `env`, at most `timeout` seconds, and may write `max_output` bytes. Once
    they have taken `patience` seconds, and some are left, these become jobs of their own. With
    `halts` that happens as soon as one fails.
    """

    items: Sequence[Any]
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    max_output: int | None = None
    patience: float | None = None
    halts: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.items, list | tuple) or not self.items:
            raise ValueError("no items are given")
        for one in self.items:
            match one:
                case [int(), str() | list() as cmd]:
                    CommandPayload(cmd, cwd=self.cwd, env=self.env)
                case _:
                    raise TypeError(f"an item is a number and a command, not {one!r:.80}")


@kind("run_batch")
class RunBatch:
    """Run commands one after another."""

    Payload: type[Any] = BatchPayload

    def plan(self, payload: BatchPayload, host: HostFacts) -> Command:
        """Return the program that runs the items."""
        code = (
            f"import sys; sys.path.insert(0, {_ROOT!r}); "
            "from relayq.host.batching import main; main()"
        )
        order = {
            "items": payload.items,
            "timeout": payload.timeout,
            "max_output": payload.max_output,
            "patience": payload.patience,
            "halts": payload.halts,
            "host": host.name,
        }
        return Command(
            argv=(sys.executable, "-I", "-S", "-c", code),
            cwd=expand(payload.cwd, host.home, host.scratch),
            env=payload.env,
            stdin=json.dumps(order).encode(),
        )

    def interpret(self, ended: Ended) -> Verdict:
        """Return success if every item that ran succeeded."""
        report = ended.report or {}
        failed = report.get("failed")
        if not isinstance(failed, dict):
            return Verdict(JobState.FAILED, ended.reason, error=ended.error or _unreported(ended))
        if not failed and ended.reason == Reason.EXIT:
            return Verdict(JobState.SUCCEEDED, Reason.EXIT, result=report)
        named = ", ".join(f"{n} ({why})" for n, why in list(failed.items())[:_NAMED])
        more = ", ..." if len(failed) > _NAMED else ""
        said = f"{len(failed)} of {report.get('ran', '?')} items failed: {named}{more}"
        return Verdict(
            JobState.FAILED, ended.reason, result=report, error=said if failed else ended.error
        )


def _unreported(ended: Ended) -> str | None:
    if ended.reason != Reason.EXIT:
        return None
    return f"it ended without a report (exit code {ended.exit_code})"
