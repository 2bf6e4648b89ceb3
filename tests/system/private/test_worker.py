"""The worker beside the private broker."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from relayq import embedded
from relayq.errors import RelayqError
from tests.system.private.brokers import outputs, python

pytestmark = pytest.mark.system


HOLD_THE_SPOOL = (
    "from relayq.host.process import SpoolLock; import signal;"
    "SpoolLock(config.spool).acquire(); print(flush=True);"
)


def test_a_worker_is_there_while_it_holds_the_spool(config):
    assert embedded.worker_pid(config) is None

    with python(HOLD_THE_SPOOL + "signal.pause()", config) as worker:
        assert worker.stdout
        worker.stdout.readline()
        assert embedded.worker_pid(config) == worker.pid
        assert embedded.start_worker(config) == worker.pid
        worker.kill()

    assert embedded.worker_pid(config) is None


def test_a_pid_in_the_lock_file_is_no_worker_while_nobody_holds_the_lock(config):
    config.spool.mkdir()
    (config.spool / "worker.lock").write_text(str(os.getpid()))

    assert embedded.worker_pid(config) is None
    assert not embedded.stop_worker(config)


def test_a_stop_waits_for_the_end_of_the_worker(config):
    with python(HOLD_THE_SPOOL + "signal.pause()", config) as worker:
        assert worker.stdout
        worker.stdout.readline()

        assert embedded.stop_worker(config)

        assert embedded.worker_pid(config) is None
    assert worker.returncode == -signal.SIGTERM


def test_a_stop_says_so_when_the_worker_does_not_end(config):
    deaf = HOLD_THE_SPOOL.replace("print", "signal.signal(15, signal.SIG_IGN); print")
    with python(deaf + "signal.pause()", config) as worker:
        assert worker.stdout
        worker.stdout.readline()

        with pytest.raises(RelayqError, match=rf"\(pid {worker.pid}\) didn't end in 0.2 s"):
            embedded.stop_worker(config, within=0.2)

        assert embedded.worker_pid(config) == worker.pid
        worker.kill()


def test_eight_processes_at_once_make_one_broker_and_one_worker_and_say_so_once(config):
    program = "print(embedded.ensure(config, say=print))"

    texts = outputs([python(program, config, RELAYQ_JOB_ID="j") for _ in range(8)])

    url = embedded.broker_url(config)
    lines = "".join(texts).splitlines()
    assert lines.count(str(url)) == 8
    assert [line for line in lines if line != url] == [
        "started a private broker and a worker on this machine (relayq down stops them)"
    ]
    worker = psutil.Process(embedded.worker_pid(config))
    assert "RELAYQ_JOB_ID" not in worker.environ()
    assert worker.environ()["RELAYQ_HOME"] == str(config.home)
    assert os.getsid(worker.pid) == worker.pid
    assert embedded.stop_worker(config)
    assert embedded.worker_pid(config) is None


def test_only_what_is_missing_is_started(config):
    said: list[str] = []
    embedded.start_broker(config)

    url = embedded.ensure(config, say=said.append)
    assert said == ["started a worker on this machine (relayq down stops it)"]
    embedded.stop_broker(config)
    assert embedded.ensure(config, say=said.append) == url
    assert said[1:] == ["started a private broker on this machine (relayq down stops it)"]
    assert embedded.ensure(config, say=said.append) == url
    assert len(said) == 2


def test_a_worker_that_does_not_start_shows_the_end_of_its_log(config):
    (config.home / "config.yml").write_text("worker: {priority: high}")

    with pytest.raises(RelayqError, match=r"the worker didn't start\n") as caught:
        embedded.start_worker(config)

    assert "expected one of normal, low, idle" in str(caught.value)
