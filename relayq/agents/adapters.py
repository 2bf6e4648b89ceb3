"""How each agent is started, as data: the built-in table, the user's changes, and what they give.

An entry is text all through, whether it comes from our table or from `agents:` in config.yml, and
is checked here. How an order becomes a command line is in `relayq.agents.invocation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

from relayq.agents.order import PERMISSIONS
from relayq.errors import ConfigError
from relayq.parsing import choice, duration, yes_or_no

#: The formats that relayq reads; the first words say whose.
PARSERS = ("claude_stream", "codex_jsonl", "gemini_stream", "jsonl", "text", "openai_http")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Those whose events tell one turn from the next, so that the runner can count turns itself.
_COUNTED = frozenset({"claude_stream", "codex_jsonl", "gemini_stream"})
#: What an entry may have in its places; anything else in braces is a slip of the pen.
PLACEHOLDERS = frozenset(
    "options session new_session prompt prompt_file model max_turns budget schema schema_file "
    "tools mcp_file mcp_toml".split()
)
#: With what else it takes to notice and to end it, a slot is held for less than 75 s.
_FIRST_ANSWER = 60.0
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a text")
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("expected a list of texts")
    return tuple(_text(item) for item in value)


def _arguments(value: Any) -> tuple[str, ...]:
    texts = _texts(value)
    for name in (name for text in texts for name in _PLACEHOLDER.findall(text)):
        if name not in PLACEHOLDERS:
            raise ValueError(f"no such placeholder: {{{name}}}{_meant(name, PLACEHOLDERS)}")
    return texts


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("expected names and values")
    return {_variable(name): _text(text) for name, text in value.items()}


def _variable(value: Any) -> str:
    name = _text(value)
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"expected a variable's name, not {name!r}")
    return name


def _variable_or_none(value: Any) -> str:
    return _variable(value) if value != "" else ""


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_variable(name) for name in _texts(value))


def _seconds(value: Any) -> float | None:
    return None if value is None else duration(_text(value))


def _permissions(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected arguments for {', '.join(PERMISSIONS)}")
    mode = choice(*PERMISSIONS)
    return {mode(_text(name)): _arguments(arguments) for name, arguments in value.items()}


def _spelled(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return the parser that also takes what is a value of the right type already."""
    return lambda value: value if isinstance(value, bool | int) else parse(_text(value))


def _key(parse: Callable[[Any], Any], default: Any = MISSING, **options: Any) -> Any:
    return field(default=default, metadata={"parse": parse}, **options)


_list = partial(_key, _arguments, ())


