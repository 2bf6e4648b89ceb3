"""Jobs that end together: after so many failures of theirs, the rest isn't worth running."""

from __future__ import annotations

from dataclasses import dataclass

from relayq.errors import RelayqError

#: What is counted, and what happens then: `soon` starts nothing further, `now` also ends what runs.
COUNTED = ("fail", "success", "done")
WAYS = ("soon", "now")


@dataclass(frozen=True, slots=True)
class Halt:
    """After `limit` of its members came to what is counted, the others are cancelled.

    Failures that were to be expected aren't counted: of lenient jobs, which count as successes, and
    of those that a job before them took along; nor is what was skipped. Members that run after a
    failure or always (`Spec.when`) are spared. Who joins after the end is cancelled at once.
    """

    name: str
    limit: int = 1
    counted: str = "fail"
    way: str = "now"

    def __post_init__(self) -> None:
        if self.counted not in COUNTED or self.way not in WAYS or self.limit < 1:
            raise RelayqError(
                f"a halt is {' or '.join(WAYS)}, at so many of {', '.join(COUNTED)}, "
                f"not {self.way},{self.counted}={self.limit}"
            )
