"""What commands share: options, and the way to the client."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.model.jobs import JobRecord
from relayq.parsing import duration, positive

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.config import Config
    from relayq.model.hosts import Host


def duration_option(text: str) -> float:
    """Return the seconds of an option's value, such as `5h`."""
    try:
        return float(positive(duration)(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from error


def size_option(parse: Callable[[str], int]) -> Callable[[str], int]:
    """Return the type of an option whose value is a size, such as `2GB`."""

    def read(text: str) -> int:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{error}, got {text!r}") from error

    return read


def wants_json() -> bool:
    """Whether the environment asks every command for JSON."""
    return os.environ.get("RELAYQ_OUTPUT") == "json"


def _note_json(ctx: click.Context, param: click.Parameter, as_json: bool) -> bool:
    as_json = as_json or bool(ctx.meta.get("relayq.json")) or wants_json()
    # The edge shows errors, and must know how.
    ctx.meta["relayq.json"] = as_json
    return as_json


def complete(*what: str) -> Callable[..., Any]:
    """Return a completer: for a parameter's first word, its second, ..., and all that follow.

    Each word is the name of a completer in `relayq.cli.completion`.
    """

    def completer(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        from relayq.cli import completion

        typed = ctx.params.get(param.name or "")
        position = len(typed) if isinstance(typed, tuple) else 0
        found = getattr(completion, what[min(position, len(what) - 1)])
        return found(ctx, param, incomplete)

    return completer


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_note_json,
    help="Print one JSON value (docs/json.md).",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No remarks of relayq's own.")


@contextmanager
def client(
    *, starts: bool = False, needs_worker: bool = False, quiet: bool = False
) -> Iterator[Relay]:
    """Connect to the fleet.

    On a machine without configuration a command that `starts` brings up what is missing, one that
    `needs_worker` only the worker of a broker that stands: who said `down` meant it.
    """
    from relayq import config
    from relayq.cli.completion import remembered
    from relayq.cli.texts import harmless
    from relayq.cli.transfers import Shown
    from relayq.client import Relay
    from relayq.inside import is_inside

    shown = Shown(quiet=quiet)

    def say(line: str) -> None:
        if not quiet:
            shown.clear()
            click.echo(f"relayq: {harmless(line)}", err=True)

    if is_inside():
        with Relay(say=say, shows=shown, is_brief=True) as relay:
            yield relay
        return
    url = None if starts else standing_broker(config.load())
    made = Relay(url=None if needs_worker else url, say=say, shows=shown, is_brief=True)
    with made as relay, remembered(relay):
        yield relay


def standing_broker(config: Config) -> str | None:
    """Return the URL of the broker that stands; raise when nothing runs here.

    None when the private broker died and its worker goes on: then to start it is right.
    """
    if config.broker_url is not None:
        return config.broker_url
    from relayq import embedded
    from relayq.errors import BrokerUnavailable

    facts = embedded.running_broker(config)
    if facts is None and embedded.worker_pid(config) is None:
        raise BrokerUnavailable("nothing runs here", hint="relayq up, or relayq run 'echo hello'")
    return None if facts is None else facts.url


def broker_of(config: Config) -> str:
    """Return the URL of the configured broker, else of the private one; empty if it never ran."""
    if config.broker_url is not None:
        return config.broker_url
    from relayq import embedded

    return embedded.broker_url(config) or ""


def address(url: str) -> str:
    """Return what of a broker's URL may be shown: neither secrets nor files, nor redis://."""
    if url.startswith("sentinel:"):
        url = url.partition("?")[0]
    shown = re.sub(r"//[^/;]*@|[?&]ssl_\w+=[^&]*", lambda m: "//" * (m[0][0] == "/"), url)
    return shown.removeprefix("redis://").removesuffix("/0")


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


def host_named(relay: Relay, name: str) -> Host | None:
    """Return a host, None for one that nobody knows."""
    hosts = relay.session().store.hosts.list(online_within=relay.config.lease.length)
    return next((host for host in hosts if host.name == name), None)


def is_offline(relay: Relay, name: str) -> bool:
    """Whether a host is known, and known to be away."""
    host = host_named(relay, name)
    return host is not None and not host.is_online
