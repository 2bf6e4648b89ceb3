"""A run of a workflow in the store: its record, a cancel and a rerun of all its jobs."""

import pytest

from relayq.dispatch import TEMPLATE
from relayq.errors import AmbiguousId, Conflict, NoSuchJob
from relayq.model.halts import Halt
from relayq.model.jobs import JobState, Spec
from relayq.store.flows import FlowRecord, group_of
from tests.redis.fleet import spec

# The scripts know no difference between versions here: tests/redis/test_moves.py meets them all.
pytestmark = pytest.mark.parametrize("connection", ["redis7", "fakeredis"], indirect=True)

WAITING, QUEUED, RUNNING = JobState.WAITING, JobState.QUEUED, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
FLOW = "f10w00000001"


def step(flow=FLOW, **options):
    return spec(group=group_of(flow), flow=flow, **options)


def submit(fleet, *specs, flow=FLOW, halts=(), **fields):
    fleet.dispatcher.submit(specs, flow=FlowRecord(flow, "release", **fields), halts=halts)
    return [one.id for one in specs]


def chain(fleet, n=3, **options):
    """Submit n steps, each after the one before; return their ids."""
    specs = [step(**options)]
    for _ in range(n - 1):
        specs.append(step(after=(specs[-1].id,), **options))
    return submit(fleet, *specs)


def test_a_run_is_kept_as_it_was_submitted(fleet, store):
    graph = {"build": {"needs": [], "jobs": ["x"]}}

    ids = submit(fleet, step(), step(), source="jobs: {}", graph=graph, submitter="ann@mac")

    record = store.flows.fetch(FLOW)
    assert (record.name, record.source, record.graph) == ("release", "jobs: {}", graph)
    assert (record.submitter, record.cancelled_at) == ("ann@mac", None)
    assert record.created_at == pytest.approx(fleet.now(), abs=60)
    assert store.flows.members(FLOW) == ids
    assert store.flows.states(FLOW) == dict.fromkeys(ids, QUEUED)


def test_runs_are_found_by_id_prefix_name_and_age(fleet, store):
    submit(fleet, step())
    fleet.clock.advance(1)
    submit(fleet, step("f10w00000002"), flow="f10w00000002")

    assert [one.id for one in store.flows.list()] == ["f10w00000002", FLOW]
    assert store.flows.find(FLOW) == FLOW
    assert store.flows.find("F1OW00000002"[:12]) == "f10w00000002"
    assert store.flows.find("release") == store.flows.find("last") == "f10w00000002"
    with pytest.raises(AmbiguousId):
        store.flows.find("f10w")
    for text in ("nothing", "zzz"):
        with pytest.raises(NoSuchJob, match="no such run"):
            store.flows.find(text)
    for ask in (store.flows.fetch, store.flows.cancel, store.flows.forget):
        with pytest.raises(NoSuchJob, match="no such run"):
            ask("nosuchrun000")


def test_a_run_goes_with_the_last_of_its_jobs(fleet, store):
    first, second = submit(fleet, step(), step())
    fleet.cancel(first)
    assert store.flows.forget(FLOW) == 1
    assert store.flows.fetch(FLOW).name == "release"

    fleet.cancel(second)
    assert store.flows.forget(FLOW) == 1

    assert store.flows.list() == []
    assert not store.connection.exists(fleet.key("flow", FLOW))


def test_a_thousand_steps_go_in_one_call(fleet, store):
    specs = [step()]
    for i in range(999):
        specs.append(step(after=tuple(one.id for one in specs[max(0, i - 3) : i + 1])))
    calls = []
    call = store.jobs._scripts.send
    store.jobs._scripts.send = lambda *args, **options: (
        calls.append(args[0]) or call(*args, **options)
    )

    ids = submit(fleet, *specs)

    assert calls == ["submit"]
    assert list(store.flows.states(FLOW).values()) == [QUEUED] + [WAITING] * 999
    fleet.host().run(ids[0], FAILED)
    assert set(store.flows.states(FLOW).values()) == {FAILED}


# Cancel


def test_a_cancel_of_a_run_starts_nothing_that_only_waited_for_an_end(fleet, store):
    host = fleet.host()
    first = step()
    tidy = step(after=(first.id,), when="always")
    beside = step()
    submit(fleet, first, tidy, beside)
    token = host.start(first.id)

    said = store.flows.cancel(FLOW)

    assert said == [(first.id, "asked"), (tidy.id, "cancelled"), (beside.id, "cancelled")]
    assert host.ask() == "none"
    assert host.finish(token) == CANCELLED
    assert host.ask() == "none"
    assert store.flows.fetch(FLOW).cancelled_at is not None
    assert store.flows.cancel(FLOW) == [(one.id, "cancelled") for one in (first, tidy, beside)]


def test_what_joins_a_cancelled_run_is_cancelled_at_once(fleet, store):
    submit(fleet, step())
    store.flows.cancel(FLOW)

    [late] = submit(fleet, step())

    assert fleet.record(late).state is CANCELLED


