"""A directory read by many sessions at once: a small tree, and an agent that does as it is told."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import psutil
import pytest

from relayq import Relay, config, embedded
from relayq.model.analyses import Standing
from tests.conftest import kill_left_over
from tests.system.commands import relayq
from tests.system.conftest import Fleet, start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system

FAKE = Path(__file__).parents[1] / "fake_agent.py"
#: The waits between an agent's runs, as tenths of a second.
WORKER = """
from dataclasses import replace
from relayq.agents import policy
policy.PATIENCE = {
    one: replace(patience, first_delay=0.2, longest_delay=0.5)
    for one, patience in policy.PATIENCE.items()
}
from relayq.worker import main
main()
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet whose claude is the fake one, with room for many sessions."""
    home = tmp_path_factory.mktemp("analyses", numbered=True) / "home"
    home.mkdir(mode=0o700)
    (home.parent / "bin").mkdir()
    shutil.copy(FAKE, home.parent / "bin" / "claude")
    keys = home / "agents.env"
    keys.touch(mode=0o600)
    keys.write_text("ANTHROPIC_API_KEY=a-key-of-mine\n")
    # What is typed has no way to tell the agent what to do.
    env = {"FAKE": '["init", "analyse"]', "MARKS": str(home), "NOTES": os.devnull}
    claude = {"env": env, "accounts": {"default": {"limit": 9, "stagger": 0}}}
    (home / "config.yml").write_text(json.dumps({"agents": {"claude": claude}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{home.parent / 'bin'}:{os.environ['PATH']}")
        patch.setenv("RELAYQ_WORKER__MAX_CONCURRENT", "8")
        start = partialmethod(Fleet.start_worker, "-c", WORKER)
        patch.setattr(Fleet, "start_worker", start)
        for fleet in start_fleet(home, patch):
            await_claude(fleet)
            yield fleet
        embedded.stop_broker(config.load())


def await_claude(fleet):
    hosts = fleet.relay.session().store.hosts

    def is_offered():
        return any("agent:claude" in one.capabilities for one in hosts.list(online_within=60))

    until(is_offered, within=30, what="Claude to be found")


class Tree:
    """A directory of source files, and the agent's notes on who read what."""

    def __init__(self, fleet, directory):
        self.fleet = fleet
        self.root = directory / "code"
        self.root.mkdir()
        self.marks = directory / "marks"
        self.marks.mkdir()
        self.notes = directory / "notes"
        # What was read once is not read again: no test is to find what another one had read.
        self.title = f"# a file of {directory.name}"

    def write(self, path, *lines):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([self.title, *lines]) + "\n")

    def fill(self, directory, count, *lines):
        for number in range(count):
            self.write(f"{directory}/{directory}{number}.py", *lines)

    def analyze(self, workers=3, **asked):
        env = {
            "FAKE": json.dumps(["init", "analyse"]),
            "MARKS": str(self.marks),
            "NOTES": str(self.notes),
        }
        return self.fleet.job.analyze(self.root, workers, env=env, **asked)

    def sessions(self):
        """Return what the agent noted of each of its runs that came to an end."""
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def checkpoint(self, run):
        return json.loads((Path(run.directory) / "checkpoint.json").read_text())


@pytest.fixture
def tree(fleet, tmp_path):
    if fleet.worker is None or fleet.worker.poll() is not None:
        fleet.start_worker()
    return Tree(fleet, tmp_path)


def standings(run):
    return {one.name: one.standing for one in run.harvest.tracks}


def told(run):
    """Return what there is to say about a run that came out otherwise than it should."""
    tracks = run.harvest.everything
    return "\n".join(f"{t.name}: {t.standing} {t.why} {t.shard.paths}" for t in tracks)


def test_the_milestones_of_an_analysis(tree):
    for name, count in {"auth": 6, "api": 12, "views": 8, "tools": 5}.items():
        tree.fill(name, count, "x = 1  # BUG")

    run = tree.analyze(workers=2)
    report = run.get(timeout=60)

    # 1. Files are grouped by directory, none lost or doubled.
    read = [path for one in tree.sessions() for path in one["files"]]
    assert sorted(read) == sorted(str(p.relative_to(tree.root)) for p in tree.root.rglob("*.py"))
    assert {tuple({p.split("/")[0] for p in one["files"]}) for one in tree.sessions()} == {
        ("auth",),
        ("api",),
        ("views",),
        ("tools",),
    }
    # 2. and 3. Sessions run side by side, and never more than were asked for.
    spans = [(one["began"], one["ended"]) for one in tree.sessions()]
    assert max(sum(b <= at < e for b, e in spans) for at, _ in spans) <= 2
    # 4. Sessions are in the checkpoint.
    kept = tree.checkpoint(run)
    assert kept["sessions"] == dict(run.sessions)
    assert set(kept["completed"]) == {"auth", "api", "views", "tools"}
    # 5. The sum is that of its parts.
    assert len(run.issues) == report["total_issues"] == 31
    assert sum(len(one["issues"]) for one in kept["results"].values()) == 31
    assert not run.incomplete
    # 6. Run again, it does nothing; with a change, only that.
    again = tree.analyze()
    assert (again.plan.parts, len(again.get(timeout=5)["issues"])) == ((), 31)
    tree.write("auth/auth3.py", "y = 2")
    third = tree.analyze().wait(timeout=30)
    assert tree.sessions()[-1]["files"] == ["auth/auth3.py"]
    assert (len(tree.sessions()), len(third.issues)) == (5, 30)
    for name in ("report.md", "issues.json", "issues.sarif"):
        assert (Path(third.directory) / name).stat().st_size > 100


