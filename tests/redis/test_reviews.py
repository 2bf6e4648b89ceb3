"""A person's word on jobs: what waits for one, what failed, and what the word does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.client import Relay
from relayq.errors import Conflict, RelayqError
from relayq.model.jobs import JobState, Outcome
from relayq.model.output import STDERR, STDOUT, frame
from relayq.reviews import failures, only_failed, waiting
from relayq.session import Session
from tests.redis.scenes import reach


@pytest.fixture
def job(fleet, store, home):
    """What a program calls, on the test's own store."""
    relay = Relay(home=home)
    relay._session = Session(store, fleet.signer, print)
    return relay.job


def asked(fleet, host, **options):
    """Return the id of a job that was lost, and whose submitter wanted to be asked."""
    return fleet.lose(host, fleet.submit(on_lost="ask", **options)).id


def failed(host, id, *, output=b"", **options):
    """Let a job fail on its host."""
    return host.finish(host.start(id), JobState.FAILED, output=output, **options)


# What waits


def test_nothing_waits_where_nothing_was_asked(fleet, job):
    reach(fleet, JobState.FAILED)

    assert waiting(job) == []


def test_a_lost_job_says_what_is_known_of_its_host(fleet, job):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost="ask"))
    fleet.store.logs.append(token, 0, frame(STDOUT, 0.0, b"epoch 11\nepoch 12\n\n"))
    host.beat(token, load="{}")
    fleet.expire()
    fleet.judge()

    [one] = waiting(job)

    assert one.record.id == token.id
    assert "its host was lost" in one.question
    assert one.choices == ("done", "pending", "failed")
    assert one.last_line == "epoch 12"
    assert one.host_seen_at is not None
    assert (one.rebooted, one.may_run) == (False, True)


def test_a_reboot_of_the_host_is_told(fleet, job):
    host = fleet.host()
    asked(fleet, host)

    host.rebooted().register()

    [one] = waiting(job)
    assert (one.rebooted, one.may_run) == (True, False)


def test_another_machine_of_that_name_proves_nothing(fleet, job):
    host = fleet.host()
    asked(fleet, host)
    fleet.clock.advance(3600)

    fleet.host(install="another")

    [one] = waiting(job)
    assert (one.rebooted, one.may_run) == (None, True)


def test_an_attempt_that_its_host_reported_gone_runs_no_more(fleet, job):
    host = fleet.host()
    token = fleet.lose(host, fleet.submit(on_lost="ask"))

    host.lose(token)

    [one] = waiting(job)
    assert (one.rebooted, one.may_run) == (False, False)


def test_the_longest_waiting_comes_first(fleet, job):
    host = fleet.host()
    ids = [asked(fleet, host) for _ in range(3)]

    assert [one.record.id for one in waiting(job)] == ids
    assert [one.record.id for one in waiting(job, limit=2)] == ids[1:]


# The word


@pytest.mark.parametrize(("verdict", "state"), [("done", "succeeded"), ("failed", "failed")])
def test_a_verdict_ends_the_job_and_its_notes_are_kept(fleet, job, verdict, state):
    id = asked(fleet, fleet.host())

    job.fetch(id).resolve(verdict, notes="looked at the file")

    record = fleet.record(id)
    assert (record.state, record.reason, record.note) == (state, "user", "looked at the file")
    assert id in fleet.pending_end(id)


def test_what_comes_after_a_job_that_was_resolved_as_done_goes_on(fleet, job):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost="ask"))
    after = fleet.submit(after=(token.id,))
    fleet.expire()
    fleet.judge()
    assert fleet.state(after) is JobState.WAITING

    job.fetch(token.id).resolve("done")

    assert fleet.state(after) is JobState.QUEUED


def test_what_comes_after_a_job_that_was_resolved_as_failed_fails(fleet, job):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost="ask"))
    after = fleet.submit(after=(token.id,))
    fleet.expire()
    fleet.judge()

    job.fetch(token.id).resolve("failed")

    record = fleet.record(after)
    assert (record.state, record.reason) == (JobState.FAILED, "upstream")


