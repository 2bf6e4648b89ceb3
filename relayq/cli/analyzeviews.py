"""How runs of analyses look: while they go on, and in the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli.meters import bar, percent, whole
from relayq.cli.tables import cut, painted, width_of
from relayq.cli.texts import dollars, inert, number_of, rfc3339, span
from relayq.model.analyses import Plan, Standing
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.analyses import Analysis
    from relayq.client import Relay
    from relayq.model.reports import Run
    from relayq.tracks import Track

_BAR = 20
#: An estimate isn't the end, however long it takes.
_ALMOST = 0.95
#: What a row takes beside a shard's name and why it isn't done.
_LONGEST_WHY = 60
_PLAN = ("SHARD", "FILES", "SIZE", "FIRST FILE")
#: Lines of a screen that aren't shards: the head, what is folded, the total, the checkpoint.
_AROUND = 8


def headline(plan: Plan, hosts: Sequence[str], *, what: str = "") -> str:
    """Return the line on what a run is."""
    wishes = plan.wishes
    first = ", security-critical first" if wishes.first else ""
    where = f" on {', '.join(hosts)}" if hosts else ""
    model = f" {wishes.model}" if wishes.model else ""
    sizes = f"{wishes.by}, {wishes.smallest}-{wishes.largest} files"
    parts = [
        f"{what or f'run {plan.id}'}: {number_of(plan.files, 'file')}, "
        f"{number_of(len(plan.parts), 'shard')} ({sizes}){first}",
        f"{wishes.agent}{model}{where}",
    ]
    if plan.cached:
        parts.insert(1, f"{number_of(len(plan.cached), 'file')} read before, unchanged")
    return "; ".join(parts)


def left_out(plan: Plan) -> list[str]:
    """Return what isn't read, and why."""
    if not plan.left_out:
        return []
    told = ", ".join(f"{count} {why}" for why, count in plan.left_out.items())
    return [f"left out: {told}"]


def plan_rows(plan: Plan) -> tuple[Sequence[str], list[list[str]]]:
    """Return the table of a plan's shards."""
    rows = [
        [
            part.shard.name,
            str(len(part.shard.files)),
            size_text(part.shard.weight),
            part.shard.paths[0],
        ]
        for part in plan.parts
    ]
    return _PLAN, rows


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON shows it."""
    return {
        "directory": plan.root,
        "agent": plan.wishes.agent,
        "workers": plan.wishes.workers,
        "by": plan.wishes.by,
        "commit": plan.commit,
        "is_dirty": plan.is_dirty,
        "files": plan.files,
        "cached_files": len(plan.cached),
        "left_out": dict(plan.left_out),
        "shards": [
            {
                "name": part.shard.name,
                "bytes": part.shard.weight,
                "files": list(part.shard.paths),
            }
            for part in plan.parts
        ],
    }


def goes_on(relay: Relay, plan: Plan) -> bool:
    """Whether a session of a run hasn't ended."""
    seen = relay.session().store.progress.look(part.job for part in plan.parts)
    return any(sight.state.is_waitable for sight in seen.values())


