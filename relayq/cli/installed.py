"""`status` and `logs` of `relayq worker` and `relayq serve`, as a service or in the background."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.installs import as_value, config_of, path_text, user_option
from relayq.cli.logfiles import follow_option, print_log, tail_option
from relayq.cli.options import complete, json_option
from relayq.cli.services import answer, load_config
from relayq.cli.texts import inert, number_of, span
from relayq.model.units import Role

if TYPE_CHECKING:
    from relayq.config import Config

#: What systemctl says of a program that doesn't run (LSB).
_NOT_RUNNING = 3


@click.command("status")
@user_option
@json_option
def worker_status(user: str | None, as_json: bool) -> None:
    """Show how this machine's worker and its service fare; exits with 3 when none runs."""
    from relayq import embedded
    from relayq.cli import left

    config = config_of(user)
    pid, running = embedded.worker_pid(config), left.running_here(config)
    jobs = f"{number_of(len(running), 'job')} here, {config.worker.max_concurrent} slots"
    rows = {
        "Worker": f"{config.worker.name}, pid {pid}, {jobs}" if pid else f"none runs, {jobs}",
        **service_row(config, Role.WORKER),
        "Log": path_text(_worker_log(config)),
    }
    value = {"name": config.worker.name, "pid": pid, "running": running}
    _print(rows, as_json, {"worker": value, "service": service_json(config, Role.WORKER)})
    if pid is None:
        raise click.exceptions.Exit(_NOT_RUNNING)


@click.command("status")
@user_option
@json_option
def serve_status(user: str | None, as_json: bool) -> None:
    """Show how the file service fares; exits with 3 when none runs."""
    from relayq import embedded

    config = config_of(user)
    pid = embedded.files_pid(config)
    hosts, port = embedded.files_place(config)
    place = f"{hosts[-1]}:{port}"
    rows = {
        "Files": f"{place}, pid {pid}" if pid else "none runs",
        **service_row(config, Role.SERVE),
        "Log": path_text(_files_log(config)),
    }
    value = {"address": place if pid else None, "pid": pid}
    _print(rows, as_json, {"files": value, "service": service_json(config, Role.SERVE)})
    if pid is None:
        raise click.exceptions.Exit(_NOT_RUNNING)


def _print(rows: dict[str, str], as_json: bool, value: dict[str, Any]) -> None:
    answer("\n".join(f"{label:<9}{text}" for label, text in rows.items()), as_json, value)


def service_row(config: Config, role: Role) -> dict[str, str]:
    """Return what a service's manager says of it, as a line of a status."""
    from relayq.host import services

    service, state = services.find(config, role), services.state(config, role)
    if service is None or state is None:
        return {"Service": f"none: it ends with this machine (relayq {role} install)"}
    words = [services.described(service).removeprefix("service "), state.word]
    if state.uptime is not None:
        words.append(f"up {span(state.uptime)}")
    if state.restarts:
        words.append(f"started again {number_of(state.restarts, 'time')}")
    if not state.is_enabled:
        words.append("NOT started at boot")
    if state.status:
        words.append(inert(state.status))
    return {"Service": ", ".join(words)}


def service_lines(config: Config, role: Role) -> list[str]:
    """Return the line of a service that is installed."""
    from relayq.host import services

    found = service_row(config, role) if services.find(config, role) is not None else {}
    return [f"{label:<9}{text}" for label, text in found.items()]


def service_json(config: Config, role: Role) -> dict[str, Any] | None:
    """Return a service and its state as JSON shows them, None if it isn't installed."""
    from relayq.host import services

    service, state = services.find(config, role), services.state(config, role)
    if service is None or state is None:
        return None
    return {
        **as_value(service),
        "state": state.word,
        "pid": state.pid,
        "uptime": state.uptime,
        "restarts": state.restarts,
        "enabled": state.is_enabled,
        "status": state.status,
    }


def _worker_log(config: Config) -> Path:
    """Return where the worker here wrote last: as a service into one file a day."""
    from relayq.host.daily import newest_log

    plain, daily = config.logging.file, newest_log(config.home / "logs")
    if daily is None or (plain.exists() and plain.stat().st_mtime > daily.stat().st_mtime):
        return plain
    return daily


def _files_log(config: Config) -> Path:
    from relayq import embedded

    return embedded.files_folder(config) / "serve.log"


def _config() -> Config:
    """Return this machine's configuration; in a job, which doesn't know the home, its worker's."""
    from relayq import config

    if "RELAYQ_HOME" not in os.environ and (report := os.environ.get("RELAYQ_REPORT")):
        # <home>/spool/<attempt>/report
        return config.load({**os.environ, "RELAYQ_HOME": str(Path(report).parents[2])})
    return load_config()


@click.command("logs")
@tail_option
@follow_option
@click.argument("host", required=False, shell_complete=complete("hosts"))
def worker_logs(tail: int, follow: bool, host: str | None) -> None:
    """Print what the worker of this machine logs, or of HOST, by a job there."""
    config = _config()
    if host is not None and config.host_called(host) != config.worker.name:
        from relayq.cli import root

        lines = ["relayq", "worker", "logs", "-n", str(tail), *(["-f"] if follow else [])]
        asked = ["run", "-q", "--on", host, "--name", "worker-logs", "--", *lines]
        code = root.main(asked, prog_name="relayq", standalone_mode=False)
        raise click.exceptions.Exit(code if isinstance(code, int) else 0)
    print_log(lambda: _worker_log(config), tail, follow, hint="relayq up")


@click.command("logs")
@tail_option
@follow_option
def serve_logs(tail: int, follow: bool) -> None:
    """Print what the file service of this machine logs."""
    config = load_config()
    print_log(lambda: _files_log(config), tail, follow, hint="relayq serve install")
