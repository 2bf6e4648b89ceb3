"""Short commands that travel together: how many, what they say, what is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relayq.errors import RelayqError
from relayq.kinds import Ended, find
from relayq.model import batches
from relayq.model.halts import Halt
from relayq.model.jobs import JobState, Spec
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PATTERN = Spec("pattern", "run_command", {"cwd": "/tmp", "env": {"A": "1"}}, timeout=60.0)


def order(*commands, **options) -> bytes:
    said = {"timeout": None, "max_output": None, "patience": None, "halts": False, "host": "here"}
    items = [[number, cmd] for number, cmd in enumerate(commands, 1)]
    return json.dumps({**said, **options, "items": items}).encode()


def begin(directory: Path, *commands, **options) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    code += "from relayq.host.batching import main; main()"
    program = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        env={**os.environ, "RELAYQ_REPORT": str(directory / "report.json")},
    )
    assert program.stdin is not None
    program.stdin.write(order(*commands, **options))
    program.stdin.close()
    program.stdin = None
    return program


def run(directory: Path, *commands, **options) -> tuple[dict[int, batches.Ran], dict]:
    """Run a batch; returns what it says of each item, and its report."""
    said, _ = begin(directory, *commands, **options).communicate(timeout=30)
    report = json.loads((directory / "report.json").read_text())
    return {ran.number: ran for ran in batches.Lines().feed(said)}, report


def test_each_item_has_its_own_output_and_exit_code(tmp_path):
    ran, report = run(
        tmp_path,
        "echo out; echo err >&2; exit 3",
        ["printf", "%s", "a b"],
        'printf "\\377\\n"; echo $RELAYQ_ITEM; pwd; test -z "$RELAYQ_REPORT"',
        ["no-such-program"],
        "kill -9 $$",
    )

    assert (ran[1].exit_code, ran[1].stdout, ran[1].stderr) == (3, b"out\n", b"err\n")
    assert ran[2].stdout == b"a b"
    assert ran[2].is_good
    assert ran[3].stdout == b"\xff\n3\n" + os.fsencode(os.path.realpath(tmp_path)) + b"\n"
    assert ran[3].is_good
    assert (ran[4].exit_code, ran[5].failure) == (127, "signal 9")
    assert report == {"ran": 5, "failed": {"1": "exit 3", "4": "exit 127", "5": "signal 9"}}
    assert {one.host for one in ran.values()} == {"here"}


def test_an_item_has_limits_of_its_own_and_those_after_it_run(tmp_path):
    ran, _ = run(
        tmp_path,
        "sleep 60 & sleep 60",
        "yes",
        "head -c 200000 /dev/zero",
        timeout=0.3,
        max_output=1_000_000,
    )

    assert ran[1].reason == "timeout"
    assert ran[2].reason == "output"
    assert len(ran[3].stdout) == 200_000
    assert ran[3].is_good


def test_what_an_item_leaves_behind_is_ended_before_the_next(tmp_path):
    ran, _ = run(
        tmp_path, f"(trap '' TERM HUP; sleep 61.5; true) & echo $! > {tmp_path}/pid", "true"
    )

    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert ran[1].is_good
    assert ran[2].is_good


def test_a_long_item_gives_back_those_after_it_while_it_runs(tmp_path):
    program = begin(
        tmp_path,
        "true",
        f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done",
        "true",
        "true",
        patience=0.2,
    )

    until((tmp_path / "given.json").exists, within=10, what="the rest to be given back")
    (tmp_path / "go").touch()
    said, _ = program.communicate(timeout=20)

    lines = batches.Lines()
    assert [ran.number for ran in lines.feed(said)] == [1, 2]
    assert lines.given == [3, 4]
    assert json.loads((tmp_path / "given.json").read_text()) == {"items": [3, 4]}
    assert json.loads((tmp_path / "report.json").read_text())["given"] == [3, 4]


def test_with_a_halt_a_failed_item_gives_back_those_after_it(tmp_path):
    ran, report = run(tmp_path, "true", "false", "true", halts=True)

    assert sorted(ran) == [1, 2]
    assert report == {"ran": 2, "failed": {"2": "exit 1"}, "given": [3]}


def test_a_batch_that_is_to_end_takes_its_item_along_and_says_what_is_left(tmp_path):
    program = begin(tmp_path, f"touch {tmp_path}/begun; sleep 60", "true")
    until((tmp_path / "begun").exists, within=10, what="the first item to run")

    program.send_signal(signal.SIGTERM)
    said, _ = program.communicate(timeout=20)

    assert [ran.reason for ran in batches.Lines().feed(said)] == ["cancelled"]
    assert json.loads((tmp_path / "report.json").read_text())["left"] == [2]


def test_lines_are_read_in_whatever_pieces_they_come():
    raw = b'{"host":"h"}\n{"item":1,"out":"a"}\nnoise\n'
    raw += b'{"item":1,"out":"\\udcff","reason":"exit","exit":0}\n'
    lines = batches.Lines()

    found = [ran for at in range(len(raw)) for ran in lines.feed(raw[at : at + 1])]

    assert [(one.number, one.stdout, one.host) for one in found] == [(1, b"a\xff", "h")]


def test_only_short_items_travel_together_and_about_a_second_of_them():
    assert batches.batch_size([0.01] * 8, left=10_000, slots=4) == 100
    assert batches.batch_size([0.01] * 7 + [0.06], left=10_000, slots=4) == 1
    assert batches.batch_size([], left=10_000, slots=4) == 1
    assert batches.batch_size([0.0001] * 8, left=10_000, slots=1) == batches.LARGEST
    # Every slot gets some of them.
    assert batches.batch_size([0.001] * 8, left=160, slots=4) == 10


def test_the_items_of_a_batch_can_be_jobs_of_their_own():
    batch = batches.batch_of(PATTERN, [(3, "true"), (4, ["echo", "x"])], id="batch")

    singles = batches.taken_apart(batch, [4, 9])

    assert find("run_batch").read_payload(batch.payload).patience == batches.PATIENCE
    assert batches.numbers_of(batch) == [3, 4]
    [single] = singles
    assert single.payload == {
        **PATTERN.payload,
        "cmd": ["echo", "x"],
        "env": {"A": "1", "RELAYQ_ITEM": "4"},
    }
    assert (single.kind, single.timeout, single.max_output) == ("run_command", 60.0, None)
    assert single.id == batches.taken_apart(batch, [4])[0].id != batch.id


@pytest.mark.parametrize(
    ("said", "halt"),
    [
        ("never", None),
        ("now,fail=1", Halt("m", 1, "fail", "now")),
        ("soon,fail=10%", Halt("m", 5, "fail", "soon")),
        ("soon,success=2", Halt("m", 2, "success", "soon")),
        ("now,done=1%", Halt("m", 1, "done", "now")),
    ],
)
def test_a_halt_is_read_as_parallel_has_it(said, halt):
    assert batches.read_halt(said, name="m", count=50) == halt


@pytest.mark.parametrize(
    "said", ["", "now", "now,fail", "later,fail=1", "now,fail=0", "soon,fail=101%"]
)
def test_any_other_halt_is_refused(said):
    with pytest.raises(RelayqError, match="a halt is never"):
        batches.read_halt(said, name="m", count=50)


def test_a_batch_succeeds_if_all_of_its_items_did():
    kind = find("run_batch").kind

    good = kind.interpret(Ended(0, None, "exit", report={"ran": 2, "failed": {}}))
    bad = kind.interpret(Ended(1, None, "exit", report={"ran": 2, "failed": {"2": "exit 1"}}))
    silent = kind.interpret(Ended(1, None, "exit"))

    assert good.state is JobState.SUCCEEDED
    assert (bad.state, bad.error) == (JobState.FAILED, "1 of 2 items failed: 2 (exit 1)")
    assert "without a report" in (silent.error or "")
