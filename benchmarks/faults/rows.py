"""The faults, a function each: it brings one about and returns what was seen."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psutil

from benchmarks.faults.on_celery import VISIBILITY_TIMEOUT
from benchmarks.faults.seen import Seen, most_at_once, notes, read, seconds
from benchmarks.faults.systems import State, System, alive, wait
from relayq import clock

_AWAY = 6.0
_LONG = 20
#: A worker takes a job that is queued at once within this, on a busy machine too.
_SOON = 15.0


def line(system: System, work: str) -> str:
    """Return a job: it says that it starts, works, and says that it ends."""
    return f"exec 3>>'{system.journal}'; echo start $$ >&3; {work}; echo end $$ >&3"


def begun(system: System, work: str) -> Any:
    """Have a worker run a job, and return when that has begun."""
    job = system.submit(line(system, work))
    if not wait(lambda: notes(system.journal, "start"), _SOON):
        logs = "\n".join(worker.log.read_text()[-3000:] for worker in system.workers)
        raise RuntimeError(f"{system.name} doesn't start a job: {system.state(job)}\n{logs}")
    return job


def look(system: System, job: Any, since: float, within: float, **more: Any) -> Seen:
    """Wait for a job's end, and return what was seen of it."""
    wait(lambda: system.state(job).is_final, since + within - monotonic())
    after = monotonic() - since
    return read(system.journal, system.state(job), after, system.held(), **more)


def pass_jobs(system: System, job: Any, until: float) -> None:
    """Have the worker run other jobs meanwhile: RQ looks for lost ones only between two jobs."""
    while monotonic() < until and not system.state(job).is_final:
        system.submit("true")
        wait(lambda: system.state(job).is_final, 5)


def killed_worker(system: System) -> Seen:
    """Kill a worker in the middle of a job; a new one follows."""
    worker = system.start_worker()
    job = begun(system, "sleep 4")
    worker.process.kill()
    worker.process.wait()
    since = monotonic()
    system.start_worker()
    return look(system, job, since, 30)


def killed_pool(system: System) -> Seen:
    """Kill a worker and all its processes above a job; a new one follows."""
    worker = system.start_worker()
    job = begun(system, "sleep 4")
    [start] = notes(system.journal, "start")
    above = [process.pid for process in psutil.Process(start.pid).parents()]
    victims = above[: above.index(worker.process.pid) + 1]
    # Nobody gets to see another's death.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    worker.process.wait()
    since = monotonic()
    system.start_worker()
    pass_jobs(system, job, since + 75)
    return look(system, job, since, 80)


def outage(system: System) -> Seen:
    """Take Redis away while a job ends; it comes back with all its data."""
    worker = system.start_worker()
    job = begun(system, "sleep 3")
    system.redis.kill()
    since = monotonic()
    clock.sleep(_AWAY)
    system.redis.start()
    seen = look(system, job, since, 25)
    if not seen.state.is_final and worker.has_exited:
        system.start_worker()
        pass_jobs(system, job, since + 95)
        return look(system, job, since, 100, has_worker_exited=True)
    return seen


def long_job(system: System) -> Seen:
    """Run a job for longer than Celery's visibility timeout, with two workers."""
    system.start_worker()
    system.start_worker()
    job = begun(system, f"sleep {_LONG}")
    since = monotonic()
    wait(lambda: system.state(job).is_final, _LONG + 15)
    after = monotonic() - since
    clock.sleep(3)
    copies = most_at_once(system.journal)
    return read(system.journal, system.state(job), after, system.held(), at_once=copies)


def cancelled_tree(system: System) -> Seen:
    """Cancel a job that has started two processes, one in a session of its own."""
    system.start_worker()
    children = "sleep 301 & echo child $! >&3; setsid sleep 302 & echo setsid $! >&3; wait"
    job = begun(system, children)
    wait(lambda: len(notes(system.journal)) == 3, _SOON)
    since = monotonic()
    system.cancel(job)
    names = {"start": "the command", "child": "its child", "setsid": "its setsid child"}
    pids = {note.pid: names[note.word] for note in notes(system.journal)}
    wait(lambda: not alive(list(pids)), 15)
    after, left = monotonic() - since, [pids[pid] for pid in alive(list(pids))]
    wait(lambda: system.state(job).is_final, 5)
    words = f"nothing survives ({seconds(after)})"
    if left:
        words = (
            f"{' and '.join(left)} survive{'s' * (len(left) == 1)} (looked for {seconds(after)})"
        )
    return read(system.journal, system.state(job), after, None, first=words)


def cancelled_unseen(system: System) -> Seen:
    """Cancel a queued job while no worker is up, then start one."""
    job = system.submit(line(system, "true"))
    system.cancel(job)
    since = monotonic()
    system.start_worker()
    probe = system.submit("true")
    wait(lambda: system.state(probe).is_final, _SOON)
    wait(lambda: notes(system.journal, "start"), 2)
    has_run = bool(notes(system.journal, "start"))
    return look(system, job, since, _SOON, first="it ran" if has_run else "it didn't run")


def poison(system: System) -> Seen:
    """Run a job that kills the process that runs it, each time; look for 20 s."""
    system.start_worker()
    since = monotonic()
    job = begun(system, "kill -9 $PPID; sleep 1; exit 1")
    wait(lambda: system.state(job).is_final, 20)
    after = monotonic() - since
    clock.sleep(max(0.0, since + 20 - monotonic()))
    return read(system.journal, system.state(job), after, system.held())


def refused_submit(system: System) -> Seen:
    """Submit while there is no Redis."""
    system.redis.kill()
    said: list[str] = []

    def submit() -> None:
        try:
            system.submit("true")
        except Exception as error:  # whatever it raises is what is looked for
            said.append(type(error).__name__)
        else:
            said.append("no error")

    since = monotonic()
    threading.Thread(target=submit, daemon=True).start()
    has_ended = wait(lambda: said, 45)
    after = monotonic() - since
    words = f"{said[0] if has_ended else 'no error'} after {seconds(after)}"
    return Seen(State("", True, False), after, 0, 0, None, first=words)


@dataclass(frozen=True)
class Row:
    """A fault: what is typed to have it, what it is, and what brings it about."""

    name: str
    fault: str
    happen: Callable[[System], Seen]
    #: After this many seconds something hangs.
    limit: float


ROWS = (
    Row(
        "worker",
        "the worker is killed (-9) in the middle of a job, a new one started",
        killed_worker,
        90,
    ),
    Row("pool", "the same, with all its processes above the job's", killed_pool, 150),
    Row("outage", f"Redis is down for {_AWAY:.0f} s while a job ends well", outage, 160),
    Row(
        "long",
        f"a job of {_LONG} s outlasts the visibility timeout ({VISIBILITY_TIMEOUT} s); two workers",
        long_job,
        110,
    ),
    Row(
        "tree",
        "a running job with a child, and one in a session of its own (setsid), is cancelled",
        cancelled_tree,
        90,
    ),
    Row(
        "cancel",
        "a queued job is cancelled while the worker is down, the worker started",
        cancelled_unseen,
        90,
    ),
    Row(
        "poison", "a job kills (-9) the process that runs it, whenever it starts; 20 s", poison, 90
    ),
    Row("submit", "a submit while Redis is down", refused_submit, 75),
)
