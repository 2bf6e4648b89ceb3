"""`relayq agent`: prompts for AI agents, on any host or right here, and what there is of them."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from relayq.cli import terminal
from relayq.cli.groups import Group
from relayq.cli.joboptions import HeadedCommand, detach_option, interrupt_option, options_but
from relayq.cli.options import client, complete
from relayq.cli.placing import named_host
from relayq.cli.submissions import asked_of, queued, tell_plan, with_jobs
from relayq.errors import Unplaceable

if TYPE_CHECKING:
    from relayq.agents.answers import Answer
    from relayq.client import JobResult, Relay
    from relayq.config import Config

#: Commands of the group that live elsewhere.
_ELSEWHERE = {
    "ls": "relayq.cli.agentlists:ls",
    "test": "relayq.cli.agenttests:test",
    "sessions": "relayq.cli.agentlists:sessions",
    "quota": "relayq.cli.agentlists:quota",
    "login": "relayq.cli.agenttests:login",
}
#: How long a worker that has just started may take to find its agents.
_START_PATIENCE = 20.0
_LOOK = 0.25
_MODES = ("read-only", "edit", "full")
#: Options of a job that mean nothing where there is no queue.
_LOCAL = frozenset(
    "agent prompt cwd model permission session fork continue_ max_turns budget".split()
) | {*"schema tools mcp args env account fallbacks".split()}


@click.group(cls=Group, elsewhere=_ELSEWHERE)
def agent() -> None:
    """Have AI agents work: claude, codex, gemini, groq, and what your configuration adds."""


class _Run(HeadedCommand):
    """`agent run`, with its many options under headings."""

    headings = {
        "The agent": "agent_name model permission tools schema mcp max_turns budget args",
        "Its session": "session continue_ fork",
        "Its account": "account fallbacks",
        "Where it runs": "local on prefer overflow excluded with_job needs gpu slots strategy "
        "private wait_for_host cwd git env env_files secrets",
        "Its limits": "timeout memory processes max_output",
        "When, and what if": "priority due_at delay expires after after_any unique retries on_lost",
        "What it is called": "name group labels meta note",
    }


@agent.command(cls=_Run)
@click.option(
    "--agent",
    "agent_name",
    metavar="NAME",
    shell_complete=complete("agents"),
    help="The agent, if not the first word.",
)
@click.option("--model", metavar="NAME", help="Its model.")
@click.option(
    "--permission",
    type=click.Choice(_MODES),
    help="What it may do without asking (default: agents.NAME.mode, else edit).",
)
@click.option(
    "--tool",
    "tools",
    multiple=True,
    metavar="TOOL",
    help="It may use this without asking, such as 'Bash(git *)'.",
)
@click.option(
    "--schema", metavar="FILE", help="The JSON Schema of its answer: a file, or the JSON."
)
@click.option("--mcp", metavar="FILE", help="MCP servers by name: a JSON file, or the JSON.")
@click.option("--max-turns", type=click.IntRange(1), metavar="N", help="Its limit of turns.")
@click.option("--budget", type=float, metavar="USD", help="Its limit of cost.")
@click.option(
    "--arg", "args", multiple=True, metavar="TEXT", help="A further argument of its program."
)
@click.option(
    "--session",
    metavar="ID",
    shell_complete=complete("sessions"),
    help="Go on with this session, where it lives.",
)
@click.option("--continue", "continue_", is_flag=True, help="Go on with the last session.")
@click.option("--fork", is_flag=True, help="With either: branch off, and leave it as it is.")
@click.option("--account", metavar="NAME", help="An account of agents.NAME.accounts.")
@click.option(
    "--fallback",
    "fallbacks",
    multiple=True,
    metavar="AGENT[,AGENT]",
    help="Agents that take over when this one has no allowance left.",
)
@click.option("--local", is_flag=True, help="Right here, without a queue; in this directory.")
@detach_option
@click.option("--answer-only", is_flag=True, help="Print the answer, and not what it does.")
@interrupt_option
@click.option(
    "--cwd", metavar="DIR", help="Directory on the host (default: a fresh one; local: this one)."
)
@options_but("shell", "command", "cwd")
@click.argument(
    "words", metavar="[AGENT] PROMPT", nargs=-1, shell_complete=complete("agents", "nothing")
)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    agent_name: str | None,
    local: bool,
    detach: bool,
    answer_only: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Have AGENT work on PROMPT: live, as its terminal, until its answer.

    Without AGENT it is agents.default of the configuration (claude). A word - of the prompt is what
    is piped in here, and so is a prompt that isn't there. Without --cwd it works in a fresh
    directory, with --local in this one. It exits with 0 for an answer, 80 when it needs a person.
    """
    from relayq import config

    loaded = config.load()
    asked = asked_of_prompt(loaded, words, agent_name, options)
    if local:
        if detach:
            raise click.UsageError("--local and --detach exclude each other")
        ctx.exit(_locally(loaded, asked, only=answer_only, quiet=quiet, as_json=as_json))
    with client(starts=True, quiet=quiet) as relay:
        name = asked.pop("agent")
        asked = relay.job.asked_of_agent(name, **asked)
        if dry_run:
            spec = relay.job.plan("run_agent", **with_jobs(relay, asked))
            tell_plan(spec, as_json=as_json)
            return
        code = _run(
            relay,
            asked,
            detach=detach,
            only=answer_only,
            on_interrupt=on_interrupt,
            quiet=quiet,
            as_json=as_json,
        )
    ctx.exit(code)