def test_one_failure_stops_no_other_shard_and_the_run_says_that_it_is_incomplete(tree):
    tree.fill("good", 5, "BUG")
    tree.fill("wrong", 5, "@break")
    tree.fill("mute", 5, "@nonsense")
    tree.fill("chatty", 5, "BUG", "@prose")

    run = tree.analyze(largest=6).wait(timeout=60)

    assert standings(run) == {
        "good": Standing.DONE,
        "chatty": Standing.DONE,
        "wrong": Standing.FAILED,
        "mute": Standing.UNREADABLE,
    }
    assert len(run.issues) == 10
    assert (run.incomplete, run.facts.exit_code) == (True, 80)
    raw = Path(run.directory) / "unreadable.mute.txt"
    assert raw.read_text() == "I have looked, and all is well."
    # What was mended meanwhile is done when the run is resumed, and nothing else.
    count = len(tree.sessions())
    for name in ("wrong", "mute"):
        tree.fill(name, 5, "BUG")
    found = tree.fleet.job.analysis(run.id)
    assert found.retry() == 2
    found.wait(timeout=60)
    assert not found.incomplete, told(found)
    assert {one["files"][0].split("/")[0] for one in tree.sessions()[count:]} == {"wrong", "mute"}
    assert len(found.issues) == 20


def test_what_a_session_cannot_hold_is_halved_until_it_can(tree):
    tree.fill("big", 4, "BUG", "@most 2")
    tree.write("big/huge.py", "@most 0")

    run = tree.analyze().wait(timeout=60)

    print(told(run))
    done = [one for one in run.harvest.tracks if one.standing is Standing.DONE]
    [lost] = [one for one in run.harvest.tracks if one.standing is not Standing.DONE]
    assert sorted(path for one in done for path in one.shard.paths) == [
        f"big/big{number}.py" for number in range(4)
    ]
    assert lost.shard.paths == ("big/huge.py",)
    assert "context_overflow" in lost.why
    assert len(run.issues) == 4


def test_a_session_that_dies_is_resumed_and_one_without_turns_goes_on(tree):
    tree.fill("dying", 5, "BUG", "@once")
    tree.fill("long", 5, "BUG", "@turns")

    run = tree.analyze(largest=6).wait(timeout=60)

    assert not run.incomplete, told(run)
    assert len(run.issues) == 10
    resumed = [one for one in tree.sessions() if "--resume" in one["args"]]
    assert {one["files"][0].split("/")[0] for one in resumed if one["files"]} <= {"dying", "long"}
    assert {one.attempts for one in run.harvest.tracks} == {2}


def test_when_everything_is_killed_only_unfinished_shards_run_again(tree, fleet):
    tree.fill("first", 5, "BUG")
    tree.fill("second", 5, "BUG")
    tree.fill("third", 5, "BUG", "@wait go")
    tree.fill("fourth", 5, "BUG", "@wait go")

    run = tree.analyze(workers=2, largest=6)
    for _ in run.follow(pause=0.2):
        if sum(one.standing is Standing.DONE for one in run.harvest.tracks) == 2:
            break
    kept = tree.checkpoint(run)
    kill_everything(fleet)
    (tree.marks / "wait-go").touch()
    start_again(fleet)
    found = fleet.job.analysis(run.id)
    found.retry()
    found.wait(timeout=60)

    assert found.restored == len(kept["completed"]) == 2
    assert not found.incomplete, told(found)
    assert len(found.issues) == 20
    directories = [one["files"][0].split("/")[0] for one in tree.sessions()]
    assert sorted(directories) == ["first", "fourth", "second", "third"]


