"""A broker on three machines: what was answered is on a replica, and who may do what there."""

import signal
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relayq import config
from relayq.app import make_app
from relayq.doctor.findings import Level
from relayq.doctor.sentinels import examine_sentinels
from relayq.embedded.certificates import Authority
from relayq.embedded.nodes import Plan, write_nodes
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.model.jobs import JobState
from relayq.store import connect
from tests.redis.fleet import Clock, Fleet, FleetHost, spec
from tests.redis.nodes import REDIS, SENTINEL, Nodes
from tests.waiting import until

ADDRESSES = ("100.64.0.1", "100.64.0.2", "100.64.0.3")


@pytest.fixture(scope="module")
def machines(redis7):
    """Three machines; a test leaves them as many, each as it may be."""
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as folder:
        made = Nodes(redis7.binary, Path(folder, "nodes"))
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.fixture
def nodes(machines):
    """The three, each as it should be."""
    until(machines.is_whole, within=60, what="both replicas to follow the primary")
    return machines


@pytest.fixture
def fleet(nodes):
    with closing(connect(nodes.url())) as store:
        yield Fleet(store, Clock())


@pytest.fixture
def hasty(nodes):
    """The same, which soon gives up what no replica has."""
    with closing(connect(nodes.url(), patience=1.0)) as store:
        yield Fleet(store, Clock())


@contextmanager
def stopped(nodes, *addresses):
    """Have the Redis of these machines stand still, as behind a cable that was pulled."""
    for address in addresses:
        nodes.signal(address, REDIS, signal.SIGSTOP)
    try:
        yield
    finally:
        for address in addresses:
            nodes.signal(address, REDIS, signal.SIGCONT)


def others(nodes):
    primary = nodes.primary()
    return [address for address in nodes.addresses if address != primary]


def test_a_submit_that_no_replica_has_is_not_answered(nodes, fleet, hasty):
    one = spec()

    with stopped(nodes, *others(nodes)), pytest.raises(BrokerUnavailable, match="0 of 1 replicas"):
        hasty.submit_all([one])

    assert fleet.submit_all([one]) == [one.id]
    assert fleet.state(one.id) is JobState.QUEUED


def test_one_replica_is_enough(nodes, fleet):
    with stopped(nodes, others(nodes)[0]):
        assert fleet.state(fleet.submit()) is JobState.QUEUED


def test_an_attempt_may_start_only_when_a_replica_has_its_claim(nodes, fleet, hasty):
    host = fleet.host()
    fleet.submit()

    with stopped(nodes, *others(nodes)):
        token = host.claim()
        with pytest.raises(BrokerUnavailable, match="0 of 1 replicas"):
            FleetHost(hasty, host.who).beat(token)

    assert host.beat(token) == ["ok"]
    assert host.finish(token) == JobState.SUCCEEDED


def test_a_repeat_of_what_no_replica_had_waits_as_the_first_time_did(nodes, fleet, hasty):
    host = fleet.host()
    fleet.submit()
    token = host.start()

    with stopped(nodes, *others(nodes)):
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="0 of 1 replicas"):
                FleetHost(hasty, host.who).finish(token)

    assert host.finish(token) == "already"


def test_a_primary_that_hung_takes_nothing_back(nodes, fleet, hasty):
    """Its old clients still reach it: what they tell it is answered by nobody."""
    first = nodes.primary()
    before = fleet.submit()
    assert hasty.state(before) is JobState.QUEUED
    with stopped(nodes, first):
        until(lambda: nodes.primary() not in (None, first), within=60, what="a failover")

    def submitted():
        try:
            return hasty.submit()
        except BrokerUnavailable:
            return None

    id = until(submitted, within=60, what="a submit to be answered")
    # A sentinel does it as well, at its next look in up to 10 s.
    nodes.follow(first, nodes.primary())
    until(lambda: nodes.replicas(nodes.primary()) == 2, within=60, what="the old one to follow")
    with closing(connect(nodes.url())) as store:
        assert Fleet(store, Clock()).states(before, id) == [JobState.QUEUED] * 2


def test_without_any_replica_the_primary_takes_nothing(nodes, fleet):
    gone = others(nodes)
    for address in gone:
        nodes.kill(address, (REDIS,))

    def refused():
        try:
            fleet.submit()
        except BrokerUnavailable as error:
            return "too few replicas" in error.message
        return False

    until(refused, within=20, what="the primary to refuse")
    for address in gone:
        nodes.run(address, REDIS)
    until(lambda: nodes.replicas(nodes.primary()) == 2, within=60, what="both replicas")
    assert fleet.submit()


