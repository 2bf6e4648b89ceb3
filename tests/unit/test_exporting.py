"""What the broker's machine keeps of the fleet, where for a while nothing can be written."""

from __future__ import annotations

from types import SimpleNamespace

from relayq import clock
from relayq.config import Config
from relayq.exporting import HEAD, Exporter
from relayq.ledger import fleet_ledger
from relayq.model.audit import OPENED, parsed


def test_a_head_that_found_no_room_is_noted_at_the_next_look(tmp_path, monkeypatch):
    host = SimpleNamespace(name="pi4", install="a" * 32, facts={"audit": "head of pi4"})
    store = SimpleNamespace(
        events=SimpleNamespace(after=lambda place, count: ([], False)),
        hosts=SimpleNamespace(list=lambda online_within: [host]),
    )
    now = [1000.0]
    monkeypatch.setattr(clock, "boottime", lambda: now[0])
    exporter = Exporter(Config(home=tmp_path))
    folder = fleet_ledger(tmp_path).folder
    blocked = folder / "head"
    blocked.mkdir(parents=True)
    exporter.look(store)

    blocked.rmdir()
    now[0] += 61.0
    exporter.look(store)

    entries = filter(None, map(parsed, fleet_ledger(tmp_path).tail(1 << 20)))
    found = [(entry.what, entry.facts.get("head")) for entry in entries]
    # And nothing says that something is missing.
    assert found == [(OPENED, None), (HEAD, "head of pi4")]
