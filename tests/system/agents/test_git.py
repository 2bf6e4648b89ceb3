"""Real agents in worktrees of their own."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.agents.install import PROGRAMS
from tests.repositories import git, make_repository

pytestmark = [
    pytest.mark.system,
    pytest.mark.agents,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]


@pytest.fixture
def repository(fleet):
    """A repository of the user that runs the agents."""
    top = fleet.place.home / "shop"
    if top.exists():
        return top
    make_repository(top)
    if fleet.as_user:
        for folder, _, files in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, fleet.as_user["user"], fleet.as_user["group"])
    return top


@pytest.mark.parametrize("agent", PROGRAMS)
def test_what_an_agent_changes_is_a_patch_and_the_repository_is_as_it_was(fleet, repository, agent):
    fleet.api.play("runs a command", command=f"sed -i s/two/{agent}/ a")
    job = fleet.ask(agent, permission="full", cwd=str(repository), git=True)

    fleet.until_state(job, "succeeded")

    assert job.changes.branch == f"relayq/{job.id}"
    assert f"-two\n+{agent}\n".encode() in job.patch()
    safe = ("-c", f"safe.directory={repository}")
    assert git(repository, *safe, "status", "--porcelain") == ""
    assert (repository / "a").read_text() == "one\ntwo\nthree\n"
