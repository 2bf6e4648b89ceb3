"""relayq inside a job: what is asked goes through the worker's socket, with the job's own token.

A job has neither the broker's address nor the fleet's key. It asks the worker that runs it, which
decides what this job may (host/errands.py): submit jobs, and see and cancel those that it, or they,
submitted. Here is a store that asks so; everything above it is as anywhere else.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq import clock, passage
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.signing import Signer

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.session import Session
    from relayq.store.jobs import Submission

#: How long the worker may be away: another process takes over from one that died.
_PATIENCE = 60.0
_AGAIN = 0.2
#: No question takes longer to be answered: a blocking one is asked again and again.
_ANSWERS = 30.0


def is_inside(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a job's process, which has a worker to ask."""
    return bool(environ.get(passage.TOKEN) and environ.get(passage.SOCKET))


def session(relay: Relay, environ: Mapping[str, str] = os.environ) -> Session | None:
    """Return the way to the fleet for a job's process, None for any other."""
    from relayq.session import Session

    if not is_inside(environ):
        return None
    store: Any = SocketStore(environ[passage.SOCKET], environ[passage.TOKEN])
    config = relay.config
    return Session(
        store, Trusting(), relay.say, tick=config.lease.tick, shows=relay.shows, config=config
    )


class Trusting(Signer):
    """Signs nothing and checks nothing: the worker does both, and has the key."""

    def __init__(self) -> None:
        super().__init__(b"")

    def _sign(self, purpose: bytes, body: bytes) -> bytes:
        return b"- - " + body

    def _check(self, purpose: bytes, signed: bytes) -> bytes:
        return signed.split(b" ", 2)[2]


class SocketStore:
    """A store of which the worker at a socket has the truth."""

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        self._token = token
        self.jobs = _Jobs(self.ask)
        self.progress = _NoProgress()

    def __getattr__(self, part: str) -> Any:
        if part.startswith("_"):
            raise AttributeError(part)
        return _Part(self.ask, part)

    def close(self) -> None:
        """Close nothing: each question has a connection of its own."""

    def ask(self, verb: str, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Ask the worker, for as long as it may take another one to come; a repeat is harmless."""
        question = passage.written(
            {
                "token": self._token,
                "verb": verb,
                "args": passage.packed(list(args)),
                "options": passage.packed(dict(options)),
            }
        )
        if len(question) > passage.LARGEST:
            raise RelayqError("that is too much for a job to say to its worker")
        deadline = clock.boottime() + _PATIENCE
        while True:
            try:
                answer = self._answer(question)
            except PermissionError as error:
                raise RelayqError(
                    "what runs here isn't let to its worker's socket: an agent's sandbox, perhaps",
                    hint="the agent needs --permission full for that",
                ) from error
            except OSError as error:
                if clock.boottime() >= deadline:
                    raise BrokerUnavailable(
                        f"the worker of this host doesn't answer: {error.strerror or error}",
                        hint="relayq status, outside of the job",
                    ) from error
                clock.sleep(_AGAIN)
                continue
            if (said := passage.error_in(answer)) is not None:
                raise said
            return passage.unpacked(answer.get("value"))

    def _answer(self, question: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWERS)
            connection.connect(self._path)
            connection.sendall(question)
            answer = passage.received(connection)
        if answer is None:
            raise ConnectionResetError("it went away before it had answered")
        return answer


class _Part:
    """A part of a store: calling its methods asks the worker."""

    def __init__(self, ask: Callable[..., Any], name: str) -> None:
        self._ask = ask
        self._name = name

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb.startswith("_"):
            raise AttributeError(verb)
        if verb not in passage.VERBS.get(self._name, ()):
            raise _not_here()
        return lambda *args, **options: self._ask(f"{self._name}.{verb}", args, options)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse what the store itself can do."""
        raise _not_here()


def _not_here() -> RelayqError:
    return RelayqError(
        "that can't be done inside a job, which has only its own jobs",
        hint="inside a job: relayq run, submit, wait, logs, result, show, ps, cancel",
    )


class _NoProgress:
    """What a live line would show: a job has no terminal."""

    def look(self, ids: Iterable[str]) -> dict[str, Any]:
        """Return nothing."""
        return {}


class _Jobs(_Part):
    """The records that a job may see, and its way to make more."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        super().__init__(ask, "jobs")
        #: Who acts here; the worker knows.
        self.who = ""

    def send(
        self, submissions: Sequence[Submission], *, template: str, key_id: str, common: str = ""
    ) -> Callable[[], list[str]]:
        """Have the worker sign and queue these; returns as the store's own does."""
        if common:
            # Workflows, and jobs that end together, are people's.
            raise _not_here()
        asked = [(one.spec.as_dict(), one.reply) for one in submissions]
        words: list[str] = self._ask("jobs.send", [asked], {})
        return lambda: words
