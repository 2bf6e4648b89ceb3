"""A job's own worktree, made and committed by the git that is installed."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from relayq import clock
from relayq.errors import Conflict, RelayqError
from relayq.host import clearing, patches, worktrees
from relayq.host.staging import Fault, Order
from relayq.model.changes import Changes, ref_of
from relayq.model.files import FileIn
from relayq.model.jobs import JobState, Spec
from relayq.sections import Worktrees
from tests.repositories import git, make_repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

DAY = 86_400.0


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two commits: `a`, and `below/b`; the first one is tagged v1."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return make_repository(tmp_path / "shop")


@pytest.fixture
def home(tmp_path):
    """The home of relayq on this host."""
    (tmp_path / "relayq").mkdir()
    return tmp_path / "relayq"


def order(home: Path, cwd, job: str = "j1", ref: str = "HEAD", **asked) -> Order:
    """Return the order that a worker would write for a job."""
    spec = Spec(job, "run_command", {"cmd": "x"}, git=ref, name=asked.pop("name", None))
    tree = worktrees.wanted(spec, home, str(cwd))
    directory = home / "spool" / job
    directory.mkdir(parents=True, exist_ok=True)
    told = {
        "directory": str(directory),
        "job": job,
        "attempt": 1,
        "cwd": tree.cwd,
        "is_scratch": False,
        "is_resumed": False,
        "install": "i",
        "paths": {},
        "cache": "",
        "cache_limit": 0,
        "patience": 1.0,
        "files_in": [],
        "files_out": [],
        "git": tree.as_dict(),
    }
    return Order(**{**told, **asked})


def patch_of(one: Order, changes: Changes) -> bytes:
    return (Path(one.directory) / changes.patch).read_bytes()


def test_a_job_works_on_a_branch_of_its_own_and_leaves_its_changes_there(repository, home):
    one = order(home, repository, name="Tidy up")

    worktrees.make(one)
    tree = Path(one.cwd)
    (tree / "a").write_text("one\ntwo!\nthree\n")
    (tree / "new").write_bytes(b"\0\1")
    (tree / "below" / "b").unlink()
    changes = worktrees.leave(one)

    assert tree == home / "worktrees" / "j1"
    assert git(repository, "branch", "--list", "relayq/*") == "+ relayq/j1"
    assert git(repository, "log", "-1", "--format=%an %s|%b", "relayq/j1") == (
        "relayq Tidy up|Relayq-Job: j1"
    )
    assert changes.summary == f"relayq/j1: 1 commit on {changes.base[:10]}, 3 files changed, +1 -2"
    assert [(one.path, one.added, one.removed) for one in changes.stat] == [
        ("a", 1, 1),
        ("below/b", 0, 1),
        ("new", None, None),
    ]
    assert Changes.from_dict(changes.as_dict()) == changes
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_it_begins_at_the_commit_that_was_asked_for_in_the_same_directory(repository, home):
    worktrees.make(below := order(home, repository / "below"))
    worktrees.make(old := order(home, repository, "j2", "v1"))

    assert (Path(below.cwd) / "b").read_text() == "b\n"
    assert sorted(os.listdir(old.cwd)) == [".git", "a"]
    with pytest.raises(Fault, match="v1 of .*shop has no directory below"):
        worktrees.make(order(home, repository / "below", "j3", "v1"))


def test_the_lock_of_a_git_that_was_killed_is_no_hindrance(repository, home):
    worktrees.make(one := order(home, repository))
    (Path(one.cwd) / "a").write_text("changed\n")
    (repository / ".git" / "worktrees" / "j1" / "index.lock").touch()

    assert worktrees.leave(one).files == 1


def test_nothing_changed_is_no_commit_and_no_patch(repository, home):
    worktrees.make(one := order(home, repository))

    changes = worktrees.leave(one)

    assert (changes.commits, changes.patch, changes.base) == (0, "", changes.head)
    assert changes.summary.endswith("nothing changed")


def test_commits_of_the_commands_own_count_and_so_does_a_branch_that_it_went_to(repository, home):
    worktrees.make(one := order(home, repository))
    git(one.cwd, "switch", "--quiet", "-c", "mine")
    (Path(one.cwd) / "c").write_text("c\n")
    git(one.cwd, "add", "c")
    git(one.cwd, "commit", "--quiet", "-m", "its own")
    (Path(one.cwd) / "d").write_text("d\n")

    changes = worktrees.leave(one)

    assert (changes.commits, changes.files) == (2, 2)
    assert changes.notes == ("its command went to mine: relayq/j1 is there now",)
    assert git(repository, "log", "-1", "--format=%s", "mine") == "its own"


def test_what_travelled_with_the_job_is_not_committed(repository, home):
    files = [FileIn("below/in.csv", "/x")]
    worktrees.make(one := order(home, repository, files_in=files))
    (Path(one.cwd) / "below" / "in.csv").write_text("1,2\n")
    (Path(one.cwd) / "out.csv").write_text("3\n")

    assert [one.path for one in worktrees.leave(one).stat] == ["out.csv"]


def test_what_nobody_committed_is_not_there_and_that_is_said(repository, home):
    (repository / "a").write_text("mine\n")
    (repository / "untracked").write_text("x")

    worktrees.make(one := order(home, repository))

    assert (Path(one.cwd) / "a").read_text() == "one\ntwo\nthree\n"
    [note] = worktrees.leave(one).notes
    assert note.endswith("had 2 changes that nobody had committed: it worked without")


def test_a_hosts_own_hooks_and_settings_change_nothing(repository, home):
    for hook in ("pre-commit", "post-checkout", "commit-msg"):
        path = repository / ".git" / "hooks" / hook
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(0o755)
    for name in ("diff.noprefix", "commit.gpgSign", "diff.mnemonicPrefix"):
        git(repository, "config", name, "true")
    git(repository, "config", "color.ui", "always")
    worktrees.make(one := order(home, repository))
    (Path(one.cwd) / "a").write_text("changed\n")

    changes = worktrees.leave(one)

    assert patch_of(one, changes).startswith(b"diff --git a/a b/a\nindex ")


def test_an_agents_further_attempt_goes_on_in_its_worktree_and_others_begin_anew(repository, home):
    worktrees.make(one := order(home, repository))
    (Path(one.cwd) / "a").write_text("first attempt\n")
    base = worktrees.leave(one).base
    (Path(one.cwd) / "left").write_text("x")

    worktrees.make(replace(one, attempt=2, is_resumed=True))
    assert (Path(one.cwd) / "left").exists()
    assert worktrees.leave(one).base == base
    assert worktrees.leave(one).commits == 2

    shutil.rmtree(one.cwd)
    worktrees.make(replace(one, attempt=3, is_resumed=True))
    assert (Path(one.cwd) / "left").exists()

    worktrees.make(replace(one, attempt=4))
    assert sorted(os.listdir(one.cwd)) == [".git", "a", "below"]
    assert (Path(one.cwd) / "a").read_text() == "one\ntwo\nthree\n"


def test_what_an_attempt_that_was_killed_left_half_made_is_no_hindrance(repository, home):
    one = order(home, repository)
    worktrees.make(one)
    (repository / ".git" / "worktrees" / "j1" / "locked").write_text("initializing")
    shutil.rmtree(one.cwd)
    os.makedirs(f"{one.cwd}/half")

    worktrees.make(one)

    assert sorted(os.listdir(one.cwd)) == [".git", "a", "below"]


def test_many_jobs_at_once_in_one_repository_each_have_their_own(repository, home):
    orders = [order(home, repository, f"j{number}") for number in range(8)]
    left = {}

    def work(one: Order) -> None:
        worktrees.make(one)
        (Path(one.cwd) / f"made-{one.job}").write_text(one.job)
        left[one.job] = worktrees.leave(one)

    threads = [threading.Thread(target=work, args=(one,)) for one in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert {job: [c.path for c in one.stat] for job, one in left.items()} == {
        f"j{number}": [f"made-j{number}"] for number in range(8)
    }


def test_what_is_no_repository_is_told_in_words(repository, home, tmp_path):
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    git(tmp_path, "init", "--quiet", "empty")
    cases = {
        tmp_path / "nowhere": "no such directory on this host: .*nowhere",
        home: "is in no git repository on this host",
        tmp_path / "bare.git": "bare.git is a bare repository",
    }

    for cwd, said in cases.items():
        with pytest.raises(RelayqError, match=said):
            order(home, cwd)
    with pytest.raises(Fault, match="empty has no commit yet"):
        worktrees.make(order(home, tmp_path / "empty"))
    with pytest.raises(Fault, match="shop has no branch, tag or commit 'nope'"):
        worktrees.make(order(home, repository, ref="nope"))


def test_a_submodule_is_refused_and_a_repository_with_some_says_that_they_are_empty(
    repository, home, tmp_path
):
    allowed = ("-c", "protocol.file.allow=always")
    git(tmp_path, "clone", "--quiet", str(repository), "part")
    git(repository, *allowed, "submodule", "--quiet", "add", str(tmp_path / "part"), "part")
    git(repository, "commit", "--quiet", "-m", "with a part")

    with pytest.raises(RelayqError, match="part is a submodule, which can have no worktree"):
        order(home, repository / "part")
    worktrees.make(one := order(home, repository))
    [note] = worktrees.leave(one).notes
    assert note == "its submodules were not there: their directories were empty"


def test_a_branch_in_the_way_is_told(repository, home):
    git(repository, "branch", "relayq")

    with pytest.raises(Fault, match="has a branch relayq, where relayq/... is to be"):
        worktrees.make(order(home, repository))


def test_a_host_without_git_says_so(repository, home, monkeypatch):
    monkeypatch.setenv("PATH", str(home))

    with pytest.raises(Fault, match="git isn't installed here"):
        worktrees.make(order(home, repository))


@pytest.mark.parametrize("ref", ["", "-x", " ", 3, "a\0b"])
def test_a_ref_that_could_be_something_else_is_refused(ref):
    with pytest.raises(RelayqError, match="names no commit"):
        ref_of(ref)


def changed(repository, home, text: str = "one\ntwo!\nthree\n") -> bytes:
    """Return the patch of a job that changed `a`, renamed `b` and made a file that isn't text."""
    worktrees.make(one := order(home, repository))
    (Path(one.cwd) / "a").write_text(text)
    (Path(one.cwd) / "below" / "b").rename(Path(one.cwd) / "below" / "c")
    (Path(one.cwd) / "raw").write_bytes(bytes(range(256)))
    return patch_of(one, worktrees.leave(one))


