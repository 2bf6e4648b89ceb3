"""A running job's desk: what it asks there, and the answer that it finds."""

import json
from types import SimpleNamespace

import pytest

from relayq.errors import BrokerUnavailable
from relayq.host import attempts, reports
from relayq.host.desk import Desk, question_on
from relayq.model.jobs import Token
from relayq.model.questions import Question, Reply
from relayq.signing import Signer


class Broker:
    """Questions as the store keeps them, of one attempt."""

    def __init__(self):
        self.asked = None
        self.answer = None
        self.is_away = False

    def ask(self, token, question):
        if self.is_away:
            raise BrokerUnavailable("away")
        self.asked = question
        return ("answered", self.answer) if self.answer else ("asked", None)

    def close(self, token):
        self.asked = None
        return "closed"


@pytest.fixture
def attempt(tmp_path):
    (tmp_path / "desk").mkdir()
    return SimpleNamespace(token=Token("j1", 2, "u"), directory=tmp_path)


@pytest.fixture
def broker():
    return Broker()


SIGNER = Signer(b"k" * 32)


@pytest.fixture
def desk(broker):
    return Desk(SimpleNamespace(questions=broker), SIGNER)


def ask(attempt, **facts):
    raw = {"id": "q1", "text": "Blue?", "choices": ["yes"], **facts}
    (attempt.directory / "desk" / "question.json").write_text(json.dumps(raw))


def reply(text="yes", *, question="q1", number=2, signer=SIGNER):
    return signer.sign_answer(Reply("j1", number, question, text, who="me"))


def laid(attempt):
    file = attempt.directory / "desk" / "answer.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_a_question_is_told_and_its_answer_laid_down(attempt, broker, desk):
    desk.report([attempt])
    assert broker.asked is None

    ask(attempt)
    assert desk.is_new(attempt)
    desk.report([attempt])
    assert not desk.is_new(attempt)
    assert (broker.asked, laid(attempt)) == (Question("q1", "Blue?", ("yes",)), None)

    broker.answer = reply()
    desk.hear([attempt], "j1")
    assert laid(attempt) == {"id": "q1", "text": "yes", "who": "me"}
    assert broker.asked is None


def test_an_answered_question_is_not_told_again(attempt, broker, desk):
    ask(attempt)
    broker.answer = reply()
    desk.report([attempt])

    broker.asked = None
    desk.report([attempt])

    assert broker.asked is None


def test_an_asker_that_gives_up_asks_nothing_any_more(attempt, broker, desk):
    ask(attempt)
    desk.report([attempt])
    (attempt.directory / "desk" / "question.json").unlink()

    desk.report([attempt])

    assert broker.asked is None


@pytest.mark.parametrize(
    "forged",
    [
        reply(question="q0"),
        reply(number=1),
        reply(signer=Signer(b"x" * 32)),
        b"yes",
    ],
)
def test_an_answer_that_nobody_signed_for_this_question_is_none(attempt, broker, desk, forged):
    ask(attempt)
    broker.answer = forged

    desk.report([attempt])

    assert laid(attempt) is None


def test_an_outage_keeps_the_question(attempt, broker, desk):
    ask(attempt)
    broker.is_away = True
    desk.report([attempt])

    broker.is_away = False
    desk.report([attempt])

    assert broker.asked is not None


@pytest.mark.parametrize(
    "raw",
    ["", "[]", "{", '{"id": "", "text": "x"}', '{"id": "q", "text": " "}', "x" * 70_000]
    + ['{"id": "q", "text": "x", "choices": [5]}', "[" * 60_000],
)
def test_what_is_no_question_is_none(attempt, raw):
    (attempt.directory / "desk" / "question.json").write_text(raw)

    assert question_on(attempt.directory) is None


def test_a_desk_goes_with_its_attempt(attempt):
    ask(attempt)
    (attempt.directory / "output").touch()

    attempts.remove(attempt.directory)

    assert not attempt.directory.exists()


# Reports


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_report_that_cannot_be_read_is_none(tmp_path, raw):
    (tmp_path / "report.json").write_bytes(raw)

    assert reports.read(tmp_path) is None


def test_a_report_is_an_object_of_at_most_8_mib(tmp_path):
    assert reports.read(tmp_path) is None
    (tmp_path / "report.json").write_text('{"a": 1}')
    assert reports.read(tmp_path) == {"a": 1}

    (tmp_path / "report.json").write_text(json.dumps({"a": "x" * 8 * 2**20}))
    assert reports.read(tmp_path) is None