@dataclass(frozen=True, slots=True)
class Adapter:
    """One agent.

    `argv_new`, `argv_resume` and `argv_fork` follow the command; `model`, `max_turns`, `budget`,
    `schema`, `tools` and `mcp` are the arguments for what an order may ask, empty where the agent
    can't. `login_files` are there once it is logged in, unless macOS has that in its `keychain`.
    `env_pass` names what it gets of the worker's secrets file. `root_env`, if there is any,
    lets it work with full permission as root, which it refuses otherwise. `session` says where a
    session can be resumed: in the same directory of the same host, on the host, or nowhere.
    """

    name: str = _key(_text)
    parser: str = _key(choice(*PARSERS))
    command: str = _key(_text, "")
    argv_new: tuple[str, ...] = _list()
    argv_resume: tuple[str, ...] = _list()
    argv_fork: tuple[str, ...] = _list()
    prompt_via: str = _key(choice("stdin", "file", "argv"), "stdin")
    permission: Mapping[str, tuple[str, ...]] = _key(_permissions, MISSING, default_factory=dict)
    model: tuple[str, ...] = _list()
    max_turns: tuple[str, ...] = _list()
    budget: tuple[str, ...] = _list()
    schema: tuple[str, ...] = _list()
    tools: tuple[str, ...] = _list()
    mcp: tuple[str, ...] = _list()
    env: Mapping[str, str] = _key(_variables, MISSING, default_factory=dict)
    env_pass: tuple[str, ...] = _key(_names, ())
    root_env: Mapping[str, str] = _key(_variables, MISSING, default_factory=dict)
    session: str = _key(choice("host+cwd", "host", "none"), "none")
    chooses_session_id: bool = _key(_spelled(yes_or_no), False)
    usage_is_cumulative: bool = _key(_spelled(yes_or_no), False)
    version_argv: tuple[str, ...] = _key(_texts, ())
    login_files: tuple[str, ...] = _key(_texts, ())
    keychain: bool = _key(_spelled(yes_or_no), False)
    login: str = _key(_text, "")
    min_version: str = _key(_text, "")
    answers_within: float | None = _key(_seconds, None)
    url: str = _key(_text, "")
    default_model: str = _key(_text, "")
    key_env: str = _key(_variable_or_none, "")

    @property
    def is_http(self) -> bool:
        """Whether it is a model behind an API instead of a program."""
        return self.parser == "openai_http"

    @property
    def first_answer(self) -> float:
        """Seconds in which an API that took a request begins to answer, 0 for no limit.

        A model of one's own may have to be loaded first.
        """
        if self.answers_within is not None:
            return self.answers_within
        return 0.0 if self.is_http else _FIRST_ANSWER

    @property
    def is_counted(self) -> bool:
        """Whether the runner can count its turns, which it does where it has no such limit."""
        return self.parser in _COUNTED

    @property
    def credentials(self) -> tuple[str, ...]:
        """The variables that are a login by themselves; the others say where and how."""
        return tuple(name for name in self.env_pass if name.endswith(("_KEY", "_TOKEN")))

    def as_dict(self) -> dict[str, Any]:
        """Return the adapter as JSON knows it."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Adapter:
        """Return the adapter that a table holds; a wrong key is a `ConfigError`."""
        return _read(_text(raw.get("name", "")), raw, None)


def load(overrides: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Adapter]:
    """Return all agents by name: the built-in ones, with the user's changes and additions."""
    table = dict(_built_in())
    for name, raw in (overrides or {}).items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"agents.{name}: an agent's name is of lower-case letters and digits")
        table[name] = _read(name, raw, table.get(name))
    return table


def known(name: str, table: Mapping[str, Adapter]) -> Adapter:
    """Return the agent of this name."""
    if name not in table:
        raise ConfigError(
            f"no such agent: {name!r}{_meant(name, table)}; there is {', '.join(sorted(table))}",
            hint="relayq agent ls",
        )
    return table[name]


@cache
def _built_in() -> Mapping[str, Adapter]:
    import yaml

    text = Path(__file__).with_name("adapters.yml").read_text(encoding="utf-8")
    # All scalars as text, as in config.yml: no `no` becomes False.
    raw = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    return {name: _read(name, entry, None) for name, entry in raw.items()}


def _read(name: str, raw: Any, base: Adapter | None) -> Adapter:
    """Return the agent that an entry describes, on top of `base`."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"agents.{name}: expected keys such as command and parser")
    keys = {f.name: f for f in fields(Adapter)}
    values: dict[str, Any] = {"name": name}
    for key, value in raw.items():
        if key not in keys:
            raise ConfigError(f"agents.{name}: unknown key {key!r}{_meant(key, keys)}")
        try:
            values[key] = value if key == "name" else keys[key].metadata["parse"](value)
        except ValueError as error:
            raise ConfigError(f"agents.{name}.{key}: {error}") from error
    if base is None and "parser" not in values:
        raise ConfigError(f"agents.{name}: needs a parser: {', '.join(PARSERS)}")
    adapter = replace(base, **_merged(base, values)) if base else Adapter(**values)
    return _complete(adapter)


def _merged(base: Adapter, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with which tables are added to the base's instead of replacing them."""
    return {
        key: {**getattr(base, key), **value} if isinstance(value, dict) else value
        for key, value in values.items()
    }


def _complete(adapter: Adapter) -> Adapter:
    """Return the adapter, or raise what is missing for it to be usable."""
    place = f"agents.{adapter.name}"
    if adapter.is_http and not adapter.url:
        raise ConfigError(f"{place}: needs a url, such as http://127.0.0.1:11434/v1")
    if not adapter.is_http and not adapter.command:
        raise ConfigError(f"{place}: needs a command, the program's name or path")
    if not adapter.permission:
        raise ConfigError(
            f"{place}: needs permission, with arguments for one of {', '.join(PERMISSIONS)}"
        )
    return adapter


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _meant(typed: str, known: Any) -> str:
    return "".join(f" (did you mean {match!r}?)" for match in get_close_matches(typed, known, 1))
