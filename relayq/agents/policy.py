"""What becomes of a job after an agent's run: one table of classes, one decision.

Waiting is done in the queue: the slot is given back, and the session is resumed on the same host.
A usage limit isn't the job's fault, so it costs no attempt and pauses the account for the whole
fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relayq.agents import limits
from relayq.agents.answers import Answer, ErrorClass, Status
from relayq.agents.invocation import CONTINUE
from relayq.model.jobs import JobState, Reason

#: After a reset everybody would come at the same instant.
_AFTER_RESET = (30.0, 120.0)
#: How long an account waits whose reset nobody knows.
_UNKNOWN_RESET = 1800.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how slowly a class is tried again; `tries` is the number of runs in all."""

    tries: int
    first_delay: float
    longest_delay: float = 1800.0
    counts: bool = True
    pauses_account: bool = False
    reason: Reason = Reason.EXIT

    def delay_after(self, failures: int, *, jitter: float) -> float:
        """Return the seconds to wait after this many failures before; `jitter` is in [0, 1)."""
        # More doublings than any limit needs, and few enough for a float.
        delay = min(self.longest_delay, self.first_delay * 2.0 ** min(failures, 60))
        return float(delay * (1 + jitter / 4))


#: The classes that are worth another try. What isn't counted is tried without end.
PATIENCE: Mapping[ErrorClass, Patience] = {
    ErrorClass.RATE_LIMITED: Patience(8, 60.0, pauses_account=True, reason=Reason.QUOTA),
    ErrorClass.OVERLOADED: Patience(5, 30.0),
    ErrorClass.TRANSIENT: Patience(5, 30.0),
    ErrorClass.STALLED: Patience(5, 30.0),
    ErrorClass.CRASHED: Patience(2, 5.0),
    ErrorClass.OUTPUT_LIMIT: Patience(2, 1.0),
    ErrorClass.SESSION_EXISTS: Patience(2, 1.0),
    ErrorClass.SESSION_IN_USE: Patience(1, 15.0, longest_delay=15.0, counts=False),
}
#: What another agent may do better, if the job names one.
_ELSEWHERE = frozenset(
    {ErrorClass.USAGE_LIMIT, ErrorClass.BILLING, ErrorClass.AUTH, ErrorClass.MISSING}
)
#: What a person is asked even about a job that nobody attends: it is the whole account's trouble.
_ACCOUNTS_OWN = frozenset({ErrorClass.AUTH, ErrorClass.BILLING})
#: Billing trouble is the whole account's; so long nobody asks for it again by itself.
_BILLING_PAUSE = 3600.0

