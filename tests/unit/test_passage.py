"""What passes between a job and its worker."""

from __future__ import annotations

import json

import pytest

from relayq import passage
from relayq.errors import NoSuchJob, RelayqError, Unplaceable
from relayq.model.events import Event
from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState, Spec
from relayq.model.progress import Progress
from relayq.store.inputs import InputPiece
from relayq.store.logs import Piece

SPEC = Spec(id="a" * 12, kind="run_command", payload={"cmd": ["a", "b"]}, after=("b" * 12,))
RECORD = JobRecord(
    id="a" * 12,
    kind="run_command",
    state=JobState.RUNNING,
    queue="any",
    priority=5,
    created_at=1.5,
    spec=SPEC,
    progress=Progress(0.5, "half"),
)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2.5, "text", True],
        b"\0\xff",
        {"a": ("b", b"c")},
        {"!": "a key of somebody's"},
        RECORD,
        Event(id="1-0", at=1.0, what="claimed"),
        Host("pi4", "i", "b", 2, 1.0, True, facts={"labels": ["x"]}),
        ([Piece(1, 0, b"frames", b"1-1", end=3)], b"outcome", True),
        InputPiece(4, b"data", size=(24, 80)),
    ],
)
def test_a_value_arrives_as_it_was(value):
    assert passage.unpacked(json.loads(json.dumps(passage.packed(value)))) == value


@pytest.mark.parametrize(
    "value", [{"!": "Popen", "of": {}}, {"!": "Spec", "of": {"no": 1}}, {"no": 1}, {"!": "state"}]
)
def test_what_is_never_sent_is_refused(value):
    with pytest.raises(ValueError, match="state|nothing|unexpected|None"):
        passage.unpacked(value)


def test_an_error_arrives_as_its_kind_where_that_makes_a_difference():
    gone = passage.error_in(passage.refused(NoSuchJob("no such job: x", hint="relayq ps")))
    nowhere = passage.error_in(passage.refused(Unplaceable("no host", missing={})))

    assert (type(gone), gone.message, gone.hint) == (NoSuchJob, "no such job: x", "relayq ps")
    assert (type(nowhere), nowhere.message) == (RelayqError, "no host")
