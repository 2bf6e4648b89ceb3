"""Agents as jobs of a real worker: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from relayq import config, embedded
from relayq.dispatch import Dispatcher
from relayq.host.process import attempts
from relayq.model.jobs import JobState, Spec, new_id
from tests.repositories import make_repository
from tests.system.conftest import start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system

FAKE = Path(__file__).with_name("fake_agent.py")


def await_claude(fleet):
    hosts = fleet.relay.session().store.hosts

    def offers():
        return [host.facts["capabilities"] for host in hosts.list(online_within=60)]

    until(lambda: "agent:claude" in offers()[0], within=30, what="Claude to be found")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet whose host has a key for Claude, which is the nasty agent."""
    home = tmp_path_factory.mktemp("agents", numbered=True) / "home"
    home.mkdir(mode=0o700)
    (home.parent / "bin").mkdir()
    shutil.copy(FAKE, home.parent / "bin" / "claude")
    keys = home / "agents.env"
    keys.touch(mode=0o600)
    keys.write_text("ANTHROPIC_API_KEY=a-key-of-mine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{home.parent / 'bin'}:{os.environ['PATH']}")
        patch.setenv("RELAYQ_WORKER__MAX_CONCURRENT", "3")
        for fleet in start_fleet(home, patch):
            await_claude(fleet)
            yield fleet
        embedded.stop_broker(config.load())


@pytest.fixture(autouse=True)
def rested(fleet):
    """An account that no other test has paused, and a worker that is there."""
    if fleet.worker is None or fleet.worker.poll() is not None:
        fleet.start_worker()
    fleet.relay.session().store.accounts.resume("claude/default")


def ask(fleet, tmp_path, script, **asked):
    """Submit a job for an agent that acts by this script."""
    env = {"FAKE": json.dumps(script), "NOTES": str(tmp_path / "notes")}
    others = ("timeout", "on_lost", "files_in", "files_out", "secrets")
    limits = {name: asked.pop(name) for name in others if name in asked}
    payload = {"prompt": "please", "env": env, **asked}
    return fleet.job.submit("run_claude", **payload, **limits)


def until_state(fleet, job, state, within=30.0):
    def record():
        found = job.record
        return found if found.state == JobState(state) else None

    return until(record, within=within, what=lambda: told(fleet, job, state))


def told(fleet, job, state):
    """Return what there is to say about a job that doesn't get to a state."""
    last = job.outcome()
    return f"{job.id} to be {state}: {job.record}\n{last}\n{fleet.log()[-2000:]}"


def answer_of(job):
    return job.outcome().result


def answer(fleet, id, text, **more):
    session = fleet.relay.session()
    Dispatcher(session.store, session.signer).answer(id, text, **more)


