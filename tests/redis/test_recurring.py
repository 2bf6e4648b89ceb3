"""Schedules over changes of the clocks, sleeps, and any order of deaths, pauses and races.

Pure decisions mostly, so on one sort of Redis.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relayq.model.schedules import moment
from relayq.model.timing import MOST_MISSED
from relayq.reaper import Reaper
from relayq.store import Store
from tests.redis.consistency import problems
from tests.redis.fleet import Clock, Fleet
from tests.redis.recurrences import Recurrences, Slow, at

pytestmark = pytest.mark.parametrize("connection", ["redis7"], indirect=True)

BERLIN = "Europe/Berlin"
DAY = 86_400.0


@pytest.fixture
def recurs(fleet: Fleet) -> Recurrences:
    return Recurrences(fleet)


def test_over_the_hour_that_is_left_out_each_day_has_its_run(recurs):
    recurs.set_clock("2026-03-27T12:00", BERLIN)
    recurs.add("daily at 2:30", tz=BERLIN)

    assert recurs.through("2026-03-27T12:00", "2026-03-30T12:00", BERLIN) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert recurs.record().missed == 0


def test_over_the_hour_that_comes_twice_each_day_has_one_run(recurs):
    recurs.set_clock("2026-10-24T12:00", BERLIN)
    recurs.add("daily at 2:30", tz=BERLIN)

    assert recurs.through("2026-10-24T12:00", "2026-10-27T12:00", BERLIN) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
        "2026-10-27T02:30:00+01:00",
    ]


def test_an_interval_knows_of_no_change_of_the_clocks(recurs):
    recurs.set_clock("2026-10-25T00:00", BERLIN)
    recurs.add("every 1h", tz=BERLIN)

    assert len(recurs.through("2026-10-25T00:00", "2026-10-25T06:00", BERLIN)) == 6


@pytest.mark.parametrize(
    ("catch_up", "runs", "missed"),
    [
        ("skip", [], 48),
        ("once", ["2026-11-23T12:00:00Z"], 47),
        ("all", [f"2026-11-2{1 + (h + 13) // 24}T{(h + 13) % 24:02}:00:00Z" for h in range(48)], 0),
    ],
)
def test_after_two_days_of_sleep_it_is_caught_up_as_was_asked(recurs, catch_up, runs, missed):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *", catch_up=catch_up)
    recurs.set_clock("2026-11-23T12:30")

    recurs.tick()
    recurs.tick("mini")

    assert recurs.runs() == runs
    assert recurs.record().missed == missed
    assert recurs.record().runs == len(runs)
    assert recurs.record().next_at == at("2026-11-23T13:00")


def test_what_is_too_late_by_its_grace_is_missed(recurs):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *", catch_up="all", grace=3 * 3600.0)
    recurs.set_clock("2026-11-23T12:30")

    recurs.tick()

    assert len(recurs.runs()) == 3
    assert recurs.record().missed == 45


def test_many_that_wait_for_each_other_have_a_limit(recurs):
    recurs.set_clock("2026-11-21T12:30:00")
    recurs.add("every 1m", overlap="queue", catch_up="all")
    for _ in range(3):
        recurs.fleet.clock.advance(3600)
        recurs.tick()

    record = recurs.record()
    assert (record.runs, record.left_out) == (100, 80)
    assert len(recurs.jobs()) == 100


def test_a_worker_takes_every_turn_that_its_tick_tells_of(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30:00")
    for name in ("forged", "first", "second"):
        recurs.add("0 * * * *", name=name)
    fleet.store.connection.hset(fleet.key("schedule", "forged"), "signed", b"key mac body")
    fleet.clock.advance(3600)

    Reaper(recurs.config, fleet.store, fleet.signer).tick()

    assert [len(recurs.jobs(name)) for name in ("forged", "first", "second")] == [0, 1, 1]


# The broker's clock


def test_an_instant_that_had_its_run_has_no_second_one_when_the_clock_is_set_back(recurs, fleet):
    recurs.set_clock("2026-11-21T12:59:59")
    recurs.add("0 * * * *")
    fleet.clock.advance(2)
    recurs.tick()
    fleet.clock.advance(-1800)
    fleet.tick(is_regular=False)

    fleet.clock.advance(1800)
    recurs.tick()
    fleet.clock.advance(3600)
    recurs.tick()

    assert recurs.runs() == ["2026-11-21T13:00:00Z", "2026-11-21T14:00:00Z"]


def test_a_clock_that_was_years_ahead_is_forgotten(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *")
    recurs.set_clock("2036-11-21T12:30")
    recurs.tick()
    fleet.clock.advance(at("2026-11-21T12:40") - fleet.now())

    words = fleet.tick(is_regular=False)
    assert ("recurs", "nightly") in words
    recurs.turns().take("nightly")

    assert recurs.record().next_at == at("2026-11-21T13:00")
    recurs.set_clock("2026-11-21T13:00:10")
    recurs.tick()
    assert recurs.runs()[-1] == "2026-11-21T13:00:00Z"


def test_a_jitter_is_kept_to_and_the_same_for_every_worker(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    schedule = recurs.add("0 * * * *", jitter=1800.0)
    delay = schedule.delay(at("2026-11-21T13:00"))
    recurs.fleet.clock.advance(1800 + delay - 5)
    assert recurs.tick() == []

    recurs.fleet.clock.advance(6)
    recurs.tick()

    assert recurs.runs() == ["2026-11-21T13:00:00Z"]


# Any order of all this


class Story(RuleBasedStateMachine):
    """Workers that look, go on or die, people who pause and remove, time that passes or jumps."""

    store: Store
    clock: Clock

    @initialize(
        when=st.sampled_from(["every 10m", "*/15 * * * *", "20 2,3 * * *"]),
        catch_up=st.sampled_from(["skip", "once", "all"]),
        jitter=st.sampled_from([0.0, 200.0]),
    )
    def begin(self, when: str, catch_up: str, jitter: float) -> None:
        self.store.connection.flushdb()
        self.fleet = Fleet(self.store, self.clock)
        self.recurs = Recurrences(self.fleet)
        self.asked = {"when": when, "catch_up": catch_up, "jitter": jitter, "tz": BERLIN}
        self.clock.offset = 0.0
        self.recurs.set_clock("2026-10-24T22:00", BERLIN)
        self.expected: list[float] = []
        self.missed = 0
        self.slow: list[tuple[Slow, float, int]] = []
        #: Changes of the schedule: whoever looked before one is too late.
        self.turn = 0
        self.paused = False
        self.add()

    def add(self) -> None:
        self.schedule = self.recurs.add(**self.asked)
        self.mark = self.fleet.now()
        self.turn += 1
        self.paused, self.missed = False, 0

    def passed(self, now: float) -> list[float]:
        """Return the instants that nobody has dealt with."""
        found = []
        for instant in self.schedule.timing.after(self.mark):
            if instant + self.schedule.delay(instant) > now:
                return found
            found.append(instant)
        return found

    def takes(self, now: float) -> None:
        """Expect what a turn by what was seen at an instant comes to."""
        passed = self.passed(now)
        if not passed:
            return
        kept = passed
        if self.asked["catch_up"] == "skip":
            kept = [one for one in passed if one + self.schedule.delay(one) >= now - 60.0]
        kept = kept[-MOST_MISSED:] if self.asked["catch_up"] == "all" else kept[-1:]
        self.expected += kept
        self.missed += len(passed) - len(kept)
        self.mark = passed[-1]
        self.turn += 1

    @rule(seconds=st.one_of(st.floats(1, 1200), st.floats(3600, 2 * DAY)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def a_worker_ticks(self) -> None:
        now = self.fleet.now()
        self.recurs.tick()
        if not self.paused:
            self.takes(now)

    @rule()
    def a_worker_looks(self) -> None:
        now = self.fleet.now()
        worker = Slow(self.store, self.fleet.signer, self.recurs.config, who="slow")
        if not self.paused and self.passed(now):
            self.slow.append((worker.look(), now, self.turn))

    @precondition(lambda self: self.slow)
    @rule(data=st.data())
    def it_goes_on(self, data: st.DataObject) -> None:
        worker, looked_at, turn = self.slow.pop(data.draw(st.integers(0, len(self.slow) - 1)))
        word = worker.goes_on()
        assert word == ("done" if turn == self.turn else "changed")
        if word == "done":
            self.takes(looked_at)

    @precondition(lambda self: self.slow)
    @rule()
    def it_dies(self) -> None:
        self.slow.pop()

    @rule()
    def a_person_pauses(self) -> None:
        assert self.recurs.pause() == ("already" if self.paused else "paused")
        self.turn += not self.paused
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def a_person_resumes(self) -> None:
        self.recurs.resume(self.schedule)
        self.mark, self.paused = self.fleet.now(), False
        self.turn += 1

    @rule()
    def a_person_adds_it_anew(self) -> None:
        self.store.schedules.drop("nightly", who="")
        self.add()

    @invariant()
    def each_instant_has_its_one_job(self) -> None:
        if hasattr(self, "schedule"):
            wanted = [moment(instant, BERLIN) for instant in self.expected]
            assert self.recurs.runs() == wanted
            assert self.recurs.record().missed == self.missed
            assert len(set(wanted)) == len(wanted)

    def teardown(self) -> None:
        if hasattr(self, "fleet"):
            assert not problems(self.store)


def test_no_order_of_looks_deaths_pauses_and_sleeps_breaks_it(store, clock):
    class Told(Story):
        pass

    Told.store, Told.clock = store, clock
    run_state_machine_as_test(
        Told,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate],
            print_blob=True,
        ),
    )