class Views:
    """Shows one run to who stays with it."""

    def __init__(self, relay: Relay, analysis: Analysis, *, quiet: bool) -> None:
        self._relay = relay
        self._analysis = analysis
        self._quiet = quiet
        self._begun: set[str] = set()
        self._parked: set[tuple[str, float | None]] = set()

    @property
    def _harvest(self) -> Any:
        return self._analysis.harvest

    def begin(self) -> None:
        """Say what begins."""
        if self._quiet:
            return
        plan = self._analysis.plan
        click.echo(headline(plan, self._hosts()))
        for line in left_out(plan):
            click.echo(line)
        if not self._harvest.is_complete:
            count = min(plan.wishes.workers, len(plan.parts))
            click.echo(f"Starting parallel analysis with {number_of(count, 'worker')}...")

    def _hosts(self) -> list[str]:
        wanted = f"agent:{self._analysis.plan.wishes.agent}"
        return [
            host.name
            for host in self._relay.hosts()
            if host.is_online and wanted in host.capabilities
        ]

    def tell(
        self, over: Sequence[Track], said: Sequence[str], draw: Callable[[str], None] | None
    ) -> None:
        """Show how it stands after a look."""
        if self._quiet:
            return
        if draw is not None:
            size = shutil.get_terminal_size()
            draw("\n".join(self.screen(size.columns, size.lines)))
            return
        for line in said:
            click.echo(inert(line))
        for track in self._harvest.tracks:
            if track.standing is Standing.RUNNING and track.job not in self._begun:
                self._begun.add(track.job)
                click.echo(f"{self._head(track)}  begun")
            key = (track.job, track.until)
            if track.standing is Standing.PARKED and track.sight and key not in self._parked:
                self._parked.add(key)
                if track.record is not None:
                    click.echo(self._row(track))
        for track in over:
            if track.standing is not Standing.HALVED:
                click.echo(self._row(track))

    def screen(self, columns: int, lines: int) -> list[str]:
        """Return how it stands, no longer than a terminal."""
        tracks = self._harvest.tracks
        room = max(3, lines - _AROUND)
        shown = list(tracks)
        folded = []
        for standing, what in ((Standing.WAITING, "waiting"), (Standing.DONE, "done")):
            if len(shown) <= room:
                break
            some = [one for one in shown if one.standing is standing]
            # The last that are done, and the next that wait, stay to be seen.
            surplus = len(shown) - room + 1
            some = some[-surplus:] if standing is Standing.WAITING else some[:surplus]
            shown = [one for one in shown if one not in some]
            if some:
                files = sum(len(one.shard.files) for one in some)
                folded.append(f"{number_of(len(some), 'shard')} {what}, {files} files")
        rows = [cut(self._row(one), columns) for one in shown[:room]]
        rows += [f"  ... {'; '.join(folded)}"] if folded else []
        return [*rows, cut(self._total(), columns)]

    def _total(self) -> str:
        harvest = self._harvest
        done = sum(one.standing is Standing.DONE for one in harvest.tracks)
        count = len(harvest.tracks)
        parts = [f"Progress: {done}/{count}"]
        if count:
            parts.append(f"{bar(done / count, _BAR)} {percent(done / count)}")
        left = harvest.left()
        if left is not None and done < count:
            parts.append(f"eta {whole(left)}")
        if harvest.cost_usd:
            parts.append(dollars(harvest.cost_usd))
        return "  ".join(parts)

    def _row(self, track: Track) -> str:
        return "  ".join([self._head(track), *self._state(track)])

    def _head(self, track: Track) -> str:
        names = max((width_of(one.name) for one in self._harvest.tracks), default=0)
        host = track.host or (track.sight.host if track.sight is not None else None)
        hosts = max((len(one.host or "-") for one in self._harvest.tracks), default=1)
        head = f"  {inert(track.name):<{min(names, 32)}}  {host or '-':<{max(hosts, 4)}}"
        files = f"{number_of(len(track.shard.files), 'file'):>8}"
        return f"{head}  {files}"

    def _state(self, track: Track) -> list[str]:
        match track.standing:
            case Standing.DONE:
                found = len(track.answer.issues) if track.answer is not None else 0
                cost = [] if track.cost_usd is None else [dollars(track.cost_usd)]
                return [
                    f"{bar(1.0, _BAR)}  100%",
                    f"{number_of(found, 'issue'):>9}",
                    f"{span(track.seconds):>6}",
                    *cost,
                ]
            case Standing.RUNNING:
                return self._running(track)
            case Standing.PARKED:
                when = f", until {_hour(track.until)}" if track.until else ""
                return [painted(f"parked: {inert(track.why)[:_LONGEST_WHY]}{when}", "paused")]
            case Standing.ASKS:
                said = f"waits for a person: {inert(track.why)[:_LONGEST_WHY]}"
                return [painted(said, "needs_human")]
            case Standing.WAITING:
                return ["waiting"]
            case Standing.UNREADABLE:
                said = f"its answer can't be read, and is kept: {inert(track.why)[:_LONGEST_WHY]}"
                return [painted(said, "failed")]
        why = f": {inert(track.why)[:_LONGEST_WHY]}" if track.why else ""
        return [painted(f"{track.standing.value}{why}", track.standing.value)]

    def _running(self, track: Track) -> list[str]:
        ran = self._harvest.ran(track)
        sight = track.sight
        if sight is not None and sight.paused is not None:
            return [f"paused: {inert(sight.paused)}"]
        told = sight.progress.fraction if sight is not None and sight.progress else None
        expected = self._harvest.pace.expected(track.shard.weight)
        fraction = told
        if fraction is None and expected:
            fraction = min(_ALMOST, ran / expected)
        shown = "" if fraction is None else f"{bar(fraction, _BAR)}  {percent(fraction)}"
        parts = [shown or "-" * _BAR, whole(ran)]
        if expected is not None and expected > ran:
            parts.append(f"eta {whole(expected - ran)}")
        return parts

    def end(self, facts: Run, *, stats: bool) -> None:
        """Print what came of it."""
        from relayq.model import reports

        analysis = self._analysis
        if not self._quiet:
            if not analysis.plan.parts and analysis.plan.cached:
                click.echo("All shards complete, cached results are used.")
            click.echo("Aggregating results...")
        click.echo(reports.as_text(facts, limit=_ISSUES))
        if stats:
            click.echo("\n".join(["", *reports.comparison(facts)]))
        for line in self._unfinished():
            click.echo(line)
        if analysis.directory and not self._quiet:
            click.echo(f"report: {analysis.directory}/report.md, issues.json, issues.sarif")
        if analysis.incomplete and not self._quiet:
            click.echo(f"  hint: relayq analyze --resume {analysis.id}", err=True)

    def _unfinished(self) -> list[str]:
        harvest = self._harvest
        said = []
        if harvest.is_over_budget:
            left = sum(one.standing is not Standing.DONE for one in harvest.tracks)
            spent = dollars(harvest.cost_usd or 0.0)
            budget = dollars(harvest.plan.wishes.budget or 0.0)
            said.append(
                f"The budget is spent ({spent} of {budget}): "
                f"{number_of(left, 'shard')} weren't begun"
            )
        parked = [one for one in harvest.tracks if one.standing is Standing.PARKED]
        if parked:
            ends = [one.until for one in parked if one.until is not None]
            when = f" until {_hour(min(ends))}" if ends else ""
            said.append(f"{number_of(len(parked), 'shard')} parked{when}: they go on by themselves")
        return said


