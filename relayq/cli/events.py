"""`relayq events`: the audit trail, once or for as long as somebody follows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli.options import client, complete, duration_option, json_option
from relayq.cli.texts import inert, instant, number_of, rfc3339, span
from relayq.errors import NoSuchJob
from relayq.model.jobs import ID_LENGTH, normal_id

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.events import Event

#: How many events are shown when nobody says how many, and before those that are followed.
_SHOWN = 100
_BEFORE = 10
#: One blocking call's length.
_BLOCK = 2.5


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until ^C.")
@click.option(
    "--since", type=duration_option, metavar="DURATION", help="Only those of the last 1h, say."
)
@click.option("--job", metavar="JOB", shell_complete=complete("jobs"), help="Only this job's.")
@click.option("--host", metavar="HOST", shell_complete=complete("hosts"), help="Only this host's.")
@click.option(
    "-n",
    "count",
    type=click.IntRange(0),
    metavar="N",
    help=f"The last N ({_SHOWN}; with -f {_BEFORE}; with --since all).",
)
@json_option
def events(
    follow: bool,
    since: float | None,
    job: str | None,
    host: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Show what happened, to which job, on which host, by whom: the last 10,000 events."""
    if count is None and since is None:
        count = _BEFORE if follow else _SHOWN
    with client() as relay:
        trail = relay.session().store.events
        asked = {"job": None if job is None else _whole(relay, job), "host": host}
        place = trail.last()
        start = None if since is None else clock.now() - since
        found = trail.read(since=start, count=count, **asked)
        if as_json and not follow:
            from relayq.cli import show

            show.print_json({"events": [as_shown(event) for event in found]})
            return
        write = partial(_write, as_json=as_json)
        write(found)
        if follow:
            _follow(relay, found[-1].id if found else place, asked, write)


def _whole(relay: Relay, text: str) -> str:
    """Return the job's id; a whole one may be that of a job which was forgotten since."""
    try:
        [result] = relay.job.select([text])
    except ValueError as error:
        raise click.BadParameter(f"{text} names several jobs") from error
    except NoSuchJob:
        if len(text) == ID_LENGTH:
            return normal_id(text)
        raise
    return result.id


def _follow(
    relay: Relay,
    place: str,
    asked: Mapping[str, str | None],
    write: Callable[[Sequence[Event]], None],
) -> None:
    session = relay.session()
    trail = session.store.events
    try:
        while True:
            ask = partial(trail.follow, place, patience=_BLOCK, **asked)
            answer = session.patiently(ask, None)
            if answer is not None:
                place, found = answer
                write(found)
    except KeyboardInterrupt:
        return


def _write(found: Sequence[Event], *, as_json: bool) -> None:
    from relayq.cli import show

    for event in found:
        if as_json:
            show.print_json(as_shown(event))
        else:
            click.echo(f"{instant(event.at)}  {line(event)}")
    sys.stdout.flush()


def as_shown(event: Event) -> dict[str, Any]:
    """Return an event as JSON shows it: instants in RFC 3339, UTC."""
    shown = event.as_dict()
    shown["at"] = rfc3339(event.at)
    shown["due_at"] = None if event.due_at is None else rfc3339(event.due_at)
    return shown


def line(event: Event) -> str:
    """Return an event in a line: what, which job, and the rest in words."""
    about = event.job or event.schedule or event.host or event.account or ""
    return f"{inert(event.what):<11}  {inert(about):<{ID_LENGTH}}  {inert(story(event))}".rstrip()


def told(found: Sequence[Event]) -> list[str]:
    """Return the lines of `show` on a job's own events."""
    lines = [f"{inert(event.what):<11}  {inert(story(event))}".rstrip() for event in found]
    stamped = [f"{instant(event.at)}  {text}" for event, text in zip(found, lines, strict=True)]
    return [f"  {'' if i else 'Events':<8}  {text}" for i, text in enumerate(stamped)]


def story(event: Event) -> str:
    """Return what an event tells beside its name and its job."""
    parts = []
    if event.count > 1:
        parts.append(f"and {number_of(event.count - 1, 'more job')}" if event.job else "")
    if event.schedule is not None and event.what in _INSTANTS:
        parts.append(f"{number_of(event.count, 'instant')} {_INSTANTS[event.what]}")
    if event.state not in (None, "queued") or event.what == "judged":
        before = "was " if event.what == "retried" else ""
        parts.append(f"{before}{event.state}")
    if event.state != "succeeded" or event.what == "late" or event.reason == "skipped":
        parts.append(_why(event))
    if event.queue is not None:
        host = event.queue.removeprefix("host.")
        parts.append(f"for {'any host' if host == 'any' else host}")
    if event.priority is not None:
        parts.append(f"priority {event.priority}")
    if event.job is not None and event.host is not None:
        attempt = "" if event.attempt is None else f" (attempt {event.attempt})"
        parts.append(f"on {event.host}{attempt}")
    if event.what == "paused" and event.seconds is not None:
        parts.append(f"for {span(event.seconds)}")
    if event.due_at is not None:
        parts.append(f"again in {span(max(0.0, event.due_at - event.at))}")
    if event.who is not None:
        parts.append(f"by {event.who}")
    return ", ".join(part for part in parts if part)


#: What an event of a schedule tells of instants.
_INSTANTS = {
    "missed": "at which nobody was there",
    "left_out": "while the run before went on",
}
_REASONS = {
    "taken": "another machine has that name",
    "wrong_key": "another fleet key",
    "unstarted": "it never began",
    "lost": "its host was lost",
    "upstream": "a job that it comes after failed",
    "restart": "Redis was restarted: nothing expires for a while",
    "gap": "nobody let time pass for {span}: nothing expires for a while",
    "user": "",
    "storm": "several hosts vanished at once: nothing expires for a while",
}


def _why(event: Event) -> str:
    if event.what == "clock" and event.seconds is not None:
        return f"the broker's clock was set back by {span(-event.seconds)}"
    if event.reason == "exit" and event.exit_code is not None:
        return f"exit {event.exit_code}"
    if event.reason == "signal" and event.signal is not None:
        return f"signal {event.signal}"
    reason = event.reason or ""
    return _REASONS.get(reason, reason).format(span=span(event.seconds or 0.0))
