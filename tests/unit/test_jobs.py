"""Jobs as values: ids, states and their moves, specs, records, outcomes."""

import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from relayq.errors import RelayqError
from relayq.model.jobs import (
    ALPHABET,
    FINAL,
    ID_LENGTH,
    ON_LOST,
    PRIORITIES,
    JobRecord,
    JobState,
    Outcome,
    Spec,
    new_id,
    normal_id,
    priority_number,
)
from relayq.model.moves import ENDS, MOVES

SPEC = Spec("abc100000000", "run_command", {"cmd": "true"})
FULL = Spec(
    id="abc100000000",
    kind="run_command",
    payload={"cmd": ["echo", "ü"], "env": {"A": "b"}},
    host="pi4",
    priority=8,
    timeout=1.5,
    max_log=1024,
    memory=2_000_000_000,
    processes=200,
    max_output=1_000_000,
    on_lost="ask",
    retries=2,
    backoff=(2.0, 30.5),
    backoff_factor=1.5,
    backoff_jitter=False,
    retry_on=("timeout", "exit:75"),
    due_at=1_800_000_000.25,
    after=("abd200000000", "abe300000000"),
    name="greet",
    submitter="ann@mac",
    labels=("media", "night"),
    meta={"film": "ü"},
    group="films",
    unique="film 1",
    note="for Bob",
    on=("@heavy", "mac*"),
    needs=("ffmpeg",),
    excluded=("pi*",),
    resources={"cuda": 1},
    prefer="mini",
    overflow=20.0,
    strategy="random",
    with_job="abd200000000",
    expires=3600.0,
    accounts=("claude/default", "codex/work"),
    files_in=({"dest": "in.txt", "source": "/home/me/in.txt"},),
    files_out=({"pattern": "*.txt"},),
    secrets=("HF_TOKEN",),
    ancestors=("r00t00000000",),
    grant={"depth": 1},
    git="main",
    after_any=("abf300000000",),
    when="always",
    is_lenient=True,
    halts=("nightly",),
    flow="abg400000000",
    step="greet",
    matrix={"os": "linux"},
    uses={"build": ["abd200000000"]},
    is_template=True,
    condition="steps.build.result == 'success'",
    fans="x = fromJSON(steps.build.stdout)",
    takes=({"from": "abd200000000", "files": "*.txt", "to": "in"},),
    signed_at=1763770000,
    item_of="abd300000000 4",
)
RECORD = JobRecord(
    id="abc100000000",
    kind="run_command",
    state=JobState.QUEUED,
    queue="any",
    priority=5,
    created_at=1_800_000_000.0,
)


# Ids


def test_an_id_is_twelve_letters_that_survive_being_read_aloud():
    ids = [new_id() for _ in range(500)]

    assert {len(id) for id in ids} == {ID_LENGTH}
    assert set("".join(ids)) == set(ALPHABET)
    assert len(set(ids)) == len(ids)
    assert not set(ALPHABET) & set("ilou")


def test_an_id_is_normal_already():
    id = new_id()

    assert normal_id(id) == id


@pytest.mark.parametrize(
    ("typed", "stored"),
    [("ABC", "abc"), ("O0o", "000"), ("iIlL1", "11111"), (" x9 ", "x9"), ("", "")],
)
def test_an_id_may_be_typed_as_it_was_heard(typed, stored):
    assert normal_id(typed) == stored


# States


def test_every_state_has_its_moves_and_they_lead_to_states():
    assert MOVES.keys() == {None, *JobState}
    assert {to for moves in MOVES.values() for to in moves} <= set(JobState)


def test_no_state_follows_itself():
    assert not [state for state, moves in MOVES.items() if state in moves]


def test_every_state_can_be_reached_and_left():
    reached, ahead = set(), [None]
    while ahead:
        for to in MOVES[ahead.pop()] - reached:
            reached.add(to)
            ahead.append(to)

    assert reached == set(JobState)
    assert all(MOVES[state] for state in JobState)


def test_from_a_final_state_a_job_only_runs_again_or_is_skipped_then():
    again = {JobState.QUEUED, JobState.WAITING}

    assert all(MOVES[state] - {JobState.SUCCEEDED} == again for state in FINAL)


def test_from_every_other_state_a_job_can_be_cancelled():
    assert all(JobState.CANCELLED in MOVES[state] for state in set(JobState) - FINAL)


def test_a_running_attempt_may_end_as_finish_allows():
    assert MOVES[JobState.RUNNING] >= ENDS
    assert MOVES[JobState.LOST] >= ENDS


@pytest.mark.parametrize("state", list(JobState))
def test_who_waits_stops_at_an_end_or_a_question(state):
    stops = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.NEEDS_HUMAN}

    assert state.is_final == (state in stops - {JobState.NEEDS_HUMAN})
    assert state.is_waitable == (state not in stops)


def test_priorities_and_policies_are_the_documented_ones():
    assert PRIORITIES == {"low": 2, "normal": 5, "high": 8, "urgent": 10}
    assert ON_LOST == ("retry", "ask", "fail")


