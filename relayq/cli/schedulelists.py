"""What schedules look like, and what is done with one that there is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from relayq.cli import tables
from relayq.cli.options import client, complete, json_option, quiet_option
from relayq.cli.texts import age, inert, limit, number_of, rfc3339, span
from relayq.errors import NoSuchJob
from relayq.model.schedules import Condition, Schedule, ScheduleRecord
from relayq.model.timing import GRACE, preview

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.jobs import JobRecord

_COLUMNS = ("NAME", "WHEN", "ZONE", "STATE", "NEXT", "LAST", "RESULT")
#: How many runs and how many instants `show` has.
_RUNS, _INSTANTS = 10, 5

_name = click.argument("name", metavar="NAME", shell_complete=complete("schedules"))
_names = click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete("schedules")
)


@click.command()
@json_option
def ls(as_json: bool) -> None:
    """List what recurs: when it comes next, and what came of it last."""
    from relayq.cli import show

    with client() as relay:
        store = relay.session().store.schedules
        records = store.list()
        last = _last(relay, records)
        now = store.now()
    if as_json:
        rows = [as_json_with(record, last.get(record.name)) for record in records]
        show.print_json({"schedules": rows})
        return
    tables.table(_COLUMNS, [_row(one, last.get(one.name), now) for one in records])


@dataclass(frozen=True, slots=True)
class Last:
    """What came of a run: its state, and when it ended if it did."""

    id: str
    state: str
    ended_at: float | None = None


def _last(relay: Relay, records: Sequence[ScheduleRecord]) -> dict[str, Last]:
    """Return what came of the newest run of each schedule, by name, where that is still known."""
    store = relay.session().store
    found: dict[str, Last] = {}
    jobs = {one.last: one.name for one in records if one.last and not is_flow(one)}
    for job in store.jobs.fetch_many(jobs):
        found[jobs[job.id]] = _of_job(job)
    for one in records:
        if one.last and is_flow(one):
            for last in _of_flows(relay, [one.last]):
                found[one.name] = last
    return found


def _of_job(job: JobRecord) -> Last:
    from relayq.cli import show

    return Last(job.id, show.state_of(job), job.finished_at)


def _of_flows(relay: Relay, ids: Sequence[str]) -> Sequence[Last]:
    """Return what came of runs of a workflow, of those that are still known."""
    from relayq.flowruns import FlowRun

    found = []
    for id in ids:
        with suppress(NoSuchJob):
            jobs = FlowRun(relay.session(), id).jobs()
            state = FlowRun(relay.session(), id).state
            ends = [one.record.finished_at for one in jobs]
            is_over = state != "running" and all(ends)
            found.append(Last(id, state, max(filter(None, ends)) if is_over else None))
    return found


def is_flow(record: ScheduleRecord) -> bool:
    """Whether it is a workflow that recurs."""
    return record.schedule is not None and record.schedule.flow is not None


def _row(record: ScheduleRecord, last: Last | None, now: float) -> list[str]:
    schedule = record.schedule
    zone = schedule.zone if schedule is not None else "UTC"
    condition = record.standing
    upcoming = record.next_at if condition is Condition.ACTIVE else None
    return [
        record.name,
        schedule.when if schedule is not None else "?",
        zone,
        condition.value,
        "-" if upcoming is None else when_of(upcoming, zone, now),
        "-" if record.last_at is None else local(record.last_at, zone),
        _result(record, last, now),
    ]


def _result(record: ScheduleRecord, last: Last | None, now: float) -> str:
    if record.last is None:
        return "-"
    if last is None:
        return "forgotten"
    return last.state if last.ended_at is None else f"{last.state} {age(now - last.ended_at)} ago"


@click.command("show")
@_name
@json_option
def show_schedule(name: str, as_json: bool) -> None:
    """Show all about what recurs: its job, its rules, its last runs, the next instants."""
    from relayq.cli import show

    with client() as relay:
        store = relay.session().store.schedules
        standing = store.fetch(name)
        record = standing.record
        flows = _of_flows(relay, record.recent[:_RUNS]) if is_flow(record) else []
        jobs = [] if is_flow(record) else store.runs(name, _RUNS)
    if as_json:
        last = [*flows, *map(_of_job, jobs)]
        shown = as_json_with(record, last[0] if last else None)
        runs = [{"flow": one.id, "state": one.state} for one in flows]
        show.print_json({"schedule": shown, "runs": [*runs, *map(show.as_json, jobs)]})
        return
    zone = record.schedule.zone if record.schedule is not None else "UTC"
    lines = [f"{one.id}  {_result(record, one, standing.now)}" for one in flows]
    lines += [_run_line(job, zone, standing.now) for job in jobs]
    click.echo("\n".join(_details(record, lines, standing.now)))


def _details(record: ScheduleRecord, runs: Sequence[str], now: float) -> list[str]:
    schedule = record.schedule
    zone = schedule.zone if schedule is not None else "UTC"
    when = f"{schedule.when} ({zone})" if schedule is not None else "?"
    rows = []
    if record.refused is not None:
        rows.append(("Refused", f"{record.refused}; nothing is submitted"))
    if record.trouble is not None:
        rows.append(("Trouble", record.trouble))
    if record.paused_at is not None:
        rows.append(("Paused", f"{age(now - record.paused_at)} ago by {record.paused_by}"))
    if schedule is not None:
        rows.append(("Rules", ", ".join(_rules(schedule))))
        rows.append(("Added", f"{age(now - schedule.since)} ago by {schedule.submitter}"))
    counts = [number_of(record.runs, "run")]
    counts += [f"{record.missed} missed (nobody was there)"] if record.missed else []
    counts += [f"{record.left_out} left out (the run before went on)"] if record.left_out else []
    rows.append(("So far", ", ".join(counts)))
    coming = [when_of(at, zone, now) for at in upcoming(record)]
    rows += [("" if nth else "Next", text) for nth, text in enumerate(coming)]
    rows += [("" if nth else "Last", text) for nth, text in enumerate(runs)]
    lines = [f"  {label:<10}{inert(text)}" for label, text in rows]
    return [inert(f"{record.name}  {record.standing.value}  {when}"), *_what(schedule), *lines]


def _what(schedule: Schedule | None) -> list[str]:
    """Return the lines on what runs, as those of `submit --dry-run`."""
    from relayq.cli import details

    if schedule is None:
        return []
    if schedule.flow is not None:
        name, count = inert(schedule.flow["name"]), number_of(len(schedule.jobs), "job")
        return [f"  {'Workflow':<10}{name}, {count}"]
    return [text for text in details.plan(schedule.spec) if not text.startswith("  Queue ")]


def _rules(schedule: Schedule) -> list[str]:
    grace = GRACE[schedule.catch_up] if schedule.grace is None else schedule.grace
    rules = [f"catch up {schedule.catch_up}"]
    rules += [f"at most {limit(grace)} late"] if grace < float("inf") else []
    rules.append(f"overlap {schedule.overlap}")
    rules += [f"jitter {limit(schedule.jitter)}"] if schedule.jitter else []
    if schedule.until is not None:
        rules.append(f"until {local(schedule.until, schedule.zone)}")
    return rules


def _run_line(job: JobRecord, zone: str, now: float) -> str:
    from relayq.cli import show

    at = job.created_at if job.spec is None else _instant(job.spec.meta.get("instant", ""), job)
    began = job.started_at or job.claimed_at
    took = "" if began is None else f" after {span((job.finished_at or now) - began)}"
    where = f" on {job.host}" if job.host else ""
    return f"{local(at, zone)}  {job.id}  {show.state_of(job)}{took}{where}"


def _instant(text: str, job: JobRecord) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return job.created_at


@click.command()
@_name
@click.option("--force", is_flag=True, help="Also while the run before goes on.")
@quiet_option
@json_option
def run(name: str, force: bool, quiet: bool, as_json: bool) -> None:
    """Run what recurs now, by its rules for overlaps, and print the id of its job or run."""
    from relayq.cli import show

    with client(needs_worker=True, quiet=quiet) as relay:
        id = relay.job.recurring(name).start(force=force)
    if as_json:
        show.print_json({"id": id})
    else:
        click.echo(id)


@click.command()
@_names
@quiet_option
@json_option
def pause(names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Have nothing come of schedules; their jobs that were submitted go on."""
    _each(names, "paused", quiet=quiet, as_json=as_json)


