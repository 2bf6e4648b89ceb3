"""The fleet's key: signs specs, outcomes and replies, so that Redis need not be trusted.

A signed text is `<key id> <mac> <body>`; the MAC is HMAC-SHA256 over the purpose and the body. An
outcome's body is a line of JSON followed by the frames of its output.

Where a submitter has a key of their own (relayq/identity.py), what a person says is signed with
that as well: `<key id> <mac>.<submitter's id>.<signature> <body>`. Every host checks the MAC; one
that has an `authorized_submitters` also asks whose the signature is (host/admission.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from relayq import clock
from relayq.errors import BadSignature, ConfigError
from relayq.identity import Identity
from relayq.model.consents import Consent
from relayq.model.jobs import JobState, Outcome, Spec
from relayq.model.questions import Reply

#: One text for one spec, whatever the order of its dictionaries; made once, it takes half the time.
_canonical = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode

_SPEC = b"relayq spec\0"
_OUTCOME = b"relayq outcome\0"
_REPLY = b"relayq reply\0"
_NOTE = b"relayq note\0"
_CONSENT = b"relayq consent\0"
#: What people say, not workers: signed with the submitter's own key as well.
_PEOPLES = frozenset({_SPEC, _REPLY, _NOTE, _CONSENT})
_PURPOSES = {"spec": _SPEC, "reply": _REPLY, "note": _NOTE, "consent": _CONSENT}

#: `<key id>.<scope>.<when it expires, Unix seconds>.<mac>`
_TOKEN = re.compile(r"([0-9a-f]{8})\.([a-z]+)\.(\d{1,12})\.([0-9a-f]{64})")
_BEARER = b"relayq bearer\0"


class UnknownKey(BadSignature):
    """The text was signed with a key that this machine doesn't have."""


class WrongScope(BadSignature):
    """A bearer token that is good for something else."""


@dataclass(frozen=True, slots=True)
class FormerKey:
    """A key that the fleet had before; what it signed is good until an instant, in Unix seconds."""

    key: bytes
    until: float


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """The key that signs, and those before it."""

    key: bytes
    former: tuple[FormerKey, ...] = ()

    @property
    def text(self) -> str:
        """What the file says: the key, then a line for each before it."""
        lines = [self.key.hex(), *(f"{one.key.hex()} until {one.until:.0f}" for one in self.former)]
        return "\n".join(lines) + "\n"


def load_key(path: Path) -> bytes:
    """Return the fleet's key; makes one at first use, readable by its owner only."""
    return load_keys(path).key


def load_keys(path: Path) -> FleetKeys:
    """Return the fleet's key and those before it; makes one at first use."""
    try:
        text = path.read_text("ascii", errors="replace")
    except FileNotFoundError:
        if path.is_symlink():
            # To a disk that isn't there, whose key must not get a second one beside it.
            raise ConfigError(
                f"can't read the fleet's key: {path} is a link that leads nowhere"
            ) from None
        try:
            return FleetKeys(_make_key(path))
        except OSError as error:
            raise ConfigError(f"can't make the fleet's key: {error}") from error
    except OSError as error:
        raise ConfigError(f"can't read the fleet's key: {error}") from error
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"others can read the fleet's key {path}", hint=f"chmod 600 '{path}'")
    try:
        return read_keys(text)
    except ValueError as error:
        raise ConfigError(
            f"{path} isn't a fleet key", hint="copy it again from another host"
        ) from error


def read_keys(text: str) -> FleetKeys:
    """Read what `FleetKeys.text` gives; ValueError for anything else."""
    first, *lines = text.split("\n")
    former = []
    for line in filter(str.strip, lines):
        key, until, instant = line.split()
        if until != "until":
            raise ValueError(f"not a former key's line: {until!r}")
        former.append(FormerKey(bytes.fromhex(key), float(instant)))
    keys = FleetKeys(bytes.fromhex(first.strip()), tuple(former))
    if min(len(one) for one in (keys.key, *(old.key for old in former))) < 16:
        raise ValueError("a key of less than 16 bytes")
    return keys


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


class Endorsement(NamedTuple):
    """Whose own key signed a text, by its id; `text` is what the signature is of."""

    id: str
    signature: bytes
    text: bytes


def endorsement(what: str, signed: bytes) -> Endorsement | None:
    """Return what a submitter's own key says of a signed "spec", "reply", "note" or "consent".

    None where only the fleet's key signed it. Nobody has checked either.
    """
    parts = signed.split(b" ", 2)
    _, _, rest = parts[1].partition(b".") if len(parts) == 3 else (b"", b"", b"")
    id, _, signature = rest.partition(b".")
    try:
        return (
            Endorsement(
                id.decode("ascii"),
                bytes.fromhex(signature.decode("ascii")),
                _PURPOSES[what] + parts[2],
            )
            if id and signature
            else None
        )
    except ValueError:
        return None


def key_id_of(key: bytes) -> str:
    """Return the name of a fleet's key, which doesn't give it away."""
    # OpenSSL takes 7 ms to load, and what only looks at hosts and jobs signs nothing.
    import hashlib

    return hashlib.sha256(b"relayq key id\0" + key).hexdigest()[:8]


