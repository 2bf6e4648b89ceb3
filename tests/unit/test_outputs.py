"""The outputs of a job: what its file says, what of it is an error, and `relayq output`."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq import cli
from relayq.cli.outputs import became
from relayq.cli.outputs import given as shown
from relayq.host import outputs as host
from relayq.kinds import Verdict
from relayq.model.jobs import JobState
from relayq.model.outputs import LARGEST, read, written

SUCCESS = Verdict(JobState.SUCCEEDED, "exit")
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,20}", fullmatch=True), VALUES))
def test_what_is_written_is_read_as_it_was(outputs):
    assert read(written(outputs, end="end-of-it")) == outputs


def test_lines_are_read_as_github_reads_them():
    raw = b"a=1\nb= x=y \n\nlong<<EOF\none\n\ntwo\nEOF\na=2\nempty=\nodd=\xff\nnone<<E\nE"

    assert read(raw) == {
        "a": "2",
        "b": " x=y ",
        "long": "one\n\ntwo",
        "empty": "",
        "odd": "\ufffd",
        "none": "",
    }


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"a=1\nhello", "line 2 is no name=value: 'hello'"),
        (b"1a=2", "line 1: an output's name"),
        (b"a b=2", "line 1: an output's name"),
        (b"x=1\na<<END\nEN D\n", "line 2: a<<END has no line 'END' after it"),
        (b"a<<\nx", "line 1"),
        (b"a=" + b"x" * LARGEST, "more than 1 MiB"),
    ],
)
def test_what_is_no_output_is_an_error_with_its_line(raw, said):
    with pytest.raises(ValueError, match="(?s).+") as error:
        read(raw)

    assert said in str(error.value)


def test_a_success_has_its_outputs_and_a_failure_as_well(tmp_path):
    (tmp_path / "outputs").write_bytes(b"a=1\n")

    assert host.judged(tmp_path, SUCCESS).outputs == {"a": "1"}
    assert host.judged(tmp_path, Verdict(JobState.FAILED, "exit")).outputs == {"a": "1"}


def test_outputs_that_cannot_be_read_fail_a_success_and_leave_a_failure_as_it_is(tmp_path):
    (tmp_path / "outputs").write_bytes(b"nonsense")
    failure = Verdict(JobState.FAILED, "exit")

    verdict = host.judged(tmp_path, SUCCESS)

    assert (verdict.state, verdict.reason) == (JobState.FAILED, "output")
    assert "line 1 is no name=value" in str(verdict.error)
    assert host.judged(tmp_path, failure) == failure


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a directory"])
def test_nobody_waits_for_what_is_no_file(tmp_path, make):
    make(tmp_path / "outputs")

    assert host.judged(tmp_path, SUCCESS).state is JobState.FAILED


def test_without_a_file_a_verdict_stays_as_it_is(tmp_path):
    assert host.judged(tmp_path, SUCCESS) is SUCCESS


def test_secrets_of_the_job_are_masked(tmp_path):
    secrets = tmp_path / "secrets.env"
    secrets.write_text("KEY=open-sesame\n")
    secrets.chmod(0o600)
    asked = {"secrets": {"home": str(tmp_path), "asked": ["KEY"], "names": ["KEY"]}}
    (tmp_path / "command.json").write_text(json.dumps(asked))
    (tmp_path / "outputs").write_bytes(b"a=say open-sesame\nb=1\n")

    assert host.judged(tmp_path, SUCCESS).outputs == {"a": "say ***", "b": "1"}


@pytest.fixture
def inside(monkeypatch, tmp_path):
    """Be inside a job; returns the file of its outputs."""
    monkeypatch.setenv("RELAYQ_JOB_ID", "j1")
    monkeypatch.setenv("RELAYQ_OUTPUT", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def test_a_job_gives_values_one_after_the_other(inside: Path, monkeypatch):
    stdin = SimpleNamespace(buffer=io.BytesIO(b"several\nlines\n\n"))
    assert cli.main(["output", "a=1", "b=x=\ny"]) == 0
    monkeypatch.setattr("sys.stdin", stdin)
    assert cli.main(["output", "long", "-"]) == 0
    assert cli.main(["output", "a=2"]) == 0

    assert read(inside.read_bytes()) == {"a": "2", "b": "x=\ny", "long": "several\nlines\n"}


def test_it_says_what_it_gave_as_json(inside: Path, capsys):
    assert cli.main(["output", "--json", "a=1"]) == 0

    assert json.loads(capsys.readouterr().out) == {"schema": 1, "outputs": {"a": "1"}}


@pytest.mark.parametrize("words", [[], ["a"], ["1=2"], ["a b=c"], ["a", "-", "b=1"]])
def test_nonsense_is_refused_and_nothing_is_written(inside: Path, words, capsys):
    assert cli.main(["output", *words]) == 2

    assert not inside.exists()


def test_too_much_is_refused_at_once(inside: Path, capsys):
    inside.write_bytes(b"a=" + b"x" * (LARGEST - 10))

    assert cli.main(["output", "b=twelve chars"]) == 125
    assert "at most 1 MiB" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["", "json"])
def test_outside_of_a_job_there_is_no_step_to_give_it_to(monkeypatch, capsys, said):
    monkeypatch.delenv("RELAYQ_JOB_ID", raising=False)
    monkeypatch.setenv("RELAYQ_OUTPUT", said)

    assert cli.main(["output", "a=1"]) == 125
    told = capsys.readouterr()
    assert "this isn't inside a job" in told.err + told.out


def test_show_names_the_jobs_that_a_step_became():
    record = SimpleNamespace(fanned=tuple(f"j{n}" for n in range(23)))
    outcome = SimpleNamespace(result={"jobs": [{"id": "j1", "result": "failure"}]})

    [(label, text)] = became(record, outcome)

    assert label == "Became"
    assert text.splitlines()[:3] == ["j0", "j1 failure", "j2"]
    assert text.splitlines()[20:] == ["and 3 more"]
    assert list(became(SimpleNamespace(fanned=()), None)) == []


def test_show_has_a_line_for_each_and_the_first_of_many():
    outcome = SimpleNamespace(outputs={"a": "1", "long": "one\ntwo", "wide": "x" * 300, "no": ""})

    [(label, text)] = shown(outcome)

    assert label == "Outputs"
    assert text.splitlines()[:2] == ["a = 1", "long = one ... (2 lines)"]
    assert text.splitlines()[2:] == [f"wide = {'x' * 160}...", "no = "]
