"""What jobs ask people: signed replies, parked jobs that go on, questions from a running job."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from relayq.dispatch import TEMPLATE
from relayq.errors import BadSignature, Conflict, NoSuchJob
from relayq.model.jobs import JobState
from relayq.model.questions import Question, Reply
from relayq.signing import Signer
from relayq.store.leases import Claim, Further
from tests.redis.scenes import reach
from tests.redis.test_sweep import sweep

NEEDS_HUMAN, QUEUED, FAILED = JobState.NEEDS_HUMAN, JobState.QUEUED, JobState.FAILED
CHOICES = ("go on", "stop here")
WHICH = Question("q1", "Which branch?", ("main", "next"))


@pytest.fixture
def host(fleet):
    return fleet.host()


def park(fleet, host, **options):
    """Return the id of a job that ended its attempt with a question."""
    token = host.start(fleet.submit(**options))
    host.finish(token, NEEDS_HUMAN, further=Further(question="Go on?", choices=CHOICES))
    return token.id


def answer(fleet, id, text="yes", **options):
    return fleet.dispatcher.answer(id, text, **options)


def claimed(host):
    claim = host.ask()
    assert isinstance(claim, Claim)
    return claim


def heard(fleet, claim):
    """Return the reply as the worker checks it."""
    return fleet.signer.check_answer(
        claim.answer, id=claim.token.id, attempt=claim.token.attempt, outcome=claim.outcome
    )


def sent(fleet, reply, signer=None, **options):
    """Give a reply to the store as it is, whatever is right."""
    signed = (signer or fleet.signer).sign_answer(reply)
    return fleet.store.questions.answer(reply, signed, template=TEMPLATE, **options)


# A job that is parked


def test_a_parked_job_says_what_it_asks(fleet, host):
    record = fleet.record(park(fleet, host))

    assert (record.state, record.question, record.choices) == (NEEDS_HUMAN, "Go on?", CHOICES)
    assert record.asked_at == pytest.approx(fleet.now(), abs=5)
    assert record.asks is None


def test_an_answer_queues_the_job_again_and_the_next_claim_has_it(fleet, host):
    id = park(fleet, host)

    assert answer(fleet, id, "yes", allow=("Bash(git *)",)) == "queued"
    record = fleet.record(id)
    claim = claimed(host)

    assert (record.state, record.question, record.choices) == (QUEUED, None, ())
    assert claim.token.attempt == 2
    reply = heard(fleet, claim)
    assert (reply.text, reply.allow, reply.attempt) == ("yes", ("Bash(git *)",), 1)


def test_an_answered_job_goes_before_those_that_came_later(fleet, host):
    id = park(fleet, host)
    fleet.clock.advance(60)
    fleet.submit()

    answer(fleet, id)

    assert host.claim(id)


def test_who_waits_for_an_answered_job_waits_on(fleet, host):
    id = park(fleet, host)
    assert id in fleet.pending_end(id)

    answer(fleet, id)

    assert fleet.pending_end(id) == {}


def test_an_answer_begins_the_counts_anew(fleet, host):
    id = fleet.submit()
    host.finish(host.start(id), JobState.SCHEDULED, delay=0.0)
    fleet.tick()
    host.finish(host.start(id), NEEDS_HUMAN, further=Further(question="Go on?"), exit_code=3)
    assert fleet.record(id).failures == 1

    answer(fleet, id)

    assert (fleet.record(id).failures, fleet.record(id).exit_code) == (0, None)


def test_an_answer_is_not_lost_with_an_attempt_that_never_began(fleet, host):
    id = park(fleet, host)
    answer(fleet, id)
    host.release(host.claim(id))
    host.claim(id)
    fleet.expire()

    claim = claimed(host)

    assert claim.token.attempt == 4
    assert heard(fleet, claim).text == "yes"


def test_an_attempt_that_is_lost_hands_the_answer_on(fleet, host):
    id = park(fleet, host)
    answer(fleet, id)
    fleet.lose(host, id)

    assert heard(fleet, claimed(host)).text == "yes"


def test_an_answer_that_was_heard_is_gone(fleet, host):
    id = park(fleet, host)
    answer(fleet, id)
    host.finish(host.start(id), JobState.SCHEDULED, delay=1.0)
    fleet.clock.advance(2)
    fleet.tick()

    claim = claimed(host)

    assert (claim.answer, claim.outcome) == (None, None)


def test_a_repeated_answer_changes_nothing(fleet, host):
    id = park(fleet, host)
    reply = Reply(id, 1, text="yes")

    assert sent(fleet, reply) == ("queued", "")
    assert sent(fleet, reply) == ("already", "")
    host.claim(id)

    assert sent(fleet, reply) == ("already", "")
    assert fleet.state(id) is JobState.RUNNING


def test_of_two_answers_the_first_one_is_heard(fleet, host):
    id = park(fleet, host)
    answer(fleet, id, "yes")

    with pytest.raises(Conflict, match="asks nothing"):
        answer(fleet, id, "no")

    assert heard(fleet, claimed(host)).text == "yes"


def test_an_answer_to_an_earlier_attempt_is_refused(fleet, host):
    id = park(fleet, host)
    answer(fleet, id)
    host.finish(host.start(id), NEEDS_HUMAN, further=Further(question="And now?"))

    assert sent(fleet, Reply(id, 1, text="no")) == ("changed", "2")

    assert fleet.state(id) is NEEDS_HUMAN


@pytest.mark.parametrize("state", [s for s in JobState if s is not NEEDS_HUMAN])
def test_only_what_asks_can_be_answered(fleet, state):
    id = reach(fleet, state)

    with pytest.raises(Conflict, match="asks nothing"):
        answer(fleet, id)

    assert fleet.state(id) is state


def test_an_answer_to_no_job_is_an_error(fleet):
    with pytest.raises(NoSuchJob):
        sent(fleet, Reply("nosuchjob000", 1))


def test_a_lost_attempt_that_may_still_run_must_be_said_to_be_gone(fleet, host):
    id = fleet.submit(on_lost="ask")
    fleet.lose(host, id)

    with pytest.raises(Conflict, match="may still run on pi4"):
        answer(fleet, id)
    assert answer(fleet, id, force=True) == "queued"

    assert heard(fleet, claimed(host)).text == "yes"


def test_a_person_may_retry_instead_and_nothing_is_said(fleet, host):
    id = park(fleet, host)

    fleet.retry(id)

    assert claimed(host).answer is None
    assert fleet.record(id).question is None


def test_an_answer_that_nobody_heard_is_gone_when_a_person_retries(fleet, host):
    id = park(fleet, host, on_lost="ask")
    answer(fleet, id)
    fleet.lose(host, id)
    assert fleet.state(id) is NEEDS_HUMAN

    fleet.retry(id, force=True)

    assert claimed(host).answer is None


@pytest.mark.parametrize("way", ["resolve", "cancel"])
def test_what_is_closed_asks_nothing_more(fleet, host, way):
    id = park(fleet, host)

    fleet.resolve(id, FAILED) if way == "resolve" else fleet.cancel(id)

    assert (fleet.record(id).question, fleet.record(id).choices) == (None, ())


# Replies that somebody tampered with


def forge(fleet, id, signed):
    """Put a signed reply where a claim finds it, as who can write into Redis may."""
    fleet.store.connection.set(fleet.key("answer", id), signed)


def test_a_forged_answer_is_refused_by_the_worker(fleet, host):
    id = park(fleet, host)
    sent(fleet, Reply(id, 1, text="rm -rf /"), signer=Signer(b"x" * 32))

    with pytest.raises(BadSignature):
        heard(fleet, claimed(host))


def test_a_changed_answer_is_refused_by_the_worker(fleet, host):
    id = park(fleet, host)
    answer(fleet, id, "yes")
    signed = fleet.store.connection.get(fleet.key("answer", id))
    forge(fleet, id, signed.replace(b"yes", b"rm!"))

    with pytest.raises(BadSignature, match="wrong"):
        heard(fleet, claimed(host))


def test_an_answer_is_refused_that_was_heard_before(fleet, host):
    id = park(fleet, host)
    answer(fleet, id, "yes")
    replayed = fleet.store.connection.get(fleet.key("answer", id))
    host.finish(host.start(id), NEEDS_HUMAN, further=Further(question="And now?"))
    fleet.retry(id)
    forge(fleet, id, replayed)

    with pytest.raises(BadSignature, match="attempt 2 has ended since"):
        heard(fleet, claimed(host))


def test_another_jobs_answer_is_refused(fleet, host):
    other, id = park(fleet, host), park(fleet, host)
    answer(fleet, other)
    replayed = fleet.store.connection.get(fleet.key("answer", other))
    fleet.cancel(other)
    answer(fleet, id)
    forge(fleet, id, replayed)

    with pytest.raises(BadSignature, match="was signed for job"):
        heard(fleet, claimed(host))


def test_an_answer_to_an_attempt_that_is_still_to_come_is_refused(fleet, host):
    id = park(fleet, host)
    answer(fleet, id)
    forge(fleet, id, fleet.signer.sign_answer(Reply(id, 2, text="yes")))

    with pytest.raises(BadSignature, match="attempt 2"):
        heard(fleet, claimed(host))


def test_a_signed_spec_is_no_answer(fleet, host):
    id = park(fleet, host)
    answer(fleet, id)
    forge(fleet, id, fleet.store.jobs.signed_spec(id))

    with pytest.raises(BadSignature):
        heard(fleet, claimed(host))


# A job that asks while it runs


@pytest.fixture
def token(fleet, host):
    return host.start(fleet.submit())


def ask(fleet, token, question=WHICH):
    return fleet.store.questions.ask(token, question)


def test_a_running_job_asks_and_goes_on_with_the_reply(fleet, host, token):
    assert ask(fleet, token) == ("asked", None)
    record = fleet.record(token.id)
    assert (record.question, record.choices) == ("Which branch?", ("main", "next"))
    assert (record.asks, fleet.store.questions.asking()) == ("q1", [token.id])
    assert record.state is JobState.RUNNING

    assert answer(fleet, token.id, "next") == "told"

    word, signed = ask(fleet, token)
    reply = fleet.signer.check_reply(signed, id=token.id, attempt=1, question="q1")
    assert (word, reply.text) == ("answered", "next")
    assert fleet.store.hosts.listen("pi4", patience=0.01) == {"op": "answer", "job": token.id}
    assert fleet.store.questions.asking() == []


def test_a_question_that_is_reported_again_keeps_its_instant(fleet, token):
    ask(fleet, token)
    since = fleet.record(token.id).asked_at
    fleet.clock.advance(60)

    assert ask(fleet, token) == ("asked", None)

    assert fleet.record(token.id).asked_at == since


def test_the_reply_comes_again_until_the_question_is_closed(fleet, token):
    ask(fleet, token)
    answer(fleet, token.id)
    assert ask(fleet, token) == ask(fleet, token)

    assert fleet.store.questions.close(token) == "closed"

    assert fleet.record(token.id).asks is None
    assert fleet.store.connection.exists(fleet.key("answer", token.id)) == 0
    assert fleet.store.questions.close(token) == "closed"


def test_a_job_asks_one_thing_after_the_other(fleet, token):
    ask(fleet, token)
    answer(fleet, token.id, "main")

    for _ in range(2):
        assert ask(fleet, token, Question("q2", "Sure?")) == ("asked", None)
    assert sent(fleet, Reply(token.id, 1, "q1", "late")) == ("changed", "1")
    assert answer(fleet, token.id, "yes") == "told"

    _, signed = ask(fleet, token, Question("q2", "Sure?"))
    assert fleet.signer.check_reply(signed, id=token.id, attempt=1, question="q2").text == "yes"
    for question, attempt in (("q1", 1), ("q2", 2), ("", 1)):
        with pytest.raises(BadSignature, match="not to"):
            fleet.signer.check_reply(signed, id=token.id, attempt=attempt, question=question)
    with pytest.raises(BadSignature):
        fleet.signer.check_answer(signed, id=token.id, attempt=2)


def test_the_second_person_to_answer_is_told_so(fleet, token):
    ask(fleet, token)
    answer(fleet, token.id, "main")

    with pytest.raises(Conflict, match="somebody has answered it"):
        answer(fleet, token.id, "next")

    _, signed = ask(fleet, token)
    assert json.loads(signed.split(b" ", 2)[2])["text"] == "main"


@pytest.mark.parametrize("way", ["finish", "release", "lose"])
def test_a_question_ends_with_its_attempt(fleet, host, token, way):
    ask(fleet, token)

    getattr(host, way)(token)

    record = fleet.record(token.id)
    assert (record.asks, record.question) == (None, None)
    assert fleet.store.questions.asking() == []
    assert ask(fleet, token) == ("stale", None)


def test_a_question_outlives_a_lost_contact(fleet, host, token):
    ask(fleet, token)
    fleet.expire()
    assert fleet.state(token.id) is JobState.LOST

    assert answer(fleet, token.id) == "told"
    host.beat(token)

    assert ask(fleet, token)[0] == "answered"


def test_a_stale_attempt_asks_nothing(fleet, host, token):
    host.release(token)
    other = host.start(token.id)

    assert ask(fleet, token) == ("stale", None)
    assert fleet.store.questions.close(token) == "stale"

    assert fleet.record(token.id).asks is None
    assert ask(fleet, replace(other, uid="another")) == ("stale", None)


def test_a_cancelled_job_may_be_answered_and_is_cancelled(fleet, host, token):
    ask(fleet, token)
    fleet.cancel(token.id)

    answer(fleet, token.id)

    assert host.finish(token) == JobState.CANCELLED


def test_the_longest_waiting_question_is_the_first(fleet, host):
    tokens = [host.start(fleet.submit()) for _ in range(2)]
    for token in tokens:
        ask(fleet, token)
        fleet.clock.advance(5)

    assert fleet.store.questions.asking() == [token.id for token in tokens]
    assert fleet.store.questions.asking(1) == [tokens[0].id]


# Damage


def test_the_sweep_lists_a_question_again(fleet, store, host, token):
    ask(fleet, token)
    since = fleet.record(token.id).asked_at
    fleet.clock.advance(100)
    host.beat(token)
    store.connection.delete(fleet.key("asking"))

    assert ("entered", token.id) in sweep(store)

    found = store.connection.zrange(fleet.key("asking"), 0, -1, withscores=True)
    assert found == [(token.id.encode(), pytest.approx(since, abs=1))]


def test_the_sweep_removes_what_asks_nothing(fleet, store, host, token):
    answered = host.start(fleet.submit())
    ask(fleet, answered)
    answer(fleet, answered.id)
    for id in (token.id, answered.id, "nosuchjob000"):
        store.connection.zadd(fleet.key("asking"), {id: 1})

    mended = sweep(store)

    assert sorted(mended) == sorted(
        ("removed", id) for id in (token.id, answered.id, "nosuchjob000")
    )


def test_the_sweep_deletes_a_reply_to_no_job(fleet, store):
    store.connection.set(fleet.key("answer", "nosuchjob000"), b"x")

    assert sweep(store) == [("deleted", "nosuchjob000")]


def test_a_reply_goes_with_its_job(fleet, store, host):
    id = park(fleet, host)
    answer(fleet, id)
    fleet.cancel(id)

    store.jobs.forget([id])

    assert store.connection.exists(fleet.key("answer", id)) == 0
