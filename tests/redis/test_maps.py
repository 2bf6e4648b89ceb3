"""What a map puts into the store, and what a worker makes of a batch's rest."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from relayq import JobFailed, as_completed, gather
from relayq.client import Relay
from relayq.errors import BrokerUnavailable, NoSuchJob, RelayqError
from relayq.host import givenback
from relayq.host.attempts import ClaimNote
from relayq.host.batching import GIVEN
from relayq.host.delivery import Attempt
from relayq.model import batches
from relayq.model.jobs import JobState
from relayq.session import Session
from tests.redis.fleet import spec


@pytest.fixture
def job(fleet, store, home):
    """What a program calls, on the test's own store."""
    relay = Relay(home=home)
    relay._session = Session(store, fleet.signer, print)
    return relay.job


@pytest.fixture
def batch(fleet, store, tmp_path):
    """A batch of four that runs, and the attempt as its worker has it."""
    made = batches.batch_of(spec(group="g"), [(n, f"echo {n}") for n in range(1, 5)], id="b" * 12)
    fleet.submit_all([made])
    token = fleet.host().start(made.id)
    note = ClaimNote(store.jobs.signed_spec(made.id), 0, 0)
    return Attempt(token, note, tmp_path)


def give_back(batch: Attempt, *numbers: int) -> None:
    (batch.directory / GIVEN).write_text(json.dumps({"items": numbers}))


def test_a_job_each_or_batches_of_a_group_with_their_items(job):
    singles = job.map("echo", "ab", group="few", labels=["x"], env={"A": "1"})
    many = job.map("echo", range(7), batch=3)

    [first, second] = [one.record.spec for one in singles.jobs]
    assert (first.payload["cmd"], second.payload["cmd"]) == ("echo a", "echo b")
    assert second.payload["env"] == {"A": "1", "RELAYQ_ITEM": "2"}
    assert (first.group, first.labels, first.meta["item"]) == ("few", ("x",), "1")
    specs = [one.record.spec for one in many.jobs]
    assert [batches.numbers_of(one) for one in specs] == [[1, 2, 3], [4, 5, 6], [7]]
    assert [one.kind for one in specs] == ["run_batch", "run_batch", "run_command"]
    assert {one.queue for one in specs} == {"any"}
    assert many.group.startswith("map-")


def test_a_limit_of_how_many_run_makes_chains(job):
    run = job.map("echo", range(5), concurrency=2)

    ids = [one.id for one in run.jobs]
    after = [one.record.spec.after_any for one in run.jobs]
    assert after == [(), (), (ids[0],), (ids[1],), (ids[2],)]
    assert [one.state for one in run.jobs] == ["queued"] * 2 + ["waiting"] * 3


def test_all_is_checked_before_the_first_is_queued(job):
    refused = {
        "a unique key means one job": {"unique": "x"},
        "can't travel together": {"batch": 5, "retries": 2},
        "a batch is a number": {"batch": "some"},
        "a halt is never": {"halt": "often"},
        "a map keeps a fact called item": {"meta": {"item": "x"}},
        "NUL": {"inputs": ["a", "b\0"]},
    }

    for said, asked in refused.items():
        with pytest.raises(RelayqError, match=said):
            job.map("echo", **{"inputs": range(9), **asked})
    assert not job.list()


def test_a_map_is_found_again_by_its_group_or_as_the_last(job, fleet):
    old = job.map("echo", "ab", group="g")
    new = job.map("echo", "abc", group="g")
    job.run("true")

    assert job.map_of("@g").id == job.map_of().id == new.id != old.id
    assert job.map_of("g").numbers == [1, 2, 3]
    with pytest.raises(NoSuchJob):
        job.map_of("other")


def test_what_a_batch_gives_back_becomes_jobs_below_it_once(batch, fleet, store):
    give_back(batch, 3, 4)
    given = givenback.of_attempt(store, fleet.signer, batch)

    given.look()
    givenback.of_attempt(store, fleet.signer, batch).submit()

    ids = [batches.id_of(batch.token.id, number) for number in (3, 4)]
    records = store.jobs.fetch_many(ids)
    assert fleet.states(*ids) == [JobState.QUEUED] * 2
    assert [one.spec.payload["cmd"] for one in records] == ["echo 3", "echo 4"]
    assert {(one.spec.group, one.spec.ancestors) for one in records} == {("g", (batch.token.id,))}
    assert Counter(store.lookup.select(["@g"])) == Counter([batch.token.id, *ids])
    assert fleet.signer.check_spec(store.jobs.signed_spec(ids[0]), id=ids[0])


def test_a_further_attempt_leaves_out_what_became_jobs(batch, fleet, store):
    give_back(batch, 4)
    givenback.of_attempt(store, fleet.signer, batch).look()
    fleet.host().release(batch.token)
    again = fleet.host().start(batch.token.id)
    said = fleet.record(again.id).spec

    left = givenback.left_of(store, said, again, said.payload)

    assert [number for number, _ in left["items"]] == [1, 2, 3]


def test_a_cancelled_batch_gives_nothing_back(batch, fleet, store):
    fleet.cancel(batch.token.id)
    give_back(batch, 3, 4)

    givenback.of_attempt(store, fleet.signer, batch).submit()

    assert store.lookup.select(["@g"]) == [batch.token.id]


def test_a_batch_whose_lease_is_open_keeps_its_outcome_until_it_can_give_back(batch, fleet, store):
    fleet.clock.advance(61)
    fleet.expire()
    give_back(batch, 4)
    given = givenback.of_attempt(store, fleet.signer, batch)

    with pytest.raises(BrokerUnavailable):
        given.submit()
    fleet.host().beat(batch.token)
    given.submit()

    assert fleet.state(batches.id_of(batch.token.id, 4)) is JobState.QUEUED


def test_many_jobs_are_taken_as_they_end_and_each_once(job, fleet):
    parent, last = job.run("true"), job.run("true", priority="low")
    rest = job.submit_many([{"cmd": f"echo {n}", "after": [parent]} for n in range(300)])
    ends = as_completed([last, *rest, rest[0]], timeout=20)

    fleet.host().run(parent.id, JobState.FAILED)
    early = [next(ends).id for _ in rest]
    fleet.host().run(last.id)

    assert set(early) == {one.id for one in rest}
    assert [one.id for one in ends] == [last.id]
    assert [type(one) for one in gather(*rest[:3], return_exceptions=True)] == [JobFailed] * 3
    with pytest.raises(JobFailed, match="upstream"):
        gather(last, *rest)
