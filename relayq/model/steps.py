"""What a step of a workflow knows of the steps before it, and what is made of its own payload.

Pure: the worker that claimed the step brings what those came to, checked (relayq.host.steps).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relayq.errors import BadSignature
from relayq.model.expressions import Expression, ExpressionError, Value, is_true, parse, text_of
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason
from relayq.model.output import STDOUT, only, split
from relayq.model.shelltext import bind, script_in
from relayq.model.templates import BEGIN, fill_all, read

SUCCESS, FAILURE, CANCELLED, SKIPPED = "success", "failure", "cancelled", "skipped"
#: By which names a step knows those before it.
STEPS = ("steps", "needs")
#: Of several jobs the first of these that one came to is what they came to together.
_WORST = (FAILURE, CANCELLED, SUCCESS)
#: In the type of a payload's field: that it takes more than one value, that these are texts.
_SEVERAL = ("list", "Sequence", "Mapping", "tuple", "Any")
_TEXTS = re.compile(r"(list|Sequence)\[str\]")
_NOTHING = ("stdout", "value", "exit_code", "host", "matrix")

Names = Mapping[str, Any]
Functions = Mapping[str, Callable[..., Value]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended: its `result` and, if it ran, its checked outcome.

    `counts_as` is what its end means for the jobs after it. `jobs` are those that it became.
    """

    id: str
    kind: str
    result: str
    counts_as: str
    outcome: Outcome | None = None
    matrix: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[Ended, ...] = ()


def result_of(record: JobRecord, outcome: Outcome | None) -> str:
    """Return what a job came to; BadSignature if nothing signed says so that has to.

    A record is anybody's word. That a job never ran, or was cancelled, is nothing more; but what
    succeeded has an outcome that says so, unless a person decided.
    """
    own = outcome if outcome is not None and outcome.attempt == record.attempt else None
    said = own.state if own is not None else None
    match record.state:
        case JobState.CANCELLED:
            return CANCELLED
        case JobState.FAILED if said is not JobState.SUCCEEDED:
            return FAILURE
        case JobState.SUCCEEDED if record.reason == Reason.SKIPPED:
            if own is None or own.reason == Reason.SKIPPED:
                return SKIPPED
        case JobState.SUCCEEDED if record.reason == Reason.USER:
            if said is not JobState.FAILED:
                return SUCCESS
        case JobState.SUCCEEDED if own is not None and said is JobState.SUCCEEDED:
            return SKIPPED if own.reason == Reason.SKIPPED else SUCCESS
    is_over = record.state.is_final
    signed = "no signed outcome says so" if own is None else f"its signed outcome says {own.state}"
    why = signed if is_over else "it has to have ended"
    raise BadSignature(f"the record of {record.id} says {record.state}, and {why}")


def meaning_of(result: str, reason: str | None, *, is_lenient: bool) -> str:
    """Return what a result means for the jobs after it: a lenient job's failure is none.

    Unless it never ran, because of a failure before it: that is passed on.
    """
    is_excused = is_lenient and result in (FAILURE, CANCELLED) and reason != Reason.UPSTREAM
    return SUCCESS if is_excused else result


class Facts(dict[str, Any]):
    """What an expression finds of a job; asking for what is `missing` is an error that says why."""

    def __init__(self, known: Mapping[str, Any], missing: Mapping[str, str]) -> None:
        super().__init__(known)
        self._missing = missing

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a fact."""
        if key in self._missing:
            raise ExpressionError(self._missing[key])
        return super().get(key, default)


class Table(dict[str, Any]):
    """The steps that an expression may ask for; any other is an error."""

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a step's facts."""
        if key not in self:
            known = ", ".join(self) or "none"
            raise ExpressionError(f"nothing is known here of a step {key!r}; there is {known}")
        return super().get(key, default)


def facts_of(jobs: Sequence[Ended]) -> Facts:
    """Return what is known of a step by the name that its jobs have together."""
    single = [_facts(one) for one in jobs]
    # What became jobs of its own is known by these.
    each = [_facts(inner) for one in jobs for inner in one.jobs or (one,)]
    if len(jobs) == 1:
        return Facts({**single[0], "jobs": each}, single[0]._missing)
    outputs: dict[str, str] = {}
    for one in single:
        outputs |= one["outputs"]
    results = {one.result for one in jobs}
    worst = next((word for word in _WORST if word in results), SKIPPED)
    together = {**dict.fromkeys(_NOTHING), "job": None, "result": worst, "outputs": outputs}
    return Facts({**together, "jobs": each}, {})


