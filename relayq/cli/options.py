"""What commands share: options, and the way to the client."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relayq import clock
from relayq.model.jobs import ON_LOST, PRIORITIES, JobRecord
from relayq.parsing import duration, positive

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.config import Config

_Function = TypeVar("_Function", bound=Callable[..., Any])


def duration_option(text: str) -> float:
    """Return the seconds of an option's value, such as `5h`."""
    try:
        return float(positive(duration)(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from error


def _environment(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> dict[str, str] | None:
    """Return the variables as a mapping; a name alone takes the value that it has here."""
    env = {}
    for one in given:
        name, has_value, value = one.partition("=")
        if not name:
            raise click.BadParameter(f"{one!r} has no name", ctx, param)
        if not has_value and name not in os.environ:
            raise click.BadParameter(f"{name} isn't set here; give it as {name}=VALUE", ctx, param)
        env[name] = value if has_value else os.environ[name]
    return env or None


def _note_json(ctx: click.Context, param: click.Parameter, as_json: bool) -> bool:
    # The edge shows errors, and must know how.
    ctx.meta["relayq.json"] = as_json
    return as_json


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_note_json, help="Print one JSON value."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No remarks of relayq's own.")

_JOB_OPTIONS = (
    click.option("--on", "host", metavar="HOST", help="The host to run on (default: any)."),
    click.option("--cwd", metavar="DIR", help="Directory on the host (default: its home)."),
    click.option(
        "-e",
        "--env",
        multiple=True,
        metavar="K[=V]",
        callback=_environment,
        help="Set a variable; K alone takes the value from here.",
    ),
    click.option(
        "--timeout",
        type=duration_option,
        metavar="DURATION",
        help="Limit of its run time, such as 90s or 5h.",
    ),
    click.option("--name", metavar="TEXT", help="A name to recognise it by."),
    click.option(
        "--prio",
        "priority",
        type=click.Choice([*PRIORITIES, *map(str, range(1, 11))]),
        metavar="PRIORITY",
        help=f"{', '.join(PRIORITIES)}, or 1 to 10.",
    ),
    click.option("--retries", type=click.IntRange(0), help="Further attempts after a failure."),
    click.option(
        "--on-lost", type=click.Choice(ON_LOST), help="What to do when its host vanishes."
    ),
    click.option("--after", multiple=True, metavar="ID", help="Run after this job succeeded."),
    click.option("--wait-for-host", is_flag=True, help="Queue it for a host not known yet."),
    click.option("-d", "--detach", is_flag=True, help="Print the id and leave."),
    click.option("-s", "--shell", is_flag=True, help="Join the arguments to one shell line."),
    quiet_option,
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)


def job_options(function: _Function) -> _Function:
    """Add what `run` and `submit` take: the job's options and its command."""
    for add in reversed(_JOB_OPTIONS):
        function = add(function)
    return function


def command_line(command: tuple[str, ...], *, shell: bool) -> str | list[str]:
    """Return a shell line for one argument or on demand, else the program with its arguments."""
    if not command or not command[0].strip():
        raise click.UsageError("the command is empty; try: relayq run 'echo hello'")
    return " ".join(command) if shell or len(command) == 1 else list(command)


@contextmanager
def client(
    *, starts: bool = False, needs_worker: bool = False, quiet: bool = False
) -> Iterator[Relay]:
    """Connect to the fleet.

    On a machine without configuration a command that `starts` brings up what is missing, one that
    `needs_worker` only the worker of a broker that stands: who said `down` meant it.
    """
    from relayq import config
    from relayq.client import Relay

    def say(line: str) -> None:
        if not quiet:
            click.echo(f"relayq: {line}", err=True)

    url = None if starts else standing_broker(config.load())
    with Relay(url=None if needs_worker else url, say=say) as relay:
        yield relay


def standing_broker(config: Config) -> str | None:
    """Return the URL of the broker that stands; raise when nothing runs here.

    None when the private broker died and its worker goes on: then to start it is right.
    """
    from relayq import embedded
    from relayq.errors import BrokerUnavailable

    if config.broker_url is not None:
        return config.broker_url
    facts = embedded.running_broker(config)
    if facts is None and embedded.worker_pid(config) is None:
        raise BrokerUnavailable("nothing runs here", hint="relayq up, or relayq run 'echo hello'")
    return None if facts is None else facts.url


def broker_of(config: Config) -> str:
    """Return the URL of the configured broker, else of the private one; empty if it never ran."""
    from relayq import embedded

    return config.broker_url or embedded.broker_url(config) or ""


def address(url: str) -> str:
    """Return what of a broker's URL may be shown: neither its secrets nor redis://."""
    return re.sub(r"//[^/;]*@", "//", url).removeprefix("redis://").removesuffix("/0")


def is_interactive() -> bool:
    """Whether a person sits at this command."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ended(result: JobResult, deadline: float | None = None) -> JobRecord:
    """Wait for a job's end or a person's turn, up to an instant on the boot clock."""
    # An old end wakes nobody: only the record tells it at once.
    record = result.record
    if not record.state.is_waitable:
        return record
    return result.wait(None if deadline is None else max(0.0, deadline - clock.boottime()))


def is_offline(relay: Relay, name: str) -> bool:
    """Whether a host is known, and known to be away."""
    hosts = relay.session().store.hosts.list(online_within=relay.config.lease.length)
    return any(host.name == name and not host.is_online for host in hosts)
