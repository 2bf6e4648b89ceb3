"""This machine joins a fleet: asks the broker's machine by a token, and keeps what it is given.

Nothing is kept before the answer was opened, which only a machine can have sealed that has the
token's ticket. The address at which it was found is where the broker is, too.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from relayq import clock, configfile
from relayq.config import Config
from relayq.errors import BadSignature, ConfigError, Conflict, JoinRefused, RelayqError
from relayq.model.joining import (
    LARGEST,
    PATH,
    PURPOSE,
    Admission,
    Token,
    Wish,
    answer_key,
    keys_of,
)
from relayq.sealing import Agreement, unseal
from relayq.tls import with_ca_file

#: Of silence, until a connection is given up; and until nothing more is tried.
_SILENCE, _PATIENCE = 10.0, 45.0
_AGAIN = 1.0
#: What the machine of the broker is found by, beside the configuration.
PASSWORD, CERTIFICATE = "broker.password", "broker-ca.pem"
_MEMBER = "joined.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What this machine was given, and the address at which the one that gave it was found."""

    admission: Admission
    address: str


@dataclass(frozen=True, slots=True)
class Membership:
    """The fleet that this machine joined by a token: the name of its broker's machine."""

    fleet: str
    role: str
    host: str


def membership(config: Config) -> Membership | None:
    """Return what this machine joined, None if it did by no token or is elsewhere now."""
    try:
        said = json.loads((config.home / _MEMBER).read_text())
        is_so = said.pop("broker") == _broker_of(config)
        return Membership(**said) if is_so else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _broker_of(config: Config) -> str:
    """Return what tells one broker from another, and is no secret."""
    own = config.broker
    return own.url.rpartition("@")[2] if own.url is not None else f"{own.host}:{own.port}"


def check_unbound(config: Config) -> None:
    """Refuse, before a token is used up, on a machine that belongs to a fleet or has one."""
    from relayq import embedded

    told = [name for name in os.environ if name.startswith("RELAYQ_BROKER__")]
    if told:
        raise Conflict(
            f"{min(told)} in the environment says where the broker is: it would go before what "
            "the token gives",
            hint=f"unset {' '.join(sorted(told))}",
        )
    if config.broker.is_configured:
        return
    if embedded.running_broker(config) is not None or embedded.worker_pid(config) is not None:
        raise Conflict(
            "this machine has a broker or a worker of its own, which runs now",
            hint="relayq down, and join then; what its own broker keeps stays there",
        )


def check_changeable(config: Config) -> None:
    """Refuse, before a token is used up, where what that stands for can't be kept."""
    _check_room(config.home)
    values: dict[str, configfile.Scalar] = {
        **dict.fromkeys(("broker.url", "broker.db", "broker.password", "broker.ca_file")),
        "broker.host": "broker",
        "broker.port": 1,
        "broker.password_file": PASSWORD,
        "worker.name": config.worker.name,
    }
    path = config.home / "config.yml"
    if not configfile.can_change(path, values):
        raise ConfigError(
            "it is written in a way that no program should change, so nothing was asked for yet: "
            "write the keys of its sections broker and worker each on a line of its own",
            place=path,
            hint="relayq config edit",
        )


def _check_room(home: Path) -> None:
    """Try to write as much as there is to be kept."""
    draft = home / "joining"
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(draft, "x" * 8 * LARGEST)
        draft.unlink()
    except OSError as error:
        raise ConfigError(f"can't write {home}: {error.strerror}") from error


def ask(
    token: Token,
    *,
    name: str,
    is_named: bool,
    install: str,
    as_client: bool,
    remark: Callable[[str], None],
) -> Answer:
    """Exchange a token for what it stands for; asks again, the same, when an answer gets lost."""
    agreement = Agreement()
    wish = Wish(
        ticket=token.ticket,
        nonce=os.urandom(16).hex(),
        name=name,
        install=install,
        public=agreement.public,
        is_named=is_named,
        as_client=as_client,
    )
    proof_key, key = keys_of(token.secret)
    body = json.dumps(wish.signed(proof_key)).encode()
    url, said = _answered(token, body, remark)
    try:
        public = said["public"]
        opened = unseal(
            answer_key(key, wish, public, agreement.agreed(public)),
            PURPOSE,
            bytes.fromhex(said["sealed"]),
        )
        admission = Admission.of_text(opened)
    except (BadSignature, ValueError, TypeError, KeyError, AttributeError) as error:
        raise JoinRefused(
            f"what answers at {url} isn't the machine that made this token: nothing was kept",
            hint="is somebody in between? Compare the address with the broker's machine",
        ) from error
    return Answer(admission, urlsplit(url).hostname or "")


