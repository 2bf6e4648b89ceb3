"""A run of an analysis: in which order its sessions start, and what follows from their ends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.model.analyses import (
    Pace,
    Part,
    Plan,
    Standing,
    Step,
    Wishes,
    derived,
    lanes,
    left,
    standing_of,
    step_after,
)
from relayq.model.jobs import ALPHABET, ID_LENGTH, JobRecord, JobState, Reason
from relayq.model.shards import Shard, SourceFile


def record(state, **known):
    return JobRecord("a" * 12, "run_agent", state, "any", 5, 0.0, **known)


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(1, 9))
def test_each_lane_is_a_chain_and_there_are_no_more_than_workers(weights, workers):
    after = lanes(weights, workers)

    followed = [one for one in after if one is not None]
    assert after.count(None) == min(workers, len(weights))
    assert len(set(followed)) == len(followed)
    assert all(one < number for number, one in enumerate(after) if one is not None)


def test_a_lane_with_a_large_shard_gets_the_fewer_others():
    after = lanes([900_000, 10_000, 10_000, 10_000, 10_000], 2)

    assert after == [None, None, 1, 2, 3]


def test_the_id_of_a_part_follows_from_the_job_that_it_takes_over():
    ids = {derived(job, number) for job in ("a" * 12, "b" * 12) for number in range(3)}

    assert len(ids) == 6
    assert derived("a" * 12, 1) == derived("a" * 12, 1)
    assert all(len(one) == ID_LENGTH and set(one) <= set(ALPHABET) for one in ids)


@pytest.mark.parametrize(
    ("error_class", "attempt", "files", "step"),
    [
        ("context_overflow", 1, 12, Step.HALVE),
        ("context_overflow", 1, 1, Step.NOTHING),
        ("output_limit", 2, 2, Step.HALVE),
        ("max_turns", 1, 12, Step.RESUME),
        ("max_turns", 2, 12, Step.HALVE),
        ("max_turns", 2, 1, Step.NOTHING),
        ("timed_out", 2, 12, Step.NOTHING),
        ("invalid", 1, 12, Step.NOTHING),
        (None, 1, 12, Step.NOTHING),
    ],
)
def test_what_a_session_could_not_hold_is_divided_down_to_one_file(
    error_class, attempt, files, step
):
    assert step_after(error_class, attempt=attempt, files=files) is step


@pytest.mark.parametrize(
    ("state", "known", "standing"),
    [
        (JobState.WAITING, {}, Standing.WAITING),
        (JobState.QUEUED, {}, Standing.WAITING),
        (JobState.SCHEDULED, {"attempt": 1}, Standing.PARKED),
        (JobState.RUNNING, {}, Standing.RUNNING),
        (JobState.LOST, {}, Standing.RUNNING),
        (JobState.NEEDS_HUMAN, {}, Standing.ASKS),
        (JobState.SUCCEEDED, {}, Standing.DONE),
        (JobState.FAILED, {"reason": "exit"}, Standing.FAILED),
        (JobState.FAILED, {"reason": Reason.HALTED}, Standing.CANCELLED),
        (JobState.CANCELLED, {}, Standing.CANCELLED),
    ],
)
def test_how_it_stands_with_a_shard_follows_from_its_job(state, known, standing):
    assert standing_of(record(state, **known)) is standing


def test_only_what_goes_on_by_itself_is_not_over():
    going = {one for one in Standing if not one.is_over}

    assert going == {Standing.WAITING, Standing.RUNNING, Standing.PARKED}


def test_sessions_to_come_are_expected_to_take_as_long_as_those_before_by_their_weight():
    pace = Pace(fixed=0).adding(10.0, 100).adding(20.0, 200)

    assert pace.expected(50) == pytest.approx(5.0)
    assert left(pace, [(100, 4.0)], [100, 100], 2) == pytest.approx((6.0 + 10.0 + 10.0) / 2)
    assert left(pace, [(1000, 0.0)], [], 5) == pytest.approx(100.0)


def test_nothing_is_expected_before_the_first_session_has_ended():
    assert Pace().expected(100) is None
    assert left(Pace(), [(100, 4.0)], [], 2) is None


def plan(**known):
    files = (SourceFile("auth/a.py", 10, "0" * 64, lines=3), SourceFile("auth/b.py", 20))
    part = Part(Shard("auth", files), "a" * 12)
    wishes = Wishes("claude", ext=("py",), asked={"on": ["mini"]})
    return Plan("r" * 12, "/code", "here", 1.5, "me@here", wishes, (part,), **known)


def test_a_plan_is_the_same_after_a_way_through_json():
    made = plan(cached={"c.py": "1" * 64}, left_out={"too large": 2}, commit="abc", is_dirty=True)

    assert Plan.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert (made.files, made.paths) == (3, {"auth/a.py", "auth/b.py", "c.py"})


def test_a_shard_that_is_done_afresh_has_another_job_and_the_plan_is_otherwise_the_same():
    made = plan().with_job("auth", "b" * 12)

    assert made.fresh == {"auth": "b" * 12}
    assert made.parts == plan().parts


@pytest.mark.parametrize("raw", [{}, {"v": 2}, {"v": 1}, {"v": 1, "wishes": 3, "parts": []}])
def test_what_is_no_plan_is_not_read_as_one(raw):
    with pytest.raises(ValueError, match="plan"):
        Plan.from_dict(raw)
