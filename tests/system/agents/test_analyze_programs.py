"""A real codebase read by the real claude, whose API is a mock that answers, refuses and errs."""

from __future__ import annotations

import re
import shutil

import pytest

from relayq.clock import now
from relayq.errors import WaitTimeout
from relayq.model.analyses import Standing
from relayq.sourcetree import list_tree
from tests.agents import codebase
from tests.agents.replies import Fail, Say, Structured

pytestmark = [pytest.mark.system, pytest.mark.agents]

LISTED = re.compile(r"^- (\S+)$", re.MULTILINE)
FILES = 500
#: The parts of it with many files that are small: so few sessions read all of them.
PARTS = ("conf", "contrib", "forms")


@pytest.fixture(scope="module")
def code(agents):
    """A codebase of more than 500 files that the worker's user can read."""
    if not codebase.is_there():
        pytest.skip(f"needs a codebase to read ({codebase.HINT})")
    root = agents.home / "code"
    for part in PARTS:
        shutil.copytree(codebase.root() / "django" / part, root / part)
    return root


class Model:
    """Reports one finding in each listed file; of some shards it has other answers."""

    def __init__(self, root):
        self.paths = {file.path for file in list_tree(root).files}
        self.seen = {}

    def __call__(self, turn):
        files = tuple(path for path in LISTED.findall(turn.said) if path in self.paths)
        if turn.results:
            return Say("done")
        count = self.seen[files] = self.seen.get(files, 0) + 1
        return self.reply(files, count) or self.found(files)

    def reply(self, files, count):
        return None

    def found(self, files):
        issues = [
            {
                **{"file": path, "line": 1, "end_line": None, "severity": "low"},
                **{"category": "quality", "title": f"{path} begins", "detail": "so it is"},
                **{"code": None, "suggestion": None, "confidence": 0.5},
            }
            for path in files
        ]
        return Structured({"issues": issues, "files_analyzed": list(files)})


class Moody(Model):
    """The same, on a bad day: by the order in which shards come for the first time."""

    def reply(self, files, count):
        match list(self.seen).index(files), count:
            case 0, 1:
                return Fail(529, "Overloaded")
            case 1, _:
                return Say("I have looked, and all is well.")
            case 2, _:
                return Fail(400, "prompt is too long: 300000 tokens > 200000 maximum")
            # The last one: from then on only one session runs at a time.
            case 6, 1:
                return Fail(429, "Too many requests, slow down.")
        return None


def told(run):
    return "\n".join(f"{t.name}: {t.standing} {t.why}" for t in run.harvest.everything)


def finish(fleet, run, within=100):
    try:
        run.wait(timeout=within)
    except WaitTimeout:
        pytest.fail(f"{told(run)}\n{fleet.accounts('claude/default')}\n{fleet.log()[-3000:]}")


def test_a_codebase_of_500_files_is_read_whatever_the_api_does(fleet, api, code):
    model = Moody(code)
    api.play(model)

    run = fleet.job.analyze(code, workers=3, by="count", largest=150, smallest=100)
    finish(fleet, run)

    assert run.plan.files == len(model.paths) >= FILES
    standings = [one.standing for one in run.harvest.tracks]
    [unread] = [one for one in run.harvest.tracks if one.standing is Standing.UNREADABLE]
    assert set(standings) == {Standing.DONE, Standing.UNREADABLE}, told(run)
    assert Standing.HALVED in {one.standing for one in run.harvest.everything}
    lost = set(unread.shard.paths)
    assert {issue.file for issue in run.issues} == model.paths - lost
    assert run.facts.exit_code == 80
    assert set(run.sessions) == {one.name for one in run.harvest.tracks}
    # What is resumed is only that; a session can be asked more, and knows what it was told.
    api.play(Model(code))
    api.asked.clear()
    found = fleet.job.analysis(run.id)
    assert found.retry() == 1
    finish(fleet, found)
    assert not found.incomplete, told(found)
    read = {path for one in api.asked for path in LISTED.findall(one.turn.prompt)} & model.paths
    assert read == lost
    api.play("text", answer="the first")
    shard = found.harvest.tracks[0]
    asked = found.ask(shard.name, "which is the worst?")
    assert asked.get(timeout=30) == "the first"
    assert all(path in api.asked[-1].turn.said for path in shard.shard.paths)


def test_a_usage_limit_parks_the_run_which_says_so_and_goes_on_later(fleet, api, tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.py").write_text("x = 1\n")
    api.play("usage limit", resets_at=now() + 7200)

    run = fleet.job.analyze(tmp_path, workers=2, smallest=1, largest=3).wait(timeout=60)

    assert {one.standing for one in run.harvest.tracks} == {Standing.PARKED, Standing.WAITING} or {
        one.standing for one in run.harvest.tracks
    } == {Standing.PARKED}
    assert run.facts.exit_code == 80
    assert min(one.until for one in run.harvest.tracks if one.until) > now() + 3600
    run.cancel()