class Ring:
    """The fleet's keys as one process has them: all its signers see a new one at once."""

    def __init__(self, keys: FleetKeys) -> None:
        self.keys = keys
        #: Looks for a key that came after these; True if there was one.
        self.renew: Callable[[], bool] = lambda: False
        self._id = ""

    @property
    def head(self) -> bytes:
        """What a text begins with that the key signed."""
        return (self._id or self.id).encode()

    @property
    def id(self) -> str:
        """The name of the key that signs."""
        if not self._id:
            self._id = key_id_of(self.keys.key)
        return self._id

    def replace(self, keys: FleetKeys) -> None:
        """Sign with another key from now on."""
        self.keys, self._id = keys, key_id_of(keys.key)

    def called(self, key_id: str) -> bytes:
        """Return the key of this name; raises `UnknownKey` for one that isn't good here."""
        if key_id != self.id and self._former(key_id) is None:
            self.renew()
        if key_id == self.id:
            return self.keys.key
        key = self._former(key_id)
        if key is None:
            raise UnknownKey(f"it is signed with key {key_id}")
        return key

    def _former(self, key_id: str) -> bytes | None:
        for one in self.keys.former:
            if clock.now() < one.until and key_id_of(one.key) == key_id:
                return one.key
        return None


class Signer:
    """Signs with the fleet's key, and checks; `key_id` names the key without giving it away.

    With an `identity`, what people say is signed with that, too.
    """

    def __init__(self, key: bytes | Ring, identity: Identity | None = None) -> None:
        self.ring = key if isinstance(key, Ring) else Ring(FleetKeys(key))
        self.identity = identity

    @property
    def key_id(self) -> str:
        """The name of the key that signs."""
        return self.ring.id

    def endorsing(self, identity: Identity | None) -> Signer:
        """Return a signer with the same keys of the fleet, and this key of a submitter."""
        return Signer(self.ring, identity)

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

    def sign_consent(self, consent: Consent) -> bytes:
        """Return a person's word that a job may run again, as signed bytes."""
        return self._sign(_CONSENT, _canonical(asdict(consent)).encode())

    def check_consent(self, signed: bytes) -> Consent:
        """Return what a person said may run again; raises as `check_spec` does."""
        try:
            return Consent(**json.loads(self._check(_CONSENT, signed)))
        except (ValueError, TypeError) as error:
            raise BadSignature(f"the consent can't be read: {error}") from error

    def sign_note(self, name: str, text: bytes) -> bytes:
        """Return what is kept in Redis under this name, signed together with it."""
        return self._sign(_NOTE, name.encode() + b"\n" + text)

    def check_note(self, signed: bytes, *, name: str) -> bytes:
        """Return what was kept under this name; raises as `check_spec` does."""
        found, _, text = self._check(_NOTE, signed).partition(b"\n")
        if found != name.encode():
            raise BadSignature(f"what was kept as {found!r:.80} was found as {name}")
        return text

    def signed_anew(self, signed: bytes, *, by: Signer) -> bytes:
        """Return a note as another key of the fleet signs it; its submitter's signature stays."""
        body = self._check(_NOTE, signed)
        _, dot, endorsed = signed.split(b" ", 2)[1].partition(b".")
        mac = _mac(by.ring.keys.key, _NOTE, body) + dot + endorsed
        return b" ".join((by.key_id.encode(), mac, body))

    def bearer(self, scope: str, lasts: float) -> str:
        """Return a token with which a program may do what `scope` names, for so many seconds."""
        expires = int(clock.now() + lasts)
        return f"{self.key_id}.{scope}.{expires}.{_token_mac(self.ring.keys.key, scope, expires)}"

    def check_bearer(self, token: str, scope: str) -> None:
        """Raise `BadSignature` unless it is a token of this key for this scope, and still good."""
        import hmac

        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise BadSignature("it is no token of relayq's")
        key_id, own_scope, expires, mac = parts.groups()
        try:
            key = self.ring.called(key_id)
        except UnknownKey as error:
            raise UnknownKey(f"it is of another fleet key, {key_id}") from error
        if not hmac.compare_digest(mac, _token_mac(key, own_scope, int(expires))):
            raise BadSignature("its signature is wrong")
        if (late := clock.now() - int(expires)) >= 0:
            raise BadSignature(f"it expired {late:.0f} s ago by the clock of who was asked")
        if own_scope != scope:
            raise WrongScope(f"it is for {own_scope}, not for {scope}")

    def _reply(self, signed: bytes, *, id: str) -> Reply:
        try:
            facts = json.loads(self._check(_REPLY, signed))
            reply = Reply(**{**facts, "allow": tuple(facts["allow"])})
        except (ValueError, TypeError, KeyError) as error:
            raise BadSignature(f"the reply can't be read: {error}") from error
        if reply.id != id:
            raise BadSignature(f"the reply was signed for job {reply.id}, not {id}")
        return reply

    def _sign(self, purpose: bytes, body: bytes) -> bytes:
        ring = self.ring
        mac = _mac(ring.keys.key, purpose, body)
        if self.identity is not None and purpose in _PEOPLES:
            signature = self.identity.sign(purpose + body).hex()
            mac = f"{mac.decode()}.{self.identity.id}.{signature}".encode()
        return b" ".join((ring.head, mac, body))

    def _check(self, purpose: bytes, signed: bytes) -> bytes:
        parts = signed.split(b" ", 2)
        if len(parts) != 3:
            raise BadSignature("it isn't signed")
        key_id, mac, body = parts
        ring = self.ring
        is_current = key_id == ring.head
        key = ring.keys.key if is_current else ring.called(key_id.decode("ascii", "replace"))
        import hmac

        if not hmac.compare_digest(mac.partition(b".")[0], _mac(key, purpose, body)):
            raise BadSignature("its signature is wrong")
        return body


def _mac(key: bytes, purpose: bytes, body: bytes) -> bytes:
    import hmac

    return hmac.digest(key, purpose + body, "sha256").hex().encode()


def _token_mac(key: bytes, scope: str, expires: int) -> str:
    return _mac(key, _BEARER, f"{scope} {expires}".encode()).decode()