def test_three_machines_that_come_back_have_all_that_was_answered(nodes, fleet):
    ids = [fleet.submit() for _ in range(5)]
    for address in nodes.addresses:
        nodes.kill(address, (REDIS,))
    for address in nodes.addresses:
        nodes.run(address, REDIS)

    def kept():
        try:
            return fleet.states(*ids)
        except BrokerUnavailable:
            return []

    assert until(kept, within=60, what="the broker") == [JobState.QUEUED] * 5


def test_everybody_was_allowed_what_they_did(nodes):
    assert nodes.refusals() == []


@pytest.mark.parametrize(
    ("what", "command"),
    [
        (REDIS, "CONFIG GET requirepass"),
        (REDIS, "REPLICAOF NO ONE"),
        (REDIS, "FAILOVER"),
        (SENTINEL, "SENTINEL FAILOVER relayq"),
        (SENTINEL, "SENTINEL SET relayq quorum 1"),
        (SENTINEL, "SENTINEL MONITOR other 127.0.0.1 6379 1"),
    ],
)
def test_only_the_owner_moves_a_primary(nodes, what, command):
    address = nodes.addresses[1]
    with nodes.ask(address, what, "worker") as worker, nodes.ask(address, what) as admin:
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.execute_command(*command.split())
        admin.execute_command("ACL LOG RESET")

        nobody = redis.Redis(host=address, port=nodes.port(what), retry=Retry(NoBackoff(), 0))
        with nobody, pytest.raises(redis.AuthenticationError):
            nobody.execute_command(*command.split())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"addresses": ADDRESSES[:2]}, "2 machines can't agree"),
        ({"addresses": (*ADDRESSES, "100.64.0.4")}, "4 machines can't agree"),
        ({"addresses": (*ADDRESSES[:2], ADDRESSES[0])}, "2 machines can't agree"),
        ({"addresses": (*ADDRESSES[:2], "0.0.0.0")}, "won't listen on '0.0.0.0'"),
        ({"users": ("pi4",)}, "'pi4' says no role"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused(tmp_path, change, why):
    with pytest.raises(RelayqError, match=why):
        write_nodes(
            tmp_path / "nodes", Plan(**{"addresses": ADDRESSES, "place": tmp_path, **change})
        )


def test_a_second_time_keeps_the_secrets_and_adds_the_new_user(tmp_path):
    plan = Plan(ADDRESSES, Path("/var/lib/relayq-broker"), users=("worker-pi4",))
    write_nodes(tmp_path, plan)
    before = (tmp_path / "worker-pi4.password").read_text()

    write_nodes(tmp_path, Plan(ADDRESSES, plan.place, users=("worker-pi4", "client-laptop")))

    assert (tmp_path / "worker-pi4.password").read_text() == before
    users = (tmp_path / ADDRESSES[2] / "users.acl").read_text()
    assert "user worker-pi4 " in users
    assert "user client-laptop " in users
    assert before.strip() not in users


def test_sentinels_and_redis_over_tls_serve_store_and_celery(redis7, home):
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as folder:
        made = Nodes(redis7.binary, Path(folder, "nodes"), is_encrypted=True)
        try:
            made.start()
            with closing(connect(made.url())) as store:
                assert Fleet(store, Clock()).submit()
            app = make_app(config.load({"RELAYQ_HOME": str(home)}), made.url())
            with app.connection_for_read() as connection:
                connection.connect()
                assert connection.default_channel.client.ping()
            other = Authority(Path(folder)).certificate
            with (
                closing(connect(made.url().replace(str(made.ca), str(other)))) as store,
                pytest.raises(BrokerUnavailable),
            ):
                store.jobs.count()
        finally:
            made.close()


def test_doctor_hears_of_each_sentinel_and_of_the_replicas(nodes):
    with closing(connect(nodes.url())) as store:
        replicas = store.server.fetch().replicas
    found = list(examine_sentinels("broker", nodes.url(), replicas))

    assert [one.level for one in found] == [Level.OK, Level.OK]
    assert found[0].text == f"3 of 3 sentinels name {nodes.primary()}:6379"
    assert found[1].text == "2 replicas have what the primary has, of which 1 must"
