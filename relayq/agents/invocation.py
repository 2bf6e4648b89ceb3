"""An order and an adapter -> the command line, files and variables that carry it out.

What an order asks and the agent can't do is an error: a limit that is dropped in silence would be
worse than none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from relayq.agents.adapters import Adapter
from relayq.agents.order import Order
from relayq.errors import RelayqError

#: Linux takes 128 KiB for one argument.
LONGEST_ARGUMENT = 120_000
#: What a resumed session is told when nobody said anything else.
CONTINUE = (
    "Continue where you left off; the last tool call may not have finished - "
    "check its effects first."
)
_ASKED = ("model", "max_turns", "budget", "schema", "tools", "mcp")
_LABELS = {
    "max_turns": "a limit of turns",
    "budget": "a budget",
    "schema": "a schema for its answer",
    "tools": "a list of allowed tools",
    "mcp": "MCP servers",
    "model": "a choice of models",
}
_ALONE = re.compile(r"\{([a-z_]+)\}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def check(adapter: Adapter, order: Order) -> None:
    """Raise what the order asks and the agent can't do; for before a job is queued, too."""
    if order.permission not in adapter.permission:
        raise RelayqError(
            f"{adapter.name} has no permission mode {order.permission!r}; it has "
            f"{', '.join(adapter.permission)}",
            hint=f"--permission {next(iter(adapter.permission))}",
        )
    if order.session and not adapter.argv_resume:
        raise RelayqError(f"{adapter.name} has no sessions that can be resumed")
    if order.fork and not adapter.argv_fork:
        raise RelayqError(f"{adapter.name} can't fork a session")
    for what in _ASKED:
        if _asked(order, what) and not _can(adapter, what):
            raise RelayqError(f"{adapter.name} knows no {_LABELS[what].removeprefix('a ')}")
    if adapter.is_http and not (order.model or adapter.default_model):
        raise RelayqError(f"{adapter.name} needs the name of a model", hint="--model NAME")
    if "\0" in order.prompt or not _is_encodable(order.prompt):
        raise RelayqError("a prompt can't hold a NUL character or half of a surrogate pair")
    if adapter.prompt_via == "argv" and len(order.prompt.encode()) > LONGEST_ARGUMENT:
        raise RelayqError(
            f"{adapter.name} takes its prompt as an argument, which can't be longer than "
            f"{LONGEST_ARGUMENT} bytes",
            hint="put it into a file and ask the agent to read that",
        )


def refuses_root(adapter: Adapter, order: Order) -> bool:
    """Whether the agent would refuse this order as root, and nobody has allowed it."""
    return bool(adapter.root_env) and order.permission == "full" and not order.is_root_allowed


def turn_limit(adapter: Adapter, order: Order) -> int | None:
    """Return how many turns the runner lets it have, None where the agent sees to that itself."""
    return None if adapter.max_turns else order.max_turns


def argv(adapter: Adapter, order: Order, *, directory: str, new_session: str = "") -> list[str]:
    """Return the command line; `directory` is where the runner has put what `files` returns.

    `new_session` is a fresh id, for agents that let the caller choose it.
    """
    check(adapter, order)
    values = _values(order, directory, new_session)
    if not order.session:
        template = adapter.argv_new
    else:
        template = adapter.argv_fork if order.fork else adapter.argv_resume
    options = [*_options(adapter, order, values), *order.args]
    if "{options}" not in template:
        template = (*template, "{options}")
    arguments: list[str] = [adapter.command]
    for part in template:
        arguments += options if part == "{options}" else _filled(part, values)
    return arguments


def files(adapter: Adapter, order: Order) -> dict[str, str]:
    """Return what the runner writes before it starts the agent: names and texts."""
    written: dict[str, str] = {}
    if order.schema is not None:
        written["schema.json"] = json.dumps(order.schema)
    if order.mcp:
        written["mcp.json"] = json.dumps({"mcpServers": order.mcp})
    if adapter.prompt_via == "file":
        written["prompt.txt"] = order.prompt
    return written


def environment(
    adapter: Adapter, order: Order, *, directory: str, is_root: bool = False
) -> dict[str, str]:
    """Return the variables to add to what the runner passes on; secrets are the runner's to add."""
    needs_root = is_root and order.is_root_allowed and order.permission == "full"
    return {**adapter.env, **(adapter.root_env if needs_root else {}), **order.env}


def stdin(adapter: Adapter, order: Order) -> str:
    """Return what goes to the agent's standard input before it is closed."""
    return order.prompt if adapter.prompt_via == "stdin" else ""


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _can(adapter: Adapter, what: str) -> bool:
    # Of an HTTP one the request has a place for these two.
    if adapter.is_http and what in {"model", "schema"}:
        return True
    if what == "max_turns" and adapter.is_counted:
        return True
    return bool(getattr(adapter, what))


def _asked(order: Order, what: str) -> bool:
    value = order.allowed if what == "tools" else getattr(order, what)
    return value is not None and value != () and value != {}


def _options(adapter: Adapter, order: Order, values: Mapping[str, Any]) -> Iterator[str]:
    yield from adapter.permission[order.permission]
    for what in _ASKED:
        if _asked(order, what):
            for part in getattr(adapter, what):
                yield from _filled(part, values)


def _values(order: Order, directory: str, new_session: str) -> dict[str, Any]:
    # A prompt that began with a minus sign would be a flag.
    prompt = f" {order.prompt}" if order.prompt.startswith("-") else order.prompt
    return {
        "session": order.session or new_session,
        "new_session": new_session,
        "prompt": prompt,
        "prompt_file": f"{directory}/prompt.txt",
        "model": order.model or "",
        "max_turns": "" if order.max_turns is None else str(order.max_turns),
        "budget": "" if order.budget is None else f"{order.budget:g}",
        "schema": "" if order.schema is None else json.dumps(order.schema, separators=(",", ":")),
        "schema_file": f"{directory}/schema.json",
        "tools": list(order.allowed),
        "mcp_file": f"{directory}/mcp.json",
        "mcp_toml": _toml(order.mcp or {}),
    }


def _filled(part: str, values: Mapping[str, Any]) -> list[str]:
    """Return the arguments that one place of a template becomes."""
    alone = _ALONE.fullmatch(part)
    if alone and isinstance(values[alone[1]], list):
        return values[alone[1]]  # type: ignore[no-any-return]
    return [_ALONE.sub(lambda match: str(values.get(match[1], match[0])), part)]


def _toml(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(str(key))}={_toml(item)}" for key, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_toml, value)) + "]"
    # JSON's texts, numbers and truth values are TOML's, but for pairs of surrogates and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)
