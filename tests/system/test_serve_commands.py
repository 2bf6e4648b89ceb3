"""The file service beside the private broker: started by up, stopped by down, kept alive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from relayq import config, embedded, transfer
from relayq.artifacts import Artifacts
from relayq.embedded.files import keep_files
from relayq.signing import Signer, load_key
from relayq.store import connect
from tests.system.conftest import ROOT
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def environ(home, monkeypatch):
    monkeypatch.setenv("RELAYQ_SERVE__START", "yes")
    monkeypatch.setenv("RELAYQ_WORKER__NAME", "here")
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def relayq(environ, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "relayq", *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done


def of_home(home):
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("RELAYQ_HOME") == str(home)
    ]


def artifacts_of(own):
    store = connect(embedded.broker_url(own))
    return Artifacts(store, own, Signer(load_key(own.fleet_key_path)))


def test_up_starts_it_and_a_large_file_travels_and_down_leaves_nothing(home, environ, tmp_path):
    said = json.loads(relayq(environ, "up", "--json").stdout)
    again = json.loads(relayq(environ, "up", "--json").stdout)
    assert said["files"] == again["files"]
    own = config.load(environ)
    assert said["files"]["pid"] == embedded.files_pid(own)

    artifacts = artifacts_of(own)
    service = until(artifacts.service, within=15, what="the service to be announced")
    assert service.url == f"http://{said['files']['address']}"
    assert service.url.startswith("http://127.0.0.1:")
    (tmp_path / "source").write_bytes(os.urandom(1_000_000))
    digest = artifacts.keep(tmp_path / "source", job="t00000000000")
    artifacts.fetch(digest, tmp_path / "back")
    assert transfer.hash_file(tmp_path / "back") == digest

    done = relayq(environ, "down", "--kill")
    assert done.stdout == "stopped: worker, file service, private broker\n"
    until(lambda: not of_home(home), within=15, what="every process to end")


def test_it_keeps_its_port_and_its_files_over_a_restart(home, environ, tmp_path):
    (tmp_path / "source").write_bytes(os.urandom(1_000_000))
    first = json.loads(relayq(environ, "broker", "start", "--json").stdout)["files"]
    own = config.load(environ)
    artifacts = artifacts_of(own)
    until(artifacts.service, within=15, what="the service to be announced")
    digest = artifacts.keep(tmp_path / "source", job="t00000000000")
    assert relayq(environ, "broker", "stop").stdout == "stopped: broker, file service\n"

    second = json.loads(relayq(environ, "broker", "start", "--json").stdout)["files"]

    assert second["address"] == first["address"]
    artifacts = artifacts_of(own)
    until(artifacts.service, within=15, what="the service to be announced")
    artifacts.fetch(digest, tmp_path / "back")
    assert transfer.hash_file(tmp_path / "back") == digest
    relayq(environ, "broker", "stop")


def test_one_that_died_is_started_again_and_one_that_was_stopped_is_not(home, environ):
    own = config.load(environ)
    pid = embedded.start_files(own)
    assert keep_files(own) is None
    os.kill(pid, signal.SIGKILL)
    until(lambda: embedded.files_pid(own) is None, what="it to be gone")

    assert keep_files(own) == "the file service had died: started it again"
    new = until(lambda: embedded.files_pid(own), within=20, what="it to be there again")
    assert new != pid

    assert embedded.stop_files(own)
    assert keep_files(own) is None
    assert not embedded.stop_files(own)
    assert not of_home(home)


def test_one_that_is_stopped_while_it_starts_ends_by_itself(home, environ):
    own = config.load(environ)
    assert embedded.start_files(own, wait=False) is None

    embedded.stop_files(own)

    until(lambda: not of_home(home), within=20, what="it to end")


def test_the_first_run_starts_it_without_waiting_for_it(home, environ):
    assert relayq(environ, "run", "echo hi").stdout == "hi\n"

    own = config.load(environ)
    until(lambda: embedded.files_pid(own), within=20, what="the service to be there")
    relayq(environ, "down", "--kill")
    assert not of_home(home)


def test_nobody_starts_it_who_does_not_want_it(home, environ):
    done = relayq({**environ, "RELAYQ_SERVE__START": "no"}, "up", "--json")

    assert json.loads(done.stdout)["files"] is None
    assert embedded.files_pid(config.load(environ)) is None
    relayq(environ, "down", "--kill")


def files_findings(environ):
    done = subprocess.run(
        [sys.executable, "-m", "relayq", "doctor", "--no-job", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = json.loads(done.stdout)["findings"]
    return [(one["level"], one["text"]) for one in found if "file service" in one["text"]]


def test_doctor_asks_it(home, environ):
    relayq(environ, "broker", "start")
    own = config.load(environ)
    store = connect(embedded.broker_url(own))
    until(store.artifacts.announced, within=15, what="the service to be announced")
    [(level, text)] = files_findings(environ)
    assert (level, text.partition(" at ")[0]) == ("ok", "the file service answers")

    os.kill(embedded.files_pid(own), signal.SIGKILL)
    [(level, text)] = files_findings(environ)
    assert level == "problem"
    assert "connection refused" in text
    store.connection.delete(store.keys("fileserver"))
    assert files_findings(environ)[0][0] == "problem"
    store.close()
    relayq(environ, "broker", "stop")
    assert files_findings(environ) == []
