"""Workflows: jobs that come after each other, made in Python or read from a file.

`flow` is ready to use: `flow("name")` begins one, `flow.load(path)` reads one, `flow.fetch(id)`
finds a run. A run is submitted whole and needs no process to go on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayq.dispatch import Dispatcher
from relayq.errors import NoSuchHost, RelayqError, Unplaceable
from relayq.flowruns import FlowRun, find
from relayq.inside import SocketStore
from relayq.model.jobs import Spec
from relayq.model.placement import Placement
from relayq.model.workflowfiles import examine, read, read_text
from relayq.model.workflows import Workflow
from relayq.model.workflowtrees import Tree
from relayq.workflowspecs import Plan, plan

if TYPE_CHECKING:
    from relayq.client import Relay

#: Keywords of `Flow.add` for what stands in `strategy`.
_STRATEGY = {"matrix": "matrix", "fail_fast": "fail-fast", "max_parallel": "max-parallel"}


class Added(str):
    """A step's id, for the `needs` of others, and for what it comes to in their texts."""

    __slots__ = ()

    def output(self, name: str) -> str:
        """Return the expression for one of its outputs."""
        return f"${{{{ steps.{self}.outputs.{name} }}}}"

    @property
    def stdout(self) -> str:
        """The expression for what it writes to its standard output."""
        return f"${{{{ steps.{self}.stdout }}}}"


class Flow:
    """A workflow that is made step by step, or was read from a file."""

    def __init__(
        self,
        name: str,
        *,
        fail_fast: bool = False,
        env: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        relay: Relay | None = None,
    ) -> None:
        self._relay = relay
        self._made: Workflow | None = None
        self._jobs: dict[str, dict[str, Any]] = {}
        self._top: dict[str, Any] = {"name": name, "fail_fast": fail_fast, "jobs": self._jobs}
        self._top |= {"env": dict(env)} if env else {}
        self._top |= {"inputs": dict(inputs)} if inputs else {}

    def add(self, id: str, run: str | Sequence[str] | None = None, **asked: Any) -> Added:
        """Add a step: a command, or another `kind` with its fields in `with_`.

        Takes what a job of a file takes, in Python's spelling: `needs` (other steps), `if_`,
        `matrix` (with `fail_fast` and `max_parallel`), `runs_on`, `on`, `requires` (capabilities),
        `timeout`, `retry`, `env`, `cwd`, `in_`, `out`, `outputs`, `continue_on_error`, `beside`,
        `agent` and `prompt`, and the options of `job.submit`. What the steps before came to is in
        its texts as `${{ }}`.
        """
        if self._made is not None:
            raise RelayqError(f"{self._made.name} was read from a file; its steps are there")
        if id in self._jobs:
            raise RelayqError(f"two steps are called {id}")
        given = {name.rstrip("_"): value for name, value in asked.items() if value is not None}
        strategy = {_STRATEGY[name]: given.pop(name) for name in _STRATEGY if name in given}
        if isinstance(given.get("needs"), tuple | set):
            given["needs"] = list(given["needs"])
        if run is not None:
            given["run"] = run if isinstance(run, str) else list(run)
        self._jobs[id] = {**given, **({"strategy": strategy} if strategy else {})}
        return Added(id)

    @property
    def workflow(self) -> Workflow:
        """What it is, read and checked; raises for the first thing that is wrong."""
        if self._made is not None:
            return self._made
        tree = Tree(self._top)
        found = read(tree, name=str(self._top["name"]))
        if tree.problems:
            raise tree.problems[0]
        return found

    def check(self, **inputs: Any) -> Plan:
        """Check all of it, as `run` would, and queue nothing; returns what would be queued."""
        planned = planned_run(self._on(), self.workflow, inputs)
        _raise_first(planned)
        return planned

    def run(self, *, wait_for_host: bool = False, **inputs: Any) -> FlowRun:
        """Queue a run of it, with the values of its inputs; returns at once.

        Nothing is queued unless all of it can be.
        """
        return start(self._on(), self.workflow, inputs, wait_for_host=wait_for_host)

    def _on(self) -> Relay:
        return _relay(self._relay)


