"""What a workflow is: steps by id, each a job, or several with a matrix, and what it comes after.

Pure. Files are read by `relayq.model.workflowfiles`, each step by `relayq.model.workflowsteps`;
what a step's expressions and condition mean is in `relayq.model.conditions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from relayq.model.graph import Graph
from relayq.model.matrices import Matrix
from relayq.model.workflowtrees import Tree, Way

#: What an input may be.
INPUT_TYPES = ("string", "number", "boolean", "choice")


@dataclass(frozen=True, slots=True)
class Input:
    """A value that a run is given; without a default it must be."""

    name: str
    sort: str = "string"
    default: Any = None
    is_required: bool = False
    options: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, as it was written: its texts may have expressions.

    `options` are keywords of `Job.submit`, `words` what `runs-on` says, whose meaning the hosts
    decide. `outputs` are the names that it declares, None if it declares none. `takes` are files
    that other steps bring back, `beside` is the step whose host it shares. `ways` says where in its
    file each of its parts stands.
    """

    id: str
    kind: str
    payload: Mapping[str, Any]
    name: str = ""
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    env: Mapping[str, Any] = field(default_factory=dict)
    condition: str | None = None
    matrix: Matrix | None = None
    fails_fast: bool = True
    at_once: int = 0
    is_lenient: bool | str = False
    outputs: tuple[str, ...] | None = None
    beside: str | None = None
    takes: tuple[Mapping[str, str], ...] = ()
    agent: str | None = None
    way: Way = ()
    ways: Mapping[str, Way] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """Steps and what holds for all of them; `remarks` say what of its file means nothing here."""

    name: str
    steps: Mapping[str, Step]
    env: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    fails_fast: bool = False
    remarks: Sequence[str] = ()
    source: str = ""
    tree: Tree = field(default_factory=lambda: Tree(None), repr=False)

    @cached_property
    def graph(self) -> Graph:
        """The graph of its steps; raises GraphError for one that can't be."""
        return Graph({id: step.needs for id, step in self.steps.items()})
