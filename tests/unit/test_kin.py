"""The jobs that a job may know."""

from __future__ import annotations

import pytest

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.jobs import JobRecord, JobState, Spec
from relayq.model.kin import Kin

OWN = Spec(id="0wn000000000", kind="run_command", payload={})


def record(id, *, ancestors=(OWN.id,), at=0.0, **fields):
    spec = Spec(id=id, kind="run_command", payload={}, ancestors=ancestors, **fields)
    return JobRecord(id, "run_command", JobState.QUEUED, "any", 5, at, spec)


FIRST = record("aaaa00000000", at=1.0, name="build", group="g")
SECOND = record("aaab00000000", at=2.0, name="build", group="g")
GRANDCHILD = record("cccc00000000", at=3.0, ancestors=(OWN.id, FIRST.id))
STRANGER = record("dddd00000000", at=4.0, ancestors=())
KIN = Kin(OWN)
FAMILY = KIN.among([FIRST, STRANGER, SECOND, GRANDCHILD])


def test_a_jobs_kin_are_its_descendants_the_newest_first():
    assert FAMILY == [GRANDCHILD, SECOND, FIRST]
    assert Kin(FIRST.spec).among(FAMILY) == [GRANDCHILD]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("last", [GRANDCHILD.id]),
        ("last~2", [FIRST.id]),
        ("build", [SECOND.id]),
        ("@g", [FIRST.id, SECOND.id]),
        ("g[2]", [SECOND.id]),
        ("cccc", [GRANDCHILD.id]),
        (OWN.id, [OWN.id]),
    ],
)
def test_selectors_mean_descendants_only(text, ids):
    assert KIN.select([text], FAMILY) == ids


@pytest.mark.parametrize("text", ["dddd", STRANGER.id, "last~3", "@h", "zzzz"])
def test_a_stranger_isnt_found(text):
    with pytest.raises(NoSuchJob, match="those that it submitted"):
        KIN.select([text], FAMILY)


def test_a_prefix_of_two_is_ambiguous():
    with pytest.raises(AmbiguousId):
        KIN.find("aaa", FAMILY)
