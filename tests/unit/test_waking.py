"""Waking a host: the packet, and who sends it."""

from __future__ import annotations

import pytest

from relayq.errors import RelayqError
from relayq.model.hosts import Host
from relayq.model.waking import address_of, magic_packet, wakers
from relayq.parsing import mac_address

MAC = "a8:20:66:1b:0c:4d"


def host(name: str, *, online: bool = True, **wake: object) -> Host:
    return Host(name, "i", "b", 2, 0.0, online, facts={"wake": wake} if wake else {})


def test_a_magic_packet_is_six_times_ff_and_the_address_sixteen_times():
    packet = magic_packet(MAC)

    assert len(packet) == 102
    assert packet[:6] == b"\xff" * 6
    assert packet[6:] == bytes.fromhex("a820661b0c4d") * 16


@pytest.mark.parametrize("text", [MAC, "A8-20-66-1B-0C-4D", "a820661b0c4d", "a820.661b.0c4d"])
def test_an_address_is_read_as_people_write_it(text):
    assert mac_address(text) == MAC


@pytest.mark.parametrize("text", ["", "a8:20", "zz:20:66:1b:0c:4d", f"{MAC}:00"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"hardware address|non-hexadecimal"):
        mac_address(text)
    with pytest.raises(ValueError, match=r"hardware address|non-hexadecimal"):
        magic_packet(text)


def test_the_hosts_that_it_names_wake_it_else_all_that_are_online():
    sleeping = host("gpu", online=False, mac=MAC, via=["pi4", "mini"])
    anyhow = host("gpu", online=False, mac=MAC)
    others = [sleeping, host("pi4"), host("mini", online=False), host("mac")]

    assert address_of(sleeping) == MAC
    assert wakers(sleeping, others) == ["pi4"]
    assert wakers(sleeping, others, ["mac"]) == ["mac"]
    assert wakers(anyhow, others) == ["pi4", "mac"]


def test_nobody_can_wake_what_nobody_knows_how_to():
    with pytest.raises(RelayqError, match="nobody knows how to wake gpu"):
        address_of(host("gpu", online=False))
    with pytest.raises(RelayqError, match="mini isn't online"):
        wakers(host("gpu"), [host("gpu"), host("mini", online=False)], ["mini"])
    with pytest.raises(RelayqError, match="any other host isn't online"):
        wakers(host("gpu"), [host("gpu")])
