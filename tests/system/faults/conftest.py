"""What the faults suite shares: a scene to spoil, and the journal of what the jobs saw.

A module's tests share one scene (`stage`), which `scene` repairs before each of them; a test that
does worse asks for `own_scene`. Tests marked `slow` take the real times, with RELAYQ_SLOW=1 only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from relayq.model.jobs import ON_LOST
from relayq.results import JobResult
from tests.conftest import RedisServer
from tests.system.faults import scene as scenes
from tests.system.faults.blows import asleep
from tests.system.faults.journal import Journal
from tests.system.faults.scene import Host, Scene


def pytest_runtest_setup(item: pytest.Item) -> None:
    # The outer conftest empties os.environ of what could configure relayq, so this asks the kernel.
    is_asked_for = psutil.Process().environ().get("RELAYQ_SLOW") == "1"
    if item.get_closest_marker("slow") and not is_asked_for:
        pytest.skip("takes the real times; RELAYQ_SLOW=1 runs it")


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, redis7: RedisServer) -> Iterator[Scene]:
    """A broker and one worker, `one`, or the module's HOSTS, for all tests of a module."""
    with scenes.scene(redis7.binary) as made:
        for name in getattr(request.module, "HOSTS", ("one",)):
            made.add(name)
        yield made


@pytest.fixture
def scene(stage: Scene) -> Scene:
    """The module's scene, in order."""
    stage.repair()
    return stage


@pytest.fixture
def one(scene: Scene) -> Host:
    """The host that is hurt."""
    return scene.hosts["one"]


@pytest.fixture
def two(scene: Scene) -> Host:
    """The other host, where a module has one."""
    return scene.hosts["two"]


@pytest.fixture
def running(scene: Scene, journal: Journal, one: Host, two: Host) -> dict[str, JobResult]:
    """A job of each policy that any host may take, and that runs on `one` until let go."""
    with asleep(two.pid):
        results = {
            word: journal.submit(scene.job, gate=journal.gate, on_lost=word) for word in ON_LOST
        }
        for result in results.values():
            journal.started(result)
    assert {result.host for result in results.values()} == {"one"}
    return results


@pytest.fixture
def own_scene(redis7: RedisServer) -> Iterator[Scene]:
    """A broker without workers for one test alone."""
    with scenes.scene(redis7.binary) as made:
        yield made


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """What the jobs of this test saw."""
    made = Journal(tmp_path / "journal")
    yield made
    made.release()
