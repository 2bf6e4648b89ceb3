"""The fleet's key: signs specs, outcomes and replies, so that Redis need not be trusted.

A signed text is `<key id> <mac> <body>`; the MAC is HMAC-SHA256 over the purpose and the body. An
outcome's body is a line of JSON followed by the frames of its output.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path

from relayq import clock
from relayq.errors import BadSignature, ConfigError
from relayq.model.jobs import JobState, Outcome, Spec
from relayq.model.questions import Reply

#: One text for one spec, whatever the order of its dictionaries; made once, it takes half the time.
_canonical = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode

_SPEC = b"relayq spec\0"
_OUTCOME = b"relayq outcome\0"
_REPLY = b"relayq reply\0"
_NOTE = b"relayq note\0"


#: `<key id>.<scope>.<when it expires, Unix seconds>.<mac>`
_TOKEN = re.compile(r"([0-9a-f]{8})\.([a-z]+)\.(\d{1,12})\.([0-9a-f]{64})")
_BEARER = b"relayq bearer\0"


class UnknownKey(BadSignature):
    """The text was signed with a key that this machine doesn't have."""


class WrongScope(BadSignature):
    """A bearer token that is good for something else."""


def load_key(path: Path) -> bytes:
    """Return the fleet's key; makes one at first use, readable by its owner only."""
    try:
        text = path.read_text("ascii", errors="replace")
    except FileNotFoundError:
        return _make_key(path)
    except OSError as error:
        raise ConfigError(f"can't read the fleet's key: {error}") from error
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"others can read the fleet's key {path}", hint=f"chmod 600 '{path}'")
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) < 16:
        raise ConfigError(f"{path} isn't a fleet key", hint="copy it again from another host")
    return key


def _make_key(path: Path) -> bytes:
    key = os.urandom(32)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link fails when another process was first; a rename would replace its key.
        os.link(draft, path)
    except FileExistsError:
        return load_key(path)
    finally:
        draft.unlink()
    return key


