"""`--git` as it is typed, and what people see of a job's changes."""

from __future__ import annotations

import pytest

from relayq.cli import git
from relayq.cli.submissions import run
from relayq.model.changes import Changes, FileChange

CHANGES = Changes(
    branch="relayq/j1",
    base="b" * 40,
    head="c" * 40,
    ref="HEAD",
    repository="/shop",
    worktree="/w/j1",
    commits=2,
    files=3,
    added=212,
    removed=40,
    stat=(FileChange("a", 212, 40), FileChange("logo\x1b[2J.png", None, None)),
    patch="j1.patch",
)


@pytest.mark.parametrize(
    ("typed", "ref", "command"),
    [
        (["--git", "make"], "HEAD", ("make",)),
        (["--git=v1", "make", "--git"], "v1", ("make", "--git")),
        (["--git", "--cwd", "x", "make", "--git=3"], "HEAD", ("make", "--git=3")),
        (["make", "--git"], None, ("make", "--git")),
        (["--git", "--", "-x"], "HEAD", ("-x",)),
    ],
)
def test_git_takes_a_value_only_when_it_is_joined_to_it(typed, ref, command):
    ctx = run.make_context("run", list(typed))

    assert (ctx.params["git"], ctx.params["command"]) == (ref, command)


def test_the_help_says_how_it_is_typed(capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"], prog_name="relayq run")

    assert "--git[=REF] " in capsys.readouterr().out


def test_a_job_without_changes_and_one_with_many_are_told_in_a_line():
    assert CHANGES.summary == f"relayq/j1: 2 commits on {'b' * 10}, 3 files changed, +212 -40"
    assert list(git._stat(CHANGES)) == [
        "a          +212 -40",
        "logo?.png  binary",
        "... and 1 more files",
        CHANGES.summary,
    ]


@pytest.mark.parametrize("raw", [{}, {**CHANGES.as_dict(), "stat": [{"x": 1}]}, {"notes": 3}])
def test_changes_that_no_worker_wrote_cannot_be_read(raw):
    with pytest.raises(ValueError, match="its changes can't be read"):
        Changes.from_dict(raw)