def test_a_run_goes_on_by_its_checkpoint_when_redis_has_lost_everything(tree, fleet):
    tree.fill("first", 5, "BUG")
    tree.fill("second", 5, "BUG", "@wait go")

    run = tree.analyze(workers=2, largest=6, fresh=True)
    for _ in run.follow(pause=0.2):
        if sum(one.standing is Standing.DONE for one in run.harvest.tracks) == 1:
            break
    run.cancel()
    for one in run.harvest.tracks:
        until(lambda one=one: fleet.job.fetch(one.job).ready(), within=20, what="its end")
    forget_everything(fleet, run)
    (tree.marks / "wait-go").touch()
    found = fleet.job.analysis(run.id, path=tree.root)
    found.retry()
    found.wait(timeout=60)

    assert (found.restored, found.incomplete) == (1, False), told(found)
    assert len(found.issues) == 10


def test_when_the_budget_is_spent_no_further_session_begins(tree):
    for name in ("a", "b", "c", "d", "e"):
        tree.fill(name, 5, "BUG")

    run = tree.analyze(workers=1, largest=6, budget=0.5).wait(timeout=60)

    # Each fake session costs 0.25. One more may have begun before the cost of the second was known.
    left = list(standings(run).values()).count("cancelled")
    assert left in (2, 3)
    assert sorted(standings(run).values()) == ["cancelled"] * left + ["done"] * (5 - left)
    assert (run.harvest.is_over_budget, run.facts.exit_code) == (True, 80)
    count = len(tree.sessions())
    run.harvest.plan = replace(run.plan, wishes=replace(run.plan.wishes, budget=9.0))
    run.retry()
    run.wait(timeout=60)
    assert (run.incomplete, len(tree.sessions()) - count) == (False, left)


def test_what_is_typed_shows_the_run_and_says_how_to_go_on(tree):
    tree.fill("auth", 5, "BUG")
    tree.fill("views", 5, "@nonsense")

    planned = json.loads(relayq("analyze", tree.root, "--max", "6", "--dry-run", "--json").stdout)
    done = relayq("analyze", tree.root, "--max", "6", "--stats")
    tree.fill("views", 5, "BUG")
    resumed = relayq("analyze", "--resume", "--json", cwd=tree.root)

    assert [one["name"] for one in planned["plan"]["shards"]] == ["auth", "views"]
    assert done.returncode == 80, done.stderr
    for said in (
        "10 files, 2 shards (dir, 5-6 files), security-critical first; claude on here",
        "Starting parallel analysis with 2 workers...",
        "Aggregating results...",
        "Analysis incomplete: 1 of 2 shards, 5 of 10 files, 5 issues (5 high)",
        "sequential",
    ):
        assert said in done.stdout
    run = done.stdout.split()[1].rstrip(":")
    assert f"relayq analyze --resume {run}" in done.stderr
    assert resumed.returncode == 0, resumed.stderr
    assert "loaded checkpoint" in resumed.stderr
    report = json.loads(resumed.stdout)["analysis"]
    assert (report["run"], report["state"], report["total_issues"]) == (run, "complete", 10)
    [listed, *_] = json.loads(relayq("analyze", "ls", "--json").stdout)["runs"]
    assert (listed["id"], listed["state"], listed["done"]) == (run, "complete", 2)
    shown = relayq("analyze", "show", run, "--format", "sarif")
    assert json.loads(shown.stdout)["version"] == "2.1.0"
    sessions = json.loads(relayq("analyze", "sessions", run, "--json").stdout)["sessions"]
    assert {one["shard"] for one in sessions} == {"auth", "views"}
    asked = relayq("analyze", "ask", run, "auth", "and what else?", "-q")
    assert json.loads(asked.stdout)["files_analyzed"][0] == "auth/auth0.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no such directory"),
        ([".", "--agent", "groq"], "has no tools to read files with"),
        ([".", "--agent", "codex", "--budget", "3"], "no budget of a run can be held"),
        ([".", "--budget", "3", "-d"], "not with --detach"),
        ([".", "--budget", "much"], "expected USD"),
        ([".", "--first", "("], "--first"),
        (["show", "zzzz"], "no such run of an analysis: zzzz"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_queued(tree, words, said):
    tree.write("a.py")

    done = relayq("analyze", *words, cwd=tree.root)

    assert said in done.stderr
    assert done.returncode in (2, 125)
    assert not (tree.root / ".relayq").exists()


def kill_everything(fleet):
    """Kill the worker, its shims, the sessions and the broker."""
    fleet.relay.close()
    fleet.worker.kill()
    fleet.worker.wait(10)
    psutil.Process(fleet.broker.pid).kill()
    until(lambda: not kill_left_over(fleet.home), within=10, what="everything to end")


def start_again(fleet):
    fleet.broker = embedded.start_broker(fleet.config)
    fleet.relay = Relay(url=fleet.broker.url, say=lambda _: None)
    fleet.start_worker()


def forget_everything(fleet, run):
    store = fleet.relay.session().store
    store.jobs.forget([part.job for part in run.plan.parts])
    store.connection.delete(store.keys("analysis", run.id), store.keys("analyses"))
