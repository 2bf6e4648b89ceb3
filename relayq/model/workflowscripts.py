"""The commands of a step as one text for the shell: `run`, and GitHub's lists of `steps`."""

from __future__ import annotations

import shlex
from typing import Any

from relayq.model.folding import has_expressions
from relayq.model.workflowtrees import Tree, Way, snake

#: What has a script end at the first of its commands that fails.
STOPS = "set -e\n"
_SHELLS = ("sh", "bash")
_END = "RELAYQ_END"
_ITEM_KEYS = ("name", "id", "run", "working-directory", "env", "shell")
_ITEM_REFUSED = {
    "uses": "actions aren't run here: say what it does as a command (run)",
    "with": "actions aren't run here: say what it does as a command (run)",
    "if": "the items of steps are one job here: make this one a job with an if",
    "continue_on_error": "the items of steps are one job here: `command || true`",
    "timeout_minutes": "the items of steps are one job here: `timeout 10m command`",
}


def of_lines(tree: Tree, way: Way, script: str, shell: str | None) -> str:
    """Return a script that ends at the first of its lines that fails, as GitHub's do.

    A single line is left as it is. With `bash` it is bash that reads it.
    """
    is_bash = _is_bash(tree, way, shell)
    script = script.strip("\n")
    if is_bash:
        return _for_bash(tree, way, script)
    return f"{STOPS}{script}" if "\n" in script.strip() else script.strip()


def _is_bash(tree: Tree, way: Way, shell: str | None) -> bool:
    if shell is not None and shell not in _SHELLS:
        hint = "another program takes its text as an argument: run: [python3, -c, ...]"
        tree.wrong(way, f"shell: {' or '.join(_SHELLS)}, not {shell}", hint=hint)
    return shell == "bash"


def _for_bash(tree: Tree, way: Way, script: str) -> str:
    if has_expressions(script):
        hint = "env: {X: ${{ ... }}}, and $X in the script"
        tree.wrong(way, "a script for bash has no expressions here: put them into env", hint=hint)
    # From a descriptor of its own: what bash starts has the job's standard input.
    return f"exec bash -e -o pipefail /dev/fd/3 3<<'{_END}'\n{script}\n{_END}"


def joined(tree: Tree, way: Way, items: Any) -> str:
    """Return one script of a list of steps: each in a shell of its own, until one fails."""
    if not isinstance(items, list) or not items:
        tree.wrong(way, "steps: expected a list of items with run")
        return "true"
    parts, is_bash = [], False
    for number, item in enumerate(items):
        inner = (*way, number)
        asked = tree.table(inner, item, "an item of steps")
        named = {snake(key): (key, value) for key, value in asked.items()}
        for name, (key, _) in named.items():
            if name == "with" and "uses" in named:
                continue
            if name in _ITEM_REFUSED:
                tree.wrong((*inner, key), f"{key}: {_ITEM_REFUSED[name]}")
            elif name not in map(snake, _ITEM_KEYS):
                tree.unknown((*inner, key), _ITEM_KEYS, "an item of steps")
        if "run" in named:
            parts.append(_item(tree, inner, named))
            key, shell = named.get("shell", ("", None))
            is_bash |= _is_bash(tree, (*inner, key), shell)
        elif not {"uses", "with"} & set(named):
            tree.wrong(inner, "an item of steps has no run")
    return _for_bash(tree, way, "\n".join(parts)) if is_bash else STOPS + "\n".join(parts)


def _item(tree: Tree, way: Way, named: dict[str, tuple[str, Any]]) -> str:
    lines = []
    if "working_directory" in named:
        key, value = named["working_directory"]
        lines.append(f"cd -- {_quoted(tree, (*way, key), tree.text((*way, key), value, key))}")
    if "env" in named:
        key, value = named["env"]
        for name, text in tree.table((*way, key), value, "env").items():
            inner = (*way, key, name)
            lines.append(f"export {name}={_quoted(tree, inner, tree.text(inner, text, name))}")
    key, value = named["run"]
    script = tree.text((*way, key), value, "run").rstrip("\n")
    return "\n".join(["(", *lines, script, ")"])


def _quoted(tree: Tree, way: Way, text: str) -> str:
    if has_expressions(text):
        tree.wrong(way, "an item of steps has no expressions here: put it into the job's env")
    return shlex.quote(text)
