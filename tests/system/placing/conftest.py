"""Three machines that differ: by real commands on the client's host."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.system import fleet as fleets
from tests.system.conftest import SCALED
from tests.system.fleet import Fleet, Host
from tests.system.placing.three import AGENT, CARD, HOSTS, MOST, have_looked
from tests.waiting import until


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    settings = {f"RELAYQ_LEASE__{name}": value for name, value in SCALED.items()}
    settings["RELAYQ_SCHEDULER__MAX_RUNNING"] = str(MOST)
    settings["RELAYQ_WORKER__PRIORITY"] = "normal"
    with fleets.fleet(settings) as made:
        for name, section in HOSTS.items():
            host = made.add(name, f"worker: {{name: {name}, {section}}}\n")
            hidden = ["nvidia-smi"] if name == "mini" else ["nvidia-smi", "ffmpeg"]
            host.furnish(*hidden, **({"nvidia-smi": CARD} if name == "gpu-box" else {}))
            host.start_worker()
        client = made.add("client")
        client.start(sys.executable, "-c", AGENT)
        until(lambda: have_looked(client), within=40, what="all hosts to say what they have")
        yield made


@pytest.fixture
def client(fleet: Fleet) -> Host:
    return fleet.host("client")