def _facts(job: Ended) -> Facts:
    outcome = job.outcome
    known = {
        "result": job.result,
        "job": job.id,
        "matrix": dict(job.matrix),
        "outputs": {} if outcome is None else dict(outcome.outputs),
        "exit_code": None if outcome is None else outcome.exit_code,
        "host": None if outcome is None else outcome.host,
        "value": None if outcome is None else outcome.result,
        "stdout": None,
    }
    if outcome is None:
        return Facts(known, {})
    if outcome.result is not None:
        return Facts({**known, "stdout": _gist(job.kind, outcome.result)}, {})
    if not outcome.is_whole:
        why = (
            f"the output of {job.id} is too long to go from step to step; it may write what the "
            "next one needs to $RELAYQ_OUTPUT, or to a file"
        )
        return Facts(known, {"stdout": why})
    text = only(split(outcome.output)[0], STDOUT).decode(errors="replace")
    return Facts({**known, "stdout": text.removesuffix("\n")}, {})


def _gist(kind: str, result: Any) -> Any:
    """Return what `get` gives for a result: an agent's answer, the text of a transcript."""
    if kind == "transcribe":
        from relayq.model.transcripts import value_in

        return value_in(result)
    if isinstance(result, Mapping) and "structured" in result:
        return result.get("text") if result["structured"] is None else result["structured"]
    return result


def status_functions(jobs: Iterable[Ended]) -> Functions:
    """Return the functions that ask how the jobs that one comes after have ended."""
    ends = {one.counts_as for one in jobs}
    return {
        "success": lambda: ends <= {SUCCESS},
        "failure": lambda: FAILURE in ends,
        "cancelled": lambda: CANCELLED in ends,
        "always": lambda: True,
    }


def asks_status(condition: Expression) -> bool:
    """Whether a condition asks how the jobs before have ended."""
    return bool(condition.calls() & {"success", "failure", "cancelled", "always"})


def condition_of(text: str) -> Expression:
    """Read a condition, which may stand within `${{ }}`."""
    match read(text.strip()).parts if BEGIN in text else ():
        case (Expression() as only_one,):
            return only_one
    return parse(text)


def holds(condition: Expression, names: Names, functions: Functions) -> bool:
    """Whether a condition is true."""
    return is_true(condition.evaluate(names, functions))


def used(value: Any) -> set[str] | None:
    """Return the steps that the expressions of a value use; None if that may be any of them."""
    found: set[str] = set()
    for expression in _expressions(value):
        for path in expression.paths():
            if path[0] in STEPS:
                if len(path) == 1:
                    return None
                found.add(path[1])
    return found


def _expressions(value: Any) -> Iterable[Expression]:
    match value:
        case Expression():
            yield value
        case str() if BEGIN in value:
            yield from read(value).expressions
        case Mapping():
            for one in value.values():
                yield from _expressions(one)
        case list() | tuple():
            for one in value:
                yield from _expressions(one)


def filled(payload: Mapping[str, Any], types: Mapping[str, str], names: Names) -> dict[str, Any]:
    """Return a payload with everything worked out; `types` are those of its kind's fields.

    A shell line gets its values as variables: none of them is ever code (model/shelltext.py).
    """
    command = payload.get("cmd")
    argv = [command] if isinstance(command, str) else _argv(command)
    number = 0 if isinstance(command, str) else script_in(argv)
    if number is None:
        return _texts_filled(payload, types, names)
    made = _texts_filled({**payload, "cmd": argv[:number]}, types, names)
    rest = _texts_filled({"cmd": argv[number + 1 :]}, types, names)["cmd"]
    env = made.get("env") or {}
    bound = bind(argv[number], lambda expression: expression.evaluate(names), taken=env)
    whole = [*made["cmd"], bound.text, *rest]
    made["cmd"] = bound.text if isinstance(command, str) else whole
    if bound.variables:
        made["env"] = {**env, **bound.variables}
    return made


def _argv(command: Any) -> list[str]:
    is_argv = isinstance(command, list | tuple) and all(isinstance(one, str) for one in command)
    return list(command) if is_argv else []


def _texts_filled(
    payload: Mapping[str, Any], types: Mapping[str, str], names: Names
) -> dict[str, Any]:
    return {
        name: _fitting(fill_all(value, names), types.get(name, ""))
        for name, value in payload.items()
    }


def _fitting(value: Any, asked: str) -> Any:
    """Return a value as a field of this type takes it: what is to be text becomes text."""
    match value:
        case None if "None" in asked:
            return None
        case Mapping() | list() if any(word in asked for word in _SEVERAL):
            if isinstance(value, list):
                return [text_of(one) for one in value] if _TEXTS.search(asked) else value
            is_texts = asked.startswith("Mapping[str, str]")
            return {key: text_of(one) for key, one in value.items()} if is_texts else value
        case _ if asked.startswith("str"):
            return text_of(value)
    return value
