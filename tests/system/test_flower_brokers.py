"""Flower beside brokers that are reached in other ways: over TLS, and behind sentinels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from relayq import Relay, config, embedded, signing
from tests.conftest import end_all, refusals
from tests.probing import remember
from tests.redis.nodes import Nodes
from tests.system.conftest import ROOT
from tests.system.flowering import Flowering
from tests.system.private.brokers import own_server
from tests.waiting import until

pytestmark = pytest.mark.system


@contextmanager
def working(home: Path, **environ: str) -> Iterator[None]:
    """Have a worker that is called here."""
    own = {
        "RELAYQ_HOME": str(home),
        "RELAYQ_WORKER__NAME": "here",
        "RELAYQ_WORKER__PRIORITY": "normal",
        "RELAYQ_WORKER__CPU_THRESHOLD": "100",
        "RELAYQ_LEASE__BEAT": "1",
        "RELAYQ_LEASE__PULL": "1",
        "PYTHONPATH": str(ROOT),
    }
    with (home / "test-worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "relayq.worker"],
            cwd="/",
            env={**os.environ, **own, **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def shows(flower: Flowering, job: str, state: str, *, secret: str) -> None:
    """Wait until Flower shows a job in that state, on the host that had it, and no password."""

    def shown() -> tuple[object, object]:
        task = flower.tasks().get(job, {})
        return task.get("state"), task.get("worker")

    log = flower.home / "test-flower.log"
    wanted = (state, "relayq@here")
    until(lambda: shown() == wanted, within=60, what=lambda: f"{shown()}: {log.read_text()}")
    for path in ("/workers", "/broker", "/worker/relayq@here", f"/task/{job}", "/api/workers"):
        status, page = flower.ask(path)
        assert (status, secret.encode() in page) == (200, False), path
    assert secret not in log.read_text()


@pytest.fixture
def encrypted(home, monkeypatch):
    """A machine whose broker speaks TLS only."""
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", own_server())
    remember(home)
    own = config.load()
    embedded.start_broker(own, tls=True)
    yield own
    assert not refusals(own)
    end_all(home)


def test_it_shows_the_jobs_of_a_broker_over_tls_here_and_on_another_machine(encrypted, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir(mode=0o700)
    remember(other)
    shutil.copy(embedded.broker_authority(encrypted), other / "ca.crt")
    secret = embedded.add_user(encrypted, "client-laptop", role="client", host="laptop")
    (other / "password").write_text(secret)
    (other / "config.yml").write_text(
        f"broker:\n  host: 127.0.0.1\n  port: {embedded.wanted_port(encrypted)}\n"
        "  user: client-laptop\n  password_file: password\n  tls: yes\n  ca_file: ca.crt\n"
    )

    url = embedded.broker_url(encrypted)
    with working(encrypted.home), closing(Relay(url=url, say=lambda _: None)) as relay:
        job = relay.job.run("echo over TLS")
        job.wait()
        for home in (encrypted.home, other):
            with closing(Flowering(home, os.environ)) as flower:
                shows(flower, job.id, "SUCCESS", secret=secret)


@pytest.fixture
def nodes(redis7):
    """A broker on three machines, over TLS."""
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as folder:
        made = Nodes(
            redis7.binary,
            Path(folder, "our nodes"),
            users=["worker-here", "client-laptop"],
            is_encrypted=True,
        )
        try:
            made.start()
            yield made
            assert made.refusals() == []
        finally:
            made.close()


def test_it_shows_the_jobs_of_a_broker_behind_sentinels_and_goes_over_with_it(nodes, home):
    remember(home)
    signing.load_key(home / "fleet.key")
    url, secret = nodes.url("client-laptop"), nodes.secret("client-laptop")
    with (
        working(home, RELAYQ_BROKER__URL=nodes.url("worker-here")),
        closing(Relay(url=url, home=home, say=lambda _: None)) as relay,
        closing(Flowering(home, {**os.environ, "RELAYQ_BROKER__URL": url})) as flower,
    ):
        before = relay.job.run("echo before")
        before.wait()
        shows(flower, before.id, "SUCCESS", secret=secret)

        first = nodes.primary()
        nodes.kill(first)
        until(lambda: nodes.primary() not in (None, first), within=60, what="a failover")
        after = relay.job.run("exit 3")
        after.wait()
        shows(flower, after.id, "FAILURE", secret=secret)
