"""Who asks: submits jobs, waits for them, reads what became of them.

`job` is ready to use; it connects when it is first asked something. Without a configured broker
it starts a private broker and worker on this machine. Every wait outlives a broker that goes away
and comes back; a submit fails at once.
"""

from __future__ import annotations

import getpass
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from relayq import clock, inside
from relayq import config as configuration
from relayq.agentjobs import OfAgents
from relayq.analyses import OfAnalyses
from relayq.config import Config
from relayq.dispatch import Dispatcher
from relayq.errors import RelayqError, Unplaceable
from relayq.filejobs import Asked, OfFiles, files_fields
from relayq.fleetviews import OfFleet, worker_status_of
from relayq.maps import OfMaps
from relayq.mediajobs import OfMedia
from relayq.model.jobs import FINAL, JobRecord, JobState, Spec, new_id
from relayq.model.placement import Placement, able, facts_of
from relayq.model.selectors import check_filters
from relayq.pausing import OfHosts
from relayq.results import JobResult
from relayq.rotation import signer_of
from relayq.schedules import OfSchedules
from relayq.session import Session, Shows, shown_nowhere
from relayq.specs import OPTIONS, make_spec
from relayq.speechjobs import OfSpeech
from relayq.store import Store, connect

if TYPE_CHECKING:
    from relayq.model.hosts import Host

__all__ = ["Job", "JobResult", "Relay", "job", "worker_status"]


#: How long a worker that was just started may take to register.
_REGISTERS = 10.0


def _say(line: str) -> None:
    print(f"relayq: {line}", file=sys.stderr)


