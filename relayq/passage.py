"""What passes through a worker's socket, between a job and the worker that runs it.

One question a connection: a line of JSON with the job's token, the verb and its arguments; then
one line back. Values that JSON has no word for are tagged. The worker decides what a job may ask
(host/errands.py), a job asks through `relayq.inside`.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from relayq import errors
from relayq.errors import RelayqError
from relayq.model.jobs import JobState

#: Names of a job's variables.
SOCKET = "RELAYQ_SOCKET"
TOKEN = "RELAYQ_TOKEN"
#: Of a question, or an answer; a follower gets at most 16 pieces of 64 KiB at once.
LARGEST = 16 * 2**20

#: What a job may ask, as the store calls it.
VERBS: Mapping[str, frozenset[str]] = {
    "jobs": frozenset(
        "send fetch fetch_many find list recent wait outcome outcomes family".split()
        + "cancel cancel_all".split()
    ),
    "lookup": frozenset({"select", "all", "narrow"}),
    "logs": frozenset({"follow", "unfollow", "ack", "receive", "read", "ends"}),
    "inputs": frozenset({"send", "taken"}),
    "hosts": frozenset({"list", "ask"}),
    "events": frozenset({"read"}),
}


@cache
def _classes() -> Mapping[str, type]:
    from relayq.model.events import Event
    from relayq.model.hosts import Host
    from relayq.model.jobs import JobRecord, Spec
    from relayq.model.progress import Progress
    from relayq.store.inputs import InputPiece
    from relayq.store.logs import Piece

    return {c.__name__: c for c in (Event, Host, InputPiece, JobRecord, Piece, Progress, Spec)}


def packed(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, JobState):
        return {"!": "state", "of": value.value}
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return {"!": "bytes", "of": base64.b64encode(value).decode()}
    if isinstance(value, tuple | frozenset | set):
        return {"!": "tuple", "of": [packed(one) for one in value]}
    if isinstance(value, list):
        return [packed(one) for one in value]
    if isinstance(value, Mapping):
        return {"!": "dict", "of": [[str(key), packed(one)] for key, one in value.items()]}
    if is_dataclass(value) and type(value).__name__ in _classes():
        held = {f.name: packed(getattr(value, f.name)) for f in fields(value)}
        return {"!": type(value).__name__, "of": held}
    raise TypeError(f"a {type(value).__name__} doesn't pass")


def unpacked(value: Any) -> Any:
    """Return what `packed` was given; raises ValueError for what it never gives."""
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    sort, held = value.get("!"), value.get("of")
    readers: dict[Any, Callable[[Any], Any]] = {
        "state": JobState,
        "bytes": base64.b64decode,
        "tuple": lambda all: tuple(unpacked(one) for one in all),
        "dict": lambda pairs: {str(key): unpacked(one) for key, one in pairs},
    }
    try:
        if sort in readers:
            return readers[sort](held)
        made = _classes().get(str(sort))
        if made is not None and isinstance(held, dict):
            return made(**{key: unpacked(one) for key, one in held.items()})
    except TypeError as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"nothing that passes: {value!r:.80}")


def written(value: Mapping[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def received(connection: socket.socket) -> dict[str, Any] | None:
    """Return the other side's message, None if it went away before its end."""
    parts, size = [], 0
    while piece := connection.recv(256 * 1024):
        parts.append(piece)
        size += len(piece)
        if piece.endswith(b"\n"):
            found = json.loads(b"".join(parts))
            if not isinstance(found, dict):
                raise ValueError("a message is an object")
            return found
        if size > LARGEST:
            raise ValueError("a message is too long")
    return None


def refused(error: RelayqError) -> dict[str, Any]:
    """Return the message that says an error."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


#: Errors whose kind makes a difference to who asks; all others are just told.
_TOLD = ("NoSuchJob", "NoSuchHost", "Conflict", "BrokerUnavailable", "BrokerFull")


def error_in(answer: Mapping[str, Any]) -> RelayqError | None:
    """Return the error that an answer says, None for another answer."""
    name = answer.get("error")
    if name is None:
        return None
    kind = getattr(errors, name) if name in _TOLD else RelayqError
    found = kind(str(answer.get("message")), hint=answer.get("hint"))
    assert isinstance(found, RelayqError)
    return found
