"""A running job's desk: the question that it lays there for a person, and the answer it gets.

The desk is a directory beside the attempt's other files, named by RELAYQ_DESK and made by who asks
first. `question.json` has `id`, `text` and `choices`; it is written whole or not at all, and its
asker takes it away when it waits no more. `answer.json` has the question's `id` and the reply.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from relayq.errors import BadSignature, BrokerUnavailable
from relayq.host import spool
from relayq.host.delivery import Attempt
from relayq.model.jobs import Token
from relayq.model.questions import Question
from relayq.signing import Signer
from relayq.store import Store

log = logging.getLogger(__name__)

DESK = "desk"
QUESTION = "question.json"
ANSWER = "answer.json"
_LARGEST = 64 * 1024
_MOST_CHOICES = 20


def question_on(directory: Path) -> Question | None:
    """Return what an attempt asks, None while it asks nothing that can be read."""
    path = os.path.join(directory, DESK, QUESTION)
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST + 1)
        return _read(json.loads(raw)) if len(raw) <= _LARGEST else None
    except FileNotFoundError:
        return None  # its asker has just given up
    except (OSError, ValueError, RecursionError) as error:
        log.warning("can't read %s: %s", path, error)
        return None


def _read(raw: Any) -> Question | None:
    match raw:
        case {"id": str(id), "text": str(text), **rest} if id and text.strip():
            choices = rest.get("choices", [])
            if isinstance(choices, list) and all(isinstance(one, str) for one in choices):
                return Question(id, text, tuple(choices[:_MOST_CHOICES]))
    return None


def is_answered(directory: Path, question: str) -> bool:
    """Whether the answer to a question lies on the desk."""
    found = spool.load(str(directory / DESK / ANSWER))
    return found is not None and found.get("id") == question


class Desk:
    """The desks of this host's attempts, on the way to people and back."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        #: Raises BadSignature for a reply of somebody who has no say here.
        self.may_hear: Callable[[Attempt, bytes], None] = lambda attempt, signed: None
        #: What the broker knows to be asked.
        self._asked: dict[Token, str] = {}
        self._seen: dict[Token, int] = {}
        # The beat and the control list come from two threads.
        self._lock = threading.Lock()

    def is_new(self, attempt: Attempt) -> bool:
        """Whether the attempt has laid down a question since the last look; ten times a second."""
        try:
            changed = os.stat(os.path.join(attempt.directory, DESK, QUESTION)).st_mtime_ns
        except OSError:
            return False
        if self._seen.get(attempt.token) == changed:
            return False
        self._seen[attempt.token] = changed
        return True

    def report(self, attempts: Sequence[Attempt]) -> None:
        """Tell the broker what these attempts ask, and lay down the answers that have come."""
        with self._lock:
            here = {attempt.token for attempt in attempts}
            for known in (self._asked, self._seen):
                for token in [token for token in known if token not in here]:
                    known.pop(token, None)
            for attempt in attempts:
                self._look(attempt)

    def hear(self, attempts: Sequence[Attempt], id: str) -> None:
        """Look at once at the desk of a job whose answer has come."""
        with self._lock:
            for attempt in attempts:
                if attempt.token.id == id:
                    self._look(attempt)

    def _look(self, attempt: Attempt) -> None:
        token, directory = attempt.token, attempt.directory
        question = question_on(directory)
        if question is not None and is_answered(directory, question.id):
            question = None
        try:
            if question is not None:
                self._ask(attempt, question)
            elif token in self._asked:
                self._store.questions.close(token)
                del self._asked[token]
        except BrokerUnavailable as error:
            log.debug("no broker for what %s asks: %s", token.id, error)

    def _ask(self, attempt: Attempt, question: Question) -> None:
        token = attempt.token
        word, signed = self._store.questions.ask(token, question)
        if word == "stale":
            return
        if self._asked.get(token) != question.id:
            log.info("%s asks: %s", token.id, question.text, extra={"job": token.id})
            self._asked[token] = question.id
        if signed is None:
            return
        try:
            reply = self._signer.check_reply(
                signed, id=token.id, attempt=token.attempt, question=question.id
            )
            self.may_hear(attempt, signed)
        except BadSignature as error:
            log.warning("no answer for %s: %s", token.id, error, extra={"job": token.id})
            return
        answer = {"id": question.id, "text": reply.text, "who": reply.who}
        spool.replace(str(attempt.directory / DESK / ANSWER), answer)
        self._store.questions.close(token)
        del self._asked[token]
