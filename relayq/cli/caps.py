"""`relayq caps`: what hosts can do, what they could be taught, and teaching them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import catalogue, clock
from relayq.cli import fleet
from relayq.cli.options import client, complete, is_interactive, json_option
from relayq.errors import Conflict, RelayqError

if TYPE_CHECKING:
    from relayq.catalogue import Catalogue, Entry
    from relayq.client import Relay
    from relayq.model.hosts import Host

#: How long a worker may take to look at itself and to say what it found.
_NOTICES = 20.0
_CHECKS = 120.0
_host_argument = click.argument("name", metavar="HOST", shell_complete=complete("hosts"))
_category_option = click.option("--category", metavar="NAME", help="Only this one, such as media.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def caps(ctx: click.Context, as_json: bool) -> None:
    """Show what hosts can do, and teach them more.

    Without a command it lists that, as `relayq caps ls`. What a worker finds by itself, and how it
    is declared on the host: docs/hosts.md.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(ls, name=None, verify=False, as_json=as_json)


@caps.command()
@click.argument("name", metavar="[HOST]", required=False, shell_complete=complete("hosts"))
@click.option("--verify", is_flag=True, help="Look on HOST now, by a job.")
@json_option
def ls(name: str | None, verify: bool, as_json: bool) -> None:
    """List what each host can do, by category; of one host with --verify, whether it's true.

    Example: relayq caps ls mini --verify
    """
    from relayq.cli import show, tables

    if verify and name is None:
        raise click.UsageError("--verify takes a host: relayq caps ls HOST --verify")
    with client(needs_worker=verify) as relay:
        known = catalogue.load(relay.config.home)
        hosts = fleet.hosts_of(relay) if name is None else [fleet.find(relay, name)]
        if verify:
            rows = _verified(relay, hosts[0], known)
            if as_json:
                show.print_json({"host": hosts[0].name, "capabilities": rows})
            else:
                tables.table(
                    ("CAPABILITY", "SAID", "FOUND", "DO"),
                    [
                        [r["name"], *map(_yes, (r["said"], r["found"])), r["next"] or "-"]
                        for r in rows
                    ],
                )
            return
    sorted_out = {host.name: _by_category(host, known) for host in hosts}
    if as_json:
        show.print_json({"hosts": sorted_out})
        return
    tables.table(
        ("HOST", "CATEGORY", "CAPABILITIES"),
        [
            [host, category, " ".join(words)]
            for host, categories in sorted_out.items()
            for category, words in categories.items()
        ],
    )


@caps.command()
@_category_option
@json_option
def available(category: str | None, as_json: bool) -> None:
    """List the catalogue, and which hosts have what of it.

    Your own entries, and changes of these, stand in ~/.relayq/caps.yml.

    Example: relayq caps available --category media
    """
    from relayq.cli import show, tables

    with client() as relay:
        entries = catalogue.load(relay.config.home).of(category)
        hosts = fleet.hosts_of(relay)
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "category": entry.category,
            "about": entry.about,
            "hosts": [host.name for host in hosts if entry.name in host.capabilities],
            "installs_on": [os for os in ("linux", "darwin") if entry.recipe(os)],
        }
        for entry in entries
    ]
    if as_json:
        show.print_json({"available": rows})
        return
    tables.table(
        ("CAPABILITY", "CATEGORY", "ON", "WHAT IT IS"),
        [[r["name"], r["category"], ",".join(r["hosts"]) or "-", r["about"]] for r in rows],
    )


@caps.command()
@_host_argument
@click.argument("words", metavar="CAPABILITY...", nargs=-1, required=True)
@json_option
def add(name: str, words: tuple[str, ...], as_json: bool) -> None:
    """Say that HOST can do what its worker doesn't find by itself.

    Kept by the broker, whether or not the host is online; it takes jobs that need it from now on.

    Example: relayq caps add mini ios_build
    """
    _declare(name, words, "+", as_json=as_json)


@caps.command()
@_host_argument
@click.argument("words", metavar="CAPABILITY...", nargs=-1, required=True)
@json_option
def rm(name: str, words: tuple[str, ...], as_json: bool) -> None:
    """Have HOST not do something, though its worker finds it; or take back what was added.

    Example: relayq caps rm laptop docker
    """
    _declare(name, words, "-", as_json=as_json)


def _declare(name: str, words: Sequence[str], sign: str, *, as_json: bool) -> None:
    from relayq.cli import show
    from relayq.parsing import capability

    for word in words:
        try:
            capability(word)
        except ValueError as error:
            raise click.UsageError(f"{error}, got {word}") from error
    with client() as relay:
        host = _told(relay, fleet.find(relay, name), words, sign)
    if as_json:
        show.print_json({"host": host.name, "capabilities": list(host.capabilities)})
    else:
        has = "can now" if sign == "+" else "takes no more jobs that need"
        click.echo(f"{host.name}  {has}: {', '.join(words)}")


