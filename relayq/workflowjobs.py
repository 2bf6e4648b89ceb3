"""One job of a workflow's step as a spec: what is known is filled in, the rest is its worker's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from relayq.errors import RelayqError
from relayq.model import conditions
from relayq.model.expressions import ExpressionError, Literal, is_true, text_of
from relayq.model.folding import (
    expressions_in,
    fold,
    fold_all,
    fold_text,
    has_expressions,
    is_whole,
    marked,
)
from relayq.model.jobs import Spec
from relayq.model.matrices import label
from relayq.model.shelltext import check as check_shell
from relayq.model.templates import read as read_template
from relayq.model.workflows import Step, Workflow
from relayq.model.workflowscripts import STOPS

if TYPE_CHECKING:
    from relayq.client import Relay

#: Texts that a shell reads as they are, however they are quoted.
_HARMLESS = re.compile(r"[A-Za-z0-9_./:@%+,][A-Za-z0-9_./:@%+,=-]*")
#: What stands before the expression of a list, if its values have a name: `x = `.
_NAMED = re.compile(r"\A[A-Za-z_][A-Za-z0-9_-]* = ")
#: GitHub's own machines and labels, and what is meant by them.
_GITHUBS = re.compile(r"(ubuntu|macos|windows)-(?:latest|[\d.]+)(?:-\w+)?")
_SYSTEMS = {"ubuntu": "linux", "x64": "x86_64"}


class PlacedError(RelayqError):
    """An error that knows its place already."""

    def __init__(self, message: str, place: object) -> None:
        super().__init__(message)
        self.place = place


class StepJob:
    """One job of a step."""

    def __init__(
        self,
        relay: Relay,
        workflow: Workflow,
        step: Step,
        early: Mapping[str, Any],
        matrix: Mapping[str, Any],
        fans: str | None,
        hosts: tuple[frozenset[str], frozenset[str]],
    ) -> None:
        self._relay = relay
        self._workflow = workflow
        self._step = step
        self._fans = fans
        self._hosts = hosts
        #: The steps whose ends its expressions use, once its spec is made.
        self.names: list[str] = []
        self._known = dict(early)
        if fans is None:
            self._known["matrix"] = matrix
        self._matrix = matrix
        self._env = self._variables()

    def _variables(self) -> dict[str, str]:
        """Return its environment; what is known of it can be used in its other expressions."""
        env: dict[str, str] = {}
        known: dict[str, str] = {}
        self._known["env"] = known
        for name, text in [*self._workflow.env.items(), *self._step.env.items()]:
            # One may be made of those before it.
            self._check_env(text)
            env[name] = text_of(fold_text(text, self._known))
            known.pop(name, None)
            known |= {} if has_expressions(env[name]) else {name: env[name]}
        return env

    def _check_env(self, value: Any) -> None:
        """Raise for a variable that isn't known here."""
        for expression in expressions_in(value):
            for path in expression.paths():
                if path[0] == "env" and path[1:] and path[1] not in self._known["env"]:
                    raise RelayqError(
                        f"env.{path[1]} isn't known before the job runs; "
                        f"in the command it is ${path[1]}"
                    )

    def spec(self) -> tuple[Spec, dict[str, Any]]:
        """Return a spec, and what in it is yet to be replaced."""
        step = self._step
        options = {key: fold_all(value, self._known) for key, value in step.options.items()}
        if (minutes := options.pop("timeout_minutes", None)) is not None:
            options["timeout"] = float(minutes) * 60
        if "retries" in options:
            options["retries"] = _whole("retry", options["retries"])
        if isinstance(options.get("meta"), Mapping):
            options["meta"] = {key: text_of(value) for key, value in options["meta"].items()}
        self._place(options)
        payload = self._payload(options)
        name = text_of(fold_text(step.name, self._known)) or step.id
        of_matrix = f" ({label(self._matrix)})" if self._matrix and "${{" not in step.name else ""
        options["name"] = f"{name}{of_matrix}"
        spec = self._relay.job._spec(step.kind, self._checked(payload), **options)
        when, condition = self._condition(payload)
        lenient = fold_all(step.is_lenient, self._known)
        return spec, {
            "payload": payload,
            "when": when,
            "condition": condition,
            "is_template": has_expressions(payload),
            "is_lenient": lenient if isinstance(lenient, bool) else is_true(lenient),
        }

    def _place(self, options: dict[str, Any]) -> None:
        """Note what the words of `runs-on` ask of the host."""
        names, labels = self._hosts
        words: list[str] = []
        for word in self._step.words:
            folded = fold_text(word, self._known)
            listed = folded if isinstance(folded, list) else [folded]
            words += [part for one in listed for part in text_of(one).replace(",", " ").split()]
        on, needs = list(options.get("on", ())), list(options.get("needs", ()))
        for word in (one.lower() for one in words):
            if word == "self-hosted":
                continue
            if word.startswith("@") or "*" in word or word in names:
                on.append(word)
            elif word in labels:
                needs.append(f"@{word}")
            else:
                needs.append(_system(word))
        options |= {"on": on} if on else {}
        options |= {"needs": needs} if needs else {}

    def _payload(self, options: dict[str, Any]) -> dict[str, Any]:
        step = self._step
        self._check_env(dict(step.payload))
        payload = {key: self._filled(key, value) for key, value in step.payload.items()}
        if step.agent is not None:
            asked = {key: value for key, value in payload.items() if key != "prompt"}
            agent = text_of(fold_text(step.agent, self._known))
            found = self._relay.job.asked_of_agent(agent, **asked)
            options |= {"host": found.pop("host")} if "host" in found else {}
            payload = {"prompt": payload["prompt"], **found}
        if self._env or step.env:
            if "env" not in _fields(step.kind):
                if step.env:
                    raise RelayqError(f"{step.kind} takes no variables (env)")
                return payload
            payload["env"] = {**self._env, **payload.get("env", {})}
        return payload

    def _filled(self, key: str, value: Any) -> Any:
        """Return a field with what is known; nothing of it becomes part of a shell's line."""
        is_line = isinstance(value, str | list) and key == "cmd"
        if self._step.kind != "run_command" or not is_line:
            return fold_all(value, self._known)
        if isinstance(value, list):
            # A program may be a shell, and its argument a line: the worker sees to that.
            return [self._line(str(one)) for one in value]
        text = self._line(value)
        if "${{" in text:
            try:
                check_shell(value)
            except ExpressionError as error:
                raise PlacedError(error.message, self._place_of(error.column)) from error
        return text

    def _place_of(self, column: int) -> object | None:
        """Return where in the file a letter of the command is, as far as that can be said."""
        ways, tree = self._step.ways, self._workflow.tree
        if "steps" in ways:
            return tree.place(ways["steps"])
        written = tree.values.get(way := ways.get("run", (*ways.get("with", ()), "cmd")))
        added = len(STOPS) if written is not None and "run" in ways else 0
        is_added = str(self._step.payload["cmd"]).startswith(STOPS)
        return tree.place(way, column - (added if is_added else 0))

    def _line(self, value: str) -> str:
        parts = []
        for part in read_template(value).parts:
            folded = part if isinstance(part, str) else fold(part, self._known)
            if isinstance(folded, str):
                parts.append(folded)
            elif isinstance(folded.node, Literal) and _HARMLESS.fullmatch(
                text_of(folded.node.value)
            ):
                parts.append(text_of(folded.node.value))
            else:
                parts.append(marked(folded))
        return "".join(parts)

    def _checked(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return a payload without the fields whose value only the run knows."""
        known = _fields(self._step.kind)
        return {
            key: value for key, value in payload.items() if not (known.get(key) and is_whole(value))
        }

    def _condition(self, payload: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return when it runs, and the condition that its worker has to see then."""
        step = self._step
        found = None
        if step.condition is not None:
            self._check_env(f"${{{{ {conditions.bare(step.condition).text} }}}}")
            found = fold(conditions.bare(step.condition), self._known)
            if isinstance(found.node, Literal):
                found = None if is_true(found.node.value) else conditions.bare("false")
        when, condition = conditions.meaning(found)
        expressions = expressions_in(payload)
        expressions += [] if found is None else [found]
        expressions += [conditions.bare(_NAMED.sub("", self._fans, count=1))] if self._fans else []
        self.names = conditions.used(expressions, step.needs)
        return when, condition


def _whole(what: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise RelayqError(f"{what}: expected a whole number, got {value!r}") from error


def _system(word: str) -> str:
    """Return what a host must have for one of GitHub's labels; any other word stands for itself."""
    found = _GITHUBS.fullmatch(word)
    name = found[1] if found else word
    return _SYSTEMS.get(name, name)


def _fields(kind: str) -> Mapping[str, bool]:
    """Return the fields of a kind's payload: whether each may be left out."""
    from relayq import kinds

    return {
        one.name: one.default is not MISSING or one.default_factory is not MISSING
        for one in fields(kinds.find(kind).kind.Payload)
    }
