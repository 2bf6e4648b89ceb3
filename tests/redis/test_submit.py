"""submit: records and nudges are stored together, once."""

import json
from functools import partial

import pytest

from relayq.dispatch import TEMPLATE, Placed, message
from relayq.errors import NoSuchJob, RelayqError, WrongFleetKey
from relayq.model.jobs import JobState
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.jobs import BATCH, Submission
from tests.redis.fleet import Fleet, spec
from tests.waiting import until


def test_a_submitted_job_is_queued_with_its_signed_spec(fleet):
    one = spec(host="pi4", priority=8, name="greet", submitter="ann")

    placed = fleet.dispatcher.submit([one])

    record = fleet.record(one.id)
    assert placed == [Placed(one.id, JobState.QUEUED)]
    assert record.state is JobState.QUEUED
    assert (record.queue, record.priority, record.kind) == ("host.pi4", 8, "run_command")
    assert record.spec == one
    assert record.attempt == 0
    assert abs(record.created_at - fleet.now()) < 5


def test_a_batch_of_a_thousand_is_one_round_trip(fleet, store):
    specs = [spec() for _ in range(BATCH)]
    submissions = [Submission(one, fleet.signer.sign_spec(one)) for one in specs]

    words = store.jobs.submit(submissions, template=TEMPLATE, key_id=fleet.signer.key_id)

    assert words == ["queued"] * BATCH
    assert store.jobs.count()[JobState.QUEUED] == BATCH
    assert len(fleet.nudges()) == BATCH


def test_more_than_a_batch_in_one_call_is_refused(fleet, store):
    one = spec()
    submission = Submission(one, fleet.signer.sign_spec(one))

    with pytest.raises(ValueError, match="at most 1000"):
        store.jobs.submit([submission] * (BATCH + 1), template=TEMPLATE, key_id=fleet.signer.key_id)


def test_the_dispatcher_splits_what_is_more_than_a_batch(fleet, store):
    specs = [spec() for _ in range(BATCH + 2)]

    placed = fleet.dispatcher.submit(specs)

    assert placed == [Placed(one.id, JobState.QUEUED) for one in specs]
    assert store.jobs.count()[JobState.QUEUED] == BATCH + 2


def test_a_batch_is_stored_before_anybody_waits_for_it(fleet, store):
    fleet.dispatcher.submit([spec()])
    one = spec()
    submission = Submission(one, fleet.signer.sign_spec(one))

    answer = store.jobs.send([submission], template=TEMPLATE, key_id=fleet.signer.key_id)

    until(lambda: store.connection.exists(fleet.key("job", one.id)), what="the job to be stored")
    assert answer() == ["queued"]


def test_a_spec_that_cannot_be_signed_costs_no_batch_before_it_its_answer(fleet, store):
    specs = [*(spec() for _ in range(BATCH)), spec(payload={"cmd": object()})]

    with pytest.raises(TypeError):
        fleet.dispatcher.submit(specs)

    assert store.jobs.count()[JobState.QUEUED] == BATCH
    assert store.connection.ping()


def test_a_server_that_forgot_its_scripts_gets_them_again(fleet, store):
    fleet.dispatcher.submit([spec()])
    store.connection.script_flush()
    specs = [spec() for _ in range(BATCH + 1)]

    placed = fleet.dispatcher.submit(specs)

    assert placed == [Placed(one.id, JobState.QUEUED) for one in specs]
    assert len(fleet.nudges()) == len(specs) + 1


@pytest.mark.parametrize("moment", ["before it is sent", "before it is answered"])
def test_a_connection_that_breaks_under_a_submit_is_replaced(redis7, moment):
    with redis7.connect() as connection, redis7.connect() as other:
        connection.flushdb()
        signer, store, one = Signer(b"k" * 32), Store(connection, prefix="{test}:"), spec()
        submit = partial(
            store.jobs.send,
            [Submission(one, signer.sign_spec(one))],
            template=TEMPLATE,
            key_id=signer.key_id,
        )
        assert submit()() == ["queued"]

        if moment == "before it is sent":
            other.client_kill_filter(_type="normal", skipme=True)
        answer = submit()
        if moment == "before it is answered":
            other.client_kill_filter(_type="normal", skipme=True)

        assert answer() == ["exists"]


def test_submitting_nothing_is_harmless(fleet, store):
    assert fleet.dispatcher.submit([]) == []
    assert store.connection.dbsize() == 0