class Flows:
    """Makes workflows, reads them, and finds their runs."""

    def __init__(self, relay: Relay | None = None) -> None:
        self._relay = relay

    def __call__(self, name: str, **options: Any) -> Flow:
        """Begin a workflow; see `Flow`."""
        return Flow(name, relay=self._relay, **options)

    def load(self, path: str | os.PathLike[str]) -> Flow:
        """Read a workflow from a file; ConfigError names the place of what is wrong."""
        workflow = read_text(text_of(path), os.fspath(path))
        made = Flow(workflow.name, relay=self._relay)
        made._made = workflow
        return made

    def fetch(self, id: str) -> FlowRun:
        """Find a run by its id, the beginning of that, its workflow's name, or `last`."""
        return find(_relay(self._relay), id)

    def list(self, limit: int = 50) -> Sequence[FlowRun]:
        """Return runs, the newest first."""
        session = _relay(self._relay).session()
        return [FlowRun(session, one.id) for one in session.store.flows.list(limit)]


def text_of(path: str | os.PathLike[str]) -> str:
    """Return what is in a workflow's file."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RelayqError(f"{os.fspath(path)} can't be read: {reason}", hint="ls") from error


def planned_run(relay: Relay, workflow: Workflow, inputs: Mapping[str, Any]) -> Plan:
    """Return the jobs of a run, checked against the hosts; what is wrong is in its `problems`."""
    made = plan(relay, workflow, inputs)
    if any(spec.host is not None or spec.is_constrained for spec in made.specs):
        _placed(relay, made, wait_for_host=False)
    return made


def start(
    relay: Relay, workflow: Workflow, inputs: Mapping[str, Any], *, wait_for_host: bool = False
) -> FlowRun:
    """Queue a run, whole or not at all."""
    job, session = relay.job, relay.session()
    if isinstance(session.store, SocketStore):
        raise RelayqError(
            "a job can't queue a workflow", hint="inside a job: relayq submit --after JOB"
        )
    made = plan(relay, workflow, inputs)
    _raise_first(made)
    made.specs = list(job._sent(made.specs, job._locate, waits=wait_for_host))
    placements = _placed(relay, made, wait_for_host=wait_for_host)
    _raise_first(made)
    Dispatcher(session.store, session.signer).submit(
        made.specs, placements=placements, halts=made.halts, flow=made.record(relay.submitter)
    )
    job._refer(made.specs)
    return FlowRun(session, made.id)


def _raise_first(made: Plan) -> None:
    if not made.problems:
        return
    error, file = made.problems[0], made.workflow.tree.file
    if file and error.hint is None:
        error.hint = f"relayq flow check {file}"
    raise error


def _placed(relay: Relay, made: Plan, *, wait_for_host: bool) -> Sequence[Placement]:
    """Decide where the jobs wait; what can't run anywhere goes into the plan's problems."""
    # The job whose host one shares isn't stored yet; its own queue comes by the script anyway.
    alone = [
        spec
        if spec.with_job is None
        else replace(spec, with_job=None, strategy="pull", prefer=None)
        for spec in made.specs
    ]
    try:
        located, placements = relay.job._locate(alone, wait_for_host=wait_for_host)
    except (Unplaceable, NoSuchHost):
        for spec in alone:
            _note_unplaceable(relay, made, spec)
        return ()
    made.specs = [
        replace(spec, host=one.host, on=one.on)
        for spec, one in zip(made.specs, located, strict=True)
    ]
    return placements


def _note_unplaceable(relay: Relay, made: Plan, spec: Spec) -> None:
    try:
        relay.job._locate([spec])
    except (Unplaceable, NoSuchHost) as error:
        made.note(made.workflow.steps[spec.step or ""], error)


def _relay(relay: Relay | None) -> Relay:
    from relayq.client import job

    return relay or job.relay


__all__ = ["Flow", "FlowRun", "Flows", "examine", "flow", "planned_run", "start"]

flow = Flows()