def test_pending_queues_the_job_again_with_the_notes(fleet, job):
    host = fleet.host()
    id = asked(fleet, host)
    host.rebooted().register()

    job.fetch(id).resolve("pending", notes="the disk is new")

    record = fleet.record(id)
    assert (record.state, record.losses, record.note) == (JobState.QUEUED, 0, "the disk is new")


def test_pending_is_refused_while_the_lost_attempt_may_still_run(fleet, job):
    id = asked(fleet, fleet.host())

    with pytest.raises(Conflict, match="may still run on pi4"):
        job.fetch(id).resolve("pending")
    assert fleet.state(id) is JobState.NEEDS_HUMAN

    job.fetch(id).resolve("pending", force=True)
    assert fleet.state(id) is JobState.QUEUED


@pytest.mark.parametrize("verdict", ["done", "pending", "failed"])
@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.QUEUED, JobState.SUCCEEDED])
def test_nothing_else_can_be_resolved(fleet, job, state, verdict):
    id = reach(fleet, state)

    with pytest.raises(Conflict, match=f"is {state}; only a job that waits for a person"):
        job.fetch(id).resolve(verdict)
    assert fleet.state(id) is state


def test_a_job_that_failed_by_itself_is_not_resolved_as_failed_once_more(fleet, job):
    id = reach(fleet, JobState.FAILED)

    with pytest.raises(Conflict, match="is failed"):
        job.fetch(id).resolve("failed", notes="late")
    assert fleet.record(id).note is None


def test_another_verdict_is_refused_with_those_that_there_are(fleet, job):
    id = asked(fleet, fleet.host())

    with pytest.raises(RelayqError, match="done, pending, failed, not 'perhaps'"):
        job.fetch(id).resolve("perhaps")


# What failed


def test_a_failure_shows_the_last_line_whichever_channel_it_came_by(fleet, job):
    host = fleet.host()
    output = frame(STDOUT, 0.0, b"10%\r20%\r30%\n") + frame(STDERR, 0.0, b"no such file\n \n")
    failed(host, first := fleet.submit(), output=output, exit_code=1)
    failed(host, second := fleet.submit(), output=frame(STDOUT, 0.0, b"1%\r99%"), exit_code=2)

    found = failures(job)

    assert [one.record.id for one in found] == [second, first]
    assert [one.last_line for one in found] == ["99%", "no such file"]
    assert [one.why for one in found] == ["exit 2", "exit 1"]
    assert found[0].advice == f"retry {second}"


def test_the_end_of_a_large_output_comes_from_the_brokers_log(fleet, job, store):
    host = fleet.host()
    token = host.start(fleet.submit())
    store.logs.append(token, 0, frame(STDOUT, 0.0, b"head\n"))
    store.logs.append(token, 5000, frame(STDOUT, 0.0, b"more\nthe end\n"))
    outcome = Outcome(
        token.id, 1, token.uid, "pi4", JobState.FAILED, "exit", exit_code=1, output_bytes=5040
    )
    store.leases.finish(
        token,
        JobState.FAILED,
        reason="exit",
        outcome=fleet.signer.sign_outcome(outcome),
        template="",
        exit_code=1,
    )

    assert failures(job)[0].last_line == "the end"


def test_a_forged_outcome_hides_no_other_failure(fleet, job, store):
    host = fleet.host()
    failed(host, forged := fleet.submit(), output=frame(STDOUT, 0.0, b"x\n"), exit_code=1)
    failed(host, honest := fleet.submit(), output=frame(STDOUT, 0.0, b"y\n"), exit_code=1)
    store.connection.set(fleet.key("outcome", forged), b"not signed")

    assert [(one.record.id, one.last_line) for one in failures(job)] == [
        (honest, "y"),
        (forged, ""),
    ]


