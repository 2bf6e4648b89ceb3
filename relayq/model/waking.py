"""Waking a machine that sleeps: the magic packet, and who may send it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relayq.errors import RelayqError
from relayq.model.hosts import Host


def magic_packet(mac: str) -> bytes:
    """Return what a sleeping network card with this address listens for."""
    address = bytes.fromhex(mac.replace(":", ""))
    if len(address) != 6:
        raise ValueError(f"not a hardware address: {mac}")
    return b"\xff" * 6 + address * 16


def address_of(host: Host) -> str:
    """Return the hardware address that wakes the host."""
    mac = _wake(host).get("mac")
    if not mac:
        raise RelayqError(
            f"nobody knows how to wake {host.name}",
            hint=f"on {host.name}, in config.yml: worker: {{wake: {{mac: 'aa:bb:cc:dd:ee:ff'}}}}",
        )
    return str(mac)


def wakers(host: Host, hosts: Sequence[Host], asked: Sequence[str] = ()) -> Sequence[str]:
    """Return the hosts that are to send the packet: those asked, else named by it, else all others.

    Only those that are online can: a packet goes no farther than its sender's network, and which
    hosts share one with the sleeping host nobody but its owner knows.
    """
    online = [one.name for one in hosts if one.is_online and one.name != host.name]
    named = list(asked) or [str(name) for name in _wake(host).get("via") or ()] or online
    fit = [name for name in named if name in online]
    if not fit:
        which = ", ".join(named) or "any other host"
        raise RelayqError(
            f"{which} isn't online, and nobody else can wake {host.name}", hint="relayq status"
        )
    return fit


def _wake(host: Host) -> Mapping[str, Any]:
    said = host.facts.get("wake")
    return said if isinstance(said, Mapping) else {}