@click.command()
@_names
@quiet_option
@json_option
def resume(names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Have schedules come again, from now on: what came meanwhile isn't made up for."""
    _each(names, "resumed", quiet=quiet, as_json=as_json)


@click.command()
@_names
@quiet_option
@json_option
def rm(names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Forget schedules; the jobs of their runs stay."""
    _each(names, "removed", quiet=quiet, as_json=as_json)


def _each(names: Sequence[str], word: str, *, quiet: bool, as_json: bool) -> None:
    """Do one thing with several schedules; all must be there."""
    from relayq.cli import show

    done = []
    with client(quiet=quiet) as relay:
        found = [relay.job.recurring(name) for name in dict.fromkeys(names)]
        for one in found:
            if word == "removed":
                one.remove()
                is_new = True
            else:
                is_new = one.pause() if word == "paused" else one.resume()
            done.append({"name": one.name, "is_new": is_new})
            if not (quiet or as_json):
                click.echo(f"{one.name}  {word}{'' if is_new else ' already'}")
    if as_json:
        show.print_json({"schedules": done, "state": word})


# What it looks like


def upcoming(record: ScheduleRecord, count: int = _INSTANTS) -> Sequence[float]:
    """Return the next instants, by what was signed."""
    schedule = record.schedule
    if record.next_at is None or schedule is None or record.standing is not Condition.ACTIVE:
        return []
    found = [record.next_at, *preview(schedule.timing, record.next_at, count - 1)]
    return [at for at in found if schedule.until is None or at <= schedule.until]


def local(at: float, zone: str) -> str:
    """Return an instant as a calendar there has it: `Mon 23 Nov 09:30`."""
    there = datetime.fromtimestamp(at, ZoneInfo(zone))
    seconds = ":%S" if there.second else ""
    return there.strftime(f"%a {there.day} %b %H:%M{seconds}")


def when_of(at: float, zone: str, now: float) -> str:
    """Return an instant and how far away it is: `Mon 23 Nov 09:30, in 3h`."""
    away = f"in {age(at - now)}" if at >= now else "now"
    return f"{local(at, zone)}, {away}"


def line(record: ScheduleRecord, now: float) -> str:
    """Return what is said of a schedule that was just added."""
    schedule = record.schedule
    if schedule is None or record.next_at is None:
        return f"{record.name}  {record.standing.value}"
    at = when_of(record.next_at, schedule.zone, now)
    state = "paused; it would come " if record.paused_at is not None else ""
    return f"{record.name}  {state}next {at} ({schedule.zone})"


def as_json(record: ScheduleRecord) -> dict[str, Any]:
    """Return a schedule as JSON shows it."""
    schedule = record.schedule
    instants = ("created_at", "next_at", "due_at", "paused_at", "last_at")
    times = {name: _rfc3339(getattr(record, name)) for name in instants}
    return {
        "name": record.name,
        "state": record.standing.value,
        **(_rules_as_json(schedule) if schedule is not None else {}),
        **times,
        "paused_by": record.paused_by,
        "runs": record.runs,
        "missed": record.missed,
        "left_out": record.left_out,
        "recent": list(record.recent),
        "going": list(record.going),
        "refused": record.refused,
        "trouble": record.trouble,
        "next": [rfc3339(at) for at in upcoming(record)],
    }


def as_json_with(record: ScheduleRecord, last: Last | None) -> dict[str, Any]:
    """Return a schedule as JSON shows it, with the state of its newest run."""
    is_known = last is not None and last.id == record.last
    return {**as_json(record), "last_state": last.state if last and is_known else None}


def planned_as_json(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule that isn't stored as JSON shows it."""
    return {
        "name": schedule.name,
        **_rules_as_json(schedule),
        "next": [rfc3339(at) for at in instants_of(schedule)],
    }


def instants_of(schedule: Schedule) -> Sequence[float]:
    """Return the first instants of a schedule."""
    found = preview(schedule.timing, schedule.since, _INSTANTS)
    return [at for at in found if schedule.until is None or at <= schedule.until]


def _rules_as_json(schedule: Schedule) -> dict[str, Any]:
    from relayq.cli import show

    spec = {key: value for key, value in show.spec_as_json(schedule.spec).items() if key != "id"}
    flow = schedule.flow and {"name": schedule.flow["name"], "jobs": len(schedule.jobs)}
    return {
        "when": schedule.when,
        "zone": schedule.zone,
        "catch_up": schedule.catch_up,
        "grace": schedule.grace,
        "overlap": schedule.overlap,
        "jitter": schedule.jitter,
        "until": _rfc3339(schedule.until),
        "submitter": schedule.submitter,
        "spec": None if flow else spec,
        "flow": flow,
    }


def _rfc3339(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
