"""Verdicts: what becomes of a job whose host went away, said no more, or says that it is gone."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from relayq.model.jobs import JobState, Token
from tests.redis.fleet import LEASE, LOST_MIN

UNCOUNTED = 5  #: claims that never started, before one counts as lost


def test_a_started_job_without_beats_is_lost_first(fleet, store):
    token = fleet.host().start(fleet.submit())
    fleet.clock.advance(LEASE + 1)

    assert fleet.tick() == [("expired", token.id)]

    record = fleet.record(token.id)
    assert (record.state, record.phase, record.host) == (JobState.LOST, "started", "pi4")
    assert fleet.pending_end(token.id) == {}
    assert fleet.host("mini").ask() == "none"


def test_on_lost_retry_queues_the_job_again(fleet):
    fleet.lose(fleet.host(), id := fleet.submit(on_lost="retry"))

    record = fleet.record(id)
    assert (record.state, record.losses, record.attempt) == (JobState.QUEUED, 1, 1)
    assert fleet.host("mini").start(id).attempt == 2


def test_on_lost_retry_gives_up_at_the_crash_limit(fleet):
    host = fleet.host()
    id = fleet.submit(on_lost="retry")

    for _ in range(2):
        fleet.lose(host, id)
        assert fleet.state(id) is JobState.QUEUED
    fleet.lose(host, id)

    record = fleet.record(id)
    assert (record.state, record.reason, record.losses) == (JobState.FAILED, "lost", 3)
    assert id in fleet.pending_end(id)


@pytest.mark.parametrize(
    ("on_lost", "state"), [("ask", JobState.NEEDS_HUMAN), ("fail", JobState.FAILED)]
)
def test_on_lost_ask_and_fail_never_run_it_again(fleet, on_lost, state):
    fleet.lose(fleet.host(), id := fleet.submit(on_lost=on_lost))

    record = fleet.record(id)
    assert (record.state, record.reason) == (state, "lost")
    assert id in fleet.pending_end(id)
    assert fleet.host("mini").ask() == "none"


def test_a_claim_that_never_started_goes_back_at_once(fleet):
    token = fleet.host().claim(fleet.submit(on_lost="fail"))

    assert fleet.expire() == [("expired", token.id)]

    record = fleet.record(token.id)
    assert (record.state, record.losses, record.host) == (JobState.QUEUED, 0, "pi4")


@pytest.mark.parametrize(
    ("on_lost", "state"),
    [
        ("retry", JobState.QUEUED),
        ("ask", JobState.NEEDS_HUMAN),
        ("fail", JobState.FAILED),
    ],
)
def test_a_claim_that_never_starts_is_uncounted_five_times_only(fleet, on_lost, state):
    host = fleet.host()
    id = fleet.submit(on_lost=on_lost)
    for _ in range(UNCOUNTED):
        host.claim(id)
        fleet.expire()
        assert (fleet.state(id), fleet.record(id).losses) == (JobState.QUEUED, 0)

    host.claim(id)
    fleet.expire()

    assert (fleet.state(id), fleet.record(id).losses) == (state, 1)


def test_no_job_is_claimed_for_ever(fleet):
    host = fleet.host()
    id = fleet.submit()

    for _ in range(UNCOUNTED + 3):
        host.claim(id)
        fleet.expire()

    assert fleet.state(id) is JobState.FAILED
    assert host.ask() == "none"


def test_a_persons_retry_begins_the_count_anew(fleet):
    host = fleet.host()
    id = fleet.submit(on_lost="fail")
    for _ in range(UNCOUNTED + 1):
        host.claim(id)
        fleet.expire()
    assert fleet.state(id) is JobState.FAILED

    fleet.retry(id)
    host.claim(id)
    fleet.expire()

    assert (fleet.state(id), fleet.record(id).losses) == (JobState.QUEUED, 0)


# Mistakes that a model of the protocol found in its drafts


@pytest.mark.parametrize("on_lost", ["retry", "ask", "fail"])
def test_after_the_verdict_the_same_token_is_kept_out_by_the_state(fleet, store, on_lost):
    host = fleet.host()
    lost = fleet.lose(host, fleet.submit(on_lost=on_lost))
    state = fleet.state(lost.id)

    assert host.beat(lost) == ["stale"]
    assert host.park(lost) == "ok"
    assert host.release(lost) == "stale"
    assert host.finish(lost, output=b"too late") == "stale"

    record = fleet.record(lost.id)
    assert (record.state, record.attempt) == (state, lost.attempt)
    assert store.jobs.outcome(lost.id) is None
    assert store.connection.exists(fleet.key("late", lost.id))


@pytest.mark.parametrize("phase", ["claimed", "started"])
def test_a_claim_that_expired_before_its_first_beat_may_not_start(fleet, phase):
    host = fleet.host()
    token = host.claim(fleet.submit())
    fleet.expire()

    assert host.beat(token, phase=phase) == ["stale"]

    record = fleet.record(token.id)
    assert (record.state, record.started_at) == (JobState.QUEUED, None)


def test_a_host_that_claims_its_own_lost_job_again_holds_one_attempt_of_it(fleet):
    host = fleet.host()
    old = host.claim(fleet.submit())
    fleet.expire()
    new = host.claim(old.id)

    assert host.beat(old, new) == ["stale", "ok"]
    assert host.register() == ("ok", [new])


def test_a_beat_before_the_verdict_calls_the_verdict_off(fleet):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost="fail"))
    fleet.expire()
    host.beat(token)

    for _ in range(60):
        fleet.clock.advance(LEASE / 4)
        host.beat(token)
        assert fleet.tick() == []

    assert fleet.state(token.id) is JobState.RUNNING


@pytest.mark.parametrize("on_lost", ["retry", "ask", "fail"])
def test_any_number_of_reapers_come_to_one_verdict(fleet, on_lost):
    token = fleet.host().start(fleet.submit(on_lost=on_lost))
    for advance in (LEASE + 1, 901):
        fleet.clock.advance(advance)
        with ThreadPoolExecutor(4) as reapers:
            done = [
                pair for answer in reapers.map(lambda _: fleet.tick(), range(8)) for pair in answer
            ]
        assert len(done) == 1

    assert fleet.record(token.id).losses == 1


def test_a_poisonous_job_is_a_dead_letter_and_the_others_go_on(fleet):
    host = fleet.host()
    poison = fleet.submit(priority=10)
    other = fleet.submit()

    while (token := host.claim()).id == poison:
        host.beat(token)
        fleet.expire()
        fleet.judge()

    assert (fleet.state(poison), token.id) == (JobState.FAILED, other)
    assert fleet.record(poison).attempt == 3


# How long a job stays lost


@pytest.mark.parametrize(
    ("run_time", "wait"),
    [(0, LOST_MIN), (200, LOST_MIN), (2000, 200), (8000, 800), (20_000, 900), (200_000, 900)],
)
def test_a_lost_job_is_waited_for_a_tenth_of_its_run_time(fleet, run_time, wait):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.clock.advance(run_time)
    host.beat(token)
    fleet.clock.advance(LEASE + 1)
    fleet.tick()
    # The run time counts up to the moment when the loss is noticed.
    wait = max(LOST_MIN, min(900, (run_time + LEASE + 1) / 10)) if wait != 900 else wait

    fleet.clock.advance(wait - 2)
    assert fleet.tick() == []
    fleet.clock.advance(4)
    assert fleet.tick() == [("judged", token.id)]


# The host itself reports it gone


def test_a_host_that_reports_an_attempt_gone_gets_the_verdict_at_once(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())

    assert host.lose(token) == "queued"

    assert fleet.record(token.id).losses == 1
    assert host.register() == ("ok", [])


@pytest.mark.parametrize(("on_lost", "state"), [("ask", "needs_human"), ("fail", "failed")])
def test_a_reported_loss_follows_on_lost(fleet, on_lost, state):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost=on_lost))

    assert host.lose(token) == state
    assert fleet.record(token.id).reason == "lost"


def test_a_reported_loss_needs_no_wait_in_lost_either(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.expire()

    assert host.lose(token) == "queued"


def test_a_reported_loss_of_a_claim_that_never_started_is_uncounted(fleet):
    host = fleet.host()
    token = host.claim(fleet.submit(on_lost="fail"))

    assert host.lose(token) == "queued"
    assert fleet.record(token.id).losses == 0


def test_a_loss_is_reported_once(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    host.lose(token)

    assert host.lose(token) == "stale"
    assert fleet.record(token.id).losses == 1


def test_the_loss_of_an_old_attempt_does_not_touch_the_next(fleet):
    host = fleet.host()
    lost = fleet.lose(host, fleet.submit())
    fleet.host("mini").start(lost.id)

    assert host.lose(lost) == "stale"
    assert fleet.state(lost.id) is JobState.RUNNING


def test_an_unknown_attempt_cannot_be_lost(fleet):
    assert fleet.host().lose(Token("nosuchjob000", 1, "uid")) == "gone"


# An attempt that may still run somewhere: no overlap for ask and fail


@pytest.fixture(params=["ask", "fail"])
def orphan(request, fleet):
    """The token of an attempt that was judged lost while its host was away."""
    return fleet.lose(fleet.host(), fleet.submit(on_lost=request.param))


def test_a_retry_is_refused_while_the_lost_attempt_may_still_run(fleet, orphan):
    assert fleet.retry(orphan.id) == ("orphan", "pi4")
    assert fleet.state(orphan.id) in (JobState.NEEDS_HUMAN, JobState.FAILED)


def test_a_retry_is_allowed_once_the_host_has_reported_the_attempt_gone(fleet, orphan):
    host = fleet.host()

    assert host.lose(orphan) == "stale"

    assert fleet.retry(orphan.id) == ("queued", None)


def test_a_retry_is_not_allowed_by_a_report_on_another_attempt(fleet, orphan):
    host = fleet.host()

    host.lose(Token(orphan.id, orphan.attempt, "another uid"))

    assert fleet.retry(orphan.id) == ("orphan", "pi4")


def test_a_retry_is_not_allowed_because_the_worker_restarted(fleet, orphan):
    assert fleet.host().register() == ("ok", [])

    assert fleet.retry(orphan.id) == ("orphan", "pi4")


def test_a_retry_is_allowed_once_the_host_has_rebooted(fleet, orphan):
    fleet.host().rebooted().register()

    assert fleet.retry(orphan.id) == ("queued", None)


def test_a_retry_is_not_allowed_because_another_machine_took_the_name(fleet, orphan):
    fleet.clock.advance(LEASE + 1)
    fleet.host(install="another card", boot="boot of another machine")

    assert fleet.retry(orphan.id) == ("orphan", "pi4")


def test_a_person_who_knows_better_may_force_the_retry(fleet, orphan):
    assert fleet.retry(orphan.id, force=True) == ("queued", None)
    assert fleet.host("mini").start(orphan.id).attempt == 2


def test_a_forced_retry_is_no_licence_for_the_next_one(fleet, orphan):
    fleet.retry(orphan.id, force=True)
    fleet.lose(fleet.host("mini"), orphan.id)

    assert fleet.retry(orphan.id) == ("orphan", "mini")


def test_a_lost_job_that_a_person_resolved_is_guarded_too(fleet):
    lost = fleet.lose(fleet.host(), fleet.submit(on_lost="ask"))
    fleet.resolve(lost.id, JobState.FAILED)

    assert fleet.retry(lost.id) == ("orphan", "pi4")


@pytest.mark.parametrize("on_lost", ["ask", "fail"])
def test_a_lost_job_whose_verdict_was_a_cancel_is_guarded_too(fleet, on_lost):
    token = fleet.host().start(fleet.submit(on_lost=on_lost))
    fleet.cancel(token.id)
    fleet.expire()
    fleet.judge()

    assert fleet.state(token.id) is JobState.CANCELLED
    assert fleet.retry(token.id) == ("orphan", "pi4")


def test_a_retry_after_a_loss_that_the_host_reported_needs_no_force(fleet):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost="ask"))
    host.lose(token)

    assert fleet.retry(token.id) == ("queued", None)


def test_a_job_with_on_lost_retry_may_overlap_and_is_never_refused(fleet):
    host = fleet.host()
    id = fleet.submit(on_lost="retry")
    for _ in range(3):
        fleet.lose(host, id)

    assert fleet.retry(id) == ("queued", None)
