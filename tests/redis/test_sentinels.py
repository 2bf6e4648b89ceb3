"""A broker behind Redis Sentinel: the store finds the master, and follows it to another machine."""

import socket
import subprocess
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from relayq import config
from relayq.app import make_app
from relayq.errors import BrokerUnavailable
from relayq.model.jobs import JobState
from relayq.store import connect
from tests.redis.fleet import Clock, Fleet
from tests.waiting import until

MASTER = """
port {port}
sentinel monitor fleet 127.0.0.1 {master} 1
sentinel auth-pass fleet secret
sentinel down-after-milliseconds fleet 500
sentinel failover-timeout fleet 3000
"""


def free_ports(count):
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Sentinels:
    """A master, its replica, and one sentinel that watches them."""

    def __init__(self, binary, directory):
        self.binary, self.directory, self.processes = binary, Path(directory), {}
        self.master, self.replica, self.sentinel = free_ports(3)
        self.url = f"sentinel://:secret@127.0.0.1:{self.sentinel}/1?master=fleet&replicas=0"
        login = "requirepass secret\nmasterauth secret\nrepl-diskless-sync-delay 0\nsave ''\n"
        self.start(self.master, f"port {self.master}\n{login}")
        self.start(self.replica, f"port {self.replica}\n{login}replicaof 127.0.0.1 {self.master}\n")
        # A sentinel asks for replicas when it starts, and then only every 10 s.
        until(self.is_replicated, within=30, what="the replica to have the data")
        sentinel = MASTER.format(port=self.sentinel, master=self.master)
        self.start(self.sentinel, sentinel, "--sentinel")

    def start(self, port, text, *options):
        home = self.directory / str(port)
        home.mkdir()
        file = home / "redis.conf"
        file.write_text(f"bind 127.0.0.1\ndir {home}\n{text}")
        self.processes[port] = subprocess.Popen(
            [self.binary, file, *options], stdout=subprocess.DEVNULL, start_new_session=True
        )

    def kill(self, port):
        process = self.processes.pop(port)
        process.kill()
        process.wait()

    def is_replicated(self):
        """Tell whether the replica has the master's data."""
        try:
            with redis.Redis(port=self.replica, password="secret") as asked:
                return asked.info("replication")["master_link_status"] == "up"
        except redis.ConnectionError:
            return False

    def is_ready(self):
        """Tell whether the sentinel knows that replica."""
        try:
            with redis.Redis(port=self.sentinel) as asked:
                known = asked.sentinel_slaves("fleet")
        except redis.ConnectionError:
            return False
        return any(one["master-link-status"] == "ok" for one in known)


@pytest.fixture
def sentinels(redis7):
    with tempfile.TemporaryDirectory(prefix="rq-") as directory:
        made = Sentinels(redis7.binary, directory)
        try:
            until(made.is_ready, within=30, what="the sentinel to know the replica")
            yield made
        finally:
            for port in list(made.processes):
                made.kill(port)


def test_a_store_follows_the_master_to_another_machine(sentinels):
    store = connect(sentinels.url)
    fleet = Fleet(store, Clock())
    first = fleet.submit(unique="a")
    store.connection.wait(1, 5000)

    sentinels.kill(sentinels.master)
    with pytest.raises(BrokerUnavailable):
        fleet.submit()

    def submits():
        try:
            return fleet.submit()
        except BrokerUnavailable:
            return None

    until(submits, within=30, what="a submit to the new master")
    assert fleet.state(first) is JobState.QUEUED
    with redis.Redis(port=sentinels.replica, db=1, password="secret") as new:
        assert new.exists(fleet.key("job", first))
    store.close()


def test_an_unknown_master_is_a_broker_that_cannot_be_reached(sentinels):
    store = connect(sentinels.url.replace("master=fleet", "master=other"))

    with pytest.raises(BrokerUnavailable, match="other"):
        store.jobs.count()
    store.close()


def test_celery_goes_on_to_the_next_sentinel_when_one_hangs(sentinels, home):
    with closing(socket.create_server(("127.0.0.1", 0))) as hung:
        url = f"sentinel://:secret@127.0.0.1:{hung.getsockname()[1]};{sentinels.url}"
        app = make_app(config.load({"RELAYQ_HOME": str(home)}), url)
        connected = threading.Event()

        def ask():
            with app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1)
                connection.default_channel.client.ping()
                connected.set()

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        until(connected.is_set, within=30, what="a connection to the primary")
        asking.join()
