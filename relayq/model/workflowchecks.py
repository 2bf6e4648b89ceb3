"""What is wrong with a workflow that could be read: its graph, its expressions, its references."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from relayq.model.conditions import Scope, bare
from relayq.model.expressions import ExpressionError
from relayq.model.folding import is_whole
from relayq.model.graph import Graph, GraphError
from relayq.model.templates import read as read_template
from relayq.model.workflows import Step, Workflow
from relayq.model.workflowtrees import Tree, Way

#: Parts of a step that its worker works out when it runs; all others are decided before.
_LATE = ("run", "with", "prompt", "cwd", "env", "steps")


def check(tree: Tree, workflow: Workflow) -> None:
    """Note all that is wrong."""
    _check_references(tree, workflow)
    if tree.problems:
        return
    try:
        order(workflow)
    except GraphError as error:
        place = workflow.steps[error.step].ways.get("needs", workflow.steps[error.step].way)
        tree.wrong(place, error.message)
        return
    for name, value in workflow.env.items():
        nobody = Step(id="env", kind="", payload={})
        scope = Scope(nobody, {}, workflow.inputs, {})
        _check_texts(tree, scope, ("env", name), value, late=False)
    for step in workflow.steps.values():
        _check_step(tree, workflow, step)


def order(workflow: Workflow) -> list[str]:
    """Return the steps so that each comes after all that it names."""
    named = {
        id: [*step.needs, *([step.beside] if step.beside else [])]
        for id, step in workflow.steps.items()
    }
    return Graph(named).order()


def _check_references(tree: Tree, workflow: Workflow) -> None:
    for id, step in workflow.steps.items():
        for number, need in enumerate(step.needs):
            way = step.ways.get("needs", step.way)
            inner = (*way, number)
            _check_reference(tree, workflow, inner if inner in tree.values else way, id, need)
        if step.beside is not None:
            way = step.ways.get("beside", step.way)
            _check_reference(tree, workflow, way, id, step.beside)
        for take in step.takes:
            way = step.ways.get("in", step.way)
            if take["from"] not in workflow.steps:
                _check_reference(tree, workflow, way, id, take["from"])
            elif take["from"] not in step.needs:
                tree.wrong(way, f"{id} takes files of {take['from']}, and doesn't need it (needs)")


def _check_reference(tree: Tree, workflow: Workflow, way: Way, id: str, need: str) -> None:
    if need in workflow.steps:
        return
    close = get_close_matches(need, workflow.steps, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    tree.wrong(way, f"{id} names {need}, which is no step{meant}")


def _check_step(tree: Tree, workflow: Workflow, step: Step) -> None:
    scope = Scope(step, workflow.steps, workflow.inputs, {**workflow.env, **step.env})
    for key, way in step.ways.items():
        value = _at(tree.root, way)
        match key:
            case "if":
                _check_condition(tree, scope, way, value)
            case "strategy":
                _check_strategy(tree, scope, way, value)
            case "outputs":
                pass
            case _:
                _check_texts(tree, scope, way, value, late=key in _LATE)


def _check_condition(tree: Tree, scope: Scope, way: Way, value: Any) -> None:
    text = tree.text(way, value, "if") if value is not None else "true"
    try:
        scope.check(bare(text), is_if=True)
    except ExpressionError as error:
        skipped = text.find("${{") + 3 if text.lstrip().startswith("${{") else 0
        tree.wrong(way, error.message, offset=skipped + error.column)


def _check_strategy(tree: Tree, scope: Scope, way: Way, value: Any) -> None:
    """Note what is wrong; one list of a matrix may be known only when the step runs."""
    for key, inner in (value or {}).items():
        if key != "matrix":
            _check_texts(tree, scope, (*way, key), inner, late=False)
        elif is_whole(inner):
            _check_texts(tree, scope, (*way, key), inner, late=True)
        else:
            for name, values in inner.items():
                _check_texts(tree, scope, (*way, key, name), values, late=is_whole(values))


def _check_texts(tree: Tree, scope: Scope, way: Way, value: Any, *, late: bool) -> None:
    match value:
        case str() if "${{" in value:
            at = 0
            try:
                for part in read_template(value).parts:
                    if isinstance(part, str):
                        continue
                    at = value.index(part.text, at)
                    scope.check(part, late=late)
                    at += len(part.text)
            except ExpressionError as error:
                tree.wrong(way, error.message, offset=at + error.column)
        case dict():
            for key, inner in value.items():
                _check_texts(tree, scope, (*way, key), inner, late=late)
        case list() | tuple():
            for number, inner in enumerate(value):
                _check_texts(tree, scope, (*way, number), inner, late=late)


def _at(root: Any, way: Way) -> Any:
    for part in way:
        root = root[part]
    return root
