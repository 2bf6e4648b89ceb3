"""Whole directories read by many sessions of an agent at a time: `job.analyze(path, workers=5)`.

How a directory becomes jobs is in `relayq.scattering`, how their answers become one report in
`relayq.harvesting`, what is left on the disk in `relayq.checkpoints`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.errors import Conflict, NoSuchAnalysis, RelayqError, WaitTimeout

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.harvesting import Harvest
    from relayq.model.analyses import Plan, Wishes
    from relayq.model.findings import Issue
    from relayq.model.reports import Run
    from relayq.results import JobResult
    from relayq.tracks import Track

_Path = str | os.PathLike[str]
FORMATS = ("text", "markdown", "json", "sarif")
#: So long a run is waited for whose sessions are parked; then it is left to go on by itself.
PATIENCE = 900.0


class OfAnalyses:
    """What a `Job` can do with whole directories."""

    relay: Relay

    def analyze(
        self,
        path: _Path,
        workers: int = 5,
        *,
        by: str = "dir",
        ext: Iterable[str] | str = (),
        prompt: str | None = None,
        schema: Mapping[str, Any] | None = None,
        agent: str | None = None,
        model: str | None = None,
        budget: float | None = None,
        max_turns: int | None = None,
        shard_timeout: float = 600.0,
        first: str | None = "",
        smallest: int = 5,
        largest: int = 20,
        in_place: bool = False,
        fresh: bool = False,
        **asked: Any,
    ) -> Analysis:
        """Have an agent read all source files of a directory, in `workers` sessions at a time.

        Returns at once, and the fleet goes on by itself: `get` waits and returns the report. The
        files are divided `by` dir, type, size, count or imports, into shards of `smallest` to
        `largest` files; what concerns security comes first, or what the regular expression `first`
        finds (None: nothing). `ext` are the suffixes to read, `prompt` is a template with {files}.
        Files whose content an earlier run has read with the same question aren't read again,
        unless `fresh`. With `in_place` the hosts read the directory where it lies, else the files
        travel. `budget` (USD) is the whole run's and held by who waits, `max_turns` each session's.
        The rest is as for `submit` and `agent`: on, account, fallbacks, priority.
        """
        wishes = self.asked_of_analysis(
            workers=workers,
            by=by,
            ext=(ext,) if isinstance(ext, str) else tuple(ext),
            template=prompt or "",
            schema=schema,
            agent=agent,
            model=model,
            budget=budget,
            max_turns=max_turns,
            shard_timeout=shard_timeout,
            first=first,
            smallest=smallest,
            largest=largest,
            in_place=in_place,
            **asked,
        )
        return self.start_analysis(self.plan_analysis(path, wishes, fresh=fresh))

    def asked_of_analysis(
        self, *, agent: str | None = None, first: str | None = "", **asked: Any
    ) -> Wishes:
        """Return what is asked of an analysis, with the options of `submit` apart."""
        from relayq.model.analyses import Wishes

        own = {name: asked.pop(name) for name in Wishes.__dataclass_fields__ if name in asked}
        given = {key: value for key, value in asked.items() if value not in (None, (), [], False)}
        if first != "":
            own["first"] = first
        if own.get("workers", 1) < 1:
            raise RelayqError("an analysis needs at least 1 worker")
        return Wishes(agent=agent or self.relay.config.default_agent, asked=given, **own)

    def plan_analysis(self, path: _Path, wishes: Wishes, *, fresh: bool = False) -> Plan:
        """Return how a directory would be analysed; nothing is queued."""
        from relayq import scattering

        root = os.path.realpath(os.path.expanduser(path))
        for before in scattering.newest(self.relay, root=root, limit=1):
            # What its sessions came to since somebody looked needn't be done again.
            Analysis(self.relay, before).look()
        return scattering.plan(self.relay, os.fspath(path), wishes, is_fresh=fresh)

    def start_analysis(self, plan: Plan) -> Analysis:
        """Queue the sessions of a plan."""
        from relayq import scattering

        scattering.submit(self.relay, plan)
        started = Analysis(self.relay, plan)
        started.save()
        return started

    def analysis(self, run: str = "last", *, path: _Path | None = None) -> Analysis:
        """Find a run by its id, a beginning of it, or "last": of a directory, if one is given.

        One that Redis has lost is found by its checkpoint, in that directory or the present one.
        """
        from relayq import checkpoints, scattering

        directory = os.path.realpath(path or ".")
        store = self.relay.session().store.analyses
        try:
            if run != "last":
                return Analysis(self.relay, scattering.kept(self.relay, store.find(run)))
            root = directory if path is not None else None
            known = scattering.newest(self.relay, root=root)
            here = [one for one in known if one.root == directory]
            if known:
                return Analysis(self.relay, (here or known)[0])
            raise NoSuchAnalysis("there is no run of an analysis yet", hint="relayq analyze DIR")
        except NoSuchAnalysis:
            checkpoint = checkpoints.found(directory, run)
            if checkpoint is None:
                raise
        plan, saved = checkpoints.load(checkpoint)
        scattering.keep(self.relay, plan)
        return Analysis(self.relay, plan, saved=saved)

    def analyses(self, *, path: _Path | None = None, limit: int = 20) -> Sequence[Analysis]:
        """Return the last runs, the newest first: all, or those of a directory here."""
        from relayq import scattering

        root = None if path is None else os.path.realpath(path)
        return [
            Analysis(self.relay, plan)
            for plan in scattering.newest(self.relay, root=root, limit=limit)
        ]


class Analysis:
    """A run of an analysis, and what becomes of it."""

    def __init__(
        self,
        relay: Relay,
        plan: Plan,
        *,
        saved: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        from relayq import checkpoints
        from relayq.harvesting import Harvest

        self.id = plan.id
        self._relay = relay
        self.harvest: Harvest = Harvest(relay, plan)
        #: Where its checkpoint and its reports are; "" on other machines than its submitter's.
        self.directory = ""
        if self.harvest.is_here and os.path.isdir(plan.root):
            self.directory = checkpoints.place_of(plan, relay.config)
        known = checkpoints.saved(self.directory) if saved is None and self.directory else saved
        #: How many shards its checkpoint had the results of.
        self.restored = self.harvest.restore(known or {})

    def __repr__(self) -> str:
        return f"<Analysis {self.id} of {self.plan.root}>"

    @property
    def plan(self) -> Plan:
        """How it was divided."""
        return self.harvest.plan

    def look(self) -> list[Track]:
        """Look how it stands; what has ended is kept. Returns the shards that are over now."""
        over = self.harvest.look()
        if over:
            self.harvest.remember(over)
            self.save()
        return over

    def follow(
        self, *, patience: float = PATIENCE, pause: float = 2.0, timeout: float | None = None
    ) -> Iterator[tuple[Sequence[Track], Sequence[str]]]:
        """Look after it until nothing goes on any more; yields after each look what has changed.

        That is the shards that are over now, and what was done about those that failed. Sessions
        that are parked for more than `patience` seconds aren't waited for: they go on by
        themselves.
        """
        deadline = None if timeout is None else clock.boottime() + timeout
        session = self._relay.session()
        while True:
            over = session.surely(self.look)
            said = session.surely(self.harvest.mend)
            yield over, said
            if not said and not self.harvest.is_moving(patience=patience):
                break
            block = pause if deadline is None else min(pause, deadline - clock.boottime())
            if block <= 0:
                raise WaitTimeout(
                    f"the analysis {self.id} isn't over after {timeout:g} s; it goes on",
                    hint=f"relayq analyze --resume {self.id}",
                )
            session.patiently(partial(self.harvest.wait, patience=block), deadline)
        self.save()
        self.write_reports()

    def wait(self, timeout: float | None = None, *, patience: float = PATIENCE) -> Analysis:
        """Wait until it is complete, or nothing of it goes on; raises WaitTimeout."""
        for _ in self.follow(patience=patience, timeout=timeout):
            continue
        return self

    def get(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait, and return the report as a dictionary; `incomplete` says whether all was read."""
        self.wait(timeout)
        return self.as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        from relayq.model import reports

        return reports.as_json(self.facts)

    @property
    def facts(self) -> Run:
        """The facts of its report, as of the last look."""
        return self.harvest.report()

    @property
    def issues(self) -> Sequence[Issue]:
        """What was found so far, each once, by file, severity and line."""
        return self.harvest.issues

    @property
    def sessions(self) -> Mapping[str, str]:
        """The session of each shard, to be asked further."""
        return self.harvest.sessions

    @property
    def incomplete(self) -> bool:
        """Whether a file hasn't been read (yet)."""
        return self.facts.state != "complete"

    def report(self, format: str = "text") -> str:
        """Return the report as text, markdown, json or sarif."""
        from relayq.model import reports, sarif

        facts = self.facts
        match format:
            case "text":
                return reports.as_text(facts)
            case "markdown":
                return reports.as_markdown(facts)
            case "json":
                return json.dumps(reports.as_json(facts))
            case "sarif":
                return json.dumps(sarif.as_sarif(facts))
        raise RelayqError(f"a report is one of {', '.join(FORMATS)}, not {format!r}")

    def ask(self, shard: str, prompt: str, **asked: Any) -> JobResult:
        """Ask the session of a shard something more; it goes on where it ended."""
        track = self.find(shard)
        if track.session_id is None:
            raise NoSuchAnalysis(
                f"{track.name} has no session yet", hint=f"relayq analyze show {self.id}"
            )
        return self._relay.job.agent(
            self.plan.wishes.agent,
            prompt,
            session=track.session_id,
            permission="read_only",
            group=self.plan.group,
            **asked,
        )

    def find(self, shard: str) -> Track:
        """Return a shard by its name, the beginning of it, or the id of its job."""
        self.look()
        return self.harvest.find(shard)

    def retry(self, shard: str | None = None, *, fresh: bool = False) -> int:
        """Have one shard done again, or all that came to nothing; returns how many those are.

        Their sessions go on, or new ones begin, when the run is followed.
        """
        self.look()
        wanted = [self.harvest.find(shard)] if shard is not None else self.harvest.lost
        for track in wanted:
            if not track.standing.is_over:
                raise Conflict(
                    f"{track.name} isn't over: it is {track.standing.value}",
                    hint=f"relayq analyze show {self.id}",
                )
            self.harvest.again(track, fresh=fresh)
        return len(wanted)

    def start_waiting(self) -> None:
        """Queue at once all that would be queued by who follows it."""
        self.harvest.queue_all()

    def cancel(self) -> int:
        """Cancel what hasn't ended; returns how many sessions that were."""
        self.look()
        return self.harvest.cancel()

    def save(self) -> None:
        """Write its checkpoint, on the machine where its files are."""
        from relayq import checkpoints

        if self.directory:
            with self._told():
                checkpoints.save(self.directory, self.harvest)

    def write_reports(self) -> Sequence[str]:
        """Write the report files; returns their names."""
        from relayq import checkpoints

        names: Sequence[str] = ()
        if self.directory:
            with self._told():
                names = checkpoints.report(self.directory, self.harvest)
        return names

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what can't be written; the run goes on without it, and Redis has what it came to."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            self._relay.session().say(f"{error.filename or self.directory}: {reason}")