def test_what_comes_after_a_cancelled_run_elsewhere_fails_or_starts(fleet, store):
    [one] = submit(fleet, step())
    after, whatever = fleet.submit(after=(one,)), fleet.submit(after_any=(one,))

    store.flows.cancel(FLOW)

    assert fleet.states(after, whatever) == [FAILED, QUEUED]


# Rerun


def test_a_rerun_goes_on_from_the_step_that_failed(fleet, store):
    host = fleet.host()
    first, second, third = chain(fleet)
    host.run(first)
    host.run(second, FAILED)
    assert fleet.state(third) is FAILED

    assert fleet.dispatcher.rerun([first, second, third], flow=FLOW) == (second, third)

    assert fleet.states(first, second, third) == [SUCCEEDED, QUEUED, WAITING]
    host.run(second)
    host.run(third)
    assert fleet.state(third) is SUCCEEDED


def test_a_rerun_takes_along_what_ran_after_a_failure(fleet, store):
    host = fleet.host()
    first = step()
    tell = step(after=(first.id,), when="failure", priority=10)
    tidy = step(after=(first.id,), when="always")
    ids = submit(fleet, first, tell, tidy)
    host.run(first.id, FAILED)
    host.run(tell.id)
    host.run(tidy.id)

    assert fleet.dispatcher.rerun(ids) == tuple(ids)

    host.run(first.id)
    assert fleet.record(tell.id).reason == "skipped"
    assert store.jobs.outcome(tell.id) is None
    assert fleet.state(tidy.id) is QUEUED


def test_a_rerun_after_a_cancel_lets_the_run_go_on(fleet, store):
    ids = chain(fleet)
    store.flows.cancel(FLOW)

    assert fleet.dispatcher.rerun(ids, flow=FLOW) == tuple(ids)

    assert fleet.states(*ids) == [QUEUED, WAITING, WAITING]
    assert store.flows.fetch(FLOW).cancelled_at is None


def test_a_rerun_is_refused_whole_while_one_of_its_jobs_is_not_ended(fleet, store):
    host = fleet.host()
    first, second = submit(fleet, step(), step())
    tidy = step(after=(first,), when="always")
    submit(fleet, tidy)
    host.run(first, FAILED)
    host.start(second)
    host.start(tidy.id)

    with pytest.raises(Conflict, match=f"{tidy.id} is running"):
        fleet.dispatcher.rerun([first, second, tidy.id])

    assert fleet.states(first, second, tidy.id) == [FAILED, RUNNING, RUNNING]


def test_a_rerun_is_refused_while_an_attempt_may_still_run_unless_it_is_forced(fleet):
    [one] = submit(fleet, step(on_lost="fail"))
    fleet.lose(fleet.host(), one)

    with pytest.raises(Conflict, match="may still run on pi4"):
        fleet.dispatcher.rerun([one])

    assert fleet.dispatcher.rerun([one], force=True) == (one,)


def test_a_rerun_waits_for_nobody_who_has_the_same_unique_key(fleet):
    [one] = submit(fleet, step(unique="release"))
    fleet.cancel(one)
    other = fleet.submit(unique="release")

    with pytest.raises(Conflict, match=other):
        fleet.dispatcher.rerun([one])


def test_a_rerun_lets_what_failed_by_others_than_its_own_be(fleet):
    outside = fleet.submit()
    [one] = submit(fleet, step(after=(outside,)))
    fleet.host().run(outside, FAILED)

    assert fleet.dispatcher.rerun([one]) == ()

    assert fleet.state(one) is FAILED


def test_a_rerun_counts_halts_anew(fleet):
    host = fleet.host()
    first, second = (step(halts=(FLOW,)) for _ in range(2))
    ids = submit(fleet, first, second, halts=[Halt(FLOW)])
    host.run(first.id, FAILED)
    assert fleet.states(*ids) == [FAILED, CANCELLED]

    fleet.dispatcher.rerun(ids)
    host.run(first.id)
    assert fleet.states(*ids) == [SUCCEEDED, QUEUED]
    fleet.dispatcher.submit([third := step(halts=(FLOW,))])
    host.run(second.id, FAILED)

    assert fleet.state(third.id) is CANCELLED


def test_a_rerun_leaves_a_persons_word_with_each_job_that_runs_again(fleet, store):
    ids = chain(fleet)
    fleet.host().run(ids[0], FAILED)

    fleet.dispatcher.rerun(ids)

    signer = fleet.dispatcher.signer
    for id in ids:
        assert signer.check_consent(store.jobs.consent(id)).covers(Spec(id, "run_command", {}))
    assert store.jobs.consent(fleet.submit()) is None


def test_a_rerun_of_nothing_changes_nothing(fleet, store):
    ids = chain(fleet)

    found = store.flows.rerun(ids, template=TEMPLATE)

    assert (found.word, found.ids) == ("ok", ())
    assert fleet.states(*ids) == [QUEUED, WAITING, WAITING]
