"""`install`, `uninstall` and `restart` of `relayq worker`, `broker` and `serve`: services."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.broker import start_options
from relayq.cli.options import address, json_option
from relayq.cli.services import answer, broker_json, broker_line, load_config, remark
from relayq.cli.texts import number_of
from relayq.errors import RelayqError
from relayq.model.units import Role

if TYPE_CHECKING:
    from relayq.config import Config
    from relayq.host.services import Installed

user_option = click.option(
    "--user", metavar="NAME", help="Whom the service of the whole machine runs as; with sudo, you."
)


def _install_options(command: Callable[..., Any]) -> Callable[..., Any]:
    system = click.option(
        "--system", is_flag=True, help="One of the whole machine, and not of you; needs root."
    )
    dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be written.")
    return system(user_option(dry_run(json_option(command))))


def config_of(user: str | None) -> Config:
    """Return the configuration of a person's home, as root; else of this one's."""
    if user is None:
        return load_config()
    import pwd

    from relayq import config

    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise RelayqError(f"there is no user {user} here", hint="--user NAME") from None
    return config.load({**os.environ, "HOME": account.pw_dir})


def _user(system: bool, user: str | None) -> str | None:
    """Return whom a service of the machine is to run as, None for oneself."""
    return user or (os.environ.get("SUDO_USER") if system and os.geteuid() == 0 else None)


@click.command("install")
@_install_options
@click.option("--allow-sudo", is_flag=True, help="Leave out what keeps its jobs from using sudo.")
@click.option("--efficiency-cores", is_flag=True, help="On a Mac: keep to the slow cores.")
def worker_install(
    system: bool,
    user: str | None,
    dry_run: bool,
    as_json: bool,
    allow_sudo: bool,
    efficiency_cores: bool,
) -> None:
    """Have this machine's worker run from boot on, as a service of yours.

    It starts at once, and takes over from one in the background. Done again it writes all anew.
    Jobs that run go on, now and whenever it is restarted.
    """
    from relayq.host import services

    user = _user(system, user)
    config = config_of(user)
    own: dict[str, Any] = {"may_sudo": allow_sudo, "efficiency_cores": efficiency_cores}
    if dry_run:
        _print_plan(config, Role.WORKER, system=system, user=user, **own)
        return
    service = services.install(
        config, Role.WORKER, system=system, user=user, prepare=lambda: _check_broker(config), **own
    )
    worker = {"name": config.worker.name, "slots": config.worker.max_concurrent}
    slots = number_of(config.worker.max_concurrent, "slot")
    line = f"worker  {config.worker.name} ({slots})  {services.described(service)}"
    answer(line, as_json, {"worker": worker, "service": as_value(service)})
    if config.broker_url is None and services.find(config, Role.BROKER) is None:
        remark("the broker here is no service yet: relayq broker install")


def _check_broker(config: Config) -> None:
    """Refuse a worker that would start no broker of its own, and be started again for ever."""
    from relayq import embedded

    if config.broker_url is None and embedded.running_broker(config) is None:
        embedded.find_redis_server(os.environ)


def _print_plan(config: Config, role: Role, **wanted: Any) -> None:
    from relayq.host.serviceplans import Wanted, plan

    made = plan(config, role, Wanted(**wanted))
    click.echo(f"# {made.path}\n{made.text.decode()}", nl=False)


def as_value(service: Installed) -> dict[str, Any]:
    """Return an installed service as JSON shows it."""
    return {
        "name": service.name,
        "manager": service.by,
        "domain": service.domain,
        "file": service.path,
        "user": service.user,
    }


@click.command("install")
@_install_options
@start_options
def broker_install(
    system: bool,
    user: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Have a broker, and the file service beside it, run from boot on as services of yours.

    What is asked for is remembered. A broker in the background becomes the service, with its jobs.
    """
    from relayq import embedded
    from relayq.host import services
    from relayq.host.firstbroker import make_broker

    user = _user(system, user)
    config = config_of(user)
    if config.broker_url is not None:
        raise RelayqError(
            f"the broker of this machine is {address(config.broker_url)}, by its configuration",
            hint=f"{config.home}/config.yml without broker: gives it one of its own",
        )
    roles = [Role.BROKER, *([Role.SERVE] if _has_files(config) else [])]
    if dry_run:
        for role in roles:
            _print_plan(config, role, system=system, user=user)
        return
    flags = _flags(options)
    before = {Role.BROKER: lambda: make_broker(config, user=user, flags=flags)}
    installed = [
        services.install(
            config, role, system=system, user=user, prepare=before.get(role, lambda: None)
        )
        for role in roles
    ]
    _tell_rivals()
    facts = embedded.start_broker(config)
    lines = [f"broker  {broker_line(facts)}", *map(services.described, installed)]
    value = {"broker": broker_json(facts), "services": list(map(as_value, installed))}
    answer("\n  ".join(lines), as_json, value)
    if not as_json:
        remark("relayq broker token prints what the next machine needs to join")


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Return the options of `broker start` as they may be typed again."""
    words: list[str] = []
    for param in click.get_current_context().command.params:
        value = options.get(param.name or "")
        if isinstance(value, bool):
            words.append(param.opts[0] if value else param.secondary_opts[0])
        elif isinstance(value, (list, tuple)):
            words += [word for one in value for word in (param.opts[0], str(one))]
        elif value is not None:
            words += [param.opts[0], str(value)]
    return words


def _has_files(config: Config) -> bool:
    from relayq import embedded

    if config.serve.start and not embedded.can_serve_files():
        remark("files up to 256 KiB only: the file service needs pip install 'relayq[serve]'")
    return config.serve.start and embedded.can_serve_files()


def _tell_rivals() -> None:
    """Say what else here starts or stops Redis: two managers of one Redis stop each other's."""
    from relayq.doctor import managers
    from relayq.embedded.probes import machine_answers

    found = managers.managers(machine_answers())
    for finding in managers.examine_managers("here", found, is_private=True):
        remark(f"{finding.text}: {finding.fix}")