def runs(tmp_path):
    file = tmp_path / "notes"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def is_gone(pid_file):
    try:
        return psutil.Process(int(pid_file.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_an_agents_job_ends_with_its_answer_and_its_costs(fleet, tmp_path):
    job = ask(fleet, tmp_path, ["init", "read", ["text", "hm"], ["result", "forty-two"]])

    record = until_state(fleet, job, "succeeded")

    answer = answer_of(job)
    assert (answer["text"], answer["agent"], answer["host"]) == ("forty-two", "claude", "here")
    assert (record.account, record.cost_usd, record.tokens_out) == ("claude/default", 0.25, 5)
    assert runs(tmp_path)[0]["env"]["ANTHROPIC_API_KEY"] == "a-key-of-mine"
    session = fleet.relay.session().store.sessions.fetch(answer["session_id"])
    assert (session.agent, session.host, session.job) == ("claude", "here", job.id)
    assert session.cwd == answer["cwd"]


def test_celerys_delay_submits_an_agents_job_with_its_account(fleet, tmp_path):
    env = {"FAKE": json.dumps(["init", "read", "result"]), "NOTES": str(tmp_path / "notes")}
    code = (
        f"from relayq.tasks import run_claude; print(run_claude.delay(prompt='x', env={env!r}).id)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=fleet.environ, capture_output=True, text=True, timeout=30
    )

    job = fleet.job.fetch(ran.stdout.strip())
    record = until_state(fleet, job, "succeeded")
    assert (record.spec.accounts, record.account) == (("claude/default",), "claude/default")


def test_nothing_of_an_order_is_in_the_process_table(fleet, tmp_path):
    job = ask(
        fleet,
        tmp_path,
        ["init", "read", ["wait for", str(tmp_path / "go")], "result"],
        prompt="a prompt of mine",
    )
    until(lambda: runs(tmp_path), within=20, what="the agent to run")

    shown = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]

    (tmp_path / "go").touch()
    assert not [line for line in shown if "a prompt of mine" in " ".join(line)]
    until_state(fleet, job, "succeeded")


def test_an_agent_has_its_jobs_secrets_and_nothing_that_is_kept_of_it_does(fleet, tmp_path):
    path = fleet.home / "secrets.env"
    path.touch(mode=0o600)
    path.write_text("DEPLOY_KEY=a-deploy-key-of-mine\n")
    hosts = fleet.relay.session().store.hosts
    hosts.ask("here", {"op": "look"})

    def has_it():
        return "secret:deploy_key" in hosts.list(online_within=60)[0].capabilities

    until(has_it, within=30, what="the host to say that it has the secret")

    with_it = ask(fleet, tmp_path, ["init", "read", ["tell", "DEPLOY_KEY"]], secrets=["DEPLOY_KEY"])
    until_state(fleet, with_it, JobState.SUCCEEDED)
    without = ask(fleet, tmp_path, ["init", "read", ["tell", "DEPLOY_KEY"]])
    until_state(fleet, without, JobState.SUCCEEDED)

    first, second = runs(tmp_path)
    assert first["env"]["DEPLOY_KEY"] == "a-deploy-key-of-mine"
    assert "DEPLOY_KEY" not in second["env"]
    assert (answer_of(with_it)["text"], answer_of(without)["text"]) == ("***", "nothing")
    assert "it is ***" in with_it.stdout
    for one in fleet.home.rglob("*"):
        # What was delivered leaves the spool just now.
        with suppress(FileNotFoundError):
            assert one == path or not one.is_file() or b"deploy-key-of" not in one.read_bytes(), one


@pytest.mark.parametrize("leftover", ["child", "daemon"])
def test_a_cancel_leaves_none_of_an_agents_processes(fleet, tmp_path, leftover):
    pid = tmp_path / "pid"
    job = ask(fleet, tmp_path, ["deaf", "init", [leftover, str(pid)], "chatter"])
    until(lambda: pid.exists() and pid.read_text().strip(), within=20, what="the leftover")

    job.cancel()

    until_state(fleet, job, "cancelled")
    assert is_gone(pid)
    assert answer_of(job)["status"] == "cancelled"


@pytest.mark.parametrize("leftover", ["child", "daemon"])
def test_the_end_of_an_agent_is_that_of_what_it_left(fleet, tmp_path, leftover):
    pid = tmp_path / "pid"
    job = ask(fleet, tmp_path, ["init", [leftover, str(pid)], "result"])

    until_state(fleet, job, "succeeded")

    assert is_gone(pid)


def test_a_time_limit_keeps_what_the_agent_had_so_far(fleet, tmp_path):
    job = ask(fleet, tmp_path, ["init", ["text", "half of it"], ["sleep", 600]], timeout=4.0)

    record = until_state(fleet, job, "failed")

    assert record.reason == "timeout"
    answer = answer_of(job)
    assert (answer["text"], answer["status"]) == ("half of it", "timed_out")
    assert answer["session_id"]


def test_a_session_goes_on_though_its_worker_was_killed(fleet, tmp_path):
    go = tmp_path / "go"
    script = ["init", "read", ["text", "hm"], ["wait for", str(go)], "result"]
    job = ask(fleet, tmp_path, script)
    until(lambda: runs(tmp_path), within=20, what="the agent to run")

    fleet.end_worker(signal.SIGKILL)
    fleet.start_worker()
    go.touch()

    record = until_state(fleet, job, "succeeded")
    assert (record.attempt, len(runs(tmp_path)), record.cost_usd) == (1, 1, 0.25)


def test_a_session_is_resumed_after_its_runner_was_killed(fleet, tmp_path):
    script = {
        "first": ["init", "read", ["text", "hm"], ["sleep", 600]],
        "again": ["init", "read", "result"],
    }
    job = ask(fleet, tmp_path, script)
    until(lambda: runs(tmp_path), within=20, what="the agent to run")
    token = until(
        lambda: [one for one in attempts(fleet.config.spool) if one.name.startswith(job.id)],
        what="its attempt",
    )[0]
    leader = json.loads((token / "run.json").read_text())["leader"]
    session = fleet.home / "agents" / "sessions" / f"{job.id}.claude.json"
    until(
        lambda: session.exists() and json.loads(session.read_text())["has_progressed"],
        what="its session",
    )

    os.kill(leader, signal.SIGKILL)

    record = until_state(fleet, job, "succeeded", within=60)
    assert record.attempt == 2
    first, second = runs(tmp_path)
    assert (second["session"], second["cwd"]) == (first["session"], first["cwd"])


def test_a_denied_tool_is_a_question_and_its_answer_goes_to_the_same_session(fleet, tmp_path):
    script = {"first": ["init", "read", ["text", "hm"], "refused"], "again": ["init", "read"]}
    script["again"].append("result")
    job = ask(fleet, tmp_path, script)
    record = until_state(fleet, job, "needs_human")
    assert "Bash" in record.question
    choices = answer_of(job)["choices"]
    assert [choice["label"] for choice in choices] == list(record.choices)

    given = choices[0]
    answer(fleet, job.id, given["text"], allow=tuple(given["allow"]))

    record = until_state(fleet, job, "succeeded")
    first, second = runs(tmp_path)
    assert second["session"] == first["session"]
    assert second["prompt"] == given["text"]
    assert set(given["allow"]) <= set(second["args"])
    assert record.question is None


def test_its_files_stay_where_its_session_goes_on(fleet, tmp_path):
    (tmp_path / "notes.txt").write_text("given\n")
    script = {
        "first": [["init"], ["write", "notes.txt", "first\n"], ["refused"]],
        "again": [["init"], ["write", "notes.txt", "again\n"], ["result"]],
    }
    files = {"files_in": [tmp_path / "notes.txt"], "files_out": ["*.txt"]}
    job = ask(fleet, tmp_path, script, **files)
    until_state(fleet, job, "needs_human")

    answer(fleet, job.id, "yes")

    until_state(fleet, job, "succeeded")
    (got,) = job.fetch(f"{tmp_path}/got/")
    assert Path(got).read_text() == "given\nfirst\nagain\n"
    assert (tmp_path / "notes.txt").read_text() == "given\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_an_answered_job_goes_on_in_the_worktree_in_which_it_asked(fleet, tmp_path):
    repository = make_repository(tmp_path / "shop")
    script = {
        "first": ["init", "read", ["write", "a", "first\n"], "refused"],
        "again": ["init", "read", ["write", "a", "again\n"], ["write", "new", "x\n"], "result"],
    }
    job = ask(fleet, tmp_path, script, cwd=str(repository), git=True)
    until_state(fleet, job, "needs_human")
    assert job.changes.commits == 1
    assert b"+first\n" in job.patch()

    answer(fleet, job.id, "yes")

    until_state(fleet, job, "succeeded")
    assert (job.changes.commits, job.changes.files) == (2, 2)
    assert b"+first\n+again\n" in job.patch()
    assert (repository / "a").read_text() == "one\ntwo\nthree\n"
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert {note["cwd"] for note in notes} == {str(fleet.home / "worktrees" / job.id)}


def test_a_running_job_asks_and_hears_the_answer(fleet, tmp_path):
    job = ask(fleet, tmp_path, ["init", "ask", "result"])
    record = until(
        lambda: job.record if job.record.asks else None, within=20, what="the question to be told"
    )
    assert (record.state, record.question) == (JobState.RUNNING, "Blue or red?")
    assert record.choices == ("blue", "red")

    answer(fleet, job.id, "blue")

    until_state(fleet, job, "succeeded")
    assert "blue" in job.stdout


def test_a_usage_limit_pauses_the_account_and_keeps_the_session(fleet, tmp_path):
    limit = "You've hit your session limit · resets 1:46am (UTC)"
    job = ask(fleet, tmp_path, ["init", "read", ["text", "hm"], ["error", limit]])

    record = until_state(fleet, job, "scheduled")

    [account] = fleet.relay.session().store.accounts.fetch(["claude/default"])
    assert account.until is not None
    assert record.due_at == pytest.approx(account.until, abs=5)
    assert record.failures == 0
    other = ask(fleet, tmp_path, ["init", "result"])
    until(lambda: fleet.relay.session().store.accounts.list(), what="the account")
    assert other.record.state is JobState.QUEUED
    assert len(runs(tmp_path)) == 1
    for one in (job, other):
        one.cancel()


def test_an_answer_gets_to_the_step_after_and_from_there_into_a_prompt(fleet, tmp_path):
    asked = ask(fleet, tmp_path, ["init", "read", ["result", "say 'hi' $(id)"]])
    asked.wait(30)
    line = "printf '%s|%s' \"${{ steps.asked.stdout }}\" ${{ steps.asked.value.cost_usd }}"
    uses = {"uses": {"asked": [asked.id]}, "after": (asked.id,), "is_template": True}
    payload = {
        **asked.record.spec.payload,
        "prompt": "They ${{ steps.asked.value.text }}, on ${{ steps.asked.host }}",
    }
    specs = [
        Spec(new_id(), "run_command", {"cmd": line}, **uses),
        replace(asked.record.spec, id=new_id(), payload=payload, **uses),
    ]
    session = fleet.relay.session()
    Dispatcher(session.store, session.signer).submit(specs)
    said, prompted = (fleet.job.fetch(spec.id) for spec in specs)

    assert said.get(30) == "say 'hi' $(id)|0.25"
    prompted.wait(30)
    assert runs(tmp_path)[-1]["prompt"].strip() == "They say 'hi' $(id), on here"
