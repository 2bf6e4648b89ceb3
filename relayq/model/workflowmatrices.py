"""The strategy of a step, read: its matrix, and how the jobs of it go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relayq.model.folding import has_expressions
from relayq.model.matrices import Matrix
from relayq.model.workflowtrees import Tree, Way, shown, snake


def read_strategy(tree: Tree, way: Way, given: Any) -> tuple[Matrix | None, bool, int]:
    """Return the matrix, whether a failure ends its other jobs, how many run at once (0: all)."""
    fails_fast, at_once, matrix = True, 0, None
    for key, value in tree.table(way, given, "strategy").items():
        inner = (*way, key)
        match snake(key):
            case "matrix":
                matrix = _matrix(tree, inner, value)
            case "fail_fast":
                fails_fast = tree.truth(inner, value, key)
            case "max_parallel":
                at_once = tree.number(inner, value, key)
            case _:
                tree.unknown(inner, ("matrix", "fail-fast", "max-parallel"), "strategy")
    return matrix, fails_fast, at_once


def _matrix(tree: Tree, way: Way, value: Any) -> Matrix:
    if isinstance(value, str) and has_expressions(value):
        return Matrix({}, fans=value)
    axes: dict[str, Any] = {}
    extra: dict[str, Any] = {"include": [], "exclude": []}
    for key, values in tree.table(way, value, "matrix").items():
        inner = (*way, key)
        if key in extra:
            is_list = isinstance(values, list) and all(isinstance(v, Mapping) for v in values)
            if not is_list:
                tree.wrong(inner, f"{key}: expected a list of tables")
            extra[key] = values if is_list else []
        elif isinstance(values, list) and values:
            items = enumerate(values)
            axes[key] = [tree.as_written((*inner, n), one) for n, one in items]
        elif isinstance(values, str) and has_expressions(values):
            axes[key] = values
        else:
            tree.wrong(inner, f"the matrix's {key}: expected a list, got {shown(values)}")
    if not axes and not extra["include"]:
        tree.wrong(way, "a matrix of nothing")
    return Matrix(axes, extra["include"], extra["exclude"])
