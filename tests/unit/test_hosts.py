"""Hosts as values: their names and queues."""

import pytest

from relayq import NoSuchHost, Relay
from relayq.model.hosts import Host, queues_of
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


def test_a_name_that_no_host_can_have_is_refused_even_if_the_job_would_wait_for_it():
    relay = Relay(url="redis://127.0.0.1:1")

    with pytest.raises(NoSuchHost):
        relay.job.run("true", host='x"y', wait_for_host=True)
