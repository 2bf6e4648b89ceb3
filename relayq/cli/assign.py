"""`relayq assign`: work in words; host, agent and kind are proposed, a person confirms."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import client, complete, is_interactive, json_option, quiet_option
from relayq.cli.texts import inert
from relayq.errors import RelayqError

if TYPE_CHECKING:
    from relayq.assignments import Assignment, Router
    from relayq.config import Config

#: How long an agent may think about a host.
_PATIENCE = 60.0


@click.command()
@click.argument("words", metavar="DESCRIPTION", nargs=-1, required=True)
@click.option(
    *("--on", "--machine", "--host", "host"),
    metavar="HOST",
    shell_complete=complete("hosts"),
    help="The host is this one.",
)
@click.option(
    "--agent",
    metavar="NAME",
    shell_complete=complete("agents"),
    help="The agent is this one; none or -: a plain command.",
)
@click.option("--type", "sort", type=click.Choice(["agent", "command"]), help="The kind of job.")
@click.option("--cwd", metavar="DIR", help="Directory on the host.")
@click.option(
    "--permission", type=click.Choice(["read-only", "edit", "full"]), help="As in agent run."
)
@click.option(
    "--router",
    metavar="rules|none|AGENT",
    help="Who chooses where the rules don't know (default: agents.default, if it is here).",
)
@click.option("--private", metavar="LABEL", help="As in run.")
@click.option("--force", is_flag=True, help="Queue it in spite of what speaks against it.")
@click.option("-y", "--yes", is_flag=True, help="Queue it without asking.")
@click.option("--dry-run", is_flag=True, help="Only propose.")
@quiet_option
@json_option
@click.pass_context
def assign(
    ctx: click.Context,
    words: tuple[str, ...],
    host: str | None,
    agent: str | None,
    sort: str | None,
    cwd: str | None,
    permission: str | None,
    router: str | None,
    private: str | None,
    force: bool,
    yes: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say what is to be done; see which host and agent are proposed, and why; then queue it.

    What is given by an option stays so, the rest is chosen: by rules first, and where these know
    nothing, by an agent on this machine. A command in `backquotes` after "run" is run as it is.
    """
    from relayq.assignments import assign as propose
    from relayq.assignments import queue
    from relayq.cli import show

    if not (yes or dry_run or is_interactive()):
        raise click.UsageError("nobody is here to confirm it: --yes queues it, --dry-run doesn't")
    agent = "none" if agent == "-" else agent
    with client(starts=not dry_run, quiet=quiet) as relay:
        found = propose(
            relay.job,
            " ".join(words),
            host=host or "",
            agent=agent or "",
            sort=sort or "",
            private=private,
            router=_router(relay.config, router, private, quiet=quiet),
        )
        mode = (permission or found.proposal.permission).replace("-", "_")
        mode = mode or relay.config.mode_of(found.proposal.agent)
        if not as_json:
            click.echo("\n".join(_panel(found, cwd, mode)))
        if dry_run or not _goes_on(found, force=force, yes=yes):
            if as_json:
                show.print_json(_as_json(found, mode, None))
            ctx.exit(int(bool(found.blocks) and not force))
        asked: dict[str, Any] = {"cwd": cwd} if cwd else {}
        if found.proposal.sort == "agent":
            asked["permission"] = mode
        result = queue(relay.job, found, private=private, force=force, **asked)
    if as_json:
        show.print_json(_as_json(found, mode, result.id))
    else:
        click.echo(result.id)


def _goes_on(found: Assignment, *, force: bool, yes: bool) -> bool:
    """Whether it is to be queued; what is blocked is an error and no question."""
    if found.blocks and not force:
        raise RelayqError(inert(found.blocks[0]), hint="another --on, or --force")
    return yes or click.confirm("Queue it?", default=True, err=True)


def _panel(found: Assignment, cwd: str | None, mode: str) -> list[str]:
    proposal = found.proposal
    rows = [("Host", proposal.host or "any")]
    if proposal.sort == "agent":
        rows += [("Agent", f"{proposal.agent}, permission {mode}"), ("Type", "agent")]
        rows += [("Cwd", cwd or "a fresh directory")]
    else:
        rows += [("Type", "command"), ("Command", proposal.command)]
    rows += [("Reason", f"{'; '.join(proposal.reasons) or 'nothing speaks for another'}")]
    rows += [("By", found.by)]
    rows += [("Blocked", text) for text in found.blocks]
    rows += [("Warning", text) for text in found.warnings]
    return [f"  {label:<9}{inert(value)}" for label, value in rows]


def _as_json(found: Assignment, mode: str, id: str | None) -> dict[str, Any]:
    proposal = {**asdict(found.proposal), "permission": mode, "type": found.proposal.sort}
    del proposal["sort"]
    return {
        "id": id,
        **proposal,
        "by": found.by,
        "blocks": list(found.blocks),
        "warnings": list(found.warnings),
    }


def _router(
    config: Config, named: str | None, private: str | None, *, quiet: bool
) -> Router | None:
    """Return who is asked where the rules know nothing: an agent on this machine, or nobody."""
    from relayq.agents import adapters
    from relayq.cli import show

    if named in ("rules", "none"):
        return None
    agent = named or config.default_agent
    adapter = adapters.known(agent, adapters.load(config.adapters))
    kept = config.privacy.get(private or "")
    if kept is not None and kept.agents and agent not in kept.agents:
        # The description itself is private.
        return None
    can = adapter.schema and (adapter.is_http or shutil.which(adapter.command))
    if not can:
        if named is not None:
            raise RelayqError(f"{agent} can't choose from here", hint="--router rules")
        return None

    def ask(prompt: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        from relayq.cli.agentlocal import run_here

        if not quiet:
            show.remark(f"the rules don't know; asks {agent} here, permission read_only")
        asked = {"agent": agent, "prompt": prompt, "schema": schema, "permission": "read_only"}
        try:
            with redirect_stdout(io.StringIO()):
                answer, _ = run_here(config, asked, patience=_PATIENCE)
        except RelayqError as error:
            show.remark(f"{agent} couldn't say: {error.message}")
            return None
        if answer.error_class == "cancelled":
            raise click.Abort
        if isinstance(answer.structured, dict):
            return answer.structured
        show.remark(f"{agent} couldn't say: {inert(answer.message) or 'no answer of that form'}")
        return None

    return ask
