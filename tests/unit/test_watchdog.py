"""When a worker counts as alive: by its beats, its consumer, and what it waits for."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from relayq.host import watchdog
from relayq.host.watchdog import Signs, Tries, Watchdog


class Machine:
    """A worker whose parts a test moves, and a clock that it sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 1000.0
        monkeypatch.setattr(watchdog, "monotonic", lambda: self.at)
        self.heartbeat = SimpleNamespace(last=0.0)
        self.runner = SimpleNamespace(
            leaving=threading.Event(),
            draining=threading.Event(),
            may_claim=threading.Event(),
            attempts=list,
            slots=SimpleNamespace(total=4),
            config=SimpleNamespace(lease=SimpleNamespace(idle_beat=30.0)),
        )
        self.runner.may_claim.set()
        self.tries = Tries()
        self.loop_turns = True
        self.signs = Signs(
            self.runner, self.heartbeat, ask_consumer=self._ask_consumer, tries=self.tries
        )

    def _ask_consumer(self, callback) -> None:
        if self.loop_turns:
            callback()

    def pass_minutes(self, minutes: int, *, beats: bool = True) -> str | None:
        """Let time pass, with a look twice a minute; return what the last one found."""
        fault = None
        for _ in range(2 * minutes):
            self.at += 30
            self.heartbeat.last += 30 if beats else 0
            fault = self.signs.fault()
        return fault


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


def test_a_worker_that_beats_and_whose_consumer_turns_is_alive(machine):
    assert machine.pass_minutes(60) is None


def test_a_heartbeat_that_stands_still_is_a_fault(machine):
    machine.pass_minutes(1)

    assert "the heartbeat has stood still" in machine.pass_minutes(3, beats=False)
    assert machine.pass_minutes(1) is None


def test_a_consumer_that_stands_still_while_the_broker_answers_is_a_fault(machine):
    machine.pass_minutes(1)
    machine.loop_turns = False

    assert "the consumer has stood still" in machine.pass_minutes(3)


def test_a_consumer_that_keeps_trying_to_connect_is_alive(machine):
    machine.loop_turns = False
    for _ in range(10):
        machine.tries.filter(logging.LogRecord("c", 40, "", 0, "Cannot connect to %s", (), None))
        assert machine.pass_minutes(1) is None


def test_a_worker_without_its_broker_is_alive(machine):
    machine.loop_turns = False
    machine.runner.may_claim.clear()

    assert machine.pass_minutes(60) is None
    assert "doesn't answer" in machine.signs.summary()


def test_a_worker_may_wait_for_its_jobs_for_hours_and_end_for_a_minute(machine):
    machine.loop_turns = False
    machine.runner.draining.set()
    assert machine.pass_minutes(300) is None
    assert machine.signs.summary() == "draining: 0 jobs left"

    machine.runner.leaving.set()
    assert machine.pass_minutes(1, beats=False) is None
    assert "about to end" in machine.pass_minutes(3, beats=False)


def test_a_machine_that_slept_is_not_taken_for_one_that_hangs(machine):
    """The watchdog's clock stands still in sleep, the heartbeat's doesn't."""
    machine.pass_minutes(1)
    machine.heartbeat.last += 8 * 3600

    assert machine.signs.fault() is None


def test_a_watchdog_reassures_the_manager_and_falls_silent_at_a_fault(monkeypatch, caplog):
    said = []
    supervisor = SimpleNamespace(
        hears=True, is_launchd=False, patience=120.0, alive=lambda status: said.append(status)
    )
    life = SimpleNamespace(fault=lambda: None, summary=lambda: "2 jobs")
    dog = Watchdog(supervisor, life)

    dog.look()
    life.fault = lambda: "the heartbeat has stood still for 99 s"
    dog.look()

    assert said == ["2 jobs"]
    assert "stood still for 99 s" in caplog.text


def test_under_launchd_which_sees_no_hang_a_worker_ends_itself(machine, monkeypatch):
    ends = []
    monkeypatch.setattr(watchdog.os, "_exit", ends.append)
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda file: None)
    supervisor = SimpleNamespace(hears=False, is_launchd=True, patience=None)
    dog = Watchdog(supervisor, SimpleNamespace(fault=lambda: "it hangs", summary=str))

    dog.look()
    assert not ends
    machine.at += 61
    dog.look()

    assert ends == [1]


def test_only_attempts_to_connect_are_kept_quiet():
    tries = Tries()
    consumer = logging.LogRecord("c", 40, "", 0, "Cannot connect to %s: %s", (), None)
    other = logging.LogRecord("c", 40, "", 0, "consumer: connection lost", (), None)

    assert not tries.filter(consumer)
    assert tries.filter(other)
    assert tries.number == 1
