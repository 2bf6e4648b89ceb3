"""When a host stands back: the rules, and the governor's patience."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq import config
from relayq.hours import hours_text, week_hours
from relayq.model.courtesy import Decision, Memory, Reading, Rules, decide

RULES = Rules()
QUIET, BUSY, BETWEEN = Reading(others=5.0), Reading(others=93.0), Reading(others=70.0)
GOES_ON = Decision()


def after(*readings: Reading, rules: Rules = RULES, every: float = 0.5) -> list[Decision]:
    """Return the decision after each of the readings."""
    memory, decisions = Memory(), []
    for number, reading in enumerate(readings):
        memory = decide(memory, reading, rules, 1000.0 + number * every)
        decisions.append(memory.decision)
    return decisions


def test_a_quiet_machine_works():
    assert after(QUIET, QUIET, QUIET) == [GOES_ON] * 3


def test_a_machine_that_can_measure_nothing_works():
    assert after(*[Reading()] * 9, rules=replace(RULES, when_active=60, temperature=80)) == (
        [GOES_ON] * 9
    )


def test_a_high_reading_or_two_say_nothing():
    assert after(BUSY, BUSY, QUIET, BUSY, BUSY, QUIET) == [GOES_ON] * 6


def test_work_of_others_holds_back_new_work_at_the_third_reading_and_freezes_at_the_fourth():
    decisions = after(*[BUSY] * 6)

    assert [d.takes_work for d in decisions] == [True, True, False, False, False, False]
    assert [d.freezes for d in decisions] == [False] * 3 + [True] * 3
    assert decisions[-1].reason == "others use 93% of its CPU"


def test_with_the_default_times_work_of_others_freezes_within_three_seconds(home):
    look = config.load({"HOME": str(home), "RELAYQ_HOME": str(home)}).worker.pause.look
    seen = after(*[BUSY] * 9, every=look)

    # It may begin right after a look, and be half of what the next one sees.
    assert (seen.index(next(d for d in seen if d.freezes)) + 2) * look < 3.0


def test_it_goes_on_when_it_was_quiet_for_half_a_minute():
    decisions = after(*[BUSY] * 6, *[QUIET] * 62)

    assert [d.freezes for d in decisions[5:]] == [True] * 61 + [False] * 2
    assert [d.takes_work for d in decisions[5:]] == [False] * 61 + [True] * 2


def test_below_the_threshold_is_not_yet_quiet():
    assert after(*[BUSY] * 6, *[BETWEEN] * 100)[-1].freezes
    assert after(*[BETWEEN] * 100)[-1] == GOES_ON


def test_a_moment_of_work_begins_the_half_minute_anew():
    quiet = [QUIET] * 59

    assert after(*[BUSY] * 6, *quiet, BETWEEN, *quiet, BETWEEN, *quiet)[-1].freezes


def test_an_owner_who_comes_back_is_heeded_at_once():
    rules = replace(RULES, when_active=180.0)
    here, away = Reading(idle=8.0), Reading(idle=200.0)

    first, second = after(here, here, rules=rules)
    later = after(here, here, *[away] * 62, rules=rules)

    assert first == Decision(takes_work=False, reason="owner active (keyboard 8s ago)")
    assert second.freezes
    assert later[-1] == GOES_ON


@pytest.mark.parametrize(
    ("charge", "is_on_battery", "reason"),
    [
        (38.0, True, "on battery 38%"),
        (None, True, "on battery"),
        (60.0, True, "on battery 60%"),
        (61.0, True, ""),
        (38.0, False, ""),
    ],
)
def test_on_battery_it_works_only_with_a_good_charge(charge, is_on_battery, reason):
    reading = Reading(battery=charge, is_on_battery=is_on_battery)

    assert after(reading, rules=replace(RULES, on_battery=True))[0].reason == reason
    assert after(reading)[0] == GOES_ON


def test_hours_a_gate_and_heat_hold_it_back():
    office = replace(RULES, hours=week_hours("mon-fri 9-18"), hours_text="mon-fri 9-18")
    gated = replace(RULES, gate="solar-ok")
    warm = replace(RULES, temperature=85.0)

    assert after(Reading(weekday=0, minute=600), rules=office)[0].reason == (
        "its owner's hours: mon-fri 9-18"
    )
    assert after(Reading(gate="exit 1"), rules=gated)[0].reason == "its gate says no (exit 1)"
    assert after(Reading(gate=""), rules=gated) == [GOES_ON]
    hot, cooler = Reading(temperature=90.0), Reading(temperature=82.0)
    assert after(*[hot] * 11, rules=warm)[-1] == GOES_ON  # measured thrice at most
    assert after(*[hot] * 12, rules=warm)[-1].reason == "90 degrees warm"
    assert after(*[hot] * 13, *[cooler] * 99, rules=warm)[-1].freezes


def test_what_own_jobs_raise_holds_back_new_work_and_freezes_nothing():
    rules = replace(RULES, load=2.0, memory=20.0)
    decisions = after(*[Reading(load=3.0, memory=50.0)] * 50, rules=rules)

    assert not decisions[-1].takes_work
    assert not any(d.freezes for d in decisions)
    assert after(*[BUSY] * 6, *[Reading(load=3.0)] * 80, rules=rules)[-1] == Decision(
        takes_work=False, reason="load 3.0 for each CPU"
    )


def test_the_action_none_freezes_nothing():
    decisions = after(*[BUSY] * 50, rules=replace(RULES, freezes=False))

    assert not decisions[-1].takes_work
    assert not decisions[-1].freezes


def test_the_first_of_several_reasons_is_named():
    rules = replace(RULES, when_active=60.0, on_battery=True)
    reading = Reading(others=99.0, idle=1.0, is_on_battery=True)

    assert after(reading, reading, reading, rules=rules)[-1].reason == (
        "owner active (keyboard 1s ago)"
    )


def test_of_jobs_that_were_found_frozen_the_first_reading_decides():
    memory = Memory.of_frozen_jobs()

    assert memory.decision == Decision(False, True, "its worker has just started")
    assert decide(memory, QUIET, RULES, 5.0).decision == GOES_ON
    assert decide(memory, BUSY, RULES, 5.0).decision.freezes


readings = st.builds(
    Reading,
    others=st.none() | st.floats(0, 100),
    load=st.none() | st.floats(0, 9),
    idle=st.none() | st.floats(0, 400),
    is_on_battery=st.booleans(),
    temperature=st.none() | st.floats(20, 100),
    gate=st.sampled_from([None, "", "exit 1"]),
)
ALL_RULES = Rules(when_active=180.0, on_battery=True, temperature=85.0, load=2.0, gate="x")


@given(steps=st.lists(st.tuples(readings, st.floats(0.1, 20)), max_size=80))
def test_nothing_flaps(steps):
    """Each of the two changes at most once in the time of the hysteresis."""
    memory, at = Memory(), 0.0
    changed = {"takes_work": -1e9, "freezes": -1e9}
    for reading, wait in steps:
        at += wait
        before, memory = memory.decision, decide(memory, reading, ALL_RULES, at)
        for what, last in changed.items():
            if getattr(before, what) != getattr(memory.decision, what):
                assert at - last >= ALL_RULES.resume_after - 1e-6
                changed[what] = at
        assert not (memory.decision.freezes and memory.decision.takes_work)
        assert bool(memory.decision.reason) == (not memory.decision.takes_work)


@given(before=st.lists(readings, max_size=30), reading=readings)
def test_what_goes_on_for_long_has_its_way(before, reading):
    memory, at = Memory(), 0.0
    for one in [*before, *[reading] * 90]:
        at += 2.0
        memory = decide(memory, one, ALL_RULES, at)
    fresh = Memory()
    for _ in range(90):
        at += 2.0
        fresh = decide(fresh, reading, ALL_RULES, at)

    if fresh.decision.freezes:
        assert memory.decision.freezes
    if not fresh.decision.takes_work:
        assert not memory.decision.takes_work


@given(others=st.lists(st.floats(0, 60), max_size=80))
def test_nothing_is_held_back_where_others_use_little(others):
    assert all(d == GOES_ON for d in after(*[Reading(others=one) for one in others]))


# The rules of a configuration


def ruled(home, **variables: str) -> Rules:
    named = {f"RELAYQ_{name}": value for name, value in variables.items()}
    return Rules.of(config.load({"HOME": str(home), "RELAYQ_HOME": str(home), **named}))


def test_a_member_of_a_fleet_heeds_the_cpu_of_others(home):
    assert ruled(home, BROKER__HOST="there").cpu == 80
    assert ruled(home, BROKER__HOST="there", WORKER__CPU_THRESHOLD="100").cpu is None


def test_a_machine_by_itself_heeds_it_only_if_its_owner_says_so(home):
    assert ruled(home).cpu is None
    assert ruled(home, WORKER__CPU_THRESHOLD="50") == replace(RULES, cpu=50, resume_below=50)


def test_every_rule_can_be_configured(home):
    (home / "config.yml").write_text(
        "worker: {cpu_threshold: 70, pause: {when_active: 3m, on_battery: true, resume_above: 50,\n"
        "  hours: 'mon-fri 9-18', temp: 85, load: 1.5, memory: 10, gate: solar-ok, action: none,\n"
        "  resume_below: 40, resume_after: 1m}}"
    )

    assert ruled(home) == Rules(
        cpu=70.0,
        resume_below=40.0,
        when_active=180.0,
        on_battery=True,
        resume_above=50.0,
        hours=week_hours("mon-fri 9-18"),
        hours_text="mon-fri 9-18",
        temperature=85.0,
        memory=10.0,
        load=1.5,
        gate="solar-ok",
        freezes=False,
        resume_after=60.0,
    )


# Hours of the week

MON, FRI, SAT, SUN = 0, 4, 5, 6


def covers(text: str, day: int, hour: float) -> bool:
    return any(span.covers(day, int(hour * 60)) for span in week_hours(text))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("mon-fri 9-18", [(MON, 9), (FRI, 17.9)], [(SAT, 12), (MON, 8.9), (MON, 18)]),
        ("9-18", [(SUN, 9), (MON, 12)], [(SUN, 8)]),
        ("sat 10:30-12, Sun 0-24", [(SAT, 10.5), (SUN, 23.9), (SUN, 0)], [(SAT, 10.4), (MON, 0)]),
        ("fri 22-6", [(FRI, 23), (SAT, 5.9)], [(FRI, 5), (SAT, 22), (SAT, 6)]),
        ("sat-mon 1-2", [(SAT, 1), (SUN, 1), (MON, 1)], [(FRI, 1)]),
        ("sun 23-1", [(SUN, 23), (MON, 0.5)], [(SUN, 0.5)]),
    ],
)
def test_hours_are_read_as_people_write_them(text, inside, outside):
    assert hours_text(text) == text
    assert all(covers(text, *moment) for moment in inside)
    assert not any(covers(text, *moment) for moment in outside)


@pytest.mark.parametrize("text", ["", "mon", "9", "9-25", "9:60-10", "monday 9-18", "9-9", "9-18,"])
def test_what_is_no_hours_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        week_hours(text)


def test_a_host_with_the_rules_of_nobody_has_nothing_to_say():

    assert after(*[BUSY] * 9, rules=Rules(cpu=None)) == [GOES_ON] * 9