def test_a_patch_is_applied_in_the_same_repository_and_in_a_clone(repository, home, tmp_path):
    patch = changed(repository, home)
    git(tmp_path, "clone", "--quiet", str(repository), "clone")

    for top in (repository, tmp_path / "clone"):
        checked = patches.apply(patch, str(top / "below"), only_check=True)
        assert git(top, "status", "--porcelain") == ""
        done = patches.apply(patch, str(top / "below"))

        assert done == checked == patches.Applied(str(top), ["a", "below/c", "raw"])
        assert (top / "a").read_text() == "one\ntwo!\nthree\n"
        assert (top / "raw").read_bytes() == bytes(range(256))
        assert not (top / "below" / "b").exists()


def test_what_was_changed_elsewhere_since_is_merged(repository, home):
    lines = [f"line {number}\n" for number in range(20)]
    (repository / "a").write_text("".join(lines))
    git(repository, "commit", "--quiet", "-am", "longer")
    patch = changed(repository, home, "".join([*lines[:-1], "the end\n"]))
    (repository / "a").write_text("".join(["the start\n", *lines[1:]]))
    git(repository, "commit", "--quiet", "-am", "meanwhile")

    patches.apply(patch, str(repository))

    text = (repository / "a").read_text()
    assert text.startswith("the start\n")
    assert text.endswith("the end\n")