_REASONS: Mapping[ErrorClass, Reason] = {
    ErrorClass.USAGE_LIMIT: Reason.QUOTA,
    ErrorClass.BILLING: Reason.QUOTA,
    ErrorClass.BUDGET: Reason.QUOTA,
    ErrorClass.AUTH: Reason.AUTH,
    ErrorClass.TIMED_OUT: Reason.TIMEOUT,
    ErrorClass.CANCELLED: Reason.USER,
    ErrorClass.MISSING: Reason.SPAWN,
    ErrorClass.ROOT: Reason.SPAWN,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that a person can say with one key.

    With a `verdict` ("done", "failed") the job ends so; without one the session goes on with
    `text` and with the tools of `allow`.
    """

    label: str
    text: str = ""
    allow: tuple[str, ...] = ()
    verdict: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the choice as JSON knows it."""
        return {
            "label": self.label,
            "text": self.text,
            "allow": list(self.allow),
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a job.

    `delay` (seconds) or `until` (an instant) says when the next run may begin, `account_until`
    until when nobody uses the account. `stays_on_host` is for a session that lives there; what
    doesn't count leaves the job's attempts as they were.
    """

    state: JobState
    reason: Reason
    delay: float | None = None
    until: float | None = None
    question: str = ""
    choices: tuple[Choice, ...] = ()
    account_until: float | None = None
    tries_next_agent: bool = False
    stays_on_host: bool = False
    counts: bool = True

    @property
    def pauses_account(self) -> bool:
        """Whether nobody uses the account for a while."""
        return self.account_until is not None


STOP = Choice("stop here, as failed", verdict="failed")
GO_ON = Choice("go on in the same session", text=CONTINUE)


def decide(
    answer: Answer, *, failures: int, fallbacks: bool, jitter: float, now: float, asks: bool = True
) -> Decision:
    """Return what becomes of the job.

    `failures` is the number of counted attempts before this one, `fallbacks` whether the job
    names an agent that comes after this one, `jitter` a random number in [0, 1). One that doesn't
    ask is done with the answer that it has, or has failed.
    """
    error_class = answer.error_class
    if answer.status is Status.OK or error_class is None:
        return Decision(JobState.SUCCEEDED, Reason.EXIT)
    reason = _REASONS.get(error_class, Reason.EXIT)
    if error_class is ErrorClass.CANCELLED:
        return Decision(JobState.CANCELLED, reason)
    account_until = _account_until(answer, failures, jitter, now)
    if fallbacks and (error_class in _ELSEWHERE or _is_worn_out(error_class, failures)):
        return Decision(
            JobState.SCHEDULED,
            reason,
            delay=0.0,
            account_until=account_until,
            tries_next_agent=True,
            counts=False,
        )
    if error_class is ErrorClass.USAGE_LIMIT:
        return Decision(
            JobState.SCHEDULED,
            reason,
            until=account_until,
            account_until=account_until,
            stays_on_host=answer.session_id is not None,
            counts=False,
        )
    if error_class in PATIENCE:
        return _again(answer, PATIENCE[error_class], failures, jitter, account_until)
    if not asks and error_class is ErrorClass.NEEDS_REVIEW:
        return Decision(JobState.SUCCEEDED, reason)
    if error_class in _QUESTIONS and (asks or error_class in _ACCOUNTS_OWN):
        question, choices = _QUESTIONS[error_class](answer)
        return Decision(
            JobState.NEEDS_HUMAN,
            reason,
            question=question,
            choices=choices,
            account_until=account_until,
            stays_on_host=answer.session_id is not None,
        )
    return Decision(JobState.FAILED, reason)


def _again(
    answer: Answer, patience: Patience, failures: int, jitter: float, account_until: float | None
) -> Decision:
    if patience.counts and failures + 1 >= patience.tries:
        return Decision(JobState.FAILED, patience.reason, account_until=account_until)
    return Decision(
        JobState.SCHEDULED,
        patience.reason,
        delay=_delay(answer, patience, failures, jitter),
        account_until=account_until,
        stays_on_host=answer.session_id is not None,
        counts=patience.counts,
    )


def _delay(answer: Answer, patience: Patience, failures: int, jitter: float) -> float:
    """Return the wait before the next try: what the API asks for, if that is longer."""
    backoff = patience.delay_after(failures, jitter=jitter)
    asked = min(answer.retry_after or 0.0, patience.longest_delay)
    return max(backoff, asked * (1 + jitter / 4))


def _is_worn_out(error_class: ErrorClass, failures: int) -> bool:
    patience = PATIENCE.get(error_class)
    # A broken run is this job's own; what the API refuses is worth another API.
    if patience is None or error_class not in _APIS:
        return False
    return failures + 1 >= patience.tries


_APIS = frozenset(
    {
        ErrorClass.RATE_LIMITED,
        ErrorClass.OVERLOADED,
        ErrorClass.TRANSIENT,
        ErrorClass.STALLED,
    }
)


def _account_until(answer: Answer, failures: int, jitter: float, now: float) -> float | None:
    """Return until when nobody should use the account, None if it is well."""
    match answer.error_class:
        case ErrorClass.USAGE_LIMIT:
            low, high = _AFTER_RESET
            # Whoever can write the report can't park the account for years.
            reset = limits.sane(answer.resets_at, now)
            start = max(now, reset) if reset is not None else now + _UNKNOWN_RESET
            return start + low + jitter * (high - low)
        case ErrorClass.RATE_LIMITED:
            return now + _delay(answer, PATIENCE[ErrorClass.RATE_LIMITED], failures, jitter)
        case ErrorClass.BILLING:
            return now + _BILLING_PAUSE
    return None


def _denied(answer: Answer) -> tuple[str, tuple[Choice, ...]]:
    if not answer.denials:
        again = "Answer again, in exactly the form that was asked for and nothing else."
        return (
            f"{answer.agent} answered, but {answer.message.removeprefix('its answer ')}: take it?",
            (
                Choice("ask again for the right form", text=again),
                Choice("take the answer as it is", verdict="done"),
                STOP,
            ),
        )
    shown = "; ".join(
        f"{denial.tool}: {denial.input}" if denial.input else denial.tool
        for denial in answer.denials[:5]
    )
    allow = tuple(dict.fromkeys(denial.allow for denial in answer.denials if denial.allow))
    granted = f"You may use {', '.join(allow)} now. {CONTINUE}"
    without = "Go on without the tools that you were denied, as far as you can."
    return (
        f"{answer.agent} wanted what it isn't allowed ({shown}): allow it?",
        (
            Choice(f"allow {', '.join(allow)} and go on", text=granted, allow=allow),
            Choice("go on without", text=without),
            Choice("it is done as it is", verdict="done"),
            STOP,
        ),
    )


def _asks(question: str, *choices: Choice) -> Callable[[Answer], tuple[str, tuple[Choice, ...]]]:
    """Return the maker of a question that ends with what the agent said of it."""

    def make(answer: Answer) -> tuple[str, tuple[Choice, ...]]:
        said = " ".join(answer.message.split())[:300]
        asked = question.format(agent=answer.agent, host=answer.host or "its host")
        return (f"{asked} ({said})" if said else asked), (*choices, STOP)

    return make


_QUESTIONS: Mapping[ErrorClass, Callable[[Answer], tuple[str, tuple[Choice, ...]]]] = {
    ErrorClass.NEEDS_REVIEW: _denied,
    ErrorClass.AUTH: _asks(
        "{agent} isn't logged in on {host}: log in there (relayq agent login), then try again?",
        Choice("I have logged in: try again", text=CONTINUE),
    ),
    ErrorClass.BILLING: _asks(
        "the account of {agent} has no credit: top it up, then try again?",
        Choice("I have paid: try again", text=CONTINUE),
    ),
    ErrorClass.REFUSED: _asks(
        "{agent} refuses: say it in other words?",
        Choice("ask once more", text="Please try again."),
    ),
    ErrorClass.MAX_TURNS: _asks("{agent} has used up its turns: let it go on?", GO_ON),
    ErrorClass.BUDGET: _asks("{agent} has used up its budget: let it go on?", GO_ON),
}