def test_a_repeated_submit_changes_nothing(fleet, store):
    one = spec()
    submission = Submission(one, fleet.signer.sign_spec(one))
    fleet.dispatcher.submit([one])
    before = store.connection.hgetall(fleet.key("job", one.id))

    words = store.jobs.submit([submission], template=TEMPLATE, key_id=fleet.signer.key_id)

    assert words == ["exists"]
    assert store.connection.hgetall(fleet.key("job", one.id)) == before
    assert len(fleet.nudges()) == 1


def test_a_repeated_submit_of_a_job_that_has_ended_does_not_run_it_again(fleet):
    one = spec()
    fleet.dispatcher.submit([one])
    fleet.host().run(one.id)

    fleet.dispatcher.submit([one])

    assert fleet.state(one.id) is JobState.SUCCEEDED


def test_another_spec_under_a_taken_id_is_a_clash(fleet):
    first = spec()
    fleet.dispatcher.submit([first])

    with pytest.raises(RelayqError, match="another job already has the id"):
        fleet.dispatcher.submit([spec(id=first.id, payload={"cmd": "other"})])

    assert fleet.record(first.id).spec == first


def test_a_client_with_another_fleet_key_is_refused_before_anything_is_stored(fleet, store, clock):
    fleet.submit()
    stranger = Fleet(store, clock, Signer(b"another key" * 4))

    with pytest.raises(WrongFleetKey):
        stranger.submit()

    assert sum(store.jobs.count().values()) == 1


def test_a_job_after_an_unknown_one_is_refused_and_the_rest_of_the_batch_stored(fleet, store):
    good, bad = spec(), spec(after=("nosuchjob000",))

    with pytest.raises(NoSuchJob, match="nosuchjob000"):
        fleet.dispatcher.submit([good, bad])

    assert fleet.state(good.id) is JobState.QUEUED
    assert not store.jobs.fetch_many([bad.id])


def test_a_job_cannot_come_after_itself(fleet):
    one = spec()

    with pytest.raises(NoSuchJob):
        fleet.submit(id=one.id, after=(one.id,))


def test_a_job_that_is_due_later_is_scheduled_and_nudges_nobody(fleet):
    id = fleet.submit(due_at=fleet.now() + 60)

    assert fleet.state(id) is JobState.SCHEDULED
    assert fleet.nudges() == []
    assert fleet.host().ask() == "none"


def test_a_follower_can_be_named_with_the_submit(fleet, store):
    one = spec()

    fleet.dispatcher.submit([one], replies=["reply-1"])

    assert store.logs.followers(one.id) == ["reply-1"]


def test_every_record_comes_with_one_nudge_on_its_queue_in_order(fleet):
    first, second = fleet.submit(), fleet.submit()
    elsewhere = fleet.submit(host="pi4")

    nudges = fleet.nudges()

    assert [nudge["headers"]["id"] for nudge in nudges] == [first, second]
    assert {nudge["headers"]["task"] for nudge in nudges} == {"relayq.run_command"}
    assert fleet.nudges("host.pi4") == [json.loads(message(elsewhere, "run_command", "host.pi4"))]


def test_a_nudge_has_what_a_stock_celery_worker_reads(fleet):
    id = fleet.submit(host="pi4")

    [nudge] = fleet.nudges("host.pi4")

    assert json.loads(nudge["body"]) == [[id], {}, {}]
    assert nudge["content-type"] == "application/json"
    assert nudge["content-encoding"] == "utf-8"
    assert nudge["headers"]["task"] == "relayq.run_command"
    assert nudge["headers"]["id"] == id
    assert nudge["properties"]["delivery_info"] == {"exchange": "", "routing_key": "host.pi4"}
    assert nudge["properties"]["delivery_tag"] == id


def test_a_nudge_can_be_pushed_again_and_is_then_the_next(fleet, store):
    first, second = fleet.submit(), fleet.submit()

    store.jobs.nudge("any", message(second, "run_command", "any"))

    assert [nudge["headers"]["id"] for nudge in fleet.nudges()] == [second, first, second]


def test_what_the_scripts_put_into_a_nudge_comes_out_as_it_was(fleet):
    id = fleet.submit(host="odd%1host")

    [nudge] = fleet.nudges("host.odd%1host")

    assert nudge["headers"] == {"task": "relayq.run_command", "id": id}
    assert nudge["properties"]["delivery_info"]["routing_key"] == "host.odd%1host"