def test_a_conflict_is_told_and_nothing_is_half_applied(repository, home):
    patch = changed(repository, home)
    (repository / "a").write_text("one\nTWO\nthree\n")
    git(repository, "commit", "--quiet", "-am", "meanwhile")

    for only_check in (True, False):
        with pytest.raises(Conflict, match="shop was changed in the same places: a$"):
            patches.apply(patch, str(repository), only_check=only_check)

    assert git(repository, "status", "--porcelain") == ""


def test_changes_of_ones_own_are_never_touched(repository, home):
    patch = changed(repository, home)
    (repository / "a").write_text("mine\n")
    (repository / "other").write_text("x")
    with pytest.raises(Conflict, match="there are changes of your own in a$"):
        patches.apply(patch, str(repository))
    git(repository, "checkout", "--quiet", "a")
    (repository / "raw").write_text("mine\n")
    with pytest.raises(Conflict, match="raw is there, and git doesn't know it"):
        patches.apply(patch, str(repository))
    assert git(repository, "status", "--porcelain") == "?? other\n?? raw"
    (repository / "raw").unlink()

    patches.apply(patch, str(repository))

    assert (repository / "other").read_text() == "x"
    with pytest.raises(Conflict, match="nothing was applied"):
        patches.apply(patch, str(repository))


