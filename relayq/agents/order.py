"""What the runner on a host is told to do: the JSON on its standard input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from relayq.errors import RelayqError

PERMISSIONS = ("read_only", "edit", "full")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person answered: words for the agent, and tools that it may use from now on."""

    text: str = ""
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the runner lets an agent hold a slot, in seconds.

    `stall` without any event, `max_throttle_wait` of doing nothing but waiting for its API,
    `grace` between asking it to end and ending it.
    """

    stall: float = 900.0
    max_throttle_wait: float = 60.0
    grace: float = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """One run of an agent.

    `adapter` is the adapter as a table. `cwd` None means a fresh scratch directory. `session` is
    the id to resume, with `fork` to branch off. `schema` is the JSON Schema of the answer, `tools`
    what the agent may use without asking, `mcp` MCP servers by name, `args` further arguments of
    the agent. `state_dir` holds sessions and their locks, `report` is the file for the answer.
    `reads` are the files by which one tells how far it is; an `unattended` run asks no person.
    """

    agent: str
    adapter: Mapping[str, Any]
    prompt: str
    cwd: str | None = None
    model: str | None = None
    permission: str = "edit"
    session: str | None = None
    fork: bool = False
    max_turns: int | None = None
    budget: float | None = None
    schema: Mapping[str, Any] | None = None
    tools: tuple[str, ...] = ()
    mcp: Mapping[str, Mapping[str, Any]] | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    unattended: bool = False
    account: str = "default"
    answer: Reply | None = None
    is_root_allowed: bool = False
    state_dir: str = ""
    report: str = ""
    job_id: str = ""
    attempt: int = 1
    host: str = ""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.permission not in PERMISSIONS:
            raise RelayqError(
                f"no such permission: {self.permission!r}; there is {', '.join(PERMISSIONS)}"
            )
        if self.fork and not self.session:
            raise RelayqError("only a session can be forked", hint="relayq agent sessions")

    @property
    def allowed(self) -> tuple[str, ...]:
        """The tools that the agent may use without asking, those of a person's reply included."""
        more = self.answer.allow if self.answer else ()
        return tuple(dict.fromkeys((*self.tools, *more)))

    def as_dict(self) -> dict[str, Any]:
        """Return the order as JSON knows it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Order:
        """Return the order that a table holds."""
        return cls(**{f.name: _read(f.name, raw[f.name]) for f in fields(cls) if f.name in raw})


def _read(name: str, value: Any) -> Any:
    match name, value:
        case "tools" | "args" | "reads", _:
            return tuple(value)
        case "answer", Mapping():
            return Reply(value.get("text", ""), tuple(value.get("allow", ())))
        case "limits", Mapping():
            return Limits(**value)
    return value
