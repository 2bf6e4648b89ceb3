"""A run of a workflow as the specs of its jobs: whose ids are all known before the first is queued.

What is known at submit (inputs, the matrix, the run's own id) is filled in here; what steps before
came to is left to the worker, as expressions in the signed spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from relayq.errors import NoSuchHost, RelayqError, Unplaceable
from relayq.model.folding import expressions_in, fold_all, fold_text, is_whole
from relayq.model.halts import Halt
from relayq.model.jobs import Spec, new_id
from relayq.model.matrices import Matrix, expand, label
from relayq.model.placement import facts_of
from relayq.model.workflowchecks import order
from relayq.model.workflowfiles import values_of
from relayq.model.workflows import Step, Workflow
from relayq.model.workflowtrees import Tree, Way
from relayq.store.flows import FlowRecord, group_of
from relayq.workflowjobs import PlacedError, StepJob

if TYPE_CHECKING:
    from relayq.client import Relay

#: How many "comes after" all jobs of a run may have together.
_MOST_EDGES = 1_000_000
_EXTRA = ("include", "exclude")


@dataclass
class Plan:
    """The jobs of one run, in the order of the graph; `jobs` are their ids by step."""

    id: str
    workflow: Workflow
    inputs: Mapping[str, Any]
    specs: list[Spec] = field(default_factory=list)
    jobs: dict[str, list[str]] = field(default_factory=dict)
    halts: list[Halt] = field(default_factory=list)
    problems: list[RelayqError] = field(default_factory=list)

    def note(self, step: Step, error: RelayqError) -> None:
        """Note what is wrong with a step, with its place."""
        tree = self.workflow.tree
        place = error.place if isinstance(error, PlacedError) else None
        place = place or _place_of(tree, step, error) or step.id
        error.message = f"{place}: {error.message}"
        error.args = (error.message,)
        self.problems.append(error)

    def record(self, submitter: str) -> FlowRecord:
        """Return what the broker keeps of the run as a whole."""
        labels = {spec.id: label(spec.matrix) for spec in self.specs if spec.matrix}
        steps = {
            id: {
                "needs": list(step.needs),
                "jobs": self.jobs.get(id, []),
                "name": step.name,
                "labels": {job: labels[job] for job in self.jobs.get(id, []) if job in labels},
            }
            for id, step in self.workflow.steps.items()
        }
        return FlowRecord(
            self.id,
            self.workflow.name,
            source=self.workflow.source,
            graph={"steps": steps},
            submitter=submitter,
            inputs=self.inputs,
        )


def plan(relay: Relay, workflow: Workflow, inputs: Mapping[str, Any]) -> Plan:
    """Return the jobs of a run, checked as far as they can be; what is wrong is in `problems`."""
    made = Plan(new_id(), workflow, values_of(workflow, inputs))
    _Planner(relay, made).fill()
    return made


class _Planner:
    def __init__(self, relay: Relay, made: Plan) -> None:
        self._relay = relay
        self._plan = made
        self._workflow = made.workflow
        self._early: dict[str, Any] = {
            "inputs": made.inputs,
            "flow": {"id": made.id, "name": made.workflow.name},
        }
        self._specs: dict[str, list[Spec]] = {}
        self._edges = 0
        self._hosts = self._known_hosts()

    def _known_hosts(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return names and labels of hosts, for the words of `runs-on`."""
        if not any(step.words for step in self._workflow.steps.values()):
            return frozenset(), frozenset()
        found = [facts_of(host) for host in self._relay.hosts()]
        names = {name for host in found for name in (host.name, *host.aliases)}
        names |= set(self._relay.config.hosts)
        return frozenset(names), frozenset(one for host in found for one in host.labels)

    def fill(self) -> None:
        """Make the specs of every step; a wrong step is noted, and the others are looked at."""
        workflow = self._workflow
        if workflow.fails_fast:
            self._plan.halts.append(Halt(self._plan.id))
        for id in order(workflow):
            step = workflow.steps[id]
            before = len(self._plan.problems)
            with self._noted(step):
                self._step(step)
            if len(self._plan.problems) > before:
                self._plan.jobs.setdefault(id, [])
                self._specs.setdefault(id, [])
        if self._edges > _MOST_EDGES:
            self._plan.problems.append(
                RelayqError(f"{self._edges} times a job comes after another: a step between them")
            )

    @contextmanager
    def _noted(self, step: Step) -> Iterator[None]:
        try:
            yield
        except RelayqError as error:
            self._plan.note(step, error)

    def _step(self, step: Step) -> None:
        fans, combinations = self._combinations(step)
        ids = [new_id() for _ in combinations]
        self._plan.jobs[step.id] = ids
        halts = [halt.name for halt in self._plan.halts if halt.name == self._plan.id]
        if step.matrix is not None and step.fails_fast and (fans or len(ids) > 1):
            halts.append(f"{self._plan.id}.{step.id}")
            self._plan.halts.append(Halt(halts[-1]))
        specs = self._specs[step.id] = []
        for number, matrix in enumerate(combinations):
            made = StepJob(
                self._relay, self._plan.workflow, step, self._early, matrix, fans, self._hosts
            )
            spec, known = made.spec()
            first = ids[number - step.at_once] if 0 < step.at_once <= number else None
            specs.append(
                replace(
                    spec,
                    **known,
                    uses=self._uses(step, made.names),
                    id=ids[number],
                    flow=self._plan.id,
                    step=step.id,
                    group=group_of(self._plan.id),
                    matrix=matrix,
                    fans=fans,
                    halts=tuple(halts),
                    after=tuple(id for need in step.needs for id in self._plan.jobs[need]),
                    after_any=() if first is None else (first,),
                    with_job=self._leader(step, number, matrix),
                    takes=self._takes(step),
                )
            )
            self._edges += len(specs[-1].after)
        self._plan.specs += specs

    def _combinations(self, step: Step) -> tuple[str | None, list[dict[str, Any]]]:
        """Return the list that only the run knows, if there is one, and the values of each job."""
        matrix = step.matrix
        if matrix is None:
            return None, [{}]
        if matrix.fans is not None:
            found = fold_text(matrix.fans, self._early)
            if is_whole(found):
                self._check_fanned(step)
                return expressions_in(found)[0].text.strip(), [{}]
            made = _made(found)
        else:
            axes = {name: fold_all(values, self._early) for name, values in matrix.axes.items()}
            late = [name for name, values in axes.items() if is_whole(values)]
            if len(late) > 1:
                both = " and ".join(late)
                raise RelayqError(f"{step.id}: only one list may be known when it runs, not {both}")
            include, exclude = (
                fold_all(list(one), self._early) for one in (matrix.include, matrix.exclude)
            )
            early = {name: _listed(name, axes[name]) for name in axes if name not in late}
            made = expand(Matrix(early, include, exclude))
            if late:
                self._check_fanned(step)
                expression = expressions_in(axes[late[0]])[0].text.strip()
                return f"{late[0]} = {expression}", made or [{}]
        if not made:
            raise RelayqError(f"the matrix of {step.id} is empty")
        return None, made

    def _check_fanned(self, step: Step) -> None:
        if step.at_once:
            raise RelayqError(f"{step.id}: max-parallel is for lists that are known before")

    def _leader(self, step: Step, number: int, matrix: Mapping[str, Any]) -> str | None:
        if step.beside is None:
            return None
        others = self._specs[step.beside]
        if len(others) == 1:
            return others[0].id
        same = [spec.id for spec in others if spec.matrix == matrix]
        if len(same) == 1:
            return same[0]
        raise RelayqError(f"{step.beside} is several jobs, so {step.id} can't share its host")

    def _takes(self, step: Step) -> tuple[Mapping[str, str], ...]:
        """Return the files that a job takes: those of several jobs in a directory each."""
        found = []
        for take in step.takes:
            jobs = self._plan.jobs[take["from"]]
            for number, id in enumerate(jobs):
                to = f"{take['to'].rstrip('/')}/{number}".lstrip("/")
                found.append({**take, "from": id, **({"to": to} if len(jobs) > 1 else {})})
        return tuple(found)

    def _uses(self, step: Step, names: Sequence[str]) -> dict[str, Any]:
        """Return the jobs whose outcomes the expressions of a step's job use."""
        return {
            name: [
                {"id": spec.id, "matrix": dict(spec.matrix)} if spec.matrix else spec.id
                for spec in self._specs[name]
            ]
            for name in names
        }


