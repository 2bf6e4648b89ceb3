"""Behind sentinels an answer counts once replicas have it: then no failover takes it back.

Replication is one stream, and what a replica has is a beginning of it. So with an answer all is
there that it rests on: with the first beat of an attempt its claim, with that the job and the end
of the job before it. A process starts after that beat, an outcome is let go of after `finish`, and
a submit is told to its caller, when the answer was waited for: what they rest on lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relayq.errors import BrokerUnavailable

#: Nobody acts on their answers alone: a claim counts from the first beat of its attempt on, time
#: passes again, and what is said again and again may be missing once.
_UNWAITED = frozenset(("claim", "tick", "sweep", "progress", "report", "append", "checkpoint"))


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas must have what was answered, and for how many seconds that is waited for.

    A repeat that changes nothing waits as well: Redis counts from all that it did before.
    """

    number: int = 0
    patience: float = 2.0

    def are_waited_for(self, script: str) -> bool:
        """Tell whether the answer of this script must be on replicas."""
        return self.number > 0 and script not in _UNWAITED

    @property
    def commands(self) -> list[tuple[str, int, int]]:
        """What is sent after a script, none where nothing is waited for."""
        return [("WAIT", self.number, round(self.patience * 1000))] if self.number else []

    def check(self, answers: Sequence[int]) -> None:
        """Raise BrokerUnavailable unless enough replicas have it; the caller asks again."""
        for reached in answers:
            if isinstance(reached, Exception):
                raise reached
            if reached < self.number:
                raise BrokerUnavailable(
                    f"the broker did it, and {reached} of {self.number} replicas have it: a "
                    "failover now would undo it",
                    hint="relayq ps shows whether it lasted; relayq doctor, which replica is away",
                )


NONE = Replicas()
