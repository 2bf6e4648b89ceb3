"""run_agent and run_claude: an AI agent works on a prompt.

The process is the runner program of `relayq.host.agents`, which gets its order on standard input
(nothing of it in argv or the environment, where `ps` would show it) and leaves a report.
"""

from __future__ import annotations

import json
import os.path
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from relayq.agents import adapters, invocation, policy
from relayq.agents.answers import Answer, ErrorClass, Status
from relayq.agents.order import PERMISSIONS, Limits, Order, Reply
from relayq.errors import RelayqError
from relayq.kinds import Command, Ended, HostFacts, Verdict, kind
from relayq.kinds.command import expand
from relayq.model.jobs import Reason

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: The exit code (sysexits' EX_IOERR) of a runner that couldn't write its report.
UNWRITTEN = 74
#: The session that was used last in the same directory by the same account.
LATEST = "latest"
#: Keys of `agents:` that aren't an adapter's: they say what this host allows.
_HOSTS_OWN = frozenset(
    {"mode", "allow_root_sandbox", "accounts", "stall", "max_throttle_wait", "grace"}
)
_DEFAULT_ACCOUNT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPayload:
    """What an agent is asked to do.

    `cwd` is a directory on the host (`~` is the worker's home); without it the job has a fresh
    scratch directory. `permission` is read_only, edit or full. `session` is the id of one to
    resume, with `fork` to branch off; `continue_` means the last one of that agent in `cwd`.
    `max_turns` and `budget` (USD) bound it, `schema` is the JSON Schema of its answer, `tools` are
    those that it may use without asking, `mcp` MCP servers by name, `args` further arguments of
    the agent. `account` is one of the host's configuration. `fallbacks` are other agents, or
    accounts as `codex/default`, for when this one has no allowance left. `reads` are the files that
    it is to look into: how many of them it has opened is its progress. One that is `unattended`
    asks nobody about itself: what it was denied or left out stays so, and what it can't finish has
    failed; only a login or a payment that is missing is still a person's to do.
    """

    agent: str
    prompt: str
    cwd: str | None = None
    model: str | None = None
    permission: str = "edit"
    session: str | None = None
    fork: bool = False
    max_turns: int | None = None
    budget: float | None = None
    schema: Mapping[str, Any] | None = None
    tools: Sequence[str] = ()
    mcp: Mapping[str, Mapping[str, Any]] | None = None
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    account: str | None = None
    fallbacks: Sequence[str] = ()
    continue_: bool = False
    reads: Sequence[str] = ()
    unattended: bool = False

    def __post_init__(self) -> None:
        for name in ("agent", "prompt", "permission"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be text")
        for name in ("cwd", "model", "session", "account"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name} must be text")
        for name in ("tools", "args", "fallbacks", "reads"):
            _check_texts(name, getattr(self, name))
        if not isinstance(self.unattended, bool):
            raise TypeError("unattended is true or false")
        if not self.agent:
            raise ValueError("no agent is named")
        if not self.prompt.strip():
            raise ValueError("the prompt is empty")
        if self.permission not in PERMISSIONS:
            raise ValueError(f"a permission is one of {', '.join(PERMISSIONS)}")
        self._check_limits()
        self._check_tables()
        if self.session is not None and self.continue_:
            raise ValueError("either a session or the last one (continue_), not both")
        if self.fork and self.session is None and not self.continue_:
            raise ValueError("only a session can be forked: name one")

    def _check_limits(self) -> None:
        turns, budget = self.max_turns, self.budget
        if turns is not None and (type(turns) is not int or turns < 1):
            raise ValueError("max_turns is a whole number from 1 on")
        if budget is not None and (
            isinstance(budget, bool) or not isinstance(budget, int | float) or not budget > 0
        ):
            raise ValueError("a budget is a number of USD above 0")

    def _check_tables(self) -> None:
        for name in ("schema", "mcp"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise TypeError(f"{name} must be a table")
        if not isinstance(self.env, Mapping):
            raise TypeError("env must map names to values")
        _check_texts("env", [*self.env, *self.env.values()])
        if any("=" in name or not name for name in self.env):
            raise ValueError("a variable's name can't be empty or hold '='")

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that it may use, as `agent/name`, the first choice first."""
        first = f"{self.agent}/{self.account or _DEFAULT_ACCOUNT}"
        others = (one if "/" in one else f"{one}/{_DEFAULT_ACCOUNT}" for one in self.fallbacks)
        return tuple(dict.fromkeys((first, *others)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudePayload(AgentPayload):
    """What Claude is asked to do; `run_agent`'s fields."""

    agent: str = "claude"


def _check_texts(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} must be texts")
    if any("\0" in one for one in value):
        raise ValueError(f"{name} can't hold a NUL character")


@kind("run_agent")
class RunAgent:
    """Have an AI agent work on a prompt."""

    Payload: type[Any] = AgentPayload

    def plan(self, payload: AgentPayload, host: HostFacts) -> Command:
        """Return the runner program with its order, or raise what the agent can't do."""
        order = order_of(payload, host)
        adapter = adapters.Adapter.from_dict(order.adapter)
        invocation.check(adapter, order)
        if host.is_root and invocation.refuses_root(adapter, order):
            raise RelayqError(
                f"{order.agent} with full permission doesn't run as root: run the worker of "
                f"{host.name} as an ordinary user, or, in a sandbox only, set "
                f"agents.{order.agent}.allow_root_sandbox: yes in its config.yml"
            )
        code = (
            f"import sys; sys.path.insert(0, {_ROOT!r}); "
            "from relayq.host.agents import main; main()"
        )
        return Command(
            argv=(sys.executable, "-I", "-c", code),
            cwd=expand(payload.cwd, host.home, host.scratch) if host.scratch else host.home,
            stdin=json.dumps(order.as_dict()).encode(),
        )

    def interpret(self, ended: Ended) -> Verdict:
        """Return what the runner's report leads to, whatever its exit code was."""
        report = ended.report or {}
        try:
            answer = Answer.from_dict(report["answer"])
        except (KeyError, ValueError, TypeError):
            answer = _unreported(ended)
        if ended.reason == Reason.TIMEOUT and answer.error_class is ErrorClass.CANCELLED:
            # The runner was only asked to end, and doesn't know why.
            answer = replace(
                answer,
                status=Status.TIMED_OUT,
                error_class=ErrorClass.TIMED_OUT,
                message="its time limit ended it",
            )
        decision = policy.decide(
            answer,
            failures=ended.failures,
            fallbacks=ended.fallbacks,
            jitter=ended.jitter,
            now=ended.at,
            asks=report.get("unattended") is not True,
        )
        choices = [choice.as_dict() for choice in decision.choices]
        asked = {"question": decision.question, "choices": choices} if choices else {}
        return Verdict(
            decision.state,
            decision.reason,
            result={**answer.as_dict(), **asked},
            error=_error(answer),
            until=decision.until,
            delay=decision.delay,
            counts="failures" if decision.counts else "",
            question=decision.question,
            choices=tuple(choice["label"] for choice in choices),
            account_until=decision.account_until,
            next_agent=decision.tries_next_agent,
            stays=decision.stays_on_host,
            session=_session(answer, report),
            usage={
                "cost_usd": answer.cost_usd,
                "input": answer.usage.total - answer.usage.output,
                "output": answer.usage.output,
            },
        )


@kind("run_claude")
class RunClaude(RunAgent):
    """Have Claude work on a prompt."""

    Payload: type[Any] = ClaudePayload


def order_of(payload: AgentPayload, host: HostFacts) -> Order:
    """Return what the runner on a host is told to do."""
    accounts = payload.accounts
    account = host.account or accounts[0]
    if account not in accounts:
        raise RelayqError(f"the job doesn't name the account {account!r}")
    agent, _, name = account.partition("/")
    raw = host.agents.get(agent, {})
    own = {key: raw[key] for key in _HOSTS_OWN if key in raw}
    # Of this agent alone: a slip in another one's entry is no reason not to run it.
    changes = {key: value for key, value in raw.items() if key not in _HOSTS_OWN}
    table = adapters.load({agent: changes} if changes else {})
    adapter = _of_account(adapters.known(agent, table), name, own)
    if host.scratch and payload.cwd is None and (payload.session or payload.continue_):
        # Only its runner knows where the session lives, too late for the files.
        raise RelayqError("files for an agent's session need its directory: name it (cwd)")
    order = Order(
        agent=agent,
        adapter=adapter.as_dict(),
        prompt=payload.prompt,
        cwd=payload.cwd or host.scratch or None,
        model=payload.model,
        permission=payload.permission,
        session=LATEST if payload.continue_ else payload.session,
        fork=payload.fork,
        max_turns=payload.max_turns,
        budget=payload.budget,
        schema=payload.schema,
        tools=tuple(payload.tools),
        mcp=payload.mcp,
        args=tuple(payload.args),
        env=dict(payload.env),
        reads=tuple(payload.reads),
        unattended=payload.unattended,
        account=name,
        answer=_reply(host.answer),
        is_root_allowed=own.get("allow_root_sandbox") in (True, "yes", "true"),
        state_dir=host.state_dir,
        host=host.name,
        limits=_limits(own),
    )
    if agent == payload.agent:
        return order
    # Of the first agent's own words another one understands nothing.
    return replace(order, model=None, session=None, fork=False, args=())


def _of_account(adapter: adapters.Adapter, name: str, own: Mapping[str, Any]) -> adapters.Adapter:
    """Return the adapter with the variables of an account, such as another CLAUDE_CONFIG_DIR."""
    accounts = own.get("accounts", {})
    if name != _DEFAULT_ACCOUNT and name not in accounts:
        raise RelayqError(
            f"this host knows no account {adapter.name}/{name}; name it in "
            f"agents.{adapter.name}.accounts of its config.yml"
        )
    return replace(adapter, env={**adapter.env, **accounts.get(name, {}).get("env", {})})


def _reply(answer: Mapping[str, Any] | None) -> Reply | None:
    if answer is None:
        return None
    return Reply(str(answer.get("text", "")), tuple(answer.get("allow", ())))


def _limits(own: Mapping[str, Any]) -> Limits:
    names = ("stall", "max_throttle_wait", "grace")
    try:
        return Limits(**{name: float(own[name]) for name in names if name in own})
    except ValueError as error:
        raise RelayqError(f"an agent's {', '.join(names)} are seconds: {error}") from error


def _unreported(ended: Ended) -> Answer:
    """Return the answer of a runner that could leave none."""
    if ended.exit_code == UNWRITTEN:
        said = "its host couldn't write its report: that host's disk is full, or can't be written"
        return Answer(
            agent="the agent",
            status=Status.REQUEUED,
            error_class=ErrorClass.TRANSIENT,
            message=said,
            exit_code=ended.exit_code,
        )
    how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"
    return Answer(
        agent="the agent",
        status=Status.REQUEUED,
        error_class=ErrorClass.CRASHED,
        message=ended.error or f"its runner ended without a report ({how})",
        exit_code=ended.exit_code,
        signal=ended.signal,
    )


def _error(answer: Answer) -> str | None:
    if answer.error_class is None:
        return None
    return f"{answer.error_class}: {answer.message}" if answer.message else str(answer.error_class)


def _session(answer: Answer, report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the registry of sessions is told, of an agent that has some."""
    if answer.session_id is None or not report.get("home") or not report.get("has_sessions"):
        return None
    return {
        "id": answer.session_id,
        "agent": answer.agent,
        "account": answer.account or "",
        "host": answer.host or "",
        "cwd": answer.cwd or "",
        "home": report["home"],
        "version": answer.agent_version or "",
        "turns": answer.turns or 0,
        "cost_usd": answer.cost_usd or 0.0,
    }
