"""Jobs with `--git` on one machine: worktree, branch, `relayq diff` and `relayq apply`."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from relayq.errors import Conflict, Unplaceable
from relayq.model.jobs import JobState
from tests.repositories import git, make_repository
from tests.system.commands import relayq, shown, submit, until_exists
from tests.waiting import until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The repository in which everything is typed."""
    monkeypatch.chdir(make_repository(tmp_path / "shop"))
    return tmp_path / "shop"


def test_what_a_job_changes_is_on_a_branch_shown_and_applied(shared_fleet, repository):
    (repository / "below" / "b").write_text("not committed\n")

    cwd = str(repository / "below")
    done = relayq("run", "--git", "--cwd", cwd, "cat b; sed -i s/two/2/ ../a; echo x > new")

    assert (done.returncode, done.stdout) == (0, "b\n")
    id = json.loads(relayq("ps", "--json", "-a").stdout)["jobs"][0]["id"]
    assert f"relayq/{id}: 1 commit on " in done.stderr
    assert "had a change that nobody had committed: it worked without" in done.stderr
    assert git(repository, "show", f"relayq/{id}:below/new") == "x"
    assert git(repository, "status", "--porcelain") == " M below/b"
    facts = shown(id)["git"]
    assert (facts["files"], facts["added"], facts["removed"]) == (2, 2, 1)
    assert "Git       relayq/" in relayq("show", id).stdout
    assert "-two\n+2\n" in relayq("diff", id).stdout
    assert relayq("diff", "--stat", id).stdout.splitlines()[:2] == [
        "a          +1 -1",
        "below/new  +1 -0",
    ]

    checked = relayq("apply", "--check", id)
    assert (checked.returncode, (repository / "below" / "new").exists()) == (0, False)
    applied = json.loads(relayq("apply", "--json", "--to", cwd, id).stdout)

    assert (applied["files"], applied["applied"]) == (["a", "below/new"], True)
    assert (repository / "a").read_text() == "one\n2\nthree\n"
    assert (repository / "below" / "b").read_text() == "not committed\n"


def test_a_conflict_is_told_and_nothing_is_changed(shared_fleet, repository):
    id = submit("--git=v1", "--cwd", str(repository), "sed -i s/two/2/ a")
    relayq("wait", id)
    (repository / "a").write_text("one\nzwei\nthree\n")
    git(repository, "commit", "--quiet", "-am", "meanwhile")

    done = relayq("apply", id)

    assert done.returncode == 125
    assert "was changed in the same places: a" in done.stderr
    assert git(repository, "status", "--porcelain") == ""


def test_two_jobs_at_once_work_on_one_repository(shared_fleet, repository, tmp_path):
    line = "touch {0}/here-$RELAYQ_JOB_ID; n=0; while [ $n -lt 2 ]; do n=$(ls {0} | grep -c here-);"
    line = line.format(tmp_path) + " sleep 0.05; done; echo $RELAYQ_JOB_ID > a"

    both = [shared_fleet.job.run(line, cwd=str(repository), git=True) for _ in range(2)]

    for job in both:
        assert job.wait(30).state is JobState.SUCCEEDED
        assert f"+{job.id}\n".encode() in job.patch()
        assert git(repository, "show", f"relayq/{job.id}:a") == job.id


def test_a_failed_jobs_changes_are_there_and_its_retry_begins_anew(shared_fleet, repository):
    line = "[ ! -e once ] && echo x > once && exit 3"

    job = shared_fleet.job.run(
        line, cwd=str(repository), git="main", retries=1, backoff="0.1s..0.1s"
    )

    record = job.wait(30)
    assert (record.state, record.attempt, record.exit_code) == (JobState.FAILED, 2, 3)
    assert job.changes.summary.endswith("1 file changed, +1 -0")


def test_a_job_that_was_ended_commits_nothing_and_keeps_its_worktree(shared_fleet, repository):
    line = "echo mine > a; sleep 60"
    job = shared_fleet.job.run(line, cwd=str(repository), git=True, timeout=1)

    assert job.wait(30).reason == "timeout"
    said = relayq("diff", job.id)
    assert said.returncode == 125
    assert "ended before its changes were committed" in said.stderr
    assert (shared_fleet.home / "worktrees" / job.id / "a").read_text() == "mine\n"


def test_a_large_change_without_a_file_service_is_no_failure(shared_fleet, repository):
    job = shared_fleet.job.run("head -c 400000 /dev/urandom > big", cwd=str(repository), git=True)

    assert job.wait(30).state is JobState.SUCCEEDED
    # It lies on its host, which is this one.
    assert len(job.patch()) > 400_000
    assert not job.files


def test_files_that_travel_are_in_the_worktree_and_not_committed(
    shared_fleet, repository, tmp_path
):
    (tmp_path / "in.txt").write_text("1")
    files = {"files_in": [tmp_path / "in.txt"], "files_out": ["out.txt"]}

    job = shared_fleet.job.run("cp in.txt out.txt", cwd=str(repository), git=True, **files)

    assert job.wait(30).state is JobState.SUCCEEDED
    assert [one.path for one in job.changes.stat] == ["out.txt"]
    assert [Path(one).name for one in job.fetch(f"{tmp_path}/got/")] == ["out.txt"]


@pytest.mark.parametrize(
    ("ref", "cwd", "said"),
    [
        ("nope", "shop", "has no branch, tag or commit 'nope'"),
        ("v1", "shop/below", "v1 of {}/shop has no directory below"),
        ("HEAD", "", "is in no git repository on this host"),
        ("HEAD", "gone", "no such directory on this host"),
    ],
)
def test_what_cannot_be_worked_on_is_told(shared_fleet, repository, tmp_path, ref, cwd, said):
    done = relayq("run", f"--git={ref}", "--cwd", str(tmp_path / cwd), "true")

    assert done.returncode == 125
    assert said.format(tmp_path) in done.stderr
    assert git(repository, "branch", "--list", "relayq/*") == ""


def test_git_needs_a_directory_and_a_host_that_has_git(shared_fleet, repository):
    assert "name its directory (cwd)" in relayq("run", "--git", "true").stderr
    plain = submit("true")
    relayq("wait", plain)
    assert "had no worktree of its own" in relayq("diff", plain).stderr

    with pytest.raises(Unplaceable):
        shared_fleet.job.run("true", cwd="/", git=True, needs="no-such-thing")


def test_a_job_goes_on_in_its_worktree_when_its_worker_is_killed(fleet, repository, tmp_path):
    go = tmp_path / "go"
    job = fleet.job.run(
        f"echo x > c; {until_exists(go)}; echo y >> c", cwd=str(repository), git=True
    )
    tree = fleet.home / "worktrees" / job.id
    until(lambda: (tree / "c").exists(), within=20, what="the command to start")
    with pytest.raises(Conflict, match="committed at its end"):
        job.patch()

    fleet.end_worker(signal.SIGKILL)
    fleet.start_worker()
    go.touch()

    assert job.wait(30).state is JobState.SUCCEEDED
    assert b"+x\n+y\n" in job.patch()
    assert os.listdir(repository / ".git" / "worktrees") == [job.id]
