"""Completion in the shell: click's own scripts, with hosts and jobs out of a file.

No key press asks the broker. Commands that talk to it anyway leave what they saw in
`cache/completion.json`, and the completers here read that: the jobs that a command shows or queues
at once (`saw`, `queued`), all else once a minute (`remembered`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, JobState, Spec

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from relayq.client import Relay

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_RELAYQ_COMPLETE"
#: How old the file must be before a command asks the broker for all of it again, in seconds: that
#: takes six round trips.
_FRESH = 60.0
#: How many jobs of each state are remembered.
_REMEMBERED = 25
_WIDEST_HELP = 60
#: What each shell takes as one word without quotes.
_WORD = re.compile(r"[\w.%+,/-]+")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.option("--install", is_flag=True, help="Have every new shell of this user load it.")
def completion(shell: str, install: bool) -> None:
    """Print the completion script of SHELL, or install it; hosts and jobs complete as well.

    For this shell only: eval "$(relayq completion bash)", the same with zsh, or
    relayq completion fish | source.
    """
    from click.shell_completion import get_completion_class

    from relayq.cli import root

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(root, {}, "relayq", _VARIABLE).source()
    if not install:
        click.echo(script)
        return
    written = _install_fish(script) if shell == "fish" else _install(shell, script)
    click.echo(f"installed: {' and '.join(written)}; a new {shell} has it")


def _install_fish(script: str) -> list[str]:
    above = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    file = above / "fish" / "completions" / "relayq.fish"
    _write(file, script)
    return [str(file)]


def _install(shell: str, script: str) -> list[str]:
    """Write the script into relayq's home, and one line that loads it into the shell's own file."""
    from relayq.config import home_directory

    file = home_directory() / "completion" / f"relayq.{shell}"
    _write(file, script)
    folder = (os.environ.get("ZDOTDIR") if shell == "zsh" else None) or Path.home()
    startup = Path(folder) / f".{shell}rc"
    quoted = "'" + str(file).replace("'", "'\\''") + "'"
    line = f"[ -r {quoted} ] && . {quoted}"
    if shell == "zsh":
        # compdef is there after compinit only, which a bare .zshrc doesn't run.
        line = f"(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}; {line}"
    text = startup.read_text("utf-8", errors="replace") if startup.exists() else ""
    if quoted not in text:
        gap = "" if not text or text.endswith("\n") else "\n"
        with startup.open("a", encoding="utf-8") as end:
            end.write(f"{gap}{line}  # relayq's completion\n")
    return [str(file), f"a line in {startup}"]


def _write(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f"{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
            out.write(text)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


# What completes


def hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a host's name."""
    return _items([(name, "") for name in _cached("hosts")], incomplete)


def jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete whatever selects jobs: `last`, ids, names, groups."""
    known = _cached("jobs")
    if _is_after_at():
        return _items([(job["group"], "") for job in known if job["group"]], incomplete)
    found = [("last", "the newest job")] if known else []
    found += [(job["id"], job["what"]) for job in known]
    found += [(job["name"], f"{job['id'][:4]} {job['what']}") for job in known if job["name"]]
    found += [(f"@{job['group']}", "a group") for job in known if job["group"]]
    return _items(found, incomplete)


def agents(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an agent that a host has."""
    return _items([(name, "") for name in _cached("agents")], incomplete)


def sessions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an agent's session, the last used first."""
    return _items([(one["id"], one["what"]) for one in _cached("sessions")], incomplete)