@pytest.mark.parametrize(
    ("said", "number"), [("low", 2), ("urgent", 10), (1, 1), (10, 10), ("7", 7)]
)
def test_a_priority_is_a_word_or_a_number(said, number):
    assert priority_number(said) == number


@pytest.mark.parametrize("said", [0, 11, "0", "11", "soon", "", "-1", "\u00b2"])
def test_another_priority_is_refused(said):
    with pytest.raises(RelayqError, match="a priority is 1 to 10 or one of low, normal"):
        priority_number(said)


# Specs


@pytest.mark.parametrize("spec", [SPEC, FULL], ids=["bare", "full"])
def test_a_spec_survives_json(spec):
    assert Spec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_the_full_spec_above_is_full():
    stored = json.loads(json.dumps(FULL.as_dict()))

    assert stored.keys() == {f.name for f in fields(FULL)} | {"v"}


def test_a_spec_stores_only_what_was_said():
    assert SPEC.as_dict().keys() == {"v", "id", "kind", "payload"}


def test_a_spec_of_a_newer_relayq_is_refused():
    with pytest.raises(ValueError, match="spec version 2, this relayq reads 1"):
        Spec.from_dict(SPEC.as_dict() | {"v": 2})
    with pytest.raises(ValueError, match="spec version None"):
        Spec.from_dict({"id": "x"})


def test_an_unknown_field_is_refused_and_not_ignored():
    with pytest.raises(ValueError, match="unknown spec fields: sandbox, user"):
        Spec.from_dict(SPEC.as_dict() | {"user": "root", "sandbox": True})


def test_a_spec_without_its_kind_is_refused():
    with pytest.raises(TypeError):
        Spec.from_dict({"v": 1, "id": "x"})


def test_a_spec_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SPEC.host = "mini"


def test_a_job_waits_in_its_hosts_queue_or_in_the_one_for_all():
    assert SPEC.queue == "any"
    assert replace(SPEC, host="pi4").queue == "host.pi4"
    want = "needs.ffmpeg,cuda=1,account=claude/default|codex/work,!pi*,on=pi4"
    assert FULL.queue == want


def test_an_unknown_kind_is_a_need_that_an_old_worker_does_not_serve():
    assert replace(SPEC, kind="transcode").queue == "needs.kind:transcode"


@pytest.mark.parametrize(
    ("queue", "target"),
    [
        ("any", "-"),
        ("host.pi4", "->pi4"),
        ("needs.ffmpeg", "-"),
        ("needs.ffmpeg,on=@heavy|mac*", "->@heavy|mac*"),
        ("with.abd200000000", "-"),
    ],
)
def test_a_queued_job_says_where_it_is_meant_to_run(queue, target):
    assert replace(RECORD, queue=queue).target == target


# Records


def test_a_duration_needs_both_instants():
    assert RECORD.duration is None
    assert replace(RECORD, started_at=10.0).duration is None
    assert replace(RECORD, started_at=10.0, finished_at=12.5).duration == 2.5


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({}, "-"),
        ({"queue": "host.pi4"}, "->pi4"),
        ({"queue": "host.pi4", "host": "pi4"}, "->pi4"),
        ({"state": JobState.RUNNING, "host": "mini"}, "mini"),
        ({"state": JobState.LOST, "queue": "host.pi4", "host": "pi4"}, "pi4"),
        ({"state": JobState.SUCCEEDED, "host": "mini"}, "mini"),
        ({"state": JobState.QUEUED, "host": "mini"}, "-"),
        ({"state": JobState.SCHEDULED, "host": "mini"}, "-"),
        ({"state": JobState.CANCELLED, "queue": "host.pi4"}, "->pi4"),
    ],
)
def test_a_record_says_where_it_runs_or_is_meant_to(changes, target):
    assert replace(RECORD, **changes).target == target


def test_a_record_is_a_dictionary_that_json_can_hold():
    record = replace(RECORD, spec=FULL, started_at=1.0, finished_at=3.0)

    shown = json.loads(json.dumps(record.as_dict()))

    assert shown.keys() == {f.name for f in fields(JobRecord)} | {"duration"}
    assert (shown["state"], shown["duration"], shown["spec"]["host"]) == ("queued", 2.0, "pi4")
    assert json.loads(json.dumps(RECORD.as_dict()))["spec"] is None


# Outcomes


@pytest.mark.parametrize(
    ("output", "size", "dropped", "whole"),
    [
        (b"", 0, 0, True),
        (b"abc", 3, 0, True),
        (b"", 100_000, 0, False),
        (b"abc", 3, 5, False),
        (b"", 0, 5, False),
    ],
)
def test_an_outcome_knows_whether_it_has_the_whole_output(output, size, dropped, whole):
    outcome = Outcome(
        id="x",
        attempt=1,
        uid="u",
        host="pi4",
        state=JobState.SUCCEEDED,
        reason="exit",
        output=output,
        output_bytes=size,
        dropped_bytes=dropped,
    )

    assert outcome.is_whole is whole
    assert "output=b" not in repr(outcome)
