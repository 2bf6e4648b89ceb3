"""A fleet whose worker isn't root, with the real agents' programs, logged in at a mock."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from relayq import Relay, config, embedded
from relayq.model.jobs import JobState
from relayq.results import JobResult
from tests.agents.server import MockApi
from tests.conftest import end_all
from tests.probing import remember
from tests.system.agents.place import NOWHERE, ROOT, Place, interpreter, user
from tests.system.conftest import SCALED, Fleet
from tests.waiting import until

START_BROKER = "from relayq import config, embedded; embedded.start_broker(config.load())"
#: The waits between an agent's runs, which are a minute and more, as tenths of a second.
WORKER = """
from dataclasses import replace
from relayq.agents import policy
policy.PATIENCE = {
    one: replace(patience, first_delay=0.5, longest_delay=1.0)
    for one, patience in policy.PATIENCE.items()
}
policy._AFTER_RESET = (0.2, 0.4)
from relayq.worker import main
main()
"""
#: How the programs are told to be less patient than they are; what they do is the same.
AGENTS: dict[str, Any] = {
    "claude": {
        "max_throttle_wait": 6,
        "answers_within": 6,
        "env": {"CLAUDE_CODE_MAX_RETRIES": "1"},
        "accounts": {"default": {"stagger": 0}, "away": {"env": {"ANTHROPIC_BASE_URL": NOWHERE}}},
    },
    "codex": {
        "max_throttle_wait": 6,
        "answers_within": 6,
        "accounts": {
            "default": {"stagger": 0},
            "away": {"env": {"CODEX_HOME": "{home}/.codex-away"}},
        },
    },
    "gemini": {
        "max_throttle_wait": 6,
        "answers_within": 6,
        "accounts": {
            "default": {"stagger": 0},
            "away": {"env": {"GOOGLE_GEMINI_BASE_URL": NOWHERE}},
        },
    },
    "ollama": {
        "url": "{api}/v1",
        "default_model": "mock",
        "max_throttle_wait": 6,
        "answers_within": 6,
    },
}


class AgentFleet(Fleet):
    """A broker and a worker of a user that isn't root, in a home with logins."""

    def __init__(self, home: Path, place: Place, more: dict[str, str]) -> None:
        self.home = home
        self.place = place
        self.api = place.api
        found = interpreter()
        self.python, environ = found or (sys.executable, {"PYTHONPATH": str(ROOT)})
        self.as_user = user() if found else {}
        own = {"RELAYQ_HOME": str(home), **more}
        self.environ = place.environment(**environ, **own)
        done = subprocess.run(
            [self.python, "-c", START_BROKER],
            env=self.environ,
            cwd="/",
            capture_output=True,
            text=True,
            **self.as_user,
        )
        assert done.returncode == 0, done.stderr
        self.config = config.load(own)
        facts = embedded.running_broker(self.config)
        assert facts is not None
        self.broker = facts
        self.worker: subprocess.Popen[bytes] | None = None
        self.relay = Relay(url=facts.url, say=lambda _: None)

    def start_worker(self, *command: str, **environ: str) -> None:
        """Start a worker process and wait until it is registered."""
        with (self.home / "test-worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [self.python, "-c", WORKER, *command],
                cwd="/",
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.as_user,
            )
        pid = self.worker.pid
        until(lambda: self.pid_online() == pid, within=30, what=lambda: f"a worker:\n{self.log()}")

    def ask(self, agent: str, prompt: str = "please do it", **asked: Any) -> JobResult:
        """Submit a job for an agent, in the directory to work in."""
        return self.job.agent(agent, prompt, **{"cwd": str(self.place.work), **asked})

    def until_state(self, job: JobResult, state: str, within: float = 40.0) -> Any:
        """Wait for a state and return the record."""

        def record() -> Any:
            found = job.record
            if found.state == JobState(state):
                return found
            assert not found.state.is_final, self.told(job, state)
            return None

        return until(record, within=within, what=lambda: self.told(job, state))

    def told(self, job: JobResult, state: str) -> str:
        """Return what there is to say about a job that doesn't get to a state."""
        outcome = job.outcome()
        last = f"last: {outcome.error}, {outcome.result}" if outcome else "no outcome"
        return f"{job.id} to be {state}: {last}\n{job.record}\n{self.log()[-4000:]}"

    def answer(self, job: JobResult) -> dict[str, Any]:
        """Return what the job's last attempt came to."""
        outcome = job.outcome()
        assert outcome is not None, self.told(job, "ended")
        return outcome.result

    def accounts(self, *names: str) -> list[Any]:
        """Return how it stands with these accounts."""
        return list(self.relay.session().store.accounts.fetch(names))

    def agents_processes(self) -> list[psutil.Process]:
        """Return everything that runs in the directory to work in, or for its programs."""
        return [one for one in psutil.process_iter() if is_below(one, self.place.directory)]


def is_below(process: psutil.Process, directory: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(directory)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return False


@pytest.fixture(scope="module")
def api():
    """The mock of all the APIs."""
    with MockApi() as served:
        yield served


def furnish(home: Path, place: Place) -> None:
    """Write what a host has been given: its configuration, the agents' keys, the fleet's key."""
    home.chmod(0o755)
    place.directory.mkdir()
    place.build()
    # Where only root can run the tests' Python, claude has to be told that root is all right.
    root = {"allow_root_sandbox": interpreter() is None and os.geteuid() == 0}
    configured = yaml.safe_dump({"agents": {**AGENTS, "claude": {**AGENTS["claude"], **root}}})
    configured = configured.replace("{home}", str(place.home)).replace("{api}", place.api.url)
    (home / "config.yml").write_text(configured)
    keys = "".join(f"{name}={shlex.quote(value)}\n" for name, value in place.keys.items())
    for name, text in {"agents.env": keys, "fleet.key": secrets.token_hex(32)}.items():
        (home / name).touch(mode=0o600)
        (home / name).write_text(text)
    remember(home, place.environment()["PATH"])
    place.hand_over(home)


@pytest.fixture(scope="module")
def agents(api):
    """A fleet for a module's tests; what a test changes, it puts back."""
    home = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
    more = {f"RELAYQ_LEASE__{name}": value for name, value in SCALED.items()}
    more |= {"RELAYQ_DEFAULTS__GRACE": "1", "RELAYQ_WORKER__PRIORITY": "normal"}
    more |= {"RELAYQ_WORKER__NAME": "here"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**more, "RELAYQ_HOME": str(home)}.items():
            patch.setenv(name, value)
        try:
            place = Place(home / "place", api)
            furnish(home, place)
            fleet = AgentFleet(home, place, more)
            try:
                fleet.start_worker()
                yield fleet
            finally:
                fleet.close()
        finally:
            end_all(home)
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def fleet(agents, api):
    """The module's fleet, with nothing played and nothing asked yet."""
    api.play("text")
    api.asked.clear()
    if agents.worker is None or agents.worker.poll() is not None:
        agents.start_worker()
    for account in agents.relay.session().store.accounts.list():
        agents.relay.session().store.accounts.resume(account.name)
    return agents