def schedules(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of what recurs."""
    return _items([(name, "") for name in _cached("schedules")], incomplete)


def nothing(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete nothing: what stands there is the typer's own."""
    return []


def groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a group's name."""
    return _items([(job["group"], "") for job in _cached("jobs") if job["group"]], incomplete)


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows this machine's files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _is_after_at() -> bool:
    # bash takes `@` for a word of its own, and wants only what follows it.
    if os.environ.get(_VARIABLE) != "bash_complete":
        return False
    words = os.environ.get("COMP_WORDS", "").split("\n")
    here = int(os.environ.get("COMP_CWORD") or 0)
    return "@" in (words[here - 1 : here] + words[here : here + 1])


def _items(found: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    first: dict[str, str] = {}
    for value, about in found:
        if value.startswith(incomplete):
            first.setdefault(value, about)
    return [CompletionItem(value, help=about or None) for value, about in first.items()]


def _cached(what: str) -> Any:
    from relayq.config import home_directory

    value = _read(home_directory()).get(what)
    return value if isinstance(value, list) else []


def _read(home: Path) -> dict[str, Any]:
    """Return what is remembered; nothing, if that can't be used."""
    try:
        known = json.loads((home / "cache" / "completion.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


# What is remembered


@contextmanager
def remembered(relay: Relay) -> Iterator[None]:
    """Note hosts and jobs for the next completion, after a command that had its answer."""
    try:
        yield
    except click.exceptions.Exit:
        _remember(relay)
        raise
    _remember(relay)


def _remember(relay: Relay) -> None:
    from relayq.cli.texts import inert

    # Nothing that goes wrong here is the command's failure.
    with suppress(OSError, RelayqError):
        if _is_fresh(_read(relay.config.home)):
            return
        store = relay.session().store
        records = sorted(store.jobs.recent(_REMEMBERED), key=lambda r: r.created_at, reverse=True)
        known = {
            "at": clock.now(),
            "hosts": sorted(store.hosts.names()),
            "jobs": [_facts(record.id, record.state, record.spec) for record in records],
            "agents": sorted(_agents(relay)),
            "schedules": sorted(store.schedules.names()),
            "sessions": [
                {"id": one.id, "what": inert(f"{one.agent}  {one.host}:{one.cwd}")}
                for one in store.sessions.list(limit=_REMEMBERED)
            ],
        }
        _keep(relay, known)


def _agents(relay: Relay) -> set[str]:
    """Return the agents that hosts have or had of late, and those of the configuration."""
    hosts = relay.session().store.hosts.list(online_within=_FRESH)
    words = (word.partition(":") for host in hosts for word in host.capabilities)
    return {name for sort, _, name in words if sort == "agent"} | set(relay.config.agents)


def saw(relay: Relay, records: Iterable[JobRecord]) -> None:
    """Note jobs that a command shows."""
    _add(relay, [_facts(one.id, one.state, one.spec) for one in islice(records, _REMEMBERED)])


#: The fields by which the different kinds of jobs are shown.
_SHOWN = "cmd agent prompt inputs output target preset audio names model".split()


def queued(relay: Relay, id: str, asked: Mapping[str, Any]) -> None:
    """Note a job that a command has just queued, by what the client was asked."""
    spec = Spec(
        id=id,
        kind="run_command" if "cmd" in asked else "run_agent",
        payload={name: asked[name] for name in _SHOWN if name in asked},
        name=asked.get("name"),
        group=asked.get("group"),
    )
    _add(relay, [_facts(id, JobState.QUEUED, spec)])


def _add(relay: Relay, jobs: list[dict[str, str]]) -> None:
    """Put jobs before those that are remembered."""
    with suppress(OSError, RelayqError):
        known = _read(relay.config.home)
        # What is old is read anew when the command ends, with these jobs.
        if jobs and _is_fresh(known):
            ids = {job["id"] for job in jobs}
            older = [job for job in known["jobs"] if job["id"] not in ids]
            _keep(relay, known | {"jobs": [*jobs, *older][: _REMEMBERED * len(JobState)]})


def _is_fresh(known: Mapping[str, Any]) -> bool:
    at = known.get("at")
    if not isinstance(at, float) or not isinstance(known.get("jobs"), list):
        return False
    return 0 <= clock.now() - at < _FRESH


def _keep(relay: Relay, known: Mapping[str, Any]) -> None:
    _write(relay.config.home / "cache" / "completion.json", json.dumps(known), 0o600)


def _facts(id: str, state: JobState, spec: Spec | None) -> dict[str, str]:
    from relayq.cli.show import command_of
    from relayq.cli.texts import inert

    what = inert(f"{state.value}  {command_of(spec)}")
    return {
        "id": id,
        "what": what if len(what) <= _WIDEST_HELP else what[: _WIDEST_HELP - 3] + "...",
        "name": _as_word(spec.name if spec else None),
        "group": _as_word(spec.group if spec else None),
    }


def _as_word(text: str | None) -> str:
    """Return a name that a shell takes as it is, else nothing: it can still be typed."""
    return text if text and _WORD.fullmatch(text) else ""
