"""What the expressions of a step may use, and what its `if` means. Pure: nothing is worked out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from relayq.model.expressions import (
    FUNCTIONS,
    STRENGTH,
    Call,
    Expression,
    ExpressionError,
    Path,
    parse,
)
from relayq.model.folding import expressions_in
from relayq.model.workflows import Input, Step

#: Functions that ask how the steps before ended.
STATUS = ("success", "failure", "always", "cancelled")
#: What is known of a run when it is submitted, and what only when the step runs.
EARLY = ("inputs", "matrix", "env", "flow")
LATE = ("steps", "needs")
_NAMES = (*LATE, *EARLY)
#: Of what an expression can ask of a step before it.
FIELDS = ("result", "outputs", "stdout", "value", "exit_code", "host", "job", "matrix", "jobs")
#: GitHub's that aren't here, and what is.
_ELSEWHERE = {
    "secrets": "secrets: [NAME] gives the command a variable of that name",
    "github": "what a run is about is its inputs; flow.id and flow.name are its own",
    "runner": "its host is only known to the command: $(hostname), $(uname -m)",
    "vars": "values for all steps are in the workflow's env",
    "strategy": "there is matrix",
    "job": "there is flow.id",
}


def bare(condition: str) -> Expression:
    """Return the expression of an `if`, which may stand within `${{ }}`."""
    text = condition.strip()
    if text.startswith("${{") and text.endswith("}}") and text.count("${{") == 1:
        text = text[3:-2]
    return parse(text)


def meaning(expression: Expression | None) -> tuple[str, str | None]:
    """Return when a step runs (success, failure, always), and what its worker has to see then.

    Without a function that asks how the steps before ended, these must have succeeded.
    """
    if expression is None:
        return "success", None
    match expression.node:
        case Call("success" | "failure" | "always" as function, ()):
            return function, None
        case Call("!", (Call("cancelled", ()),)):
            return "always", None
    asks = any(function in STATUS for function in expression.calls())
    return ("always" if asks else "success"), expression.text.strip()


class Scope:
    """What may stand in the expressions of one step."""

    def __init__(
        self,
        step: Step,
        steps: Mapping[str, Step],
        inputs: Mapping[str, Input],
        env: Collection[str],
    ) -> None:
        self._step = step
        self._steps = steps
        self._inputs = inputs
        self._env = env

    def check(self, expression: Expression, *, late: bool = True, is_if: bool = False) -> None:
        """Raise ExpressionError for a name or a function that it can't have.

        With `late`, what the steps before came to may be used; functions of status in `if` only.
        """
        for node in expression.nodes():
            if isinstance(node, Call) and node.function not in (*FUNCTIONS, *STRENGTH):
                self._check_function(node, is_if=is_if)
            elif isinstance(node, Path):
                self._check_path(node, late=late)

    def _check_function(self, node: Call, *, is_if: bool) -> None:
        if node.function in STATUS:
            if not is_if:
                raise ExpressionError(f"{node.function}() is for if only", column=node.column)
            return
        known = sorted(one for one in (*FUNCTIONS, *STATUS) if one.isalpha())
        raise ExpressionError(
            f"no such function: {node.function}{_meant(node.function, known)}; "
            f"there is {', '.join(known)}",
            column=node.column,
        )

    def _check_path(self, node: Path, *, late: bool) -> None:
        if node.name not in _NAMES:
            there = _ELSEWHERE.get(node.name, f"there is {', '.join(_NAMES)}")
            raise ExpressionError(f"no such name: {node.name}; {there}", column=node.column)
        if node.name in LATE and not late:
            raise ExpressionError(
                f"{node.name} is only known when the job runs, and this is decided before",
                column=node.column,
            )
        # An index that isn't written out is seen when the job runs.
        words = _words(node)
        if node.name in LATE:
            self._check_step(node, words)
        elif words and (known := self._known(node.name)) is not None and words[0] not in known:
            there = f"there is {', '.join(known)}" if known else "there is none"
            raise ExpressionError(
                f"no such thing: {node.name}.{words[0]}{_meant(words[0], known)}; {there}",
                column=node.column,
            )

    def _known(self, name: str) -> list[str] | None:
        if name == "inputs":
            return list(self._inputs)
        if name == "env":
            return list(self._env)
        if name == "flow":
            return ["id", "name"]
        matrix = self._step.matrix
        if matrix is None:
            return []
        if matrix.fans is not None or not matrix.axes:
            return None
        return list(dict.fromkeys([*matrix.axes, *(key for one in matrix.include for key in one)]))

    def _check_step(self, node: Path, words: list[str]) -> None:
        if not words:
            return
        name = f"{node.name}.{words[0]}"
        if words[0] not in self._steps:
            meant = _meant(words[0], list(self._steps))
            raise ExpressionError(f"no such step: {words[0]}{meant}", column=node.column)
        if words[0] not in self._step.needs:
            needs = ", ".join([*self._step.needs, words[0]])
            raise ExpressionError(
                f"{name} isn't known here: {self._step.id} doesn't need it (needs: [{needs}])",
                column=node.column,
            )
        if len(words) > 1 and words[1] not in FIELDS:
            meant = _meant(words[1], FIELDS)
            there = ", ".join(FIELDS)
            raise ExpressionError(
                f"{name} has no {words[1]!r}{meant}; it has {there}", column=node.column
            )
        declared = self._steps[words[0]].outputs
        is_output = declared is not None and words[1:2] == ["outputs"] and len(words) > 2
        if declared is not None and is_output and words[2] not in declared:
            there = ", ".join(declared) or "none"
            raise ExpressionError(
                f"{words[0]} declares no output {words[2]!r}; it has {there}", column=node.column
            )


def used(expressions: Iterable[Expression], needs: Iterable[str]) -> list[str]:
    """Return the steps whose ends these expressions use, in the order of `needs`."""
    named: set[str] = set()
    for expression in expressions:
        for path in expression.paths():
            if path[0] in LATE:
                if len(path) == 1:
                    return list(needs)  # needs.*.result, or the whole table
                named.add(path[1])
    return [need for need in needs if need in named]


def used_in(value: object, needs: Iterable[str]) -> list[str]:
    """Return the steps whose ends the expressions of a value use."""
    return used(expressions_in(value), needs)


def _words(node: Path) -> list[str]:
    for path in Expression("", node).paths():
        return list(path[1:])
    return []


def _meant(word: str, known: Collection[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
