"""When a usage limit resets, from the words that claude, codex and gemini have had for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayq.agents.limits import delay_in, duration_in, resets_at

ROME = ZoneInfo("Europe/Rome")
NEW_YORK = ZoneInfo("America/New_York")


def at(text: str, zone=UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        # claude 1.0.x, in seconds and in milliseconds
        ("Claude AI usage limit reached|1795225576", at("2026-11-21"), 1_795_225_576),
        ("Claude AI usage limit reached|1795225576000", at("2026-11-21"), 1_795_225_576),
        (
            "Claude usage limit reached. Your limit will reset at 3pm (America/Bogota).",
            at("2026-11-21T12:00"),
            at("2026-11-21T20:00"),
        ),
        # claude 2.1.117 and 2.1.187
        (
            "You've hit your limit · resets 4:50am (Europe/Rome)",
            at("2026-07-01T22:00"),
            at("2026-07-02T02:50"),
        ),
        (
            "You've hit your limit · resets Apr 23 at 4pm (America/Recife)",
            at("2026-04-20"),
            at("2026-04-23T19:00"),
        ),
        (
            "You've hit your session limit · resets 1:46am (UTC)",
            at("2026-11-21T00:40"),
            at("2026-11-21T01:46"),
        ),
        (
            "You’re out of extra usage · resets Jan 2, 9am (UTC)",
            at("2026-12-30"),
            at("2027-01-02T09:00"),
        ),
        # codex: the host's own time, with a curly apostrophe and a narrow space
        (
            "You’ve hit your usage limit. Upgrade to Pro or try again at 2:48 AM.",
            at("2026-11-21T01:00"),
            at("2026-11-21T02:48"),
        ),
        (
            "You’ve hit your usage limit. Try again at 2:48\N{NARROW NO-BREAK SPACE}PM.",
            at("2026-11-21T01:00"),
            at("2026-11-21T14:48"),
        ),
        (
            "You’ve hit your usage limit. Try again at Jul 23rd, 2026 4:15 AM.",
            at("2026-07-20"),
            at("2026-07-23T04:15"),
        ),
        (
            "You've hit your usage limit. Try again in 2 days 17 hours 14 minutes.",
            at("2026-11-21"),
            at("2026-11-23T17:14"),
        ),
        # gemini
        ("Suggested retry after 3600s.", at("2026-11-21"), at("2026-11-21T01:00")),
        ("Your quota will reset after 18h20m5s.", at("2026-11-21"), at("2026-11-21T18:20:05")),
    ],
)
def test_each_wording_gives_its_instant(text, now, expected):
    assert resets_at(text, now=now, zone=UTC) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "You've hit your monthly spend limit",
        "resets soon",
        "resets 25:00",
        "resets 13pm",
        "resets 7",
        "Try again at Feb 31st, 2026 4:15 AM.",
        "Claude AI usage limit reached|9999999999",
        "try again in 3 parsecs",
        "try again in 400 days",
    ],
)
def test_a_text_without_an_instant_gives_none(text):
    assert resets_at(text, now=at("2026-11-21"), zone=UTC) is None


def test_a_time_of_day_is_the_host_s_where_no_zone_is_named():
    text = "You’ve hit your usage limit. Try again at 2:48 AM."

    assert resets_at(text, now=at("2026-11-21"), zone=ROME) == at("2026-11-21T02:48", ROME)
    assert resets_at(text, now=at("2026-11-21"), zone=NEW_YORK) == at("2026-11-21T02:48", NEW_YORK)


def test_a_zone_that_nobody_knows_is_taken_for_the_host_s():
    text = "You've hit your limit · resets 3am (Mars/Olympus)"

    assert resets_at(text, now=at("2026-11-21"), zone=ROME) == at("2026-11-21T03:00", ROME)


def test_a_minute_that_has_just_gone_by_is_now_and_not_tomorrow():
    text = "try again at 2:46 PM."

    assert resets_at(text, now=at("2026-11-21T14:46:40"), zone=UTC) == at("2026-11-21T14:46")
    assert resets_at(text, now=at("2026-11-21T14:50"), zone=UTC) == at("2026-11-22T14:46")


def test_a_minute_before_midnight_that_has_just_gone_by_was_yesterday():
    now = at("2026-11-22T00:00:30")

    assert resets_at("resets 11:59pm (UTC)", now=now) == at("2026-11-21T23:59")


def test_a_day_of_the_old_year_is_not_one_of_the_new():
    now = at("2027-01-01T00:00:30")

    assert resets_at("resets Dec 31 at 11:59pm (UTC)", now=now) == at("2026-12-31T23:59")


def test_a_day_with_its_year_is_that_day_though_it_is_over():
    now = at("2026-07-25")

    assert resets_at("try again at Jul 23rd, 2026 4:15 AM", now=now, zone=UTC) == at(
        "2026-07-23T04:15"
    )


def test_summer_and_winter_time_change_the_instant():
    text = "You've hit your limit · resets 4:50am (Europe/Rome)"

    # The clocks went forward in the night to 29 March 2026, and back in that to 25 October.
    assert resets_at(text, now=at("2026-03-28T12:00")) == at("2026-03-29T02:50")
    assert resets_at(text, now=at("2026-10-24T12:00")) == at("2026-10-25T03:50")


def test_of_an_hour_that_comes_twice_the_later_is_meant():
    assert resets_at("resets 2:30am (Europe/Rome)", now=at("2026-10-24T20:00")) == at(
        "2026-10-25T01:30"
    )


def test_an_hour_that_the_clocks_leave_out_is_after_the_gap():
    assert resets_at("resets 2:30am (Europe/Rome)", now=at("2026-03-28T20:00")) == at(
        "2026-03-29T01:30"
    )


instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))


@given(
    now=instants,
    ahead=st.integers(0, 22 * 60),
    zone=st.sampled_from(["UTC", "Europe/Rome", "America/New_York", "Asia/Kolkata", "Asia/Tokyo"]),
)
@settings(max_examples=100, deadline=None)
def test_what_claude_would_write_is_read_back_to_the_minute(now, ahead, zone):
    reset = (now + timedelta(minutes=ahead)).replace(second=0, microsecond=0)
    local = reset.astimezone(ZoneInfo(zone))
    text = f"You've hit your limit · resets {local:%I:%M%p} ({zone})"

    read = resets_at(text, now=now.timestamp())

    # Twice a year the same time of day comes twice: an hour late is right, too early never.
    assert read is not None
    assert read - reset.timestamp() in {0, 3600}


@given(st.text(max_size=200), st.floats(0, 4e9))
@settings(max_examples=100, deadline=None)
def test_no_text_is_too_strange(text, now):
    for prefix in ("", "resets ", "try again at ", "try again in ", "usage limit reached|"):
        read = resets_at(prefix + text, now=now, zone=timezone(timedelta(hours=5)))
        assert read is None or abs(read - now) <= 41 * 86_400


def test_a_wait_is_read_in_any_unit():
    assert delay_in("rate limit exceeded: please try again in 1.5s.") == 1.5
    assert delay_in("Please try again in 7m12.5s. Need more tokens?") == 432.5
    assert delay_in("try again in 1 hour, 5 mins and 3 seconds") == 3903
    assert delay_in("no wait at all") is None


def test_a_header_is_seconds_or_a_duration():
    assert [duration_in(text) for text in ("2", "2.5", "250ms", "2m59.56s", "1h")] == [
        2,
        2.5,
        0.25,
        179.56,
        3600,
    ]
    assert [duration_in(text) for text in ("", "soon", "2m and more", "-1")] == [None] * 4
