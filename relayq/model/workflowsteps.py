"""One step of a workflow's file, read: GitHub Actions' keys at job level, and relayq's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relayq.model.folding import has_expressions
from relayq.model.workflowmatrices import read_strategy
from relayq.model.workflows import Step
from relayq.model.workflowscripts import joined, of_lines
from relayq.model.workflowtrees import Tree, Way, shown, snake

#: Other spellings of keys.
_ALIASES = {
    "depends_on": "needs",
    "after": "needs",
    "type": "kind",
    "payload": "with",
    "uses_agent": "agent",
    "cmd": "run",
    "working_directory": "cwd",
    "retries": "retry",
    "files_in": "in",
    "files_out": "out",
    "excluded": "not",
    "host": "on",
    "prio": "priority",
    "capabilities": "requires",
    "required_capabilities": "requires",
    "same_host_as": "beside",
    "with_job": "beside",
}
#: Keys whose value is an option of a job's as it is.
_OPTIONS = (
    "timeout priority backoff retry_on labels meta note memory processes max_output on_lost "
    "expires resources private grant prefer overflow overwrite git secrets"
).split()
#: Keys of GitHub's that mean nothing to a job here, and such that it can't do without.
_MEANINGLESS = {
    "permissions": "a job has what its host's user may do",
    "environment": "there are no environments here",
}
_REFUSED = {
    "uses": "a workflow isn't called by another one: have its jobs here",
    "container": "a container is the command's to start: run: docker run ...",
    "services": "services are the command's to start: run: docker run -d ...",
    "concurrency": "give the hosts a slot for it, and take it: resources: {NAME: 1}",
}
KEYS = (
    *("name", "needs", "if", "runs-on", "on", "not", "requires", "run", "steps", "kind", "with"),
    *("agent", "prompt", "strategy", "timeout-minutes", "retry", "env", "outputs", "cwd", "in"),
    *("continue-on-error", "out", "shell", "beside", "affinity", "id", *_OPTIONS),
)
_KNOWN = {snake(key) for key in KEYS} | {*_ALIASES, *_MEANINGLESS, *_REFUSED}


class StepReader:
    """Reads one step; `steps` are the ids of all, which some of its keys name."""

    def __init__(self, tree: Tree, id: str, way: Way, raw: Any, remarks: list[str]) -> None:
        self._tree = tree
        self._id = id
        self._way = way
        self._remarks = remarks
        self._asked: dict[str, Any] = {}
        self._ways: dict[str, Way] = {}
        self._options: dict[str, Any] = {}
        for key, value in tree.table(way, raw, id).items():
            self._note((*way, key), value)

    def _note(self, way: Way, value: Any) -> None:
        key = str(way[-1])
        name = snake(key)
        if name not in _KNOWN:
            self._tree.unknown(way, sorted({*KEYS, *_ALIASES}), f"the job {self._id}")
            return
        if name in _REFUSED:
            self._tree.wrong(way, f"{key}: isn't known here: {_REFUSED[name]}")
            return
        if name in _MEANINGLESS:
            self._remarks.append(f"{self._id}: {key} means nothing here: {_MEANINGLESS[name]}")
            return
        name = _ALIASES.get(name, name)
        if name in self._asked:
            self._tree.wrong(way, f"{key} says again what {self._ways[name][-1]} says")
            return
        self._asked[name], self._ways[name] = value, way

    def read(self, defaults: Mapping[Way, Any]) -> Step:
        """Return the step; what is wrong goes into the tree's problems."""
        tree = self._tree
        own = set(self._asked)
        for way, value in defaults.items():
            name = snake(str(way[-1]))
            if _ALIASES.get(name, name) not in own:
                self._note(way, value)
        needs = tuple(dict.fromkeys(self._texts("needs")))
        kind, payload, agent = self._what()
        beside = self._affinity()
        words = tuple(self._texts("runs_on"))
        for key in _OPTIONS:
            if key in self._asked:
                self._options[key] = self._asked[key]
        self._where()
        self._limits()
        strategy = self._asked.get("strategy")
        matrix, fails_fast, at_once = read_strategy(tree, self._at("strategy"), strategy)
        takes = self._files()
        lenient = self._asked.get("continue_on_error", False)
        if not has_expressions(lenient):
            lenient = tree.truth(self._at("continue_on_error"), lenient, "continue-on-error")
        return Step(
            id=self._id,
            kind=kind,
            payload=payload,
            name=self._text("name") or "",
            needs=needs,
            options=self._options,
            words=words,
            env=tree.table(self._at("env"), self._asked.get("env"), "env"),
            condition=self._condition(),
            matrix=matrix,
            fails_fast=fails_fast,
            at_once=at_once,
            is_lenient=lenient,
            outputs=self._outputs(),
            beside=beside,
            takes=takes,
            agent=agent,
            way=self._way,
            ways=self._ways,
        )

    def _at(self, key: str) -> Way:
        return self._ways.get(key, self._way)

    def _text(self, key: str) -> str | None:
        if self._asked.get(key) is None:
            return None
        return self._tree.text(self._at(key), self._asked[key], key)

    def _texts(self, key: str) -> list[str]:
        return self._tree.texts(self._at(key), self._asked.get(key), key)

    def _what(self) -> tuple[str, dict[str, Any], str | None]:
        """Return the kind and its payload; exactly one key says what runs."""
        said = [key for key in ("run", "steps", "kind", "agent") if key in self._asked]
        if len(said) != 1:
            what = "says nothing to run" if not said else f"has {' and '.join(said)}, not only one"
            self._tree.wrong(self._way, f"the job {self._id} {what}: run, steps, kind or agent")
            return "run_command", {"cmd": "true"}, None
        payload: dict[str, Any] = {}
        if isinstance(self._asked.get("with"), str):
            self._asked["beside"], self._ways["beside"] = self._asked.pop("with"), self._at("with")
        else:
            payload = self._tree.table(self._at("with"), self._asked.get("with"), "with")
        for key in ("cwd",):
            if self._asked.get(key) is not None:
                payload.setdefault(key, self._text(key))
        match said[0]:
            case "run":
                return "run_command", {"cmd": self._command(), **payload}, None
            case "steps":
                script = joined(self._tree, self._at("steps"), self._asked["steps"])
                return "run_command", {"cmd": script, **payload}, None
            case "kind":
                return self._text("kind") or "", payload, None
        prompt = self._text("prompt")
        if prompt is None and "prompt" not in payload:
            self._tree.wrong(self._at("agent"), f"the agent of {self._id} has no prompt")
        given = {} if prompt is None else {"prompt": prompt}
        return "run_agent", {**given, **payload}, self._text("agent")

    def _command(self) -> str | list[str]:
        way, asked = self._at("run"), self._asked["run"]
        if isinstance(asked, list | tuple):
            return self._tree.texts(way, asked, "run")
        shell = self._text("shell")
        return of_lines(self._tree, self._at("shell"), self._tree.text(way, asked, "run"), shell)

    def _condition(self) -> str | None:
        if self._asked.get("if") is None:
            return None
        return self._text("if")

    def _affinity(self) -> str | None:
        """Return the step whose host it shares, and note the rest of S2's affinity."""
        way = self._at("affinity")
        affinity = self._tree.table(way, self._asked.get("affinity"), "affinity")
        meant = {"required_worker": "on", "same_worker_as": "beside", "excluded_workers": "not"}
        for key, value in affinity.items():
            name = meant.get(snake(key))
            if name is None:
                known = ("requiredWorker", "sameWorkerAs", "excludedWorkers")
                self._tree.unknown((*way, key), known, "affinity")
            else:
                self._asked[name], self._ways[name] = value, (*way, key)
        return self._text("beside")

    def _where(self) -> None:
        for key, option in (("on", "on"), ("not", "excluded"), ("requires", "needs")):
            if key in self._asked:
                self._options[option] = self._texts(key)

    def _limits(self) -> None:
        """Note the time limit and the retries, of which there are two ways to say each."""
        if "timeout_minutes" in self._asked:
            minutes = self._asked["timeout_minutes"]
            if "timeout" in self._options:
                self._tree.wrong(self._at("timeout"), "timeout-minutes says it already")
            elif has_expressions(minutes):
                self._options["timeout_minutes"] = minutes
            elif isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes <= 0:
                way = self._at("timeout_minutes")
                self._tree.wrong(way, f"timeout-minutes: expected a number, got {shown(minutes)}")
            else:
                self._options["timeout"] = minutes * 60.0
        retry = self._asked.get("retry")
        if isinstance(retry, Mapping):
            self._policy(retry)
        elif retry is not None:
            self._options["retries"] = retry
        for key in ("labels", "secrets"):
            if key in self._options:
                self._options[key] = self._texts(key)

    def _policy(self, retry: Mapping[str, Any]) -> None:
        way = self._at("retry")
        first, longest = retry.get("base", "1s"), retry.get("cap", "60s")
        for key, value in retry.items():
            if key in ("max", "retries", "count"):
                self._options["retries"] = value
            elif key == "on":
                self._options["retry_on"] = self._tree.texts((*way, key), value, "on")
            elif key in ("base", "cap"):
                self._options["backoff"] = f"{first}..{longest}"
            elif key == "backoff":
                self._options["backoff"] = value
            else:
                self._tree.unknown((*way, key), ("max", "on", "base", "cap", "backoff"), "retry")

    def _files(self) -> tuple[Mapping[str, str], ...]:
        """Note what travels with the job; returns what it takes of other steps."""
        takes: list[Mapping[str, str]] = []
        inputs: list[str] = []
        asked = self._asked.get("in")
        for number, one in enumerate(asked if isinstance(asked, list) else [asked]):
            if one is None:
                continue
            way = (*self._at("in"), number) if isinstance(asked, list) else self._at("in")
            if not isinstance(one, Mapping):
                inputs.append(self._tree.text(way, one, "an input"))
                continue
            for key in one:
                if key not in ("from", "files", "to"):
                    self._tree.unknown((*way, key), ("from", "files", "to"), "an input")
            if not one.get("from"):
                self._tree.wrong(way, "files of another step need its id: from: STEP")
            takes.append({"from": "", "files": "*", "to": "", **{k: str(one[k]) for k in one}})
        if inputs:
            self._options["files_in"] = inputs
        if "out" in self._asked:
            self._options["files_out"] = self._texts("out")
        return tuple(takes)

    def _outputs(self) -> tuple[str, ...] | None:
        asked, way = self._asked.get("outputs"), self._at("outputs")
        if asked is None:
            return None
        if not isinstance(asked, Mapping):
            return tuple(self._texts("outputs"))
        for name, meant in asked.items():
            said = str(meant or "").replace("}}", "").rstrip()
            if meant and has_expressions(meant) and not said.endswith(f".outputs.{name}"):
                self._tree.wrong(
                    (*way, name),
                    f"an output has the name that the command writes: {name}=... to $GITHUB_OUTPUT",
                )
        return tuple(map(str, asked))
