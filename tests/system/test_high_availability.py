"""A broker on three machines: one of them dies under load, and nothing of what was answered."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from relayq import Relay, signing
from relayq.errors import BrokerUnavailable
from relayq.model.jobs import JobState
from tests.probing import remember
from tests.redis.nodes import Nodes
from tests.system.commands import relayq
from tests.system.conftest import ROOT
from tests.waiting import until

pytestmark = pytest.mark.system

HOSTS = ("pi4", "mini")


class FleetOfNodes:
    """Two workers and who submits, each a user of its own, at a broker on three machines."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.runs = folder / "runs"
        self.runs.touch()
        self.workers = []
        key = folder / "fleet.key"
        signing.load_key(key)
        for name in ("laptop", *HOSTS):
            home = folder / name
            home.mkdir(mode=0o700)
            (home / "fleet.key").write_bytes(key.read_bytes())
            (home / "fleet.key").chmod(0o600)
            remember(home)
        self.relay = Relay(
            url=nodes.url("client-laptop"), home=folder / "laptop", say=lambda _: None
        )

    def start_worker(self, name: str) -> None:
        own = {
            "RELAYQ_HOME": str(self.folder / name),
            "RELAYQ_BROKER__URL": self.nodes.url(f"worker-{name}"),
            "RELAYQ_WORKER__NAME": name,
            "RELAYQ_WORKER__PRIORITY": "normal",
            "RELAYQ_WORKER__CPU_THRESHOLD": "100",
            "RELAYQ_LEASE__BEAT": "1",
            "RELAYQ_LEASE__PULL": "1",
            "PYTHONPATH": str(ROOT),
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            self.workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "relayq.worker"],
                    cwd="/",
                    env={**os.environ, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def online(self) -> set[str]:
        hosts = self.relay.session().store.hosts.list(online_within=60)
        return {host.name for host in hosts if host.is_online}

    def submit(self) -> str | None:
        """Submit a job that writes down that it ran; None if nobody answered for it."""
        line = f"sleep 0.2; echo $RELAYQ_JOB_ID >> {self.runs}; sleep 0.2"
        try:
            return self.relay.job.run(line, on_lost="ask").id
        except BrokerUnavailable:
            return None

    def close(self) -> None:
        self.relay.close()
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(30)


@pytest.fixture
def fleet(redis7):
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as folder:
        users = [*(f"worker-{name}" for name in HOSTS), "client-laptop"]
        nodes = Nodes(redis7.binary, Path(folder, "nodes"), users=users)
        made = None
        try:
            nodes.start()
            made = FleetOfNodes(nodes, Path(folder))
            for name in HOSTS:
                made.start_worker(name)
            until(lambda: made.online() == set(HOSTS), within=60, what="both workers")
            yield made
        finally:
            if made is not None:
                made.close()
            nodes.close()


def test_a_primary_that_dies_under_load_takes_no_job_with_it_and_runs_none_twice(fleet):
    answered, unanswered, stop = [], [], threading.Event()

    def load():
        while not stop.is_set():
            id = fleet.submit()
            (answered if id else unanswered).append(id)
            stop.wait(0.05)

    submitting = threading.Thread(target=load)
    submitting.start()
    first = fleet.nodes.primary()
    until(lambda: len(ran(fleet)) >= 10, within=60, what="some jobs to have run")
    fleet.nodes.kill(first)
    before = len(answered)
    until(lambda: fleet.nodes.primary() not in (None, first), within=60, what="a failover")
    until(lambda: len(answered) >= before + 20, within=60, what="submits to be answered again")
    stop.set()
    submitting.join()

    session = fleet.relay.session()

    def states():
        return Counter(record.state for record in session.store.jobs.fetch_many(answered))

    until(lambda: states()[JobState.SUCCEEDED] == len(answered), within=120, what=states)
    counts = ran(fleet)
    assert [id for id in answered if counts[id] != 1] == []
    assert max(counts.values()) == 1
    assert unanswered, "the failover was so short that nobody noticed"
    assert fleet.nodes.refusals() == []


def ran(fleet: FleetOfNodes) -> Counter[str]:
    """Return how often each job ran."""
    return Counter(fleet.runs.read_text().split())


def test_the_files_of_three_machines_are_written_by_one_command(home):
    addresses = [f"100.64.0.{number}" for number in (1, 2, 3)]
    out = home / "our broker"
    asked = ["broker", "sentinels", *addresses, "-o", str(out), "--user", "worker-pi4", "--tls"]

    told = relayq(*asked)
    written = json.loads(relayq(*asked, "--json").stdout)
    refused = relayq("broker", "sentinels", *addresses[:2], "-o", str(out))

    assert told.returncode == 0, told.stderr
    assert "redis-server /var/lib/relayq-broker/sentinel.conf --sentinel" in told.stdout
    assert written["url"] in told.stdout
    assert list(written["nodes"]) == addresses
    password = Path(written["passwords"]["worker-pi4"])
    assert password.read_text().strip() not in told.stdout
    for path in [out, *out.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert "2 machines can't agree" in refused.stderr
