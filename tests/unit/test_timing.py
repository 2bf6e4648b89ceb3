"""When something recurs, over changes of the clocks and long sleeps."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.errors import RelayqError
from relayq.model.timing import (
    CATCH_UPS,
    GRACE,
    MOST_COUNTED,
    MOST_MISSED,
    preview,
    read,
    spread,
    turn,
)

BERLIN = "Europe/Berlin"
DAY = 86_400.0


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def shown(instants, zone: str = "UTC"):
    return [
        datetime.fromtimestamp(one, ZoneInfo(zone)).strftime("%a %d %b %H:%M") for one in instants
    ]


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("0 3 * * *", "0 3 * * *"),
        ("*/15 9-17 * * mon-fri", "*/15 9-17 * * mon-fri"),
        ("@daily", "0 0 * * *"),
        ("hourly", "0 * * * *"),
        ("nightly", "0 2 * * *"),
        ("daily at 3:00", "0 3 * * *"),
        ("Every day at 15:30", "30 15 * * *"),
        ("every night at 2am", "0 2 * * *"),
        ("daily at noon", "0 12 * * *"),
        ("every monday at 9", "0 9 * * 1"),
        ("mondays at 9", "0 9 * * 1"),
        ("mon,wed,fri at 12am", "0 0 * * 1,3,5"),
        ("monday and thursday at 6pm", "0 18 * * 1,4"),
        ("fri-mon at 8", "0 8 * * 5,6,0,1"),
        ("weekdays at 9:30", "30 9 * * 1-5"),
        ("weekends", "0 0 * * 0,6"),
        ("weekly on tuesday at 4", "0 4 * * 2"),
        ("monthly on 15 at 4:00", "0 4 15 * *"),
        ("every month on the 1st at 4:00", "0 4 1 * *"),
        ("every week", "0 0 * * 0"),
    ],
)
def test_words_mean_what_cron_says(text, cron):
    assert read(text).cron == cron
    assert not read(text).every


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("every 20m", 1200), ("every 1h30m", 5400), ("every 3 hours", 10_800), ("every hour", 3600)],
)
def test_an_interval_is_counted_from_its_beginning(text, seconds):
    timing = read(text, since=1000.0)

    assert timing.every == seconds
    assert preview(timing, 1000.0, 2) == [1000 + seconds, 1000 + 2 * seconds]
    assert timing.next_after(1000 + seconds) == 1000 + 2 * seconds
    assert timing.next_after(1000 + seconds - 0.5) == 1000 + seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("now and then", "what does 'now and then' mean"),
        ("daily at 25:00", "what does"),
        ("daily at 13pm", "what does"),
        ("61 * * * *", "wrong minute"),
        ("0 0 31 2 *", "wrong day-of-month"),
        ("every 500ms", "more often than every 1 s"),
        ("* * * *", "what does"),
        ("every blursday at 3", "what does"),
        ("", "what does"),
    ],
)
def test_what_says_nothing_is_an_error(text, said):
    with pytest.raises(RelayqError) as caught:
        read(text)

    assert said in str(caught.value)


def test_a_zone_that_does_not_exist_is_an_error():
    for zone in ("Europe/Atlantis", "", "../etc/passwd"):
        with pytest.raises(RelayqError, match="no such time zone"):
            read("daily", zone=zone)


def test_a_time_that_the_clocks_leave_out_comes_right_after():
    timing = read("daily at 2:30", zone=BERLIN)

    instants = preview(timing, at("2026-03-28T00:00", BERLIN), 3)

    assert shown(instants, BERLIN) == ["Sat 28 Mar 02:30", "Sun 29 Mar 03:00", "Mon 30 Mar 02:30"]
    assert instants[1] - instants[0] == DAY - 1800


def test_a_time_that_comes_twice_is_taken_once():
    timing = read("daily at 2:30", zone=BERLIN)

    instants = preview(timing, at("2026-10-24T12:00", BERLIN), 2)

    assert shown(instants, BERLIN) == ["Sun 25 Oct 02:30", "Mon 26 Oct 02:30"]
    assert instants[1] - instants[0] == DAY + 3600


def test_an_hour_that_comes_twice_has_all_its_quarters_twice():
    timing = read("*/15 * * * *", zone=BERLIN)

    instants = preview(timing, at("2026-10-25T01:59", BERLIN), 8)

    assert [b - a for a, b in zip(instants, instants[1:], strict=False)] == [900.0] * 7


def test_a_day_of_the_zone_has_its_own_midnight():
    timing = read("daily", zone="Asia/Kolkata")

    assert shown([timing.next_after(at("2026-11-21T12:00"))]) == ["Sat 21 Nov 18:30"]


def sleeps(catch_up: str, *, hours: float = 49.0, grace: float | None = None):
    """What a schedule of every hour does after its fleet was away for two days and an hour."""
    timing = read("0 * * * *")
    next_at = at("2026-11-21T10:00")
    now = next_at + hours * 3600
    given = GRACE[catch_up] if grace is None else grace
    return turn(timing, next_at=next_at, now=now, catch_up=catch_up, grace=given)


def test_after_a_sleep_what_was_missed_is_made_up_for_as_was_asked():
    assert shown(sleeps("all").due)[:2] == ["Sat 21 Nov 10:00", "Sat 21 Nov 11:00"]
    assert (len(sleeps("all").due), sleeps("all").missed) == (50, 0)
    assert shown(sleeps("once").due) == ["Mon 23 Nov 11:00"]
    assert sleeps("once").missed == 49
    # The newest is in time here, so it isn't missed.
    assert shown(sleeps("skip").due) == ["Mon 23 Nov 11:00"]
    late = {policy: sleeps(policy, hours=49.5) for policy in CATCH_UPS}
    assert [len(late[policy].due) for policy in ("skip", "once", "all")] == [0, 1, 50]
    assert late["skip"].missed == 50
    assert shown([late["skip"].next_at]) == ["Mon 23 Nov 12:00"]


def test_what_is_later_than_its_grace_is_not_made_up_for():
    assert len(sleeps("all", hours=49.5, grace=2 * 3600.0).due) == 2
    assert len(sleeps("once", hours=49.5, grace=1700.0).due) == 0
    assert sleeps("once", hours=49.5, grace=1700.0).missed == 50
    assert len(sleeps("skip", hours=49.5, grace=1900.0).due) == 1


def test_a_year_of_sleep_is_made_up_for_to_a_limit():
    after = sleeps("all", hours=24 * 365)

    assert len(after.due) == MOST_MISSED
    assert after.missed == 24 * 365 + 1 - MOST_MISSED


def test_a_year_of_minutes_is_not_counted_to_its_end():
    timing = read("* * * * *")
    now = 1.8e9 + 365 * DAY

    after = turn(timing, next_at=1.8e9, now=now, catch_up="all", grace=GRACE["all"])

    assert list(after.due) == [now - 60.0 * n for n in range(MOST_MISSED)][::-1]
    assert MOST_COUNTED < len(after.due) + after.missed < 2 * MOST_COUNTED
    assert after.next_at == now + 60


def test_nothing_is_due_after_the_end():
    timing = read("0 * * * *")
    end = at("2026-11-21T12:30")

    after = turn(
        timing,
        next_at=at("2026-11-21T11:00"),
        now=end + DAY,
        catch_up="all",
        grace=GRACE["all"],
        until=end,
    )

    assert shown(after.due) == ["Sat 21 Nov 11:00", "Sat 21 Nov 12:00"]
    assert (after.missed, after.next_at) == (0, None)


@given(st.floats(1e9, 2e9), st.floats(1, 1e5))
def test_an_instant_that_was_stored_is_still_itself(since, every):
    timing = read(f"every {every:.3f}s", since=since)
    first, second = preview(timing, since + 10 * every, 2)

    kept = float(f"{first:.6f}")

    assert kept == first
    assert timing.next_after(kept) == second
    assert timing.next_after(kept - 0.5) == first


def test_nothing_is_due_before_its_time():
    timing = read("daily", zone=BERLIN)

    for now, delay in ((99.0, 0.0), (104.0, 5.0)):
        before = turn(
            timing,
            next_at=100.0,
            now=now,
            catch_up="all",
            grace=60.0,
            delay=lambda instant, delay=delay: delay,
        )
        assert (before.due, before.missed, before.next_at) == ([], 0, 100.0)


@given(st.floats(0, 4e9), st.sampled_from(["*/7 * * * *", "every 90s", "daily at 2:30"]))
def test_the_next_instant_is_later_and_nothing_lies_between(instant, text):
    timing = read(text, zone=BERLIN)

    found = timing.next_after(instant)

    assert found > instant
    assert timing.next_after((instant + found) / 2) == found


@given(st.integers(0, 2 * 10**9), st.integers(0, 10 * 86_400), st.sampled_from(CATCH_UPS))
def test_a_turn_comes_to_the_same_however_late_it_is_taken(begin, late, catch_up):
    timing = read("every 2h", since=float(begin))

    after = turn(timing, next_at=begin, now=begin + late, catch_up=catch_up, grace=60.0)

    assert all(begin <= one <= begin + late for one in after.due)
    assert sorted(set(after.due)) == list(after.due)
    assert len(after.due) + after.missed == int(late // 7200) + 1
    assert after.next_at > begin + late


def test_a_spread_is_the_same_for_whoever_asks():
    parts = [spread("nightly", n * DAY, 600.0) for n in range(100)]

    assert parts == [spread("nightly", n * DAY, 600.0) for n in range(100)]
    assert min(parts) >= 0
    assert max(parts) < 600
    assert max(parts) - min(parts) > 300
