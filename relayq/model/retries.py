"""When a failed attempt is followed by another: the policy as a value, the decisions as functions.

Two causes are kept apart. A command's own failure is tried again as its submitter asked
(`decide`). A host that couldn't start the command is no failure of the command: the job is tried
again without being asked for it, up to the crash limit (`delay_after_fault`). What a lost host
means is `on_lost`'s to say, in the store's scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, JobState, Reason, Spec
from relayq.parsing import duration

if TYPE_CHECKING:
    from relayq.config import Config

#: What a submitter may name, and the ends of an attempt that it means.
CAUSES: Mapping[str, frozenset[str]] = {
    "exit": frozenset({Reason.EXIT}),
    "signal": frozenset({Reason.SIGNAL, Reason.OOM}),
    "timeout": frozenset({Reason.TIMEOUT}),
    "all": frozenset(
        {
            Reason.EXIT,
            Reason.SIGNAL,
            Reason.OOM,
            Reason.TIMEOUT,
            Reason.OUTPUT,
            Reason.SPAWN,
            Reason.FILES,
        }
    ),
}
#: More doublings than any limit needs, and few enough for a float.
_STEPS = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, after which ends and after what delay a failed attempt is tried again.

    Delays grow from `first_delay` by `factor` to `longest_delay`. `retry_on` are words of
    `CAUSES`, or `exit:N` for one exit code.
    """

    retries: int = 0
    first_delay: float = 1.0
    longest_delay: float = 60.0
    factor: float = 2.0
    is_jittered: bool = True
    retry_on: tuple[str, ...] = ("exit", "signal")

    @classmethod
    def of(cls, spec: Spec) -> RetryPolicy:
        """Return the policy that a job was submitted with."""
        first, longest = spec.backoff
        return cls(
            retries=spec.retries,
            first_delay=first,
            longest_delay=longest,
            factor=spec.backoff_factor,
            is_jittered=spec.backoff_jitter,
            retry_on=spec.retry_on,
        )

    def covers(self, reason: str, exit_code: int | None) -> bool:
        """Whether an attempt that ended so is one to try again."""
        by_code = reason == Reason.EXIT and f"exit:{exit_code}" in self.retry_on
        return by_code or any(reason in CAUSES.get(word, ()) for word in self.retry_on)

    def delay(self, number: int, *, jitter: float) -> float:
        """Return the seconds before the nth further attempt.

        `jitter` in [0, 1) spreads them over their upper half (the caller owns randomness).
        """
        grown = self.first_delay * self.factor ** min(number - 1, _STEPS)
        spread = 0.5 + jitter / 2 if self.is_jittered else 1.0
        return min(grown, self.longest_delay) * spread


def decide(
    policy: RetryPolicy, reason: str, exit_code: int | None, failures: int, *, jitter: float
) -> float | None:
    """Return the seconds until the next attempt, or None: the last of `failures` was the end."""
    if failures > policy.retries or not policy.covers(reason, exit_code):
        return None
    return policy.delay(failures, jitter=jitter)


def delay_after_fault(
    policy: RetryPolicy, losses: int, *, crash_limit: int, jitter: float
) -> float | None:
    """Return the seconds until a job is tried again that its host couldn't start, or None.

    `losses` counts this fault, and the lost attempts before it.
    """
    return None if losses >= crash_limit else policy.delay(losses, jitter=jitter)


def policy_fields(
    config: Config,
    *,
    retries: int | None = None,
    backoff: str | Iterable[float] | None = None,
    retry_on: str | Iterable[str] | None = None,
) -> dict[str, Any]:
    """Return the fields of a spec that say when to retry, completed from the configuration.

    A job without retries needs no others; who says when to retry, but not how often, means to.
    """
    given: dict[str, Any] = {}
    if backoff is not None:
        given["backoff"] = read_backoff(backoff)
    if retry_on is not None:
        given["retry_on"] = read_retry_on(retry_on)
    if retries is None:
        retries = config.defaults.retries or (config.retry.max if given else 0)
    if retries < 0:
        raise RelayqError(f"a job can't have {retries} retries")
    if retries == 0:
        return {}
    return {
        "retries": retries,
        "backoff": (config.retry.base, config.retry.cap),
        "backoff_factor": config.retry.factor,
        "backoff_jitter": config.retry.jitter,
        **given,
    }


def is_dead(record: JobRecord) -> bool:
    """Whether a job failed because its hosts were lost, and not by an end of its own."""
    return record.state is JobState.FAILED and record.reason in (Reason.LOST, Reason.HOST)


def read_backoff(text: str | Iterable[float]) -> tuple[float, float]:
    """Return the first and the longest delay that `1s..60s`, `10s` or two numbers mean."""
    if isinstance(text, str):
        first, dots, longest = text.partition("..")
        try:
            ends = [duration(first), duration(longest if dots else first)]
        except ValueError as error:
            raise _no_backoff(text) from error
    else:
        ends = [float(end) for end in text]
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] < float("inf"):
        raise _no_backoff(text)
    return ends[0], ends[1]


def _no_backoff(given: object) -> RelayqError:
    return RelayqError(
        f"a backoff is a first and a longest delay such as 1s..60s, not {given!r}",
        hint="relayq run --help",
    )


def read_retry_on(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the causes that a text names: `exit`, `timeout,signal`, `exit:75,111`, `all`."""
    parts = given.split(",") if isinstance(given, str) else [str(part) for part in given]
    causes = tuple(dict.fromkeys(_cause(part.strip()) for part in parts if part.strip()))
    if not causes:
        raise _no_cause(given)
    return causes


def _cause(word: str) -> str:
    if word in CAUSES:
        return word
    code = word.removeprefix("exit:")
    if not code.isdecimal() or not 1 <= int(code) <= 255:
        raise _no_cause(word)
    return f"exit:{int(code)}"


def _no_cause(given: object) -> RelayqError:
    return RelayqError(
        f"retry_on takes {', '.join(CAUSES)}, or exit codes from 1 to 255 such as exit:75,111, "
        f"not {given!r}",
        hint="relayq run --help",
    )