def test_only_what_failed_lately_or_died_is_shown_on_demand(fleet, job):
    host = fleet.host()
    failed(host, old := fleet.submit(), exit_code=1)
    fleet.clock.advance(7200)
    dead = fleet.lose(host, fleet.submit(on_lost="fail")).id

    assert [one.record.id for one in failures(job)] == [dead, old]
    assert [one.record.id for one in failures(job, since=fleet.now() - 5000)] == [dead]
    assert [(one.record.id, one.is_dead) for one in failures(job, dead=True)] == [(dead, True)]
    assert [one.record.id for one in failures(job, limit=1)] == [dead]


def test_the_dead_are_told_from_those_that_failed(fleet, job):
    host = fleet.host()
    failed(host, by_itself := fleet.submit(), exit_code=1)
    dead = fleet.lose(host, fleet.submit(on_lost="fail")).id
    running = host.start(fleet.submit()).id
    results = [job.fetch(id) for id in (by_itself, dead, running)]

    assert [one.id for one in only_failed(job, results)] == [by_itself, dead]
    assert [one.id for one in only_failed(job, results, dead=True)] == [dead]


# The counts that the policies go by


def test_a_claim_knows_the_failures_and_the_losses_before_it(fleet):
    host = fleet.host()
    id = fleet.submit()
    host.finish(host.start(id), JobState.SCHEDULED, delay=0.0)
    fleet.clock.advance(1)
    fleet.tick()
    host.finish(host.start(id), JobState.SCHEDULED, delay=0.0, reason="host", counts="losses")
    fleet.clock.advance(1)
    fleet.tick()

    claim = host.ask()

    assert (claim.failures, claim.losses) == (1, 1)
    record = fleet.record(id)
    assert (record.failures, record.losses) == (1, 1)


def test_a_job_that_waits_for_its_retry_says_why(fleet):
    host = fleet.host()
    token = host.start(fleet.submit(retries=3))

    host.finish(token, JobState.SCHEDULED, delay=30.0, exit_code=75)

    record = fleet.record(token.id)
    assert (record.state, record.reason, record.exit_code) == (JobState.SCHEDULED, "exit", 75)
    assert (record.failures, record.losses, record.attempt) == (1, 0, 1)
    assert record.due_at is not None


def test_what_ends_by_a_cancel_adds_to_no_count(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.cancel(token.id)

    assert host.finish(token, JobState.SCHEDULED, delay=1.0) == JobState.CANCELLED

    assert fleet.record(token.id).failures == 0


# What is asked for


def test_a_job_without_retries_carries_no_policy(job):
    plan = job.plan("run_command", cmd="true")

    assert plan.retries == 0
    assert not {"backoff", "retry_on"} & set(plan.as_dict())


def test_a_policy_is_completed_from_the_configuration_where_it_is_submitted(job):
    relay = job.relay
    relay._config = replace(
        relay.config, retry=replace(relay.config.retry, base=2.0, cap=9.0, factor=3.0, max=5)
    )

    plain = job.plan("run_command", cmd="true", retries=1)
    unsaid = job.plan("run_command", cmd="true", retry_on="exit:75")
    said = job.plan("run_command", cmd="true", retries=2, backoff="1s..2s", retry_on=["timeout"])

    assert (plain.retries, plain.backoff, plain.backoff_factor) == (1, (2.0, 9.0), 3.0)
    assert (unsaid.retries, unsaid.retry_on) == (5, ("exit:75",))
    assert (said.retries, said.backoff, said.retry_on) == (2, (1.0, 2.0), ("timeout",))


def test_the_configuration_may_give_every_job_retries(job):
    relay = job.relay
    relay._config = replace(relay.config, defaults=replace(relay.config.defaults, retries=2))

    assert job.plan("run_command", cmd="true").retries == 2
    assert job.plan("run_command", cmd="true", retries=0).retries == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retries": -1}, "a job can't have -1 retries"),
        ({"backoff": "soon"}, "such as 1s..60s, not 'soon'"),
        ({"retry_on": "lost"}, "exit, signal, timeout, all"),
        ({"on_lost": "hope"}, "on_lost is one of retry, ask, fail"),
    ],
)
def test_a_wrong_policy_is_refused_at_once(job, options, error):
    with pytest.raises(RelayqError, match=error):
        job.run("true", **options)