def _told(relay: Relay, host: Host, words: Iterable[str], sign: str) -> Host:
    """Have the fleet say of a host that it can do something, or can't."""
    hosts = relay.session().store.hosts
    # What the worker itself says needs no word of the fleet's.
    hosts.declare(host.name, [f"={word}" for word in words])
    own = fleet.find(relay, host.name).capabilities
    if changes := [f"{sign}{word}" for word in words if (word in own) != (sign == "+")]:
        hosts.declare(host.name, changes)
    if host.is_online:
        hosts.ask(host.name, {"op": "wake"})
    return fleet.find(relay, host.name)


@caps.command()
@_host_argument
@click.argument("word", metavar="CAPABILITY")
@click.option("-y", "--yes", is_flag=True, help="Without asking.")
@click.option("--dry-run", is_flag=True, help="Only print what would be run.")
@click.pass_context
def install(ctx: click.Context, name: str, word: str, yes: bool, dry_run: bool) -> None:
    """Install something of the catalogue on HOST, by a job there, and see whether it is there then.

    The job runs as the worker's user; what needs root needs sudo without a password.

    Example: relayq caps install pi4 ffmpeg
    """
    from relayq.cli import output, show

    with client(needs_worker=not dry_run) as relay:
        host = fleet.find(relay, name)
        entry = catalogue.load(relay.config.home).find(word)
        line = _line(host, entry)
        if dry_run:
            click.echo(line)
            return
        if not host.is_online:
            raise Conflict(f"{host.name} is not online", hint="relayq hosts")
        show.remark(f"on {host.name}: {line}")
        if not yes and not is_interactive():
            raise Conflict("nobody is there to agree", hint=f"relayq caps install -y {name} {word}")
        if not yes and not click.confirm("Run it?", default=True, err=True):
            raise click.Abort
        code = output.run(
            relay,
            lambda: relay.job.run_on(host.name, line, name=f"install-{entry.name}", follow=True),
            host=host.name,
            on_interrupt=None,
            quiet=False,
            as_json=False,
        )
        if code == 0:
            _notice(relay, host, entry)
            show.remark(f"{host.name} has {entry.name}")
    ctx.exit(code)


def _line(host: Host, entry: Entry) -> str:
    recipe = entry.recipe(host.os)
    if not recipe:
        known = f"by hand on {host.name}, then: relayq caps ls {host.name} --verify"
        raise RelayqError(
            f"the catalogue doesn't know how to install {entry.name} on {host.os or 'that system'}",
            hint=known,
        )
    return f'({recipe}) && hash -r && PATH="$HOME/.local/bin:$PATH" && {entry.check_line}'


def _notice(relay: Relay, host: Host, entry: Entry) -> None:
    """Wait until the host says that it has it; what no worker looks for, the fleet says."""
    relay.session().store.hosts.ask(host.name, {"op": "look"})
    deadline = clock.boottime() + _NOTICES
    while entry.name not in (told := fleet.find(relay, host.name)).capabilities:
        if clock.boottime() >= deadline:
            _told(relay, told, [entry.name], "+")
            return
        clock.sleep(0.2)


def _by_category(host: Host, known: Catalogue) -> dict[str, list[str]]:
    """Return a host's capabilities, in the categories of the catalogue and a few of our own."""
    found: dict[str, list[str]] = {category: [] for category in known.categories}
    for word in host.capabilities:
        if word.startswith("kind:"):
            category = "kinds"
        elif word.startswith("agent:"):
            category = "ai"
        elif word.startswith(("secret:", "opens:")):
            category = "secrets"
        elif word.startswith(("encoder:", "transcribe")):
            category = "media"
        else:
            entry = known.entries.get(word)
            category = entry.category if entry else "other"
        found.setdefault(category, []).append(word)
    return {category: words for category, words in found.items() if words}


def _verified(relay: Relay, host: Host, known: Catalogue) -> list[dict[str, Any]]:
    """Return of each entry whether the host says that it has it, and whether a job there saw it."""
    lines = [
        f"if ({entry.check_line}) </dev/null >/dev/null 2>&1; then echo {shlex.quote(name)}; fi"
        for name, entry in known.entries.items()
    ]
    job = relay.job.run_on(host.name, "\n".join(lines), name="caps-verify", timeout=_CHECKS)
    there = set(str(job.get()).split())
    rows = []
    for name in known.entries:
        said, found = name in host.capabilities, name in there
        if said or found:
            rows.append(
                {"name": name, "said": said, "found": found, "next": _next(host, name, said, found)}
            )
    return rows


def _next(host: Host, name: str, said: bool, found: bool) -> str | None:
    if said and not found:
        return f"relayq caps install {host.name} {name}"
    return f"relayq caps add {host.name} {name}" if found and not said else None


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
