"""What `relayq map` shows, and how it reads its command line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from relayq.cli import root
from relayq.cli.mapmeter import Standing, rate


def test_a_line_has_counts_the_time_left_and_the_rate():
    standing = Standing("g7", 48, done=19, failed=1, running=5, seconds=400.0)

    said = "relayq: g7  done 19  running 5  queued 23  failed 1  ######--------  41%"
    assert standing.line() == f"{said}  eta 9m20s  3.0/min"
    assert "#" not in standing.line(80)
    assert standing.line(80).endswith("41%  eta 9m20s  3.0/min")


def test_more_never_run_than_are_left():
    assert "done 7  running 1  queued 0" in Standing("g", 8, done=7, running=4).line()


@pytest.mark.parametrize(
    ("each", "said"), [(0.001, "1000/s"), (0.5, "2.0/s"), (19.4, "3.1/min"), (1800.0, "2.0/h")]
)
def test_a_rate_has_the_unit_that_it_is_read_in(each, said):
    assert rate(each) == said


def dry(*arguments: str, stdin: bytes = b"") -> str:
    done = CliRunner().invoke(root, ["map", "--dry-run", *arguments], input=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_dry_run_prints_the_commands(home, tmp_path):
    listed = tmp_path / "listed"
    listed.write_bytes(b"x y\0z\0")

    assert dry("echo", "{/}", ":::", "d/a b", "-n") == "echo 'a b'\necho -n\n"
    assert dry("echo", stdin=b"a\nb\n") == "echo a\necho b\n"
    assert dry("-0", "-a", str(listed), "echo {} {2}", ":::+", "1", "2") == (
        "echo 'x y' 1 1\necho z 2 2\n"
    )
    assert dry("echo {1}{2}", ":::", "a", "b", ":::", "1", "2").split() == [
        *("echo", "a1", "echo", "a2", "echo", "b1", "echo", "b2")
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("echo", ":::+", "a"), "begin with :::"),
        (("echo", "::::", "/no/such/file"), "can't be read"),
        (("--on", "all", "echo", ":::", "a"), "an item runs on one host"),
        (("--attach", "g", "echo", ":::", "a"), "no command"),
        (("--onn", "x", "echo", ":::", "a"), "--on"),
        ((":::", "a"), "the command is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(home, arguments, said):
    done = CliRunner().invoke(root, ["map", *arguments])

    assert done.exit_code == 2
    assert said in done.output