def _run(
    relay: Relay,
    asked: dict[str, Any],
    *,
    detach: bool,
    only: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Queue an agent's job and, unless detached, follow it to its end; returns the exit code."""
    from relayq.cli import output, show, transfers

    asked = asked if detach else transfers.coming_here(asked)
    until_known(relay, asked)
    host = asked.get("host") or named_host(asked)
    made: list[JobResult] = []

    def submit() -> JobResult:
        result = queued(relay, "run_agent", asked, follow=not (detach or only), quiet=quiet)
        made.append(result)
        if not quiet:
            show.remark(f"{result.id}  {_told(asked)}")
        return result

    if detach:
        result = submit()
        if as_json:
            show.print_json({"id": result.id, "is_new": result.is_new})
        else:
            click.echo(result.id)
        if not quiet:
            output.note_absence(relay, host)
        return 0
    if only:
        return output.only_answer(
            relay, submit, on_interrupt=on_interrupt, quiet=quiet, as_json=as_json
        )
    code = output.run(
        relay, submit, host=host, on_interrupt=on_interrupt, quiet=quiet, as_json=as_json
    )
    if not quiet and not as_json:
        _say_next(made[0].agent, made[0])
    return code


def until_known(relay: Relay, asked: dict[str, Any]) -> None:
    """Wait until a worker that was started with this command has said which agents it has."""
    from relayq import clock, embedded

    # What is started here must not inherit the signals that a submit holds back.
    relay.session()
    config = relay.config
    pid = None if config.broker_url else embedded.worker_pid(config)
    if pid is None or asked.get("wait_for_host"):
        return
    import psutil

    with suppress(psutil.NoSuchProcess):
        until = psutil.Process(pid).create_time() + _START_PATIENCE
        while clock.now() < until:
            try:
                relay.job.plan("run_agent", **with_jobs(relay, asked))
            except Unplaceable:
                clock.sleep(_LOOK)
            else:
                return


def _told(asked: Mapping[str, Any]) -> str:
    """Say who works, and what it may do."""
    where = asked.get("host") or ", ".join(asked.get("on", ())) or "any host"
    session = f", session {asked['session']}" if asked.get("session") else ""
    return f"{asked['agent']}, permission {asked['permission']}, on {where}{session}"


def _say_next(answer: Answer | None, result: JobResult | None) -> None:
    """Say what can be typed to go on."""
    from relayq.cli import show

    if result is not None and result.record.question:
        for number, choice in enumerate(result.record.choices, 1):
            click.echo(f"  {number}  {choice}", err=True)
        show.hint(f"relayq answer {result.id} --choice 1, or relayq answer {result.id} 'TEXT'")
    elif answer is not None and answer.session_id:
        local = " --local" if result is None else ""
        show.hint(f"relayq agent run{local} {answer.agent} --session {answer.session_id} 'PROMPT'")


def asked_of_prompt(
    loaded: Config, words: Sequence[str], name: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the client's keywords for what was typed, `agent` and `prompt` among them."""
    tables = {key: json_table(key, options.pop(key)) for key in ("schema", "mcp")}
    for key in ("tools", "args", "fallbacks"):
        options[key] = list(options[key])
    options["fallbacks"] = [one for text in options["fallbacks"] for one in text.split(",") if one]
    given = asked_of(**options)
    given |= {key: value for key, value in tables.items() if value is not None}
    given = {key: value for key, value in given.items() if value != []}
    name, prompt = _agent_and_prompt(loaded, words, name)
    return {**given, "agent": name, "prompt": prompt}


def _agent_and_prompt(loaded: Config, words: Sequence[str], name: str | None) -> tuple[str, str]:
    from relayq.agents import adapters

    known = adapters.load(loaded.adapters)
    words = list(words)
    if name is None and words and words[0] in known:
        name = words.pop(0)
    elif name is None and len(words) > 1 and (close := get_close_matches(words[0], known, 1, 0.8)):
        # Else another agent would get this name as a part of its prompt.
        raise click.UsageError(
            f"no such agent: {words[0]}; did you mean {close[0]}? (if it belongs to the prompt, "
            "put that into quotes)"
        )
    if "-" in words or (not words and terminal.is_piped()):
        piped = sys.stdin.buffer.read().decode(errors="surrogateescape")
        words = [piped if word == "-" else word for word in words] or [piped]
    prompt = "\n".join(words) if any("\n" in word for word in words) else " ".join(words)
    if not prompt.strip():
        raise click.UsageError("the prompt is empty; try: relayq agent run claude 'say hello'")
    return name or loaded.default_agent, prompt.encode(errors="surrogateescape").decode(
        errors="replace"
    )


def json_table(name: str, text: str | None) -> dict[str, Any] | None:
    """Return the JSON object that an option has, or the file that it names."""
    if text is None:
        return None
    try:
        if not text.lstrip().startswith("{"):
            with open(text, encoding="utf-8") as file:
                text = file.read()
        table = json.loads(text)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise click.BadParameter(f"{text}: {reason}", param_hint=f"--{name}") from error
    except ValueError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint=f"--{name}") from error
    if not isinstance(table, dict):
        raise click.BadParameter("expected a JSON object", param_hint=f"--{name}")
    servers = table.get("mcpServers") if name == "mcp" else None
    return servers if isinstance(servers, dict) else table


def _locally(
    loaded: Config, asked: dict[str, Any], *, only: bool, quiet: bool, as_json: bool
) -> int:
    """Run an agent in this process, without a broker; returns the exit code."""
    from relayq.cli import show
    from relayq.cli.agentlocal import run_here

    if extra := sorted(asked.keys() - _LOCAL):
        typed = extra[0].replace("_", "-")
        raise click.UsageError(f"--local runs it here and now: no {typed}")
    asked.setdefault("permission", loaded.mode_of(asked["agent"]))
    asked["permission"] = asked["permission"].replace("-", "_")
    if not quiet:
        show.remark(_told({**asked, "host": f"{loaded.worker.name}, here"}))
    with redirect_stdout(io.StringIO() if only or as_json else sys.stdout):
        answer, code = run_here(loaded, asked, on_wait=_say_wait(quiet))
    if as_json:
        show.print_json({"answer": answer.as_dict(), "exit_code": code})
        return code
    if only:
        print_value(answer)
    if not quiet:
        if answer.error_class is not None:
            show.remark(f"{answer.error_class}: {answer.message}")
        _say_next(answer, None)
    return code


def _say_wait(quiet: bool) -> Callable[[Answer, float], None]:
    from relayq.cli import show, waits
    from relayq.cli.texts import span

    def say(answer: Answer, wait: float) -> None:
        if not quiet:
            show.remark(f"{waits.because(str(answer.error_class))}; again in {span(wait)}")

    return say


def print_value(answer: Answer) -> None:
    """Print an agent's answer and nothing else: its text, or the value of a schema as JSON."""
    from relayq.agentjobs import value_of

    value = value_of(answer)
    if not isinstance(value, str):
        click.echo(json.dumps(value))
    elif value:
        click.echo(value)
