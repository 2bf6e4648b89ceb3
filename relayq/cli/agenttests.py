"""Whether agents work: a tiny prompt for each, and the way to log one in."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import fleet
from relayq.cli.agentlists import agents_of
from relayq.cli.options import client, complete, duration_option, json_option
from relayq.cli.texts import inert, span
from relayq.errors import RelayqError, WaitTimeout

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

_COLUMNS = ("AGENT", "HOST", "WORKS", "TIME", "SAYS", "DO")
_PROMPT = "Reply with the one word: ok"
#: An agent that can't answer this in two minutes doesn't work for anybody.
_PATIENCE = 120.0


@click.command()
@click.argument("agents", metavar="[AGENT]...", nargs=-1)
@click.option(
    "--on", "host", metavar="HOST", shell_complete=complete("hosts"), help="On one host only."
)
@click.option(
    "--timeout",
    type=duration_option,
    metavar="DURATION",
    default="2m",
    help="How long an answer may take (default: 2m).",
)
@json_option
@click.pass_context
def test(
    ctx: click.Context, agents: tuple[str, ...], host: str | None, timeout: float, as_json: bool
) -> None:
    """Ask each agent on each host that is online for one word; exits with 1 if one can't answer.

    That costs a few tokens of each account. The agents may only read meanwhile.
    """
    from relayq.cli import show, tables

    with client(needs_worker=True) as relay:
        asked = _ask(relay, agents, host)
        if not as_json:
            for agent, name, _ in asked:
                show.remark(f"asks {agent} on {name}, permission read_only")
        deadline = clock.boottime() + timeout
        told = [_heard(agent, name, one, deadline) for agent, name, one in asked]
    if as_json:
        show.print_json({"tests": told})
    else:
        tables.table(_COLUMNS, [_row(one) for one in told])
    ctx.exit(int(not all(one["works"] for one in told)))


def _ask(relay: Relay, agents: Sequence[str], host: str | None) -> list[tuple[str, str, JobResult]]:
    """Queue a prompt for each agent that was meant, on each host that has it."""
    hosts = [fleet.find(relay, host)] if host else fleet.hosts_of(relay)
    places = [
        (agent, one.name)
        for one in hosts
        if one.is_online
        for agent, facts in agents_of(one).items()
        if facts.get("usable") and (not agents or agent in agents)
    ]
    if missing := [agent for agent in agents if agent not in {name for name, _ in places}]:
        where = f"{host} has no" if host else "no host that is online has a"
        raise RelayqError(f"{where} {missing[0]} that is logged in", hint="relayq agent ls")
    if not places:
        raise RelayqError("no host that is online has an agent", hint="relayq agent ls")
    return [
        (
            agent,
            name,
            relay.job.agent(
                agent,
                _PROMPT,
                host=name,
                permission=_gentlest(relay, agent),
                timeout=_PATIENCE,
                name=f"test-{agent}",
                expires=_PATIENCE,
            ),
        )
        for agent, name in places
    ]


def _gentlest(relay: Relay, agent: str) -> str:
    """Return the permission mode in which an agent can do the least."""
    from relayq.agents import adapters

    adapter = adapters.load(relay.config.adapters).get(agent)
    return next(iter(adapter.permission), "read_only") if adapter else "read_only"


def _heard(agent: str, host: str, job: JobResult, deadline: float) -> dict[str, Any]:
    """Wait for the answer of one, and return what it came to."""
    began = clock.boottime()
    try:
        record = job.wait(max(0.1, deadline - clock.boottime()))
    except WaitTimeout:
        job.cancel()
        record, answer, said = job.record, None, "no answer in time"
    else:
        answer = job.agent
        said = (answer.text if job.successful() else answer.message) if answer else ""
        said = said or record.question or record.reason or ""
    works = job.successful()
    took = record.duration if record.duration is not None else clock.boottime() - began
    return {
        "agent": agent,
        "host": host,
        "id": job.id,
        "works": works,
        "seconds": round(took, 3),
        "error_class": str(answer.error_class) if answer and answer.error_class else None,
        "says": said,
        "next": None if works else _next(agent, host, job, answer),
    }


def _next(agent: str, host: str, job: JobResult, answer: Any) -> str:
    if answer is not None and answer.error_class == "auth":
        return f"relayq agent login {host} {agent}"
    return f"relayq logs {job.id}"


def _row(told: dict[str, Any]) -> list[str]:
    return [
        told["agent"],
        told["host"],
        "yes" if told["works"] else "no",
        span(told["seconds"]),
        inert(told["says"]),
        (told["next"] or "-").removeprefix("relayq "),
    ]


@click.command()
@click.argument("host", shell_complete=complete("hosts"))
@click.argument("agent", shell_complete=complete("agents"))
@click.option("--dry-run", is_flag=True, help="Only print what would be run.")
@json_option
def login(host: str, agent: str, dry_run: bool, as_json: bool) -> None:
    """Log AGENT in on HOST, by ssh and the agent's own command.

    A key or a token can stand in ~/.relayq/agents.env there instead (NAME=value, mode 600).
    """
    from relayq import config
    from relayq.agents import adapters
    from relayq.cli import show
    from relayq.cli.ssh import target_of

    loaded = config.load()
    adapter = adapters.known(agent, adapters.load(loaded.adapters))
    keys = ", ".join(adapter.env_pass)
    by_key = f"put {keys} into ~/.relayq/agents.env there (chmod 600)" if keys else ""
    if not adapter.login:
        raise RelayqError(f"{agent} has no command to log in", hint=by_key or None)
    argv = shlex.split(adapter.login)
    if loaded.host_called(host) != loaded.worker.name:
        argv = ["ssh", "-t", "--", target_of(host), *argv]
    if as_json:
        show.print_json({"argv": argv, "keys": list(adapter.env_pass)})
    elif dry_run:
        click.echo(shlex.join(argv))
    elif shutil.which(argv[0]) is None:
        raise RelayqError(f"there is no {argv[0]} here", hint=by_key or None)
    else:
        if by_key:
            show.remark(f"what it gives you for programs: {by_key}")
        show.remark(f"then: relayq agent test {agent} --on {host}")
        os.execvp(argv[0], argv)