def _place_of(tree: Tree, step: Step, error: RelayqError) -> object | None:
    """Return where an error belongs: at a wrong value, or at the key of what holds several."""
    way = _way_of(step, error)
    is_value = way in tree.values and tree.values[way].sort == "scalar"
    is_key = not is_value or "has no field" in error.message
    return tree.key_place(way) if is_key else tree.place(way)


def _way_of(step: Step, error: RelayqError) -> Way:
    """Return what of a step an error is about, as far as its words say it."""
    if (inner := step.ways.get("with")) is not None:
        for key in step.payload:
            if f"'{key}'" in error.message:
                return (*inner, key)
    for key in ("runs_on", "on", "requires", "agent"):
        if key in step.ways and isinstance(error, Unplaceable | NoSuchHost):
            return step.ways[key]
    for key, way in step.ways.items():
        if re.match(rf"(an? )?{key}\b", error.message):
            return way
    return step.ways["kind"] if error.message.startswith("no such kind") else step.way


def _listed(name: str, found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise RelayqError(f"the matrix's {name} is no list: {found!r}")
    return found


def _made(found: Any) -> list[dict[str, Any]]:
    """Return the combinations that a whole matrix means: a list of tables, or a table of lists."""
    if isinstance(found, Mapping):
        include, exclude = (found.get(name, []) for name in _EXTRA)
        axes = {name: _listed(name, one) for name, one in found.items() if name not in _EXTRA}
        return expand(Matrix(axes, include, exclude))
    items = _listed("list", found)
    return [dict(one) if isinstance(one, Mapping) else {"item": one} for one in items]