@click.command("install")
@_install_options
def serve_install(system: bool, user: str | None, dry_run: bool, as_json: bool) -> None:
    """Have the file service run from boot on, as a service of yours."""
    from relayq import embedded
    from relayq.host import services

    user = _user(system, user)
    config = config_of(user)
    if not embedded.can_serve_files():
        raise RelayqError(
            "the file service isn't installed here", hint="pip install 'relayq[serve]'"
        )
    if dry_run:
        _print_plan(config, Role.SERVE, system=system, user=user)
        return
    service = services.install(config, Role.SERVE, system=system, user=user)
    hosts, port = embedded.files_place(config)
    place = f"{hosts[-1]}:{port}"
    value = {"files": {"address": place}, "service": as_value(service)}
    answer(f"files   {place}  {services.described(service)}", as_json, value)


def _uninstall(user: str | None, as_json: bool, *roles: Role) -> None:
    """Remove services, the last installed first."""
    from relayq.cli import left
    from relayq.host import services

    config = config_of(user or os.environ.get("SUDO_USER"))
    running = left.running_here(config)
    removed = [
        role.value
        for role in roles
        if services.uninstall(config, role, may_stop_manager=not running)
    ]
    line = f"uninstalled: {', '.join(removed)}" if removed else "no service of these was installed"
    if Role.WORKER in roles and running:
        line += f"; {number_of(len(running), 'job')} left running (relayq up takes over)"
    answer(line, as_json, {"uninstalled": removed, "running": running})


@click.command("uninstall")
@user_option
@json_option
def worker_uninstall(user: str | None, as_json: bool) -> None:
    """Remove the worker's service; its jobs go on, and what it knows stays."""
    _uninstall(user, as_json, Role.WORKER)


@click.command("uninstall")
@user_option
@json_option
def broker_uninstall(user: str | None, as_json: bool) -> None:
    """Remove the services of broker and file service; their data stay."""
    _uninstall(user, as_json, Role.SERVE, Role.BROKER)


@click.command("uninstall")
@user_option
@json_option
def serve_uninstall(user: str | None, as_json: bool) -> None:
    """Remove the file service's service; its files stay."""
    _uninstall(user, as_json, Role.SERVE)


def _restart(role: Role, user: str | None, as_json: bool) -> None:
    from relayq.host import services

    config = config_of(user)
    if services.find(config, role) is not None or not _restart_in_background(config, role):
        services.restart(config, role)
    answer(f"restarted: {role}", as_json, {"restarted": role.value})


def _restart_in_background(config: Config, role: Role) -> bool:
    """Stop and start what runs here and is no service; False if it doesn't run."""
    from relayq import embedded

    programs: dict[Role, tuple[Callable[[Config], bool], Callable[[Config], object]]] = {
        Role.WORKER: (embedded.stop_worker, embedded.start_worker),
        Role.BROKER: (embedded.stop_broker, embedded.start_broker),
        Role.SERVE: (embedded.stop_files, embedded.start_files),
    }
    stop, start = programs[role]
    had_one = stop(config)
    if had_one:
        start(config)
    return had_one


@click.command("restart")
@user_option
@json_option
def worker_restart(user: str | None, as_json: bool) -> None:
    """Start the worker anew, as a service or in the background; jobs that run go on meanwhile."""
    _restart(Role.WORKER, user, as_json)


@click.command("restart")
@user_option
@json_option
def broker_restart(user: str | None, as_json: bool) -> None:
    """Start the broker anew; nothing that was answered is lost."""
    _restart(Role.BROKER, user, as_json)


@click.command("restart")
@user_option
@json_option
def serve_restart(user: str | None, as_json: bool) -> None:
    """Start the file service anew; what is being sent goes on after that."""
    _restart(Role.SERVE, user, as_json)


def path_text(path: Path) -> str:
    """Return a path as a person types it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
