"""Workflows as files say them: YAML that resembles GitHub Actions, or a list of tasks.

Everything that is wrong is found at once, each with file, line and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from relayq.errors import ConfigError, RelayqError
from relayq.model.selectors import check_text
from relayq.model.workflowchecks import check
from relayq.model.workflows import INPUT_TYPES, Input, Step, Workflow
from relayq.model.workflowsteps import StepReader
from relayq.model.workflowtrees import Tree, Way, from_text, shown, snake

#: The keys of a file's top; a list of tasks has an `id` of its own.
KEYS = ("name", "on", "env", "inputs", "defaults", "fail_fast", "jobs", "tasks", "id")
_MEANINGLESS = {
    "permissions": "a job has what its host's user may do",
    "run_name": "a run has its name and its id",
    "concurrency": "runs don't wait for each other",
}
#: What a step may be called, in expressions and on the command line.
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: How many steps a workflow may have.
MOST = 10_000
#: Keys of one step's own, that are no default for all.
_OWN = frozenset({"name", "needs", "if", "run", "steps", "kind", "with", "agent", "prompt", "id"})


def read_text(text: str, file: str) -> Workflow:
    """Return the workflow of a file's text; raises ConfigError for the first wrong thing."""
    workflow, problems = examine(text, file)
    if workflow is None or problems:
        problems[0].hint = problems[0].hint or f"relayq flow check {file}"
        raise problems[0]
    return workflow


def examine(text: str, file: str) -> tuple[Workflow | None, list[ConfigError]]:
    """Return the workflow of a file's text, if it can be had, and all that is wrong with it."""
    try:
        tree = from_text(text, file)
    except ConfigError as error:
        return None, [error]
    name = file.rpartition("/")[2].partition(".")[0] or "workflow"
    workflow = read(tree, name=name, source=text)
    return workflow, tree.problems


def read(tree: Tree, *, name: str, source: str = "") -> Workflow:
    """Return the workflow of a tree; what is wrong with it goes into the tree's problems."""
    return _Reader(tree).read(name, source)