def test_a_patch_for_another_project_is_refused(repository, home, tmp_path):
    patch = changed(repository, home)
    git(tmp_path, "init", "--quiet", "other")

    with pytest.raises(Conflict, match="nothing was applied"):
        patches.apply(patch, str(tmp_path / "other"))
    with pytest.raises(RelayqError, match="not a git repository"):
        patches.apply(patch, str(home))
    assert os.listdir(tmp_path / "other") == [".git"]


def test_worktrees_go_by_age_and_by_room_but_never_before_their_jobs_end(repository, home):
    now = clock.now()
    states = {"j1": ("succeeded", 20), "j2": ("running", 99), "j3": ("failed", 1)}
    for job in (*states, "gone"):
        worktrees.make(order(home, repository, job))
        (home / "worktrees" / job / "large").write_bytes(os.urandom(100_000))
        os.utime(home / "worktrees" / f"{job}.json", (now - 99 * DAY, now - 99 * DAY))
    records = [
        SimpleNamespace(id=job, state=JobState(state), finished_at=now - days * DAY)
        for job, (state, days) in states.items()
    ]
    store = SimpleNamespace(
        jobs=SimpleNamespace(fetch_many=lambda ids: records, known=lambda ids: set())
    )

    assert clearing.clear(home, store, Worktrees()) == 2
    assert sorted(os.listdir(home / "worktrees")) == [".lock", "j2", "j2.json", "j3", "j3.json"]
    assert "j1" not in git(repository, "worktree", "list")
    assert clearing.clear(home, store, Worktrees(room=50_000)) == 1
    assert sorted(os.listdir(home / "worktrees")) == [".lock", "j2", "j2.json"]
    # What the jobs committed stays.
    assert git(repository, "branch", "--list", "--format=%(refname:short)", "relayq/*").split() == [
        f"relayq/{job}" for job in ("gone", "j1", "j2", "j3")
    ]


def test_a_worktree_of_a_job_whose_record_cannot_be_read_stays(repository, home):
    worktrees.make(one := order(home, repository))
    os.utime(home / "worktrees" / "j1.json", (0, 0))
    store = SimpleNamespace(jobs=SimpleNamespace(fetch_many=lambda ids: [], known=set))

    assert clearing.clear(home, store, Worktrees()) == 0
    assert os.path.isdir(one.cwd)


def test_a_worktree_of_a_job_that_is_tried_again_meanwhile_stays(repository, home):
    worktrees.make(one := order(home, repository))
    note = home / "worktrees" / "j1.json"
    os.utime(note, (0, 0))

    def forgotten(ids):
        # Between the look and the removal its next attempt begins.
        os.utime(note)
        return []

    store = SimpleNamespace(jobs=SimpleNamespace(fetch_many=forgotten, known=lambda ids: set()))

    assert clearing.clear(home, store, Worktrees()) == 0
    assert os.path.isdir(one.cwd)
