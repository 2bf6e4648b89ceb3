"""What people see of an outage: a submit fails at once, all that waits goes on when it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from relayq import clock
from relayq.errors import BrokerUnavailable
from tests.system.faults.journal import check_invariants
from tests.waiting import until

pytestmark = pytest.mark.system

GONE, BACK = "can't reach the broker", "the broker answers again"


@contextmanager
def outage(scene, how: str) -> Iterator[None]:
    """Keep the broker from the client for the length of a block."""
    acts: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "killed": (scene.broker.kill, scene.broker.start),
        "hung": (scene.broker.hang, scene.broker.resume),
        "refused": (scene.link.refuse, scene.link.heal),
    }
    begin, end = acts[how]
    begin()
    try:
        yield
    finally:
        end()


@pytest.mark.parametrize("how", ["killed", "hung", "refused"])
def test_a_submit_fails_at_once_and_says_what_to_do(how, scene):
    with outage(scene, how):
        # The commands' own start-up, twice as long on a busy machine, isn't the broker's.
        began = monotonic()
        done = scene.relayq("submit", "true")
        seconds = monotonic() - began
        began = monotonic()
        with pytest.raises(BrokerUnavailable):
            scene.far.job.run("true")
        own_seconds = monotonic() - began

    assert done.returncode == 125
    assert GONE in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert own_seconds < 5
    assert seconds < 5 + 5


@pytest.mark.parametrize(
    ("how", "seconds"),
    # Each waits in calls of 2.5 s, and for an answer 3.5 s longer. After 30 s a host forgets who
    # followed.
    [("killed", 6.5), ("hung", 6.5), pytest.param("killed", 45, marks=pytest.mark.slow)],
)
def test_whoever_waits_is_told_and_gets_everything(how, seconds, scene, journal):
    result = journal.submit(scene.job, gate=journal.gate, lines=2000)
    journal.started(result)
    copy = journal.directory / f"{result.id}.1.out"
    until(copy.exists, what="the output")
    command = f"echo begin; until [ -e {journal.gate} ]; do sleep 0.05; done; echo end"
    told = {
        word: Told(scene, journal.directory / word, *arguments)
        for word, *arguments in (
            ("wait", result.id),
            ("logs", "-f", result.id),
            ("run", command),
        )
    }
    got: list[str] = []
    far = scene.far.job.fetch(result.id)
    getting = threading.Thread(target=lambda: got.append(far.get()))
    getting.start()
    until(lambda: told["logs"].out and told["run"].out, within=15, what="the first output")
    until(lambda: waiting_clients(scene) == 4, within=15, what="all four to wait")

    with outage(scene, how):
        until(lambda: any(GONE in line for line in scene.said), within=15, what="a remark of get()")
        clock.sleep(seconds)
        journal.gate.touch()
    codes = {word: one.finish() for word, one in told.items()}
    getting.join(30)

    assert codes == {"wait": 0, "logs": 0, "run": 0}
    assert got == [copy.read_text().removesuffix("\n")]
    assert told["logs"].out == copy.read_text()
    assert told["run"].out == "begin\nend\n"
    for word, one in told.items():
        assert GONE in one.err, f"{word} said nothing of the outage: {one.err!r}"
        assert BACK in one.err, f"{word} said nothing of its end: {one.err!r}"
    check_invariants(journal, scene.job, ["one"], starts=1)


def waiting_clients(scene) -> int:
    """Return how many clients block on a job's end or its output."""
    clients = scene.broker.connection.client_list()
    return sum(client["cmd"] == "xread" and "b" in client["flags"] for client in clients)


class Told:
    """A command that goes on while a test does something else; what it says goes to files."""

    def __init__(self, scene, files: Path, *arguments: str) -> None:
        self._out, self._err = files.with_suffix(".stdout"), files.with_suffix(".stderr")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = scene.begin(files.name, *arguments, stdout=out, stderr=err)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def finish(self) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait(40)


def test_jobs_wait_for_a_worker_that_is_away(scene, journal):
    host = scene.hosts["one"]
    host.end()
    results = [journal.submit(scene.job, 0.1) for _ in range(10)]

    host.start()

    check_invariants(journal, scene.job, ["one"], starts=1)
    assert {result.record.attempt for result in results} == {1}