#: How many findings a terminal shows; the report has all.
_ISSUES = 20


def _hour(at: float) -> str:
    shown = datetime.fromtimestamp(at)
    same = shown.date() == datetime.fromtimestamp(clock.now()).date()
    return f"{shown:%H:%M}" if same else f"{shown:%Y-%m-%d %H:%M}"


def run_rows(runs: Iterable[Analysis]) -> tuple[Sequence[str], list[list[str]]]:
    """Return the table of runs."""
    from relayq.cli.texts import age

    now = clock.now()
    rows = []
    for one in runs:
        facts = one.facts
        done = sum(shard.state == "succeeded" for shard in facts.shards)
        cost = "-" if facts.cost_usd is None else dollars(facts.cost_usd)
        rows.append(
            [
                one.id,
                facts.state,
                f"{done}/{len(facts.shards)}",
                str(facts.files),
                str(len(facts.issues)),
                cost,
                one.plan.wishes.agent,
                f"{age(now - one.plan.created_at)} ago",
                one.plan.root,
            ]
        )
    columns = ("RUN", "STATE", "SHARDS", "FILES", "ISSUES", "COST", "AGENT", "BEGUN", "DIRECTORY")
    return columns, rows


def run_as_json(one: Analysis) -> dict[str, Any]:
    """Return a run as `analyze ls` shows it."""
    facts = one.facts
    return {
        "id": one.id,
        "directory": one.plan.root,
        "state": facts.state,
        "agent": one.plan.wishes.agent,
        "begun_at": rfc3339(one.plan.created_at),
        "files": facts.files,
        "shards": len(facts.shards),
        "done": sum(shard.state == "succeeded" for shard in facts.shards),
        "issues": len(facts.issues),
        "cost_usd": facts.cost_usd,
    }