class Signer:
    """Signs and checks with one key; `key_id` names the key without giving it away."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @cached_property
    def key_id(self) -> str:
        """The name of the key."""
        # OpenSSL takes 7 ms to load, and what only looks at hosts and jobs signs nothing.
        import hashlib

        return hashlib.sha256(b"relayq key id\0" + self._key).hexdigest()[:8]

    def sign_spec(self, spec: Spec) -> bytes:
        """Return the spec as signed bytes."""
        return self._sign(_SPEC, _canonical(spec.as_dict()).encode())

    def check_spec(self, signed: bytes, *, id: str) -> Spec:
        """Return the spec that was signed for this job id.

        Raises `UnknownKey` for another key's, `BadSignature` for a wrong MAC, another job's spec
        or one that this version can't read.
        """
        body = self._check(_SPEC, signed)
        try:
            spec = Spec.from_dict(json.loads(body))
        except (ValueError, TypeError) as error:
            raise BadSignature(f"the spec can't be read: {error}") from error
        if spec.id != id:
            raise BadSignature(f"the spec was signed for job {spec.id}, not {id}")
        return spec

    def sign_outcome(self, outcome: Outcome) -> bytes:
        """Return the outcome as signed bytes."""
        facts = {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "output"}
        facts["state"] = outcome.state.value
        body = json.dumps(facts, separators=(",", ":")).encode() + b"\n" + outcome.output
        return self._sign(_OUTCOME, body)

    def check_outcome(self, signed: bytes, *, id: str) -> Outcome:
        """Return the outcome that was signed for this job id; raises as `check_spec` does."""
        head, _, output = self._check(_OUTCOME, signed).partition(b"\n")
        try:
            facts = json.loads(head)
            facts = {**facts, "state": JobState(facts["state"]), "output": output}
            lists = {name: tuple(facts.get(name, ())) for name in ("remarks", "files")}
            outcome = Outcome(**{**facts, **lists})
        except (ValueError, TypeError, KeyError) as error:
            raise BadSignature(f"the outcome can't be read: {error}") from error
        if outcome.id != id:
            raise BadSignature(f"the outcome was signed for job {outcome.id}, not {id}")
        return outcome

    def sign_answer(self, reply: Reply) -> bytes:
        """Return a person's reply as signed bytes."""
        return self._sign(_REPLY, _canonical(asdict(reply)).encode())

    def check_answer(
        self, signed: bytes, *, id: str, attempt: int, outcome: bytes | None = None
    ) -> Reply:
        """Return the reply that this attempt is to go on with.

        It must be to an earlier attempt of the same job that had ended with a question, and no
        attempt may have ended since, by `outcome`, the signed one of the last that did: so a reply
        that was heard once can't be sent again. Raises as `check_spec` does.
        """
        reply = self._reply(signed, id=id)
        if reply.question or reply.attempt >= attempt:
            raise BadSignature(f"the reply is to attempt {reply.attempt}, while that still runs")
        if outcome is not None:
            ended = self.check_outcome(outcome, id=id).attempt
            if ended > reply.attempt:
                raise BadSignature(
                    f"the reply is to attempt {reply.attempt}, and attempt {ended} has ended since"
                )
        return reply

    def check_reply(self, signed: bytes, *, id: str, attempt: int, question: str) -> Reply:
        """Return the reply to what this running attempt asks; raises as `check_spec` does."""
        reply = self._reply(signed, id=id)
        if (reply.attempt, reply.question) != (attempt, question):
            raise BadSignature(
                f"the reply is to question {reply.question!r} of attempt {reply.attempt}, "
                f"not to {question!r} of attempt {attempt}"
            )
        return reply

    def sign_note(self, name: str, text: bytes) -> bytes:
        """Return what is kept in Redis under this name, signed together with it."""
        return self._sign(_NOTE, name.encode() + b"\n" + text)

    def check_note(self, signed: bytes, *, name: str) -> bytes:
        """Return what was kept under this name; raises as `check_spec` does."""
        found, _, text = self._check(_NOTE, signed).partition(b"\n")
        if found != name.encode():
            raise BadSignature(f"what was kept as {found!r:.80} was found as {name}")
        return text

    def bearer(self, scope: str, lasts: float) -> str:
        """Return a token with which a program may do what `scope` names, for so many seconds."""
        expires = int(clock.now() + lasts)
        return f"{self.key_id}.{scope}.{expires}.{self._token_mac(scope, expires)}"

    def check_bearer(self, token: str, scope: str) -> None:
        """Raise `BadSignature` unless it is a token of this key for this scope, and still good."""
        import hmac

        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise BadSignature("it is no token of relayq's")
        key_id, own_scope, expires, mac = parts.groups()
        if key_id != self.key_id:
            raise UnknownKey(f"it is of another fleet key, {key_id}")
        if not hmac.compare_digest(mac, self._token_mac(own_scope, int(expires))):
            raise BadSignature("its signature is wrong")
        if (late := clock.now() - int(expires)) >= 0:
            raise BadSignature(f"it expired {late:.0f} s ago by the clock of who was asked")
        if own_scope != scope:
            raise WrongScope(f"it is for {own_scope}, not for {scope}")

    def _token_mac(self, scope: str, expires: int) -> str:
        return self._mac(_BEARER, f"{scope} {expires}".encode()).decode()

    def _reply(self, signed: bytes, *, id: str) -> Reply:
        try:
            facts = json.loads(self._check(_REPLY, signed))
            reply = Reply(**{**facts, "allow": tuple(facts["allow"])})
        except (ValueError, TypeError, KeyError) as error:
            raise BadSignature(f"the reply can't be read: {error}") from error
        if reply.id != id:
            raise BadSignature(f"the reply was signed for job {reply.id}, not {id}")
        return reply

    def _mac(self, purpose: bytes, body: bytes) -> bytes:
        import hmac

        return hmac.digest(self._key, purpose + body, "sha256").hex().encode()

    def _sign(self, purpose: bytes, body: bytes) -> bytes:
        return b" ".join((self.key_id.encode(), self._mac(purpose, body), body))

    def _check(self, purpose: bytes, signed: bytes) -> bytes:
        parts = signed.split(b" ", 2)
        if len(parts) != 3:
            raise BadSignature("it isn't signed")
        key_id, mac, body = parts
        if key_id != self.key_id.encode():
            raise UnknownKey(f"it is signed with key {key_id.decode('ascii', 'replace')}")
        import hmac

        if not hmac.compare_digest(mac, self._mac(purpose, body)):
            raise BadSignature("its signature is wrong")
        return body
