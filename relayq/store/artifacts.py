"""Small contents, the file service's announcement, and which jobs use which content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from relayq.model.jobs import JobState
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

#: How long an announcement is believed.
ANNOUNCED = 60


@dataclass(frozen=True, slots=True)
class User:
    """A job that uses a content: whether it ended, and whether it made the content."""

    job: str
    has_ended: bool
    is_result: bool


class ArtifactStore:
    """What Redis knows of files."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def keep(self, sha256: str, content: bytes, *, job: str, is_result: bool = False) -> None:
        """Keep a small content for a job; it goes when the last job that uses it is forgotten."""
        self._refer(job, [sha256], is_result=is_result, has="1", content=content)

    def keep_all(self, contents: Sequence[tuple[str, str, bytes | None]]) -> None:
        """Keep small contents for jobs in one go: each its sha256, the job, and the bytes.

        Without bytes it is one that is here, and only used by one more job.
        """
        calls = [
            ([sha256], {"id": job, "role": "in", "has": "1", "content": content})
            if content is not None
            else ([sha256], {"id": job, "role": "in", "has": "", "content": b""})
            for sha256, job, content in contents
        ]
        self._scripts.call_all("refer", calls)

    def refer_all(self, used: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Note which contents each job takes along, in one go."""
        self._scripts.call_all(
            "refer",
            [
                (list(sha256s), {"id": job, "role": "in", "has": "", "content": b""})
                for job, sha256s in used
            ],
        )

    def refer(self, job: str, sha256s: Sequence[str], *, is_result: bool = False) -> bool:
        """Note that a job uses these contents; False when there is no such job yet.

        In that case it is forgotten after a day.
        """
        return self._refer(job, sha256s, is_result=is_result, has="", content=b"")

    def _refer(
        self, job: str, sha256s: Sequence[str], *, is_result: bool, has: str, content: bytes
    ) -> bool:
        word = self._scripts.call(
            "refer", sha256s, id=job, role="out" if is_result else "in", has=has, content=content
        )
        return bool(word == b"kept")

    def read(self, sha256: str) -> bytes | None:
        """Return a small content, None if it isn't here."""
        with broker_errors():
            content: bytes | None = self._connection.get(self._keys("artifact", sha256))
        return content

    def users(self, sha256: str) -> Sequence[User]:
        """Return the jobs that use a content and have a record."""
        with broker_errors():
            ids = [id.decode() for id in self._connection.smembers(self._keys("users", sha256))]
            pipe = self._connection.pipeline(transaction=False)
            for id in ids:
                pipe.hget(self._keys("job", id), "state")
                pipe.hget(self._keys("files", id), sha256)
            answers = pipe.execute()
        found = zip(ids, answers[::2], answers[1::2], strict=True)
        return [
            User(id, JobState(state.decode()).is_final, role == b"out")
            for id, state, role in found
            if state is not None
        ]

    def announce(self, signed: bytes) -> None:
        """Say for a minute where the file service is."""
        with broker_errors():
            self._connection.set(self._keys("fileserver"), signed, ex=ANNOUNCED)

    def announced(self) -> bytes | None:
        """Return what the file service says of itself, signed by it; None without one."""
        with broker_errors():
            signed: bytes | None = self._connection.get(self._keys("fileserver"))
        return signed

    def withdraw(self) -> None:
        """Say that the file service is going."""
        with broker_errors():
            self._connection.delete(self._keys("fileserver"))
