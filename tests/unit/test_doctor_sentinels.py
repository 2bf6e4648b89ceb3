"""What doctor says of a broker on several machines."""

import pytest

from relayq.doctor.findings import Level
from relayq.doctor.sentinels import examine_sentinels, judge_replicas, judge_sentinels

A, B = "10.0.0.1:6379", "10.0.0.2:6379"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"a": A, "b": A, "c": A}, [(Level.OK, f"3 of 3 sentinels name {A}")]),
        (
            {"a": A, "b": A, "c": None},
            [
                (Level.WARNING, "the sentinel c doesn't answer"),
                (Level.OK, f"2 of 3 sentinels name {A}"),
            ],
        ),
        (
            {"a": A, "b": None, "c": None},
            [
                (Level.WARNING, "the sentinel b doesn't answer"),
                (Level.WARNING, "the sentinel c doesn't answer"),
                (Level.PROBLEM, "1 of 3 sentinels answer: too few for a failover"),
            ],
        ),
        (
            {"a": A, "b": B, "c": B},
            [(Level.WARNING, f"the sentinels disagree who is the primary: {A}, {B}")],
        ),
        (
            {"a": A},
            [
                (Level.WARNING, "1 sentinels can't agree that a machine is gone"),
                (Level.OK, f"1 of 1 sentinels name {A}"),
            ],
        ),
    ],
)
def test_sentinels_must_answer_and_agree(named, expected):
    assert [(one.level, one.text) for one in judge_sentinels("broker", named)] == expected


@pytest.mark.parametrize(
    ("replicas", "needed", "level", "text"),
    [
        (2, 1, Level.OK, "2 replicas have what the primary has, of which 1 must"),
        (1, 1, Level.WARNING, "1 replica has what the primary has, and 1 must: no further machine"),
        (0, 1, Level.PROBLEM, "0 replicas have what the primary has, and 1 must: it takes no new"),
        (2, 0, Level.WARNING, "no answer waits for one"),
    ],
)
def test_a_further_replica_must_be_there_to_be_lost(replicas, needed, level, text):
    [found] = judge_replicas("broker", replicas, needed=needed)

    assert found.level is level
    assert text in found.text


def test_one_machine_has_no_sentinels_to_ask():
    assert list(examine_sentinels("broker", None, 0)) == []
    assert list(examine_sentinels("broker", "redis://mini", 0)) == []
