"""Sessions of agents: kept where they can be found and gone on with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.errors import AmbiguousId, NoSuchSession, RelayqError
from relayq.model.sessions import Session
from relayq.store.leases import Further

ONE = Session(
    id="5c1e2f6e-0000-4000-8000-000000000001",
    agent="claude",
    account="claude/default",
    host="pi4",
    cwd="/home/moth/site",
    home="/home/moth",
    version="2.1.197",
    job="a00000000001",
)
OTHER = replace(ONE, id="7d1e2f6e-0000-4000-8000-000000000002", host="mini", agent="codex")


def test_a_session_is_found_by_its_id_or_its_beginning(fleet, store):
    store.sessions.note(ONE)

    found = store.sessions.fetch("5c1e")

    assert replace(found, at=0.0) == ONE
    assert found.at == pytest.approx(fleet.now(), abs=5)
    assert store.sessions.fetch(ONE.id) == found


def test_an_unknown_or_unclear_session_is_a_clear_error(store):
    store.sessions.note(ONE)
    store.sessions.note(replace(ONE, id="5c1e2f6e-1"))

    with pytest.raises(NoSuchSession, match="no such session: 9999"):
        store.sessions.fetch("9999")
    with pytest.raises(NoSuchSession):
        store.sessions.fetch("")
    with pytest.raises(AmbiguousId, match="several sessions"):
        store.sessions.fetch("5c1e")


def test_sessions_are_listed_by_agent_and_host_the_latest_first(store, clock):
    for one in (ONE, OTHER, replace(ONE, id="third", cwd="/tmp")):
        store.sessions.note(one)
        clock.advance(1)

    assert [one.id for one in store.sessions.list()] == ["third", OTHER.id, ONE.id]
    assert [one.id for one in store.sessions.list(agent="claude")] == ["third", ONE.id]
    assert [one.id for one in store.sessions.list(host="mini")] == [OTHER.id]
    assert [one.id for one in store.sessions.list(limit=1)] == ["third"]


def test_the_latest_session_of_a_place_is_known(store, clock):
    for one in (ONE, replace(ONE, id="newer"), replace(ONE, id="elsewhere", cwd="/tmp")):
        store.sessions.note(one)
        clock.advance(1)

    latest = store.sessions.latest("claude", host="pi4", cwd=ONE.cwd)

    assert latest is not None
    assert latest.id == "newer"
    assert store.sessions.latest("claude", account="claude/work") is None
    assert store.sessions.latest("gemini") is None


def test_an_attempts_turns_and_cost_are_added_once(fleet, store):
    host = fleet.host()
    id = fleet.submit()
    spent = Further(session=replace(ONE, job=id, turns=3, cost_usd=0.25))
    store.sessions.note(ONE)
    token = host.start(id)

    host.finish(token, further=spent)
    assert host.finish(token, further=spent) == "already"
    store.sessions.note(ONE)

    found = store.sessions.fetch(ONE.id)
    assert (found.turns, found.cost_usd) == (3, 0.25)


def test_a_session_is_forgotten_after_thirty_days(fleet, store):
    store.sessions.note(ONE)
    assert 29 * 86_400 < store.connection.ttl(fleet.key("session", ONE.id)) <= 30 * 86_400
    fleet.clock.advance(31 * 86_400)

    store.sessions.note(OTHER)

    assert store.connection.zrange(fleet.key("sessions"), 0, -1) == [OTHER.id.encode()]


def test_a_session_whose_facts_are_gone_is_not_listed(fleet, store):
    store.sessions.note(ONE)
    store.connection.delete(fleet.key("session", ONE.id))

    assert store.sessions.list() == []
    with pytest.raises(NoSuchSession):
        store.sessions.fetch(ONE.id)


@pytest.mark.parametrize("id", ["", "-x", "a b", "x" * 129, "a\n", "{x}"])
def test_what_cannot_be_an_id_is_refused(id):
    with pytest.raises(RelayqError, match="can't be the id"):
        replace(ONE, id=id)
