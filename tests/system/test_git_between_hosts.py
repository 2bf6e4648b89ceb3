"""A job works on a repository of another machine; its changes come to a clone here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.repositories import git, make_repository
from tests.system import fleet as fleets
from tests.system.fleet import Fleet
from tests.waiting import until

pytestmark = [
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A client, and a host whose home has the repository."""
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    with fleets.fleet() as built:
        client = built.add("client")
        mini = built.add("mini", "worker: {name: mini}\n")
        make_repository(mini.home / "shop")
        git(client.home, "clone", "--quiet", str(mini.home / "shop"), "shop")
        mini.start_worker()
        until(lambda: "git" in client.relayq("caps", "--json").out, within=30, what="git")
        yield built


@pytest.fixture
def clone(fleet: Fleet) -> Path:
    """The client's clone, as its last commit has it."""
    path = fleet.host("client").home / "shop"
    git(path, "reset", "--quiet", "--hard")
    return path


def test_changes_made_on_a_host_are_applied_to_a_clone_elsewhere(fleet: Fleet, clone: Path):
    client = fleet.host("client")
    line = "sed -i s/two/2/ a; head -c 1000 /dev/urandom > raw"

    ran = client.relayq("run", "--git=main", "--on", "mini", "--cwd", "~/shop", line)
    id = json.loads(client.relayq("ps", "--json", "-a").out)["jobs"][0]["id"]
    applied = client.relayq("apply", "--to", str(clone), id)

    assert ran.status == 0
    assert f"relayq/{id}: 1 commit on" in ran.err
    assert applied.status == 0, applied.err
    assert (clone / "a").read_text() == "one\n2\nthree\n"
    assert git(clone, "status", "--porcelain") == "M  a\nA  raw"


def test_a_change_that_is_too_large_for_the_broker_comes_by_the_file_service(
    fleet: Fleet, clone: Path
):
    client = fleet.host("client")
    cwd = str(fleet.host("mini").home / "shop" / "below")

    id = client.relayq(
        *("submit", "--git", "--on", "mini", "--cwd", cwd, "head -c 400000 /dev/urandom > big")
    ).out.strip()
    waited = client.relayq("wait", id)
    applied = client.relayq("apply", "--to", str(clone), id)

    assert f"relayq/{id}: 1 commit on" in waited.err
    assert applied.status == 0, applied.err
    assert git(clone, "hash-object", "below/big") == git(
        fleet.host("mini").home / "shop", "rev-parse", f"relayq/{id}:below/big"
    )
