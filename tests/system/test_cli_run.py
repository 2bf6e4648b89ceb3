"""What run and submit take: options, scripts, instants, keys; and what an interrupt does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from relayq import clock
from tests.system.commands import Terminal, begin, relayq, shown, submit, until_exists
from tests.waiting import until

pytestmark = pytest.mark.system

FULL = Path("/dev/full")


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def said_wrong(*arguments: str) -> str:
    done = relayq(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "  hint: relayq " in done.stderr
    return done.stderr


def test_what_is_ones_own_is_kept_with_the_job(cli):
    id = submit(
        *("--label", "media", "--label", "slow", "--meta", "camera=b=2", "--group", "g7"),
        *("--note", "the big one", "--name", "own", "true"),
    )

    spec = shown(id)["spec"]
    assert spec["labels"] == ["media", "slow"]
    assert (spec["meta"], spec["group"]) == ({"camera": "b=2"}, "g7")
    assert (spec["note"], spec["name"]) == ("the big one", "own")
    assert "Labels    media, slow" in relayq("show", id).stdout
    for filter in ("label=med*", "meta.camera=b=2", "group=g7", "name=own"):
        assert relayq("ps", "-q", "--filter", filter).stdout == f"{id}\n"


def test_a_file_of_variables(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "here")
    file = tmp_path / "env"
    file.write_text("# a comment\n\nexport A=1\nB='two words' \nC=x=y\nFROM_HERE\nD=\n")

    line = 'echo "$A|$B|$C|$FROM_HERE|$D"'
    done = relayq("run", "--env-file", str(file), "-e", "A=won", line)

    assert done.stdout == "won|two words|x=y|here|\n"
    file.write_text("A=1\nNOT_SET_ANYWHERE\n")
    assert f"{file}:2: NOT_SET_ANYWHERE isn't set here" in said_wrong(
        "submit", "--env-file", str(file), "true"
    )
    missing = relayq("submit", "--env-file", str(tmp_path / "none"), "true")
    assert (missing.returncode, missing.stdout) == (125, "")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run", "--name", "full", "echo one; sleep 0.3"],
            "; the job goes on\n  hint: relayq logs -f ",
        ),
        (["result", "full"], "what a job wrote is kept: relayq logs JOB"),
        (["ps", "--json"], "No space left on device\n  hint: df -h"),
        (["version"], "No space left on device\n  hint: df -h"),
    ],
)
def test_output_that_cannot_be_written_here_is_told_and_costs_no_job(cli, words, said):
    if words[0] == "result":
        relayq("wait", submit("--name", "full", "echo one"))
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "relayq", *words],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    assert done.returncode == 125
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if words[0] == "run":
        assert relayq("wait", "full").returncode == 0
        assert relayq("logs", "full").stdout == "one\n"


def test_a_job_that_is_due_later(cli):
    soon = submit("--in-time", "5s", "echo late")
    assert shown(soon)["state"] == "scheduled"
    later = submit("--at", "2999-01-02 08:00", "true")
    zoned = submit("--at", "2999-01-02T08:00:00+02:00", "true")
    hour = submit("--at", f"{datetime.fromtimestamp(clock.now() - 120):%H:%M}", "true")

    local = datetime(2999, 1, 2, 8).timestamp()
    assert datetime.fromisoformat(shown(later)["due_at"]).timestamp() == local
    assert shown(zoned)["due_at"] == "2999-01-02T06:00:00.000Z"
    left = datetime.fromisoformat(shown(hour)["due_at"]).timestamp() - clock.now()
    assert 20 * 3600 < left < 26 * 3600
    assert "due in" in relayq("ps", "--filter", "state=scheduled").stdout
    assert relayq("logs", "-f", soon).stdout == "late\n"
    relayq("cancel", later, zoned, hour)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "2001-01-01 08:00"], "still to come"),
        (["--at", "25:00"], "expected 22:30"),
        (["--at", "soon"], "expected 22:30"),
        (["--at", "2999-01-01", "--in-time", "5m"], "exclude each other"),
        (["--meta", "novalue"], "--meta takes K=V"),
        (["-e", "=x"], "has no name"),
        (["--on-interrupt", "explode"], "explode"),
    ],
)
def test_options_that_make_no_sense(cli, arguments, said):
    assert said in said_wrong("run", *arguments, "true")


def test_after_takes_selectors(cli):
    group = [submit("--group", "parents", "sleep 0.3") for _ in range(2)]
    third = submit("--name", "third", "true")

    id = submit("--after", "@parents,third", "echo after")

    assert shown(id)["spec"]["after"] == [*group, third]
    assert relayq("logs", "-f", id).stdout == "after\n"
    unknown = relayq("submit", "--after", "nobody", "true")
    assert unknown.returncode == 125
    assert "  hint: " in unknown.stderr


def test_a_key_that_is_taken_gives_the_job_that_has_it(cli, tmp_path):
    go = tmp_path / "go"
    first = submit("--unique", "backup", f"{until_exists(go)}; echo once")

    second = relayq("submit", "--unique", "backup", "echo twice")
    as_json = json.loads(relayq("submit", "--json", "--unique", "backup", "true").stdout)
    follower = begin("run", "--unique", "backup", "echo thrice")
    said = follower.stderr.readline()
    go.touch()
    followed, _ = follower.communicate(timeout=20)

    assert second.stdout == f"{first}\n"
    assert "goes on under the key 'backup'" in second.stderr
    assert as_json == {"schema": 1, "id": first, "is_new": False}
    assert f"{first} goes on under the key 'backup'" in said
    assert followed == "once\n"
    assert submit("--unique", "backup", "true") != first


def test_a_dry_run_says_what_would_be_queued_and_queues_nothing(cli):
    before = relayq("ps", "-aq").stdout

    line = relayq("run", "--dry-run", "--on", "here", "--cwd", "/tmp", "-e", "A=secret", "echo $A")
    program = relayq("submit", "--dry-run", "--timeout", "90s", "ls", "-l", "a b")
    as_json = json.loads(relayq("submit", "--dry-run", "--json", "true").stdout)

    wanted = ["Command   echo $A", "Host      here", "Queue     host.here", "Cwd       /tmp"]
    wanted += ["Env       A", "Limits    timeout 5h, priority 5, retries 0, on lost retry"]
    assert [text.strip() for text in line.stdout.splitlines()] == wanted
    assert "Program   ls -l 'a b'" in program.stdout
    assert "timeout 90s" in program.stdout
    assert "nothing was queued" in program.stderr
    assert (as_json["dry_run"], as_json["queue"]) == (True, "any")
    assert "id" not in as_json["spec"]
    assert relayq("submit", "--dry-run", "--on", "nowhere", "true").returncode == 125
    assert relayq("ps", "-aq").stdout == before


def test_a_dry_run_needs_no_fleet_and_starts_none(home):
    done = relayq("run", "--dry-run", "echo hi")

    assert done.returncode == 0
    assert "Host      any host" in done.stdout
    assert not list(home.iterdir())


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> str:
        file = tmp_path / "nightly.sh"
        file.write_text(text)
        return str(file)

    return write


def test_a_scripts_own_lines_are_options_and_the_command_line_wins(cli, script):
    file = script(
        "#!/bin/sh\n"
        "# a comment\n"
        "#RELAYQ --timeout 2h --prio high\n"
        "#RELAYQ -e 'GREETING=good day' -e WHO=nobody\n"
        'echo "$GREETING, $WHO: it\'s $((1+1))"; cat\n'
        "#RELAYQ --not-at-the-top\n"
        "exit 4\n"
    )

    done = relayq("run", "-e", "WHO=you", "--timeout", "1h", file)

    assert (done.stdout, done.returncode) == ("good day, you: it's 2\n", 4)
    record = shown("nightly.sh")
    assert (record["spec"]["timeout"], record["priority"]) == (3600.0, 8)
    assert "nightly.sh  " in relayq("ps", "--filter", "name=nightly.sh").stdout
    assert "Script    nightly.sh, 7 lines" in relayq("show", "last").stdout


@pytest.mark.parametrize(
    "first", ["#!/usr/bin/env python3", "#!/usr/bin/env -S python3 -u", "#! /usr/bin/python3"]
)
def test_a_script_runs_by_the_interpreter_that_it_names(cli, script, first):
    text = f"{first}\nimport sys\nprint(sys.stdin.read(), '$HOME', `1`)\n".replace("`1`", "'`id`'")

    done = relayq("run", script(text))

    assert done.stdout == " $HOME `id`\n", done.stderr


def test_a_script_whose_name_means_other_jobs_has_no_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last").write_text("#!/bin/sh\ntrue\n")

    assert relayq("run", "last").returncode == 0
    assert shown("last")["spec"]["name"] is None


def test_a_script_that_cant_be_one(cli, script, tmp_path):
    assert "nightly.sh:2: No such option" in said_wrong(
        "run", script("#!/bin/sh\n#RELAYQ --nope\n")
    )
    assert "isn't an option" in said_wrong("run", script("#!/bin/sh\n#RELAYQ echo hi\n"))
    for text in ("#!\n", "#!/bin/sh\n#RELAYQ --name 'open\n", "#!/bin/sh\n" + "# long\n" * 20_000):
        done = relayq("run", script(text))
        assert (done.returncode, done.stdout) == (125, "")
        assert "  hint: " in done.stderr
    # Without a first line, or on demand, it's a line for the shell as ever.
    assert relayq("run", script("echo no\n")).returncode == 126
    assert relayq("run", "-s", script("#!/bin/sh\necho yes\n")).returncode == 126


def test_run_as_json_is_one_value_at_the_end(cli):
    done = relayq("run", "--json", "-q", "echo out; echo err >&2; exit 3")

    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, "")
    assert (told["stdout"], told["stderr"]) == ("out\n", "err\n")
    assert (told["schema"], told["state"], told["exit_code"]) == (1, "failed", 3)


def test_on_a_terminal_an_interrupt_detaches(cli):
    terminal = Terminal("run", "echo begun; sleep 1; echo ended")
    terminal.sees("begun")

    terminal.process.send_signal(signal.SIGINT)

    assert terminal.finish() == 130
    assert "^C again within 3 s cancels it" in terminal.seen
    id = terminal.seen.split("detached; ")[1].split()[0]
    assert relayq("logs", "-f", id).stdout == "begun\nended\n"


def test_on_a_terminal_a_second_interrupt_cancels(cli):
    terminal = Terminal("run", "--name", "twice", "echo begun; sleep 60")
    terminal.sees("begun")

    terminal.process.send_signal(signal.SIGINT)
    terminal.sees("again within 3 s")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.finish() == 130
    assert "cancelled on here" in terminal.seen
    assert shown("twice")["state"] == "cancelled"


def test_what_an_interrupt_does_can_be_said(cli):
    terminal = Terminal(
        "run", "--on-interrupt", "cancel", "--name", "at-once", "echo begun; sleep 60"
    )
    terminal.sees("begun")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 130
    assert shown("at-once")["state"] == "cancelled"

    command = begin("run", "--on-interrupt", "detach", "--name", "left", "echo begun; sleep 60")
    assert command.stdout.readline() == "begun\n"
    command.send_signal(signal.SIGINT)
    _, remarks = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "detached; " in remarks
    assert shown("left")["state"] == "running"
    relayq("cancel", "left")
    until(lambda: shown("left")["state"] == "cancelled", what="the job to be gone")