def _answered(
    token: Token, body: bytes, remark: Callable[[str], None]
) -> tuple[str, Mapping[str, Any]]:
    """Return the first answer of any of the token's addresses, and which one it was."""
    end = clock.boottime() + _PATIENCE
    while True:
        faults, is_lost = [], False
        for url in token.urls:
            try:
                return url, _posted(url, body)
            except _Lost as error:
                is_lost = True
                faults.append(f"{_place(url)}: {error}")
            except OSError as error:
                faults.append(f"{_place(url)}: {(error.strerror or str(error)).lower()}")
        # Who wasn't heard at all used up nothing: the person may look what is wrong.
        if not is_lost or clock.boottime() > end:
            raise RelayqError(
                f"the broker's machine can't be reached ({'; '.join(faults)}); "
                f"the token is {'perhaps used up' if is_lost else 'good still'}",
                hint="are both in the same network (tailscale status)? "
                "On the broker's machine: relayq broker status",
            )
        remark(f"{'; '.join(faults)}; asking again")
        clock.sleep(_AGAIN)


class _Lost(Exception):
    """It may have been heard, and what was answered didn't come."""


def _posted(url: str, body: bytes) -> Mapping[str, Any]:
    """Send it to one address and return the answer; an error of the network is an OSError."""
    parts = urlsplit(url)
    sort = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = sort(parts.hostname or "", parts.port, timeout=_SILENCE)
    try:
        connection.connect()
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", parts.path.rstrip("/") + PATH, body, headers)
            answer = connection.getresponse()
            status, raw = answer.status, answer.read(8 * LARGEST)
            # A head that was cut passes for a whole one, and a body for the end of it.
            if answer.headers["Content-Length"] is None or answer.length:
                raise _Lost("the answer got lost")
        except (OSError, http.client.HTTPException) as error:
            raise _Lost("the answer got lost") from error
    finally:
        connection.close()
    said: Any = {}
    with suppress(ValueError, RecursionError):
        said = json.loads(raw)
    if status == http.HTTPStatus.OK and isinstance(said, dict):
        return said
    raise _refusal(url, status, said)


def _refusal(url: str, status: int, said: Any) -> RelayqError:
    told = said.get("error") if isinstance(said, dict) else None
    if not isinstance(told, dict) or not isinstance(told.get("message"), str):
        return JoinRefused(
            f"what answers at {_place(url)} isn't relayq's (HTTP {status}), or is too old to be "
            "asked by token",
            hint="on the broker's machine: relayq version; relayq broker token",
        )
    hint = _harmless(told.get("hint"))
    return JoinRefused(
        _harmless(told["message"]),
        hint=hint or "on the broker's machine: relayq broker token",
        reason=_harmless(told.get("code")) or "refused",
    )


def _harmless(text: object) -> str:
    """Return what a stranger says so that it does nothing to a terminal."""
    shown = text if isinstance(text, str) else ""
    return "".join(letter if letter.isprintable() else " " for letter in shown[:400]).strip()


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def keep(config: Config, answer: Answer, *, slots: int | None) -> Path | None:
    """Write all that was given, readable by its owner only; return an older key, put aside.

    The configuration is last: a machine that is cut off before it isn't in the fleet at all.
    """
    given = answer.admission
    home = config.home
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Checked before anything else is: a file that can't be changed must not cost what is there.
    values = _values(answer, slots, home / CERTIFICATE)
    configfile.planned(home / "config.yml", values)
    aside = _put_aside(config.fleet_key_path, given.key)
    if password := given.broker.get("password"):
        write_secret(home / PASSWORD, f"{password}\n")
    if certificate := given.broker.get("ca"):
        write_secret(home / CERTIFICATE, str(certificate))
    write_secret(config.fleet_key_path, given.key)
    configfile.change(home / "config.yml", values)
    url, where = values["broker.url"], f"{values['broker.host']}:{values['broker.port']}"
    said = {"fleet": given.fleet, "role": given.role, "host": given.host}
    broker = str(url).rpartition("@")[2] if url is not None else where
    write_secret(home / _MEMBER, json.dumps({**said, "broker": broker}) + "\n")
    return aside


def _values(answer: Answer, slots: int | None, ca: Path) -> dict[str, configfile.Scalar]:
    """Return what config.yml is to say; None takes a key out, and paths are of its directory.

    A path in a URL isn't: `ca` is where the certificate will be.
    """
    given = answer.admission.broker
    url = given.get("url")
    is_url = url is not None
    values: dict[str, configfile.Scalar] = {
        "broker.url": with_ca_file(url, ca) if url is not None else None,
        "broker.host": None if is_url else (given.get("host") or answer.address),
        "broker.port": None if is_url else given.get("port"),
        "broker.db": given.get("db") or None,
        "broker.user": given.get("user"),
        "broker.password": None,
        "broker.password_file": PASSWORD if given.get("password") else None,
        "broker.tls": True if given.get("tls") else None,
        "broker.ca_file": CERTIFICATE if given.get("ca") and not is_url else None,
        "worker.name": answer.admission.host,
    }
    if slots is not None:
        values["worker.max_concurrent"] = slots
    return values


def _put_aside(path: Path, key: str) -> Path | None:
    """Keep the key of another fleet under another name; its jobs can't be read without it."""
    try:
        before = path.read_text("ascii", errors="replace")
    except FileNotFoundError:
        return None
    # Each line begins with a key of the fleet: the one that signs, then those before it.
    if not before.split() or before.split()[0] in key.split():
        return None
    aside = path.with_name(f"{path.name}.before-{int(clock.now())}")
    # A copy: until the new one is in its place, this machine's own jobs need it.
    write_secret(aside, before)
    return aside


def write_secret(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
