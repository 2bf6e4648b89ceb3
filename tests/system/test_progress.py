"""Progress, from what a real job says to who looks and who waits."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.system.commands import ROOT, Terminal, begin, relayq, shown, submit, until_exists
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def say(*words: str) -> str:
    """Return the shell line by which a job says how far it is."""
    argv = [sys.executable, "-m", "relayq", "progress", *words]
    return f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.join(argv)}"


def steps(folder: Path, *fractions: str) -> str:
    """Return the script of a job that says one after the other when it is let to."""
    lines = [f"{say(f)}; {until_exists(folder / f.strip('%'))}" for f in fractions]
    return "; ".join([*lines, "echo done"])


def says(id: str, fraction: float) -> None:
    """Wait until the record has it."""
    until(
        lambda: (shown(id)["progress"] or {}).get("fraction") == fraction,
        within=20,
        what=f"{id} to say {fraction}",
    )


def test_what_a_job_says_is_shown_while_it_runs_and_not_after(cli, tmp_path):
    asked = ("50%", "--eta", "2h", "--rate", "3 files/s", "second", "pass")
    id = submit(f"{say(*asked)}; {until_exists(tmp_path / 'go')}")
    says(id, 0.5)

    progress = shown(id)["progress"]
    assert {**progress, "at": ""} == {
        "fraction": 0.5,
        "text": "second pass",
        "eta": 7200.0,
        "rate": "3 files/s",
        "at": "",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", progress["at"])
    # It said two hours less than a second ago, or a little more.
    assert re.search(r"###---  50%  eta [12]h\S*  second pass", relayq("ps").stdout)
    bar = r"#######-------  50%  3 files/s  eta [12]h"
    assert re.search(bar, relayq("show", id).stdout)
    assert "###---  50%  eta 1h  second pass" in relayq("top").stdout
    top = json.loads(relayq("ps", "--json").stdout)["jobs"]
    assert [job["progress"]["fraction"] for job in top if job["id"] == id] == [0.5]

    (tmp_path / "go").touch()
    assert relayq("wait", id).returncode == 0
    assert shown(id)["progress"] is None
    assert "Progress" not in relayq("show", id).stdout


def test_progress_goes_on_over_a_kill_of_the_worker(fleet, tmp_path):
    result = fleet.job.run(steps(tmp_path, "10%", "20%", "30%"))

    def is_at(fraction):
        progress = result.record.progress
        return progress is not None and progress.fraction == fraction

    until(lambda: is_at(0.1), within=30, what="the first word")
    fleet.worker.kill()
    fleet.worker.wait()
    # Said while nobody is there to bring it.
    (tmp_path / "10").touch()
    fleet.start_worker()

    until(lambda: is_at(0.2), within=30, what="what was said meanwhile")
    (tmp_path / "20").touch()
    until(lambda: is_at(0.3), within=30, what="the last word")
    (tmp_path / "30").touch()

    assert result.get(timeout=30) == "done"
    assert (result.record.attempt, result.record.progress) == (1, None)


def test_who_runs_a_job_at_a_terminal_has_a_live_line_below_its_output(cli, tmp_path):
    script = f"echo begun; {steps(tmp_path, '25%', '75%')}"
    terminal = Terminal("run", script, columns=100)
    terminal.sees("begun\r\n")
    terminal.sees("####----------  25%")
    (tmp_path / "25").touch()
    terminal.sees("##########----  75%")
    (tmp_path / "75").touch()

    assert terminal.finish() == 0
    # What stays on the screen is what the job wrote.
    left = re.sub(r"\r[^\r\n]*\x1b\[K", "", terminal.seen)
    assert left == "begun\r\ndone\r\n"
    before_output = terminal.seen[: terminal.seen.index("done")]
    assert before_output.endswith("\r\x1b[K")


def test_a_silent_job_and_one_that_waits_have_a_line_with_their_time(cli, tmp_path):
    silent = Terminal("run", until_exists(tmp_path / "go"))
    silent.sees("  here  3s\x1b[K")
    waiting = Terminal("run", "--on", "nowhere", "--wait-for-host", "--name", "stays", "true")
    waiting.sees("  waiting for nowhere  2s\x1b[K")

    relayq("cancel", "stays")
    (tmp_path / "go").touch()

    assert silent.finish() == 0
    assert waiting.finish() == 130
    assert silent.seen.endswith("\r\x1b[K")


def test_a_job_that_has_the_terminal_for_itself_shares_it_with_no_line(cli):
    terminal = Terminal("run", "-t", f"{say('50%')}; sleep 3; echo over")

    assert terminal.finish() == 0
    assert terminal.seen == "over\r\n"


def test_without_a_terminal_there_is_a_line_at_each_tenth_and_none_in_the_output(cli, tmp_path):
    runs = begin("run", f"echo begun; {steps(tmp_path, '25%', '75%')}")
    assert runs.stdout.readline() == "begun\n"

    first = runs.stderr.readline()
    (tmp_path / "25").touch()
    second = runs.stderr.readline()
    (tmp_path / "75").touch()
    out, error = runs.communicate(timeout=30)

    assert re.fullmatch(r"relayq: \w{12}  here  \d+s  ####----------  25%\n", first)
    assert re.fullmatch(r"relayq: \w{12}  here  \d+s  ##########----  75%\n", second)
    assert (out, error, runs.returncode) == ("done\n", "", 0)


def test_quiet_is_quiet(cli, tmp_path):
    id = submit(steps(tmp_path, "50%"))
    waits = [begin(*words, "-q", id) for words in (["wait"], ["logs", "-f"])]
    terminal = Terminal("wait", "-q", id)
    says(id, 0.5)
    (tmp_path / "50").touch()

    assert [one.communicate(timeout=30)[1] for one in waits] == ["", ""]
    assert terminal.finish() == 0
    assert terminal.seen == ""


def test_who_waits_for_several_jobs_is_told_their_total(cli, tmp_path):
    half = submit("--group", "total", steps(tmp_path, "50%"))
    done = submit("--group", "total", "true")
    relayq("wait", "-q", done)
    says(half, 0.5)

    terminal = Terminal("wait", half, done, columns=100)
    terminal.sees("relayq: 2 jobs  1 ended, 1 running")
    terminal.sees("##########----  75%")
    follows = Terminal("logs", "-f", "@total", columns=100)
    follows.sees("relayq: ")
    (tmp_path / "50").touch()

    assert terminal.finish() == 0
    assert follows.finish() == 0
    assert f"\r\x1b[K{half} | done\r\n" in follows.seen


def environ_of(desk: Path) -> dict[str, str]:
    """Return the environment of a job with that desk."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "RELAYQ_DESK": str(desk)}


@pytest.mark.parametrize("words", [[], ["42"], ["101%"], ["--eta", "soon"], ["5/0"], [" "]])
def test_nonsense_is_refused_before_anybody_is_told(home, tmp_path, words):
    wrong = relayq("progress", *words, env=environ_of(tmp_path))

    assert wrong.returncode == 2
    assert "hint: relayq progress --help" in wrong.stderr
    assert list(tmp_path.iterdir()) == []


def test_outside_a_job_there_is_nobody_to_tell(home):
    alone = relayq("progress", "50%")

    assert (alone.returncode, alone.stdout) == (125, "")
    assert "this isn't inside a job" in alone.stderr


def test_a_word_may_begin_with_a_digit_and_come_as_json(home, tmp_path):
    told = relayq("progress", "--json", "21/50", "3rd", "pass", env=environ_of(tmp_path))

    said = {"fraction": 0.42, "text": "3rd pass", "eta": None, "rate": "", "at": 0.0}
    assert json.loads(told.stdout) == {"schema": 1, "progress": said}
    assert json.loads((tmp_path / "progress.json").read_text())["fraction"] == 0.42
