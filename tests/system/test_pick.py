"""`relayq hosts pick` tells where a job would go, and submits nothing."""

from __future__ import annotations

import json
import secrets
import threading
from typing import Any

import pytest

from relayq.dispatch import TEMPLATE
from relayq.model.jobs import JobState
from relayq.store import connect
from relayq.store.leases import Registration
from tests.system.commands import relayq

pytestmark = pytest.mark.system


HOSTS: dict[str, dict[str, Any]] = {
    "mini": {"capabilities": ["solder"], "aliases": ["mac"], "resources": {"iron": 1}},
    "pi4": {},
}
#: One worker of each.
SESSIONS = {name: secrets.token_hex(4) for name in HOSTS}


def who(name: str) -> Registration:
    return Registration(host=name, install=f"{name}-1", boot="1", session=SESSIONS[name])


@pytest.fixture
def cli(shared_fleet):
    """A fleet whose one worker is called here, and which knows of two more hosts.

    Only mini can solder, and pi4 is drained.
    """
    session = shared_fleet.relay.session()
    is_over = threading.Event()

    def register() -> None:
        for name, known in HOSTS.items():
            session.store.hosts.register(
                who(name),
                lease=shared_fleet.config.lease.length,
                key_id=session.signer.key_id,
                slots=4,
                version="",
                facts=known,
            )

    def stay() -> None:
        while not is_over.wait(1):
            register()

    register()
    assert relayq("hosts", "drain", "pi4", "--reason", "new disk").returncode == 0
    staying = threading.Thread(target=stay)
    staying.start()
    yield shared_fleet
    is_over.set()
    staying.join()
    for name in HOSTS:
        session.store.hosts.dismiss(name, lease=0)


def picked(*options: str) -> dict:
    done = relayq("hosts", "pick", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(of: dict) -> dict[str, str]:
    return {host["name"]: host["answer"] for host in of["hosts"]}


def test_a_job_that_asks_for_nothing_goes_to_the_first_free_slot(cli):
    pick = picked()

    assert (pick["queue"], pick["host"], pick["strategy"]) == ("any", None, "pull")
    assert answers(pick) == {"here": "could", "mini": "could", "pi4": "not now"}


def test_each_host_says_what_it_lacks(cli):
    done = relayq("hosts", "pick", "--needs", "solder", "--not", "pi*")

    assert done.stdout.splitlines() == [
        "here  no       lacks solder",
        "mini  could    4 of 4 slots free",
        "pi4   no       is excluded by pi*, lacks solder",
        "queue needs.solder,!pi* (pull): the first host that can and has room takes it",
    ]


def test_a_strategy_chooses_only_among_hosts_that_take_work_now(cli):
    pick = picked("--strategy", "round-robin", "--not", "here")

    assert answers(pick) == {"here": "no", "mini": "chosen", "pi4": "not now"}
    assert (pick["host"], pick["queue"]) == ("mini", "needs.!here,on=mini")
    assert (pick["wide"], pick["overflow"]) == ("needs.!here", 20.0)


def test_a_preferred_host_is_known_by_its_alias_as_well(cli):
    done = relayq("hosts", "pick", "--prefer", "mac")

    assert done.stdout.splitlines()[-1] == "queue host.mini (pull): mini has 20s, then any"


def test_a_job_that_no_host_could_take_exits_with_125(cli):
    done = relayq("hosts", "pick", "--needs", "nosuch")

    assert done.returncode == 125
    assert "no known host can take it: here lacks nosuch; mini lacks nosuch" in done.stderr


def test_nothing_is_submitted(cli):
    picked("--on", "mac")

    assert json.loads(relayq("ps", "--all", "--json").stdout)["jobs"] == []


def test_a_host_goes_by_its_other_name_too(cli):
    pick = picked("--on", "mac")

    assert pick["queue"] == "host.mini"
    assert answers(pick) == {"here": "no", "mini": "could", "pi4": "no"}
    rather = picked("--prefer", "mac", "--overflow", "7s")
    assert (rather["host"], rather["wide"], rather["overflow"]) == ("mini", "any", 7.0)


def test_a_host_whose_room_is_used_up_says_so(cli):
    submitted = relayq("submit", "-q", "--on", "mini", "--slot", "iron=1", "sleep 60")
    # Only a worker's credential may claim.
    leases = connect(cli.broker.url).leases
    claim = leases.claim(who("mini"), ["needs.iron=1,on=mini"], uid="u", lease=60)
    assert claim.token.id == submitted.stdout.strip()

    pick = picked("--slot", "iron=1")

    [mini] = [host for host in pick["hosts"] if host["name"] == "mini"]
    assert (mini["answer"], mini["why"]) == ("busy", "no room now: 0 iron left of 1 iron")
    assert answers(picked())["mini"] == "could"
    leases.finish(
        claim.token,
        JobState.SUCCEEDED,
        reason="exit",
        outcome=b"",
        template=TEMPLATE,
        exit_code=0,
    )
    assert relayq("rm", "-y", submitted.stdout.strip()).returncode == 0
