"""Files that appear in a watched directory: which, when they are whole, and their jobs' ids."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from relayq.cli import root
from relayq.model.jobs import ALPHABET, ID_LENGTH
from relayq.model.watches import Settling, Version, Watched

ONE, TWO = Version(3, 10), Version(5, 11)
WATCHED = Watched("m", "/in", ["gzip", "{}"])


def test_a_file_is_whole_when_it_has_stood_still():
    settling = Settling(2.0)

    assert settling.look({"a": ONE}, 0.0) == {}
    assert settling.look({"a": TWO}, 1.9) == {}
    assert settling.look({"a": TWO}, 3.0) == {}
    assert settling.look({"a": TWO}, 3.9) == {"a": TWO}


def test_what_is_whole_is_told_until_it_is_taken_and_again_when_changed():
    settling = Settling(1.0)
    settling.look({"a": ONE}, 0.0)

    assert settling.look({"a": ONE}, 1.0) == settling.look({"a": ONE}, 2.0) == {"a": ONE}
    settling.take("a", ONE)
    assert settling.look({"a": ONE}, 9.0) == {}
    assert len(settling) == 0
    assert settling.look({"a": TWO}, 10.0) == {}
    assert len(settling) == 1
    assert settling.look({"a": TWO}, 11.0) == {"a": TWO}


def test_a_file_that_vanishes_is_forgotten():
    settling = Settling(1.0)
    settling.look({"a": ONE}, 0.0)

    assert settling.look({}, 1.0) == {}
    assert len(settling) == 0
    assert settling.look({"a": ONE}, 2.0) == {}


def test_an_id_is_that_of_one_version_of_one_file_for_one_command():
    id = WATCHED.id_for("a", ONE)

    assert id == Watched("m", "/in", ["gzip", "{}"], "*.x", is_deep=True).id_for("a", ONE)
    assert len(id) == ID_LENGTH
    assert set(id) <= set(ALPHABET)
    others = [
        WATCHED.id_for("b", ONE),
        WATCHED.id_for("a", TWO),
        WATCHED.id_for(os.fsdecode(b"\xff"), ONE),
        replace(WATCHED, machine="n").id_for("a", ONE),
        replace(WATCHED, directory="/out").id_for("a", ONE),
        replace(WATCHED, command="gzip {}").id_for("a", ONE),
    ]
    assert len({id, *others}) == 7


@pytest.mark.parametrize(
    ("pattern", "deep", "path", "is_wanted"),
    [
        ("*", False, "a.mov", True),
        ("*.mov", False, "a.mp4", False),
        ("*", False, "sub/a.mov", False),
        ("*.mov", True, "sub/a.mov", True),
        ("sub/*.mov", True, "sub/a.mov", True),
        ("sub/*.mov", True, "other/a.mov", False),
        ("*", False, ".a.mov.x7Zq", False),
        (".*", False, ".a", True),
    ],
)
def test_a_pattern_says_which_files_are_wanted(pattern, deep, path, is_wanted):
    assert replace(WATCHED, pattern=pattern, is_deep=deep).wants(path) is is_wanted


@pytest.mark.parametrize("apart", [["--"], []])
def test_options_may_stand_before_the_directory_and_after_it(home, tmp_path, apart):
    for name in ("a b.mov", "a.mp4"):
        (tmp_path / name).touch()

    arguments = ["watch", "--dry-run", str(tmp_path), "--glob", "*.mov", *apart, "echo", "-n"]
    done = CliRunner().invoke(root, arguments)

    assert done.exit_code == 0, done.output
    assert done.stdout == f"echo -n '{tmp_path}/a b.mov'\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/no/such/directory", "echo"), "isn't there"),
        (("/etc/passwd", "echo"), "isn't a directory"),
        ((".",), "the command is empty"),
        (("--on", "all", ".", "echo"), "a file is for one host"),
        (("--glob", "*", ".", "--prio", "11", "--", "echo"), "--prio"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(home, arguments, said):
    done = CliRunner().invoke(root, ["watch", "--dry-run", *arguments])

    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"
