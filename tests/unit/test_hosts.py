"""Hosts as values: their names and queues."""

import pytest

from relayq.model.hosts import Host, is_host_name, queues_of


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