class Relay:
    """A connection to a fleet; `job` asks it things.

    `url` is a broker's, `home` the directory with configuration and fleet key; without them the
    environment and `~/.relayq` decide. `say` gets relayq's own remarks, a line each; `shows` gives
    a context that is told how far a file is on its way. `is_brief` is for a process that asks
    little and ends: it starts faster.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        home: str | os.PathLike[str] | None = None,
        say: Callable[[str], None] = _say,
        is_brief: bool = False,
        shows: Shows = shown_nowhere,
    ) -> None:
        self._url = url
        self._home = home
        self._is_brief = is_brief
        self.say = say
        self.shows = shows
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._config: Config | None = None
        self.job = Job(self)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def config(self) -> Config:
        """The configuration, read at first use."""
        if self._config is None:
            environ = dict(os.environ)
            if self._home is not None:
                environ["RELAYQ_HOME"] = os.fspath(self._home)
            self._config = configuration.load(environ)
        return self._config

    @cached_property
    def submitter(self) -> str:
        """Who submits from here: user@host."""
        return f"{getpass.getuser()}@{self.config.worker.name}"

    def session(self) -> Session:
        """Return the connection, made at first use."""
        with self._lock:
            if self._session is None and self._url is None and self._home is None:
                self._session = inside.session(self)
            if self._session is None:
                url = self._url or self.config.broker_url
                if url is None:
                    from relayq import embedded

                    url = embedded.ensure(self.config, say=self.say)
                store = connect(url, is_brief=self._is_brief)
                signer = signer_of(self.config, store)
                store.jobs.who = self.submitter
                store.reader.say = self.say
                self._session = Session(
                    store,
                    signer,
                    self.say,
                    tick=self.config.lease.tick,
                    shows=self.shows,
                    config=self._config_of(url),
                )
            return self._session

    def _config_of(self, url: str) -> Config:
        """Return the configuration, with the broker that is really used."""
        if self._url is None:
            return self.config
        return replace(self.config, broker=replace(self.config.broker, url=url, password=None))

    @property
    def is_own_fleet(self) -> bool:
        """Whether this machine has a private broker, and a worker that is started with it."""
        return self._url is None and self.config.broker_url is None

    def hosts(self) -> Sequence[Host]:
        """Return every host, by name.

        On a machine that is its own fleet its worker may just have been started: then wait for it.
        """
        store, lease = self.session().store, self.config.lease
        deadline = clock.boottime() + (_REGISTERS if self.is_own_fleet else 0.0)
        while True:
            found = store.hosts.list(online_within=lease.length)
            if any(host.is_online for host in found) or clock.boottime() >= deadline:
                return found
            clock.sleep(0.05)

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._lock:
            if self._session is not None:
                self._session.store.close()
                self._session = None


class Job(OfHosts, OfFleet, OfAgents, OfAnalyses, OfFiles, OfMaps, OfMedia, OfSpeech, OfSchedules):
    """Submits jobs and finds them again."""

    def __init__(self, relay: Relay | None = None) -> None:
        self.relay = relay or Relay()

    @property
    def _store(self) -> Store:
        return self.relay.session().store

    def run(self, cmd: str | Sequence[str], **options: Any) -> JobResult:
        """Queue a command: a line for the shell, or a program with its arguments.

        Takes the payload's fields (`cwd`, `env`, `stdin`) and the options of `submit`.
        """
        return self.submit("run_command", cmd=cmd if isinstance(cmd, str) else list(cmd), **options)

    def run_on(self, host: str, cmd: str | Sequence[str], **options: Any) -> JobResult:
        """Queue a command for one host."""
        return self.run(cmd, host=host, **options)

    def run_on_mac(self, cmd: str | Sequence[str], **options: Any) -> JobResult:
        """Queue a command for the host called mac, else the first one that runs macOS."""
        return self.run_on(self._named("mac", lambda h: h.os == "darwin"), cmd, **options)

    def run_on_rpi(self, cmd: str | Sequence[str], **options: Any) -> JobResult:
        """Queue a command for the host called rpi, else the first one that is a Raspberry Pi."""
        return self.run_on(self._named("rpi", lambda h: "Raspberry" in h.model), cmd, **options)

    def submit(
        self,
        kind: str,
        *,
        host: str | None = None,
        timeout: float | str | None = None,
        priority: int | str = "normal",
        on_lost: str = "retry",
        memory: int | str | None = None,
        processes: int | None = None,
        max_output: int | str | None = None,
        retries: int | None = None,
        backoff: str | Iterable[float] | None = None,
        retry_on: str | Iterable[str] | None = None,
        name: str | None = None,
        labels: Iterable[str] = (),
        meta: Mapping[str, str] | None = None,
        group: str | None = None,
        unique: str | None = None,
        note: str | None = None,
        after: Iterable[JobResult | str] = (),
        after_any: Iterable[JobResult | str] = (),
        due_at: float | None = None,
        delay: float = 0.0,
        expires: float | str | None = None,
        on: Iterable[str] | str = (),
        needs: Iterable[str] | str = (),
        excluded: Iterable[str] | str = (),
        resources: Mapping[str, int] | None = None,
        prefer: str | None = None,
        overflow: float | str | None = None,
        strategy: str | None = None,
        with_job: JobResult | str | None = None,
        private: str | None = None,
        files_in: Iterable[Asked] = (),
        files_out: Iterable[Asked] = (),
        overwrite: bool = False,
        secrets: Iterable[str] | str = (),
        git: str | bool | None = None,
        grant: Mapping[str, Any] | Iterable[str] | str | None = None,
        wait_for_host: bool = False,
        follow: bool = False,
        **payload: Any,
    ) -> JobResult:
        """Queue a job of any kind, with its payload's fields as keywords; returns at once.

        `host` names one host; else `on` are names, patterns ("mac*") and labels ("@heavy") of
        which one must fit, `needs` capabilities that it must have ("ffmpeg"), `excluded` hosts
        that it must not be, `resources` what the job takes of it ({"cuda": 1}). It waits `overflow`
        seconds for the host that it would rather have, `prefer`, or for the one that the `strategy`
        chose. It shares the host of `with_job`. A job that no known host could ever run is
        refused unless `wait_for_host`; one that nobody has taken after `expires` seconds fails.
        A `private` one runs only where `privacy:` of the configuration says so of that label.

        `timeout` limits its run time (seconds, or text like "2h"), `memory` ("2GB") and `processes`
        all that it starts, `max_output` ("1GB") what it writes; `on_lost` says what happens
        when its host vanishes (retry, ask, fail); `retries` allows that many further attempts
        after a failure of its own, of the causes in `retry_on` ("exit,signal", "timeout", "all",
        "exit:75,111"), after delays within `backoff` ("1s..60s"); `after` names jobs that
        must succeed first, `after_any` jobs that must end first, however; it is queued at `due_at`
        (Unix seconds), or after `delay` seconds.
        `name`, `labels`, `meta`, `group` and `note` are yours, to find it by. While a job with
        the same `unique` text isn't ended, that one is returned (`is_new` False) and no
        second one queued. `follow` has the output sent from the start, for
        `JobResult.logs(follow=True)`. `plan` takes the same and queues nothing.

        `files_in` travel with it: "talk.mov", "talk.mov:in.mov", a path, or a pair of what is here
        and what it is called there. `files_out` come back: patterns in the job's directory, or
        pairs with where they are put here, which is replaced with `overwrite` only; `files` of the
        result has them, `fetch` brings them. Without a `cwd` such a job has a fresh directory.
        `secrets` names those of its host that its command gets as variables (docs/secrets.md).
        With `git` (True, or a branch, tag or commit) it works in a worktree of the repository that
        `cwd` is in, and `changes` and `patch` of the result have what it changed (docs/git.md).
        `grant` says what it may submit itself, from inside ("none", "hosts=mini", "depth=1").
        """
        spec = self._spec(
            kind,
            payload,
            host=host,
            timeout=timeout,
            priority=priority,
            on_lost=on_lost,
            memory=memory,
            processes=processes,
            max_output=max_output,
            retries=retries,
            backoff=backoff,
            retry_on=retry_on,
            name=name,
            labels=labels,
            meta=meta,
            group=group,
            unique=unique,
            note=note,
            after=after,
            after_any=after_any,
            due_at=due_at,
            delay=delay,
            expires=expires,
            on=on,
            needs=needs,
            excluded=excluded,
            resources=resources,
            prefer=prefer,
            overflow=overflow,
            strategy=strategy,
            with_job=with_job,
            private=private,
            files_in=files_in,
            files_out=files_out,
            overwrite=overwrite,
            secrets=secrets,
            git=git,
            grant=grant,
        )
        return self._submit([spec], follow=follow, wait_for_host=wait_for_host)[0]

    def plan(self, kind: str, *, wait_for_host: bool = False, **asked: Any) -> Spec:
        """Check what `submit` would be asked, and return the spec that it would queue.

        The broker is asked, and connected to, only for a host that is named.
        """
        options = {key: asked.pop(key) for key in OPTIONS if key in asked}
        spec = self._spec(kind, asked, **options)
        if wait_for_host or not (spec.host or spec.is_constrained):
            return spec
        [spec], _ = self._locate([spec])
        return spec

    def broadcast(
        self, cmd: str | Sequence[str], *, on: Iterable[str] | str = (), **options: Any
    ) -> Sequence[JobResult]:
        """Queue a command once for each host that is online, of those that fit `on` and the rest.

        Takes the options of `run`; returns a job a host, in the order of their names.
        """
        follow = options.pop("follow", False)
        return self._submit(self.plan_all(cmd, on=on, **options), follow=follow)

    def plan_all(
        self, cmd: str | Sequence[str], *, on: Iterable[str] | str = (), **options: Any
    ) -> Sequence[Spec]:
        """Return the specs that `broadcast` would queue."""
        if options.get("files_out"):
            raise RelayqError("many hosts can't all bring back the same file: a job for each")
        asked = {"cmd": cmd if isinstance(cmd, str) else list(cmd), "on": on, **options}
        chosen = {key: asked.pop(key) for key in OPTIONS if key in asked}
        pattern = self._spec("run_command", asked, **chosen)
        hosts = self.relay.hosts()
        online = [facts_of(host) for host in hosts if host.is_online]
        if not online:
            raise Unplaceable("no host is online", missing={}, hint="relayq hosts")
        names = sorted(host.name for host in able(pattern.constraints, online))
        return [replace(pattern, id=new_id(), host=name, on=()) for name in names]

    def submit_many(self, commands: Iterable[Mapping[str, Any] | str]) -> Sequence[JobResult]:
        """Queue many jobs, 1,000 a round trip: a command each, or the keywords of `submit`.

        All are checked before the first is queued.
        """
        specs = []
        for one in commands:
            asked = {"cmd": one} if isinstance(one, str) else dict(one)
            kind = asked.pop("kind", "run_command")
            options: dict[str, Any] = {key: asked.pop(key) for key in OPTIONS if key in asked}
            specs.append(self._spec(kind, asked, **options))
        return self._submit(specs)

    def fetch(self, id: str) -> JobResult:
        """Find a job by its id or by a prefix that only it has."""
        session = self.relay.session()
        return JobResult(session, session.store.jobs.find(id))

    def list(
        self, *, state: str | None = None, host: str | None = None, limit: int = 50
    ) -> Sequence[JobRecord]:
        """Return records, the newest first: all, or those in one state, or of one host."""
        states = None if state is None else [JobState(state)]
        return self._store.jobs.list(states=states, host=host, limit=limit)

    def select(
        self,
        selectors: Sequence[str],
        *,
        filters: Mapping[str, str] | None = None,
        everything: bool = False,
    ) -> Sequence[JobResult]:
        """Find jobs as people name them; each once.

        A selector is an id or a prefix of at least 4 letters, `last`, `last~2`, a name (the newest
        job of it), `@group`, or `group[1-5]` (its first five). Filters are state, host, kind, name,
        label, group and meta.KEY, each a text in which `*` stands for anything; they narrow the
        selectors, or without any choose among all jobs, as `everything` does without a filter
        (the newest 10,000). A selector without a job raises NoSuchJob, a prefix of several
        AmbiguousId.
        """
        session, lookup = self.relay.session(), self._store.lookup
        check_filters(filters or {})
        if everything or (filters and not selectors):
            return [JobResult(session, id) for id in lookup.all(filters or {})]
        ids = lookup.select(selectors)
        return [JobResult(session, id) for id in lookup.narrow(ids, filters or {})]

    def prune(
        self,
        older_than: float | None = None,
        keep: int | None = None,
        *,
        states: Iterable[JobState | str] = FINAL,
    ) -> int:
        """Forget ended jobs: older than so many seconds, and not among the newest `keep`.

        Returns how many those were. At least one of the two limits is needed.
        """
        if older_than is None and keep is None:
            raise RelayqError("prune needs an age, or how many jobs to keep")
        if (older_than or 0) < 0 or (keep or 0) < 0:
            raise RelayqError("an age and a number of jobs can't be below 0")
        chosen = [JobState(state) for state in states]
        if under_way := [state for state in chosen if not state.is_final]:
            raise RelayqError(f"only ended jobs can be pruned, not {under_way[0]} ones")
        return self._store.jobs.prune(chosen, older_than=older_than or 0.0, keep=keep or 0)

    def cancel(self, id: str) -> str:
        """Cancel a job; see `JobResult.cancel`."""
        return self.fetch(id).cancel()

    def worker_status(self) -> dict[str, Any]:
        """Return who is online and what they do; see `worker_status`."""
        return worker_status_of(self._store, self.relay.config.lease.length)

    def _submit(
        self, specs: Sequence[Spec], *, follow: bool = False, wait_for_host: bool = False
    ) -> Sequence[JobResult]:
        session = self.relay.session()
        dispatcher = Dispatcher(session.store, session.signer)
        specs = self._sent(specs, self._locate, waits=wait_for_host)
        specs, placements = self._locate(specs, wait_for_host=wait_for_host)
        results = [JobResult(session, spec.id, follow=follow, fresh=True) for spec in specs]
        replies = [result.reply for result in results] if follow else []
        for result in results if follow else []:
            session.store.logs.ack(result.reply, 0)
        placed = dispatcher.submit(specs, replies=replies, placements=placements)
        self._refer(specs)
        return [
            result if one.is_new else JobResult(session, one.id)
            for result, one in zip(results, placed, strict=True)
        ]

    def _locate(
        self, specs: Sequence[Spec], *, wait_for_host: bool = False
    ) -> tuple[Sequence[Spec], Sequence[Placement]]:
        """Decide where jobs wait; the broker is asked only about those that can't run anywhere."""
        session, config = self.relay.session(), self.relay.config
        if self.relay.is_own_fleet and any(spec.host or spec.is_constrained for spec in specs):
            self.relay.hosts()
        return Dispatcher(session.store, session.signer).locate(
            specs,
            online_within=config.lease.length,
            balance=config.scheduler.balance,
            wait_for_host=wait_for_host,
        )

    def _spec(self, kind: str, payload: Mapping[str, Any], **options: Any) -> Spec:
        relay = self.relay
        files = [options.pop(name, None) or () for name in ("files_in", "files_out")]
        options |= files_fields(relay.config, *files, overwrite=options.pop("overwrite", False))
        for name in ("after", "after_any", "with_job"):
            if options.get(name) is not None:
                options[name] = _ids(options[name])
        return make_spec(relay.config, kind, payload, submitter=relay.submitter, **options)

    def _named(self, name: str, is_one: Callable[[Host], bool]) -> str:
        hosts = self.relay.hosts()
        called = [h for h in hosts if h.name == name or name in h.aliases]
        fitting = called or [h for h in hosts if is_one(h)]
        if not fitting:
            missing = {h.name: [name] for h in hosts}
            raise Unplaceable(f"no known host is a {name}", missing=missing, hint="relayq status")
        return min(fitting, key=lambda h: (h.name != name, not h.is_online, h.name)).name


def _ids(jobs: Any) -> Any:
    """Return the id of a job, or of each of several, that are ids or results."""
    if isinstance(jobs, JobResult):
        return jobs.id
    return jobs if isinstance(jobs, str) else tuple(_ids(one) for one in jobs)


job = Job()


def worker_status() -> dict[str, Any]:
    """Return who is online and what they do.

    `{"online": bool, "total_workers", "total_active", "total_queued", "workers": {name: {"type",
    "active_jobs", "queued_jobs", "total_jobs", "online", ...}}}`; the last includes what the host
    says of itself. Read from the broker in one call; no worker is asked.
    """
    return job.worker_status()