class _Reader:
    """Reads what stands at the top of a tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._remarks: list[str] = []
        self._top: dict[str, tuple[Way, Any]] = {}
        for key, value in tree.table((), tree.root, "a workflow").items():
            name = snake(key)
            if name in _MEANINGLESS:
                self._remarks.append(f"{key} means nothing here: {_MEANINGLESS[name]}")
            elif name not in KEYS:
                tree.unknown((key,), KEYS, "a workflow")
            else:
                self._top[name] = ((key,), value)

    def read(self, name: str, source: str) -> Workflow:
        tree = self._tree
        if self._top.get("on") is not None:
            self._remarks.append("on is ignored: relayq flow run starts it, or a schedule")
        way, title = self._asked("name")
        way, title = (way, title) if title is not None else self._asked("id")
        name = tree.text(way, title, "name") if title is not None else name
        try:
            check_text("a workflow's name", name)
        except RelayqError as error:
            tree.wrong(way, error.message)
        fast, is_fast = self._asked("fail_fast")
        workflow = Workflow(
            name=name,
            steps=self._steps(),
            env=self._env(),
            inputs=self._inputs(),
            fails_fast=tree.truth(fast, is_fast or False, "fail_fast"),
            remarks=self._remarks,
            source=source,
            tree=tree,
        )
        if not tree.problems:
            check(tree, workflow)
        return workflow

    def _asked(self, key: str) -> tuple[Way, Any]:
        return self._top.get(key, ((key,), None))

    def _env(self) -> dict[str, Any]:
        way, asked = self._asked("env")
        return check_env(self._tree, way, asked)

    def _steps(self) -> dict[str, Step]:
        tree, steps = self._tree, {}
        defaults = self._defaults()
        for id, way, raw in self._each():
            if not _ID.fullmatch(id):
                tree.wrong(way, f"a step's id has letters, digits, '-' and '_' only: {id!r}")
            elif id in steps:
                tree.wrong(way, f"two steps are called {id}")
            else:
                steps[id] = StepReader(tree, id, way, raw, self._remarks).read(defaults)
                check_env(tree, steps[id].ways.get("env", way), steps[id].env)
        if len(steps) > MOST:
            tree.wrong((), f"{len(steps)} steps; a workflow has at most {MOST}")
        return steps

    def _each(self) -> Iterable[tuple[str, Way, Any]]:
        way, tasks = self._asked("tasks")
        jobs_way, jobs = self._asked("jobs")
        if (jobs is None) == (tasks is None):
            self._tree.wrong((), "a workflow has jobs: a table of them by their ids")
        elif isinstance(tasks, list):
            for number, one in enumerate(tasks):
                inner = (*way, number)
                table = self._tree.table(inner, one, "a task")
                yield str(table.get("id", f"task-{number + 1}")), inner, table
        elif tasks is not None:
            self._tree.wrong(way, f"tasks: expected a list, got {shown(tasks)}")
        else:
            for id, one in self._tree.table(jobs_way, jobs, "jobs").items():
                yield id, (*jobs_way, id), one

    def _defaults(self) -> dict[Way, Any]:
        """Return what holds for every step that doesn't say otherwise."""
        way, asked = self._asked("defaults")
        found: dict[Way, Any] = {}
        for key, value in self._tree.table(way, asked, "defaults").items():
            if snake(key) == "run":  # GitHub's: working-directory and shell of what is run
                for name, inner in self._tree.table((*way, key), value, "run").items():
                    found[(*way, key, name)] = inner
            elif snake(key) in _OWN:
                self._tree.wrong((*way, key), f"{key} is each step's own, and no default")
            else:
                found[(*way, key)] = value
        return found

    def _inputs(self) -> dict[str, Input]:
        way, asked = self._asked("inputs")
        if asked is None:
            way, asked = self._dispatched()
        found = {}
        for name, given in self._tree.table(way, asked, "inputs").items():
            inner = (*way, name)
            if not _VARIABLE.fullmatch(name.replace("-", "_")):
                self._tree.wrong(inner, f"an input can't be called {name!r}")
            found[name] = self._input(inner, name, given)
        return found

    def _dispatched(self) -> tuple[Way, Any]:
        """Return the inputs of GitHub's manual start, if there are any."""
        way, asked = self._asked("on")
        for key in ("workflow_dispatch", "inputs"):
            way, asked = (*way, key), asked.get(key) if isinstance(asked, Mapping) else None
        return way, asked

    def _input(self, way: Way, name: str, given: Any) -> Input:
        if not isinstance(given, Mapping):
            default = self._tree.as_written(way, given)
            return Input(name, default=default, is_required=given is None)
        tree, known = self._tree, ("default", "description", "options", "required", "type")
        for key in given:
            if key not in known:
                tree.unknown((*way, key), known, f"the input {name}")
        sort = str(given.get("type", "choice" if "options" in given else "string"))
        if sort not in INPUT_TYPES:
            there = ", ".join(INPUT_TYPES)
            tree.wrong((*way, "type"), f"an input's type is one of {there}, not {sort}")
        return Input(
            name,
            sort=sort,
            default=tree.as_written((*way, "default"), given.get("default")),
            is_required=tree.truth((*way, "required"), given.get("required", False), "required"),
            options=tuple(tree.texts((*way, "options"), given.get("options"), "options")),
            description=str(given.get("description", "")),
        )


def check_env(tree: Tree, way: Way, asked: Any) -> dict[str, Any]:
    """Return variables as texts; note a name that can't be one."""
    found = {}
    for name, value in tree.table(way, asked, "env").items():
        inner = (*way, name)
        if not _VARIABLE.fullmatch(name):
            tree.wrong(inner, f"a variable can't be called {name!r}")
        found[name] = "" if value is None else tree.text(inner, value, name)
    return found


def values_of(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a run: what is given, else their defaults; raises for a wrong one."""
    hint = "relayq flow run FILE -i NAME=VALUE"
    if unknown := [name for name in given if name not in workflow.inputs]:
        there = ", ".join(workflow.inputs) or "none"
        raise RelayqError(f"{workflow.name} has no input {unknown[0]!r}; it has {there}", hint=hint)
    found = {}
    for name, one in workflow.inputs.items():
        if name not in given and one.is_required and one.default is None:
            about = f" ({one.description})" if one.description else ""
            raise RelayqError(f"{workflow.name} needs the input {name}{about}", hint=hint)
        found[name] = _value(one, given.get(name, one.default))
    return found


def _value(one: Input, given: Any) -> Any:
    text = "" if given is None else str(given)
    match one.sort:
        case "boolean" if text.lower() in ("true", "false", "yes", "no", ""):
            return text.lower() in ("true", "yes")
        case "number":
            try:
                number = float(text or 0)
            except ValueError as error:
                raise RelayqError(f"the input {one.name} is a number, not {text!r}") from error
            return int(number) if number.is_integer() else number
        case "boolean":
            raise RelayqError(f"the input {one.name} is true or false, not {text!r}")
        case "choice" if one.options and text not in one.options:
            there = ", ".join(one.options)
            raise RelayqError(f"the input {one.name} is one of {there}, not {text!r}")
        case "string" if given is not None and not isinstance(given, str):
            return given
    return text
