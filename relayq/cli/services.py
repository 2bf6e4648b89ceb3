"""This machine's worker and broker together: up, down; and the version."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import __version__
from relayq.cli.options import address, is_interactive, json_option
from relayq.cli.texts import harmless, number_of
from relayq.errors import RelayqError
from relayq.model.units import Role

if TYPE_CHECKING:
    from relayq.config import Config
    from relayq.embedded import BrokerFacts

port_option = click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="PORT", help="The broker's port."
)


def load_config() -> Config:
    """Return the configuration of this machine."""
    from relayq import config

    return config.load()


def remark(line: str) -> None:
    """Say a line beside the answer."""
    click.echo(f"relayq: {harmless(line)}", err=True)


@click.command()
@port_option
@json_option
def up(port: int | None, as_json: bool) -> None:
    """Start this machine's worker and, if no broker is configured, a private one."""
    from relayq import embedded

    config = load_config()
    if config.broker_url is not None:
        if port is not None:
            raise click.UsageError("--port is for a private broker, and another is configured")
        broker = {"address": address(config.broker_url), "private": False}
        line = f"{broker['address']} (configured)"
    else:
        facts = embedded.start_broker(config, port=port)
        broker, line = broker_json(facts), broker_line(facts)
    answer(f"broker  {line}", as_json)
    if config.broker_url is None:
        embedded.ensure(config, say=lambda _: None)
    pid = embedded.start_worker(config)
    files = start_files(config) if config.broker_url is None else None
    if files is not None:
        answer(f"files   {files['address']} (pid {files['pid']})", as_json)
    name, slots = config.worker.name, config.worker.max_concurrent
    worker = {"name": name, "pid": pid, "slots": slots}
    answer(
        f"worker  {name} (pid {pid}, {number_of(slots, 'slot')})",
        as_json,
        {"broker": broker, "worker": worker, "files": files},
    )


def start_files(config: Config) -> dict[str, Any] | None:
    """Start the file service and return it as JSON shows it; None where it isn't to run."""
    from relayq import embedded

    if not config.serve.start:
        return None
    if not embedded.can_serve_files():
        remark("files up to 256 KiB only: the file service needs pip install 'relayq[serve]'")
        return None
    pid = embedded.start_files(config)
    hosts, port = embedded.files_place(config)
    return {"address": f"{hosts[-1]}:{port}", "pid": pid}


def answer(line: str, as_json: bool, value: Mapping[str, Any] | None = None) -> None:
    """Print the line, or instead as JSON the value that it is a part of."""
    if not as_json:
        click.echo(line)
    elif value is not None:
        from relayq.cli import show

        show.print_json(value)


def broker_line(facts: BrokerFacts) -> str:
    """Return a private broker as a line shows it."""
    return f"{address(facts.url)} (private, redis {facts.version}, pid {facts.pid})"


def broker_json(facts: BrokerFacts) -> dict[str, Any]:
    """Return a private broker as JSON shows it."""
    shown = {"address": address(facts.url), "private": True}
    return {**shown, "redis_version": facts.version, "pid": facts.pid}


@click.command()
@click.option("--kill", is_flag=True, help="Cancel the jobs that run on this machine.")
@click.option("--wait", is_flag=True, help="Let them end first; nothing new is started.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask: as --kill, unless --wait is given.")
@json_option
def down(kill: bool, wait: bool, yes: bool, as_json: bool) -> None:
    """Stop this machine's worker, file service and private broker; nothing of them is left."""
    from relayq import embedded
    from relayq.cli import left
    from relayq.host import services

    if kill and wait:
        raise click.UsageError("--kill and --wait exclude each other")
    config = load_config()
    services.check_stoppable(config)
    kill = kill or (yes and not wait)
    if not kill and not wait and (running := left.running_here(config)):
        kill = _ask_to_kill(running)
        wait = not kill
    had_worker = embedded.stop_worker(config)
    if running := left.running_here(config):
        if not kill and not wait:
            # Claimed since the look above, by a worker that was about to stop.
            embedded.start_worker(config)
            raise _jobs_run(running)
        left.end(config, kill=kill, say=remark)
    had_files = embedded.stop_files(config)
    had_broker = config.broker_url is None and embedded.stop_broker(config)
    had = {"worker": had_worker, "file service": had_files, "private broker": had_broker}
    parts = [name for name, ran in had.items() if ran]
    line = f"stopped: {', '.join(parts)}" if parts else "nothing ran here"
    answer(line, as_json, {"stopped": parts})
    if not as_json and any(services.find(config, role) for role in Role):
        remark(
            "services are back at the next boot or by relayq up; relayq worker uninstall ends that"
        )


def _ask_to_kill(running: Sequence[str]) -> bool:
    """Ask a person what becomes of the running jobs: True to kill them, False to wait."""
    if not is_interactive():
        raise _jobs_run(running)
    jobs = number_of(len(running), "job")
    answer = click.prompt(
        f"{jobs} run here: kill them, wait for them, or leave all as it is",
        type=click.Choice(["kill", "wait", "leave"]),
        default="leave",
        err=True,
    )
    if answer == "leave":
        raise click.exceptions.Exit(1)
    return bool(answer == "kill")


def _jobs_run(running: Sequence[str]) -> RelayqError:
    shown = ", ".join(running[:3]) + (", ..." if len(running) > 3 else "")
    error = RelayqError(
        f"{number_of(len(running), 'job')} still on this machine: {shown}",
        hint="relayq down --wait, or relayq down --kill",
    )
    error.exit_code = 1
    return error


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print relayq's version."""
    from importlib import metadata

    python = platform.python_version()
    if as_json:
        from relayq.cli import show

        libraries = {name: metadata.version(name) for name in ("celery", "redis", "click")}
        show.print_json({"relayq": __version__, "python": python, **libraries})
    else:
        click.echo(f"relayq {__version__} (python {python})")
