"""Two hosts with an authorized_submitters each: whose jobs run on which, and whose on both."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from relayq import Relay, config, embedded
from relayq.host import authorizing
from relayq.host.admission import FILE
from relayq.host.process import Shim, attempts
from relayq.identity import Identity, write_private
from relayq.model.jobs import JobState
from relayq.model.submitters import Submitter
from relayq.workflows import Flows
from tests.probing import remember
from tests.system.conftest import Fleet, start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system

ANNA = Identity(b"a" * 32, "anna@laptop")
BERT = Identity(b"b" * 32, "bert@laptop")
#: Says where it runs, once the other host has begun something, too.
MEET = 'h=$(basename "$HOME"); touch {}/$h; until test -e {}/one -a -e {}/two; do sleep 0.05; done'
FLOW = """
name: both
jobs:
  list:
    run: echo 'numbers=[1, 2, 3, 4]' >> $RELAYQ_OUTPUT
    outputs: [numbers]
  each:
    needs: list
    strategy: {matrix: {n: "${{ fromJSON(steps.list.outputs.numbers) }}"}}
    run: MEET; echo "n=${{ matrix.n }}" >> $RELAYQ_OUTPUT; echo $h
    outputs: [n]
  sum:
    needs: each
    run: echo "${{ steps.each.result }}"
"""


@dataclass
class Hosts:
    """The home of each host by its name, and the fleet."""

    fleet: Fleet
    homes: dict[str, Path]

    def authorize(self, identity: Identity, *names: str, **limits: object) -> None:
        for name in names:
            line = Submitter(identity.public, identity.name, **limits)
            authorizing.add(self.homes[name], line)


@pytest.fixture(scope="module")
def pair(idle_pair):
    fleet, homes = idle_pair
    workers = []
    try:
        for name, home in homes.items():
            own = {"RELAYQ_HOME": str(home), "HOME": str(home.parent), "RELAYQ_WORKER__NAME": name}
            environ = {**fleet.environ, **own, "RELAYQ_BROKER__URL": fleet.broker.url}
            with (home / "log").open("ab") as log:
                workers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "relayq.worker"],
                        cwd="/",
                        env=environ,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        hosts = fleet.relay.session().store.hosts
        until(
            lambda: {one.name for one in hosts.list(online_within=6) if one.is_online} >= {*homes},
            within=20,
            what="both hosts",
        )
        yield Hosts(fleet, homes)
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait(15)
        left = [Shim(one) for home in homes.values() for one in attempts(home / "spool")]
        for shim in left:
            if shim.is_alive():
                shim.kill("cancel", 0.0)
                shim.wait(10)


@pytest.fixture(scope="module")
def idle_pair(tmp_path_factory):
    """A fleet without a worker, and the homes of two hosts that have its key."""
    place = tmp_path_factory.mktemp("pair")
    home = place / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        for fleet in start_fleet(home, patch, working=False):
            key = fleet.relay.session().signer.ring.keys.text
            homes = {name: place / name / ".relayq" for name in ("one", "two")}
            for own in homes.values():
                own.mkdir(parents=True, mode=0o700)
                remember(own)
                write_private(own / "fleet.key", key)
            yield fleet, homes
        embedded.stop_broker(config.load())


@pytest.fixture
def hosts(pair):
    yield pair
    for home in pair.homes.values():
        (home / FILE).unlink(missing_ok=True)


@pytest.fixture
def as_(hosts):
    """Return the client of somebody."""
    made = []

    def client(identity):
        relay = Relay(url=hosts.fleet.relay._url, say=lambda _: None)
        made.append(relay)
        relay.session().signer.identity = identity
        return relay.job

    yield client
    for relay in made:
        relay.close()


def meeting(tmp_path):
    place = tmp_path / "met"
    place.mkdir()
    return MEET.replace("{}", str(place))


def test_a_job_for_any_host_runs_where_its_submitter_may(hosts, as_):
    hosts.authorize(ANNA, "one")
    hosts.authorize(BERT, "two")

    for client, home in ((as_(ANNA), "one"), (as_(BERT), "two")):
        asked = [client.run('basename "$HOME"') for _ in range(6)]
        assert [one.get(timeout=30) for one in asked] == [home] * 6


def test_a_job_that_nobody_authorises_is_refused_once_all_have_said_so(hosts, as_):
    hosts.authorize(ANNA, "one")
    hosts.authorize(BERT, "two")

    asked = as_(None).run("echo no")

    record = asked.wait(30)
    assert (record.state, record.reason) == (JobState.FAILED, "refused")
    assert record.attempt == 2


def test_a_job_is_refused_by_a_limit_of_one_host_and_run_by_the_other(hosts, as_):
    hosts.authorize(ANNA, "one", kinds=("transcode",))
    hosts.authorize(ANNA, "two")

    asked = [as_(ANNA).run('basename "$HOME"') for _ in range(4)]

    assert [one.get(timeout=30) for one in asked] == ["two"] * 4


def test_the_items_of_a_batch_run_on_both(hosts, as_, tmp_path):
    hosts.authorize(ANNA, "one", "two")
    anna = as_(ANNA)

    run = anna.map(f"{meeting(tmp_path)}; echo $h {{}}", range(6), batch=6)
    said = [text.split() for text in run.results()]

    assert [number for _, number in said] == [str(number) for number in range(6)]
    assert {home for home, _ in said} == {"one", "two"}


def test_the_items_of_a_batch_stay_where_its_submitter_may(hosts, as_, tmp_path):
    hosts.authorize(ANNA, "two")
    hosts.authorize(BERT, "one")
    go = tmp_path / "go"
    anna = as_(ANNA)
    line = f"test {{}} != 1 || until test -e {go}; do sleep 0.05; done; basename $HOME"

    run = anna.map(line, range(4), batch=4)
    ends = run.as_completed(timeout=60)
    early = [next(ends).number for _ in range(3)]
    go.touch()

    assert sorted(early) == [1, 3, 4]
    assert run.results() == ["two"] * 4


def test_the_jobs_of_a_list_run_on_both(hosts, as_, tmp_path):
    hosts.authorize(ANNA, "one", "two")
    file = tmp_path / "flow.yml"
    file.write_text(FLOW.replace("MEET", meeting(tmp_path)))
    anna = as_(ANNA)

    run = Flows(anna.relay).load(str(file)).run()
    run.wait(60)

    assert {one.record.state for one in run.jobs()} == {JobState.SUCCEEDED}
    became = [one for one in run.jobs() if one.record.spec.item_of]
    assert {one.record.host for one in became} == {"one", "two"}


def test_the_steps_of_a_workflow_go_where_its_submitter_may(hosts, as_, tmp_path):
    hosts.authorize(ANNA, "two")
    hosts.authorize(BERT, "one")
    file = tmp_path / "flow.yml"
    file.write_text(FLOW.replace("MEET", "h=x"))

    run = Flows(as_(ANNA).relay).load(str(file)).run()
    run.wait(60)

    ran = {(one.record.state, one.record.host) for one in run.jobs()}
    assert ran == {(JobState.SUCCEEDED, "two")}
