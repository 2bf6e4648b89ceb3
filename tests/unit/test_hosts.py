"""Hosts as values: their names and queues."""

from dataclasses import replace

import pytest

from relayq import NoSuchHost, Relay
from relayq.model.hosts import Host, capabilities_of, overlaid, queues_of, relabelled
from relayq.parsing import is_host_name


@pytest.mark.parametrize(
    "name", ["pi4", "mac-mini", "a", "9", "host.local", "my_host", "x" * 63, "a--b"]
)
def test_a_host_name(name):
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "Pi4", "-pi", "pi-", "pi 4", "pi4\n", "pi/4", "pi:4", "pi%4", 'pi"4', "x" * 64, "pí", "*"],
)
def test_no_host_name(name):
    assert not is_host_name(name)


def test_a_host_serves_its_own_queue_and_the_one_for_all():
    assert queues_of("pi4") == ["host.pi4", "any"]


def test_facts_that_a_host_did_not_report_are_empty():
    host = Host(name="pi4", install="i", boot="b", slots=2, seen_at=0.0, is_online=True)

    assert (host.os, host.model) == ("", "")
    assert host.facts == {}


def standing(**fields):
    host = Host(name="pi4", install="i", boot="b", slots=2, seen_at=0.0, is_online=True)
    return replace(host, **fields).standing


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("online idle", "")),
        ({"active": 1}, ("online busy", "")),
        ({"is_online": False, "active": 1}, ("offline", "")),
        ({"drained_at": 1.0, "drained_reason": "a new disk"}, ("drained", "a new disk")),
        ({"drained_at": 1.0, "active": 1}, ("draining", "")),
        ({"facts": {"courtesy": {"state": "ok", "reason": ""}}}, ("online idle", "")),
        (
            {"active": 1, "facts": {"courtesy": {"state": "frozen", "reason": "keyboard"}}},
            ("paused", "keyboard"),
        ),
        ({"facts": {"courtesy": {"state": "no_new_work", "reason": None}}}, ("paused", "")),
        # What it said last doesn't matter when it is away.
        ({"is_online": False, "facts": {"courtesy": {"state": "frozen"}}}, ("offline", "")),
    ],
)
def test_how_a_host_stands(fields, expected):
    assert standing(**fields) == expected


def test_what_is_declared_goes_before_what_was_found():
    found = ["docker", "ffmpeg", "git"]

    assert capabilities_of(found, ["xcode", "-docker"]) == ("ffmpeg", "git", "xcode")
    assert capabilities_of(found, ["-docker", "docker"]) == ("docker", "ffmpeg", "git")
    assert capabilities_of([], ["-docker"]) == ()


def test_labels_are_the_hosts_own_as_the_fleet_changed_them():
    assert overlaid(["slow", "pi"], "+heavy,-slow") == ("heavy", "pi")
    assert overlaid(["slow"], "") == ("slow",)
    assert overlaid([], "-slow") == ()


@pytest.mark.parametrize(
    ("overlay", "changes", "after"),
    [
        ("", ["+heavy"], "+heavy"),
        ("+heavy", ["-heavy"], "-heavy"),
        ("+heavy,-slow", ["=heavy", "+fast"], "+fast,-slow"),
        ("+heavy", ["=heavy"], ""),
        ("", ["+b", "+a", "-b"], "+a,-b"),
    ],
)
def test_of_each_label_the_last_change_counts(overlay, changes, after):
    assert relabelled(overlay, changes) == after


@pytest.mark.parametrize(
    ("load", "number"),
    [(0.5, 0.5), ({"average": 1}, 1.0), ({}, None), (None, None), ("high", None)],
)
def test_a_load_is_a_number_if_there_is_one(load, number):
    host = Host("pi4", "i", "b", slots=2, seen_at=0.0, is_online=True, facts={"load": load})

    assert host.load == number


def test_a_name_that_no_host_can_have_is_refused_even_if_the_job_would_wait_for_it():
    relay = Relay(url="redis://127.0.0.1:1")

    with pytest.raises(NoSuchHost):
        relay.job.run("true", host='x"y', wait_for_host=True)


@pytest.mark.parametrize(
    ("reason", "wake", "said"),
    [
        ("the machine goes to sleep", {"mac": "aa:bb:cc:dd:ee:ff"}, ("asleep", "wake ok")),
        ("the machine goes to sleep", {}, ("asleep", "")),
        ("the machine goes to sleep", None, ("asleep", "")),
        ("the machine shuts down", {"mac": "aa:bb:cc:dd:ee:ff"}, ("offline", "shut down")),
        ("on battery", {}, ("offline", "")),
    ],
)
def test_a_host_that_said_good_night_is_asleep_until_it_is_heard_of(reason, wake, said):
    facts = {"courtesy": {"state": "no_new_work", "reason": reason}, "wake": wake}

    assert standing(is_online=False, facts=facts) == said
    assert standing(facts=facts) == ("paused", reason)
