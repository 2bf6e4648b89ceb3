"""`relayq worker upgrade`, `relayq hosts upgrade`: another version of relayq, while jobs run on."""

from __future__ import annotations

import json
import os.path
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import fleet
from relayq.cli.options import client, complete, json_option
from relayq.cli.services import answer, load_config, remark
from relayq.cli.texts import inert, number_of, span
from relayq.errors import JobError, NoSuchHost, RelayqError, WaitTimeout
from relayq.model.output import STDOUT, only

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.model.hosts import Host

#: How long an installation may take, and a worker to be back with it.
_INSTALLING, _BACK = 1800.0, 90.0
_source_option = click.option(
    "--source",
    metavar="WHERE",
    help="A Git URL, a wheel's URL or path, a checkout, a directory of wheels, relayq==1.2.",
)


@click.command("upgrade")
@_source_option
@click.option("--dry-run", is_flag=True, help="Only say which commands would be run.")
@json_option
def upgrade_worker(source: str | None, dry_run: bool, as_json: bool) -> None:
    """Put a newer relayq in the place of this one, and have the worker run that.

    It comes from where the installer took this one, or from --source. Jobs that run go on.
    """
    from relayq.host import upgrading
    from relayq.model.installs import shown

    if source is not None and os.path.exists(source):
        source = os.path.abspath(source)
    config = load_config()
    install = upgrading.install_of(config)
    if dry_run:
        lines = shown(upgrading.planned(install, source))
        answer("\n".join(lines), as_json, {"commands": lines})
        return
    done = upgrading.upgrade(config, install, source, say=remark)
    restarted = ", ".join(done.restarted) or "nothing ran here"
    line = f"relayq {done.before} -> {done.after}  restarted: {restarted}"
    answer(line, as_json, asdict(done))


@dataclass(slots=True)
class _Turn:
    """The upgrade of one host."""

    host: Host
    job: JobResult
    began: float = field(default_factory=clock.boottime)
    after: str = ""
    error: str = ""
    took: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        return {
            "host": self.host.name,
            "job": self.job.id,
            "ok": not self.error,
            "before": self.host.version,
            "after": self.after or None,
            "took": None if self.took is None else round(self.took, 1),
            "error": self.error or None,
        }

    @property
    def line(self) -> str:
        """It as a person reads it."""
        if self.error:
            return f"{self.host.name}  FAILED: {self.error}"
        change = f"{self.host.version} -> {self.after}"
        if self.host.version == self.after:
            change = f"{self.after}, anew"
        on = f"; {number_of(self.host.active, 'job')} went on" if self.host.active else ""
        return f"{self.host.name}  {change}  {span(self.took or 0)}{on}"


@click.command("upgrade")
@click.argument("names", metavar="[HOST]...", nargs=-1, shell_complete=complete("hosts"))
@_source_option
@json_option
@click.pass_context
def upgrade_hosts(
    ctx: click.Context, names: tuple[str, ...], source: str | None, as_json: bool
) -> None:
    """Upgrade relayq on these hosts, or on all that are online, and wait until they are back.

    Each upgrades itself from where its installer took it, or from --source, which each must reach.
    No job is waited for, and none ends: the new workers take over what runs.

    Example: relayq hosts upgrade --source git+https://example.org/relayq@v0.2
    """
    from relayq.cli import show

    with client() as relay:
        chosen = _chosen(relay, names)
        turns = [_started(relay, host, source) for host in chosen]
        for turn in turns:
            _watch(relay, turn)
            if not as_json:
                click.echo(turn.line)
    if as_json:
        show.print_json({"hosts": [turn.as_json() for turn in turns]})
    ctx.exit(int(any(turn.error for turn in turns)))


def _chosen(relay: Relay, names: Sequence[str]) -> list[Host]:
    """Return the hosts to upgrade; who is away is said, or refused if it was named."""
    if names:
        named = [fleet.find(relay, name) for name in dict.fromkeys(names)]
        if away := [host.name for host in named if not host.is_online]:
            raise NoSuchHost(f"{', '.join(away)} isn't online", hint="relayq hosts")
        return named
    found = fleet.hosts_of(relay)
    for host in found:
        if not host.is_online:
            remark(f"{host.name} is offline: relayq hosts upgrade {host.name}, once it is back")
    online = [host for host in found if host.is_online]
    if not online:
        raise NoSuchHost("no host is online", hint="relayq hosts")
    return online


def _started(relay: Relay, host: Host, source: str | None) -> _Turn:
    """Queue a host's upgrade, and have it claimed even if all of its slots are busy."""
    job = relay.job.submit(
        "upgrade",
        source=source,
        host=host.name,
        priority="urgent",
        timeout=_INSTALLING,
        on_lost="fail",
        name="relayq upgrade",
    )
    relay.session().store.hosts.ask(host.name, {"op": "beyond"})
    if not host.takes_work:
        state, reason = host.standing
        remark(f"{host.name} is {state}{f' ({reason})' if reason else ''}: it waits for that")
    return _Turn(host, job)


def _watch(relay: Relay, turn: _Turn) -> None:
    """Wait until a host is back with the new version, or say why not."""
    try:
        said = turn.job.get(timeout=_INSTALLING + _BACK)
        turn.after = str(json.loads(str(said).strip().splitlines()[-1])["after"])
    except WaitTimeout:
        turn.error = f"still not done: relayq logs {turn.job.id}"
        return
    except JobError as error:
        turn.error = f"{_why(turn.job) or error.message} (relayq logs {turn.job.id})"
        return
    except (ValueError, KeyError, IndexError, TypeError):
        turn.error = f"what it answered can't be read: relayq logs {turn.job.id}"
        return
    # Its end came by the new worker: it waited until the old one was gone.
    now = fleet.find(relay, turn.host.name)
    if now.version != turn.after:
        turn.error = f"{turn.after} is installed, and its worker is {now.version} still"
    turn.took = clock.boottime() - turn.began


def _why(job: JobResult) -> str:
    """Return what relayq said there: the message of its error."""
    try:
        lines = only(job.logs(), STDOUT).decode(errors="replace").splitlines()
    except RelayqError:
        return ""
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError, IndexError):
            return inert(str(json.loads(line)["error"]["message"]))
    return ""
