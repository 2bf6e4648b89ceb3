"""Graphs of steps: what comes after what, whether that can be, and how it looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from relayq.errors import RelayqError


class GraphError(RelayqError):
    """A graph that can't be: `step` is the one whose needs are wrong."""

    def __init__(self, message: str, *, step: str) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps by id, each with the ids of those that it needs, in the order of their file."""

    needs: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        for step, needs in self.needs.items():
            for need in needs:
                if need not in self.needs:
                    raise GraphError(f"{step} needs {need}, which is no step", step=step)
                if need == step:
                    raise GraphError(f"{step} needs itself", step=step)
        try:
            TopologicalSorter(self.needs).prepare()
        except CycleError as error:
            # The cycle as it is read: each step needs the next one.
            path = list(reversed(error.args[1]))
            raise GraphError(f"a circle: {' needs '.join(path)}", step=path[0]) from error

    def order(self) -> list[str]:
        """Return the steps, each after those that it needs, else in the order of their file."""
        return [step for layer in self.layers() for step in layer]

    def layers(self) -> list[list[str]]:
        """Return the steps in layers: those of a layer can run at a time, all before the next."""
        depth: dict[str, int] = {}
        for step in TopologicalSorter(self.needs).static_order():
            depth[step] = 1 + max((depth[need] for need in self.needs[step]), default=-1)
        layers: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
        for step in self.needs:
            layers[depth[step]].append(step)
        return layers

    def after(self, steps: Iterable[str]) -> set[str]:
        """Return everything that comes after these steps, however indirectly; not they."""
        dependents: dict[str, list[str]] = {}
        for step, needs in self.needs.items():
            for need in needs:
                dependents.setdefault(need, []).append(step)
        found: set[str] = set()
        left = list(steps)
        while left:
            for one in dependents.get(left.pop(), ()):
                if one not in found:
                    found.add(one)
                    left.append(one)
        return found

    def direct(self) -> dict[str, list[str]]:
        """Return the needs that say something: without those that another one includes."""
        before = {step: self._before(step) for step in self.needs}
        return {
            step: [
                need
                for need in dict.fromkeys(needs)
                if not any(need in before[other] for other in needs)
            ]
            for step, needs in self.needs.items()
        }

    def _before(self, step: str) -> set[str]:
        found: set[str] = set()
        left = [step]
        while left:
            for need in self.needs[left.pop()]:
                if need not in found:
                    found.add(need)
                    left.append(need)
        return found


def mermaid(graph: Graph, words: Mapping[str, str] | None = None) -> str:
    """Return the graph in Mermaid's language; `words` are what a step is labelled with."""
    numbers = {step: f"s{n}" for n, step in enumerate(graph.needs)}
    lines = ["flowchart LR"]
    for step, number in numbers.items():
        label = (words or {}).get(step, step)
        for char, code in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
            label = label.replace(char, code)
        lines.append(f'  {number}["{label}"]')
    for step, needs in graph.direct().items():
        lines += [f"  {numbers[need]} --> {numbers[step]}" for need in needs]
    return "\n".join(lines)


def picture(graph: Graph, words: Mapping[str, str] | None = None) -> list[str]:
    """Return the graph as lines of text, in the manner of `git log --graph`.

    Each step stands in a column; from a column lines go down to the steps that need it.
    """
    direct = graph.direct()
    dependents: dict[str, list[str]] = {step: [] for step in graph.needs}
    for step, needs in direct.items():
        for need in needs:
            dependents[need].append(step)
    columns: list[str | None] = []  # the step that the line in this column comes from
    left = {step: len(found) for step, found in dependents.items()}
    lines: list[str] = []
    for step in _by_depth(graph):
        mine = [n for n, one in enumerate(columns) if one in direct[step]]
        at = _column(columns, mine, left)
        if len(mine) > 1 or (mine and mine != [at]):
            lines.append(_joint(columns, mine, at, left))
        for n in mine:
            source = columns[n]
            assert source is not None
            left[source] -= 1
            if not left[source]:
                columns[n] = None
        columns[at : at + 1] = [None]
        row = ["●" if n == at else "│" if line else " " for n, line in enumerate(columns)]
        lines.append(f"{' '.join(row).rstrip()}  {(words or {}).get(step, step)}")
        columns[at] = step if left[step] else None
        while columns and columns[-1] is None:
            columns.pop()
    return lines


def _column(columns: list[str | None], mine: Sequence[int], left: Mapping[str, int]) -> int:
    """Return the column for a step: one whose line ends in it, else a free one."""
    for n in mine:
        if left[columns[n] or ""] == 1:
            return n
    for n, one in enumerate(columns):
        if one is None:
            return n
    columns.append(None)
    return len(columns) - 1


def _joint(
    columns: Sequence[str | None], mine: Sequence[int], at: int, left: Mapping[str, int]
) -> str:
    """Return the line in which the lines of these columns come together in one."""
    first, last = min(*mine, at), max(*mine, at)
    drawn = []
    for n, one in enumerate(columns):
        goes_on = one is not None and (n not in mine or left[one] > 1)
        if n == at:
            char = _CORNERS[(n > first, n < last, one is not None)]
        elif n in mine:
            char = _TEES[(n > first, n < last, goes_on)]
        elif first < n < last:
            char = "┼" if goes_on else "─"
        else:
            char = "│" if goes_on else " "
        drawn.append(char)
    parts = [char + ("─" if first <= n < last else " ") for n, char in enumerate(drawn)]
    return "".join(parts).rstrip()


#: A line's beginning by: something to the left, to the right, and from above.
_CORNERS = {
    (True, True, True): "┼",
    (True, False, True): "┤",
    (False, True, True): "├",
    (False, False, True): "│",
    (True, True, False): "┬",
    (True, False, False): "┐",
    (False, True, False): "┌",
    (False, False, False): " ",
}
#: A line that gives away a branch, by: something to the left, to the right, and whether it goes on.
_TEES = {
    **_CORNERS,
    (True, True, False): "┴",
    (True, False, False): "┘",
    (False, True, False): "└",
}


def _by_depth(graph: Graph) -> list[str]:
    """Return the steps so that one stands as soon as possible after the last that it needs."""
    done: list[str] = []
    seen: set[str] = set()

    def visit(step: str) -> None:
        pending = [step]
        while pending:
            one = pending[-1]
            if one in seen:
                pending.pop()
                continue
            if missing := [need for need in graph.needs[one] if need not in seen]:
                pending += reversed(missing)
                continue
            seen.add(pending.pop())
            done.append(one)

    for step in graph.order():
        visit(step)
    return done
