"""`relayq broker`: start, stop, watch and back up the broker of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.groups import Group
from relayq.cli.logfiles import follow_option, print_log, tail_option
from relayq.cli.options import address, broker_of, json_option
from relayq.cli.services import (
    answer,
    broker_json,
    broker_line,
    load_config,
    port_option,
    remark,
    start_files,
)
from relayq.cli.texts import rfc3339, span
from relayq.errors import BrokerUnavailable
from relayq.parsing import size as size_of
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.config import Config
    from relayq.store import Store
    from relayq.store.server import Server

_NO_BROKER = 4


def _size_option(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else size_of(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from error


#: What a start asks for, and an installation; the keywords of `embedded.start_broker`.
_OPTIONS = (
    click.option("--listen", metavar="ADDRESS", help="Also listen here, for other machines."),
    port_option,
    click.option(
        "--fsync",
        type=click.Choice(["always", "everysec"]),
        help="everysec: faster on slow disks; a crash of the machine may cost the last second.",
    ),
    click.option(
        "--ballast",
        metavar="SIZE",
        callback=_size_option,
        help="Disk to give up when it is full, so that the broker can come back (64MB; 0: none).",
    ),
    click.option(
        "--tls/--no-tls",
        default=None,
        help="Speak TLS only, with certificates of its own; then it may listen on 0.0.0.0, too.",
    ),
    click.option(
        "--tls-name",
        "tls_names",
        multiple=True,
        metavar="NAME",
        callback=lambda ctx, param, names: list(names) or None,
        help="A further name for its certificate, by which others call this machine; repeatable.",
    ),
)


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `broker start`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


#: Commands of the group that live elsewhere.
_ELSEWHERE = {
    "install": "relayq.cli.installs:broker_install",
    "uninstall": "relayq.cli.installs:broker_uninstall",
    "restart": "relayq.cli.installs:broker_restart",
    "sentinels": "relayq.cli.sentinels:sentinels",
    "token": "relayq.cli.tokens:token",
    "users": "relayq.cli.users:users",
}


@click.group(cls=Group, elsewhere=_ELSEWHERE)
def broker() -> None:
    """Start, stop, watch and back up a broker, also as a service."""


@broker.command("start")
@start_options
@click.option("--foreground", is_flag=True, help="Be the broker, for a service manager.")
@click.option("--service", "is_service", is_flag=True, hidden=True)
@json_option
def broker_start(foreground: bool, is_service: bool, as_json: bool, **options: Any) -> None:
    """Start a broker in the background and say how other machines reach it.

    What is asked for is remembered for later starts.
    """
    from relayq import embedded, signing

    config = load_config()
    if foreground:
        signing.load_key(config.fleet_key_path)
        embedded.become_broker(config, embedded.Wishes(**options), takes_over=is_service)
    facts = embedded.start_broker(config, **options)
    embedded.renew_rules(config)
    signing.load_key(config.fleet_key_path)
    files = start_files(config)
    listen = options["listen"]
    if as_json:
        value = {"broker": broker_json(facts), "listen": listen, "files": files}
        answer("", as_json, value)
        return
    click.echo(f"broker  {broker_line(facts)}")
    if files is not None:
        click.echo(f"files   {files['address']} (pid {files['pid']})")
    if listen is None and embedded.broker_address(config) == "127.0.0.1":
        click.echo("Other machines reach it only after: relayq broker start --listen ADDRESS")
    else:
        click.echo("For each other machine: relayq broker token, whose answer is the line to type")


@broker.command("stop")
@json_option
def broker_stop(as_json: bool) -> None:
    """Stop this machine's broker and file service; their data stay."""
    from relayq import embedded

    config = load_config()
    had_files = embedded.stop_files(config)
    had_one = embedded.stop_broker(config)
    parts = [name for name, ran in (("broker", had_one), ("file service", had_files)) if ran]
    line = f"stopped: {', '.join(parts)}" if parts else "no broker ran here"
    answer(line, as_json, {"stopped": parts})


