"""What jobs ask people, and the signed replies on their way back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relayq.errors import NoSuchJob
from relayq.model.jobs import Token
from relayq.model.questions import Question, Reply
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis


class Questions:
    """Questions and replies; signing is above the store."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def answer(
        self, reply: Reply, signed: bytes, *, template: str, force: bool = False
    ) -> tuple[str, str]:
        """Give a job a person's reply; `force` says that a lost attempt of it is gone.

        Returns ("queued", ""); ("told", host) for a job that asks while it runs; ("already", "")
        for a repeat; ("changed", attempt) when the job is at another attempt or question by now;
        ("orphan", host) while an attempt that was judged lost may still run there; or
        ("unfit", state) for a job that asks nothing.
        """
        words = self._scripts.call(
            "answer",
            template=template,
            id=reply.id,
            attempt=reply.attempt,
            question=reply.question,
            answer=signed,
            force="1" if force else "",
            who=reply.who,
        )
        word, *fact = (one.decode() for one in words)
        if word == "gone":
            raise NoSuchJob(f"no such job: {reply.id}", hint="relayq ps -a")
        return word, fact[0] if fact else ""

    def ask(self, token: Token, question: Question) -> tuple[str, bytes | None]:
        """Note what a running attempt asks; with each beat, until it is answered or closed.

        Returns ("asked", None), ("answered", the signed reply), or ("stale", None) when the
        attempt is no longer the job's.
        """
        word, *reply = self._ask(token, question)
        return word.decode(), reply[0] if reply else None

    def close(self, token: Token) -> str:
        """Say that the attempt asks nothing any more; returns "closed" or "stale"."""
        [word] = self._ask(token, Question("", ""))
        return word.decode()

    def _ask(self, token: Token, question: Question) -> list[bytes]:
        answer: list[bytes] = self._scripts.call(
            "ask",
            id=token.id,
            attempt=token.attempt,
            uid=token.uid,
            question=question.id,
            text=question.text,
            choices=json.dumps(question.choices),
        )
        return answer

    def asking(self, limit: int = 100) -> Sequence[str]:
        """Return the ids of jobs that ask while they run, the longest waiting first."""
        with broker_errors():
            ids = self._connection.zrange(self._keys("asking"), 0, limit - 1)
        return [id.decode(errors="replace") for id in ids]