@broker.command("status")
@json_option
def broker_status(as_json: bool) -> None:
    """Show how the broker fares; exits with 4 when it doesn't answer."""
    from relayq.cli import show
    from relayq.cli.installed import service_json, service_lines
    from relayq.model.units import Role

    config = load_config()
    try:
        store = _store(config)
        server, settings = store.server.fetch(), store.server.settings()
        latency, jobs = store.server.clock().latency, store.jobs.count()
    except BrokerUnavailable as error:
        error.exit_code = _NO_BROKER
        raise
    facts = {
        "address": address(broker_of(config)),
        "private": config.broker_url is None,
        "redis_version": server.version,
        "pid": server.pid,
        "uptime": server.uptime,
        "latency": latency,
        "memory": server.memory,
        "memory_limit": server.memory_limit,
        "clients": server.clients,
        "aof": server.has_aof,
        "fsync": settings.get("appendfsync"),
        "aof_ok": server.is_aof_ok,
        "aof_size": server.aof_bytes,
        "saved_at": rfc3339(server.saved_at) if server.saved_at else None,
        "disk_free": _disk_free(config),
        "jobs": {state.value: count for state, count in jobs.items()},
    }
    if as_json:
        show.print_json({"broker": facts, "service": service_json(config, Role.BROKER)})
    else:
        click.echo("\n".join([*_lines(facts, server), *service_lines(config, Role.BROKER)]))


def _lines(facts: dict[str, Any], server: Server) -> list[str]:
    """Return what `broker status` says to a person."""
    limit = f" of {size_text(server.memory_limit)}" if server.memory_limit else ", no limit"
    aof = f"append-only file {size_text(server.aof_bytes)}, fsync {facts['fsync'] or '?'}"
    written = "last write ok" if server.is_aof_ok else "the last write FAILED (relayq doctor)"
    jobs = ", ".join(f"{count} {state}" for state, count in facts["jobs"].items() if count)
    rows = {
        "Broker": f"{facts['address']}{' (private)' if facts['private'] else ''}",
        "Redis": f"{server.version}, pid {server.pid}, up {span(server.uptime)}, "
        f"answers in {facts['latency'] * 1000:.1f} ms",
        "Memory": f"{size_text(server.memory)}{limit}",
        "Data": f"{aof}, {written}" if server.has_aof else "NOT kept: no append-only file",
        "Clients": str(server.clients),
        "Jobs": jobs or "none",
    }
    if facts["disk_free"] is not None:
        rows["Disk"] = f"{size_text(facts['disk_free'])} free"
    return [f"{label:<9}{text}" for label, text in rows.items()]


def _disk_free(config: Config) -> int | None:
    """Return the free bytes where the private broker's data are, None if they are elsewhere."""
    import shutil

    from relayq import embedded

    folder = embedded.broker_folder(config)
    if config.broker_url is not None or not folder.exists():
        return None
    return shutil.disk_usage(folder).free


def _store(config: Config) -> Store:
    """Connect to the configured broker, or as its owner to the private one, which must run."""
    from relayq import embedded
    from relayq.store import connect

    url = config.broker_url
    if url is None:
        if embedded.running_broker(config) is None:
            raise BrokerUnavailable("no broker runs here", hint="relayq broker start")
        url = embedded.admin_url(config)
    return connect(url)


@broker.command("logs")
@tail_option
@follow_option
def broker_logs(tail: int, follow: bool) -> None:
    """Print what the private broker's Redis logs."""
    from relayq import embedded

    path = embedded.broker_folder(load_config()) / "redis.log"
    if not path.exists():
        raise BrokerUnavailable(f"no broker has run here: {path} is missing", hint="relayq up")
    print_log(lambda: path, tail, follow, hint="relayq up")


@broker.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
def broker_backup(file: Path, force: bool, as_json: bool) -> None:
    """Write a copy of all jobs into FILE, of one instant, while the broker goes on.

    The fleet's key isn't in it: keep ~/.relayq/fleet.key as well, and elsewhere.
    """
    if file.exists() and not force:
        raise click.UsageError(f"{file} is there already (--force replaces it)")
    written = _store(load_config()).back_up(file)
    value = {"file": str(file.absolute()), "size": written}
    answer(f"{file}  {size_text(written)} (relayq broker restore)", as_json, value)


@broker.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def broker_restore(file: Path, as_json: bool) -> None:
    """Start the private broker with the jobs of a backup; it must be stopped.

    The data that it has are put aside. What ended since the backup is run again.
    """
    from relayq import embedded

    config = load_config()
    facts, aside = embedded.restore_broker(config, file)
    start_files(config)
    if aside is not None and not as_json:
        remark(f"the data from before are in {aside}")
    value = {"broker": broker_json(facts), "aside": None if aside is None else str(aside)}
    answer(f"broker  {broker_line(facts)}", as_json, value)
