"""The broker's machine lets others in: who shows that it has a token gets what its role needs.

A ticket is used up before anything is given for it. What was given is noted in
`<home>/broker/joined.json`: the name, and the installation that has it, so that no other machine
gets that name unless somebody made a token for just that.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relayq import clock
from relayq.config import Config
from relayq.embedded.broker import broker_address, broker_folder
from relayq.embedded.processes import locked, write
from relayq.embedded.tickets import Ticket, Tickets
from relayq.errors import BadSignature, Conflict, JoinRefused, RelayqError
from relayq.model.access import CLIENT, WORKER
from relayq.model.joining import PURPOSE, Admission, Token, Wish, answer_key, new_token
from relayq.sealing import Agreement, seal
from relayq.signing import load_key
from relayq.tls import ca_file_of
from relayq.version import __version__

#: Wrong proofs of an address in that time, before it isn't heard any more; those of one ticket,
#: before it is void. A secret has 256 bits: these keep the log short and the machine idle.
_PER_ADDRESS, _WHILE = 10, 600.0
_PER_TICKET = 20
_ADDRESSES = 1000
_NEW_ONE = "on the broker's machine: relayq broker token"


@dataclass(frozen=True, slots=True)
class Joined:
    """A machine that was let in."""

    name: str
    role: str
    install: str
    at: float


def make_ticket(
    config: Config, urls: tuple[str, ...], *, role: str, host: str | None, lasts: float
) -> tuple[Token, Ticket]:
    """Return a new token, and the ticket that was kept for it here."""
    if host == config.worker.name:
        raise Conflict(f"{host} is this machine", hint="give the name of the one that joins")
    token = new_token(urls)
    folder = broker_folder(config)
    with locked(folder / "join.lock"):
        return token, _tickets(folder).make(token, role=role, host=host, lasts=lasts)


def void_tickets(config: Config, *, host: str | None = None) -> int:
    """Make all unused tickets good for nothing, or those for one host; return how many."""
    folder = broker_folder(config)
    with locked(folder / "join.lock"):
        tickets = _tickets(folder)
        now = clock.now()
        good = [t.id for t in tickets.all() if not t.is_used and t.expires > now]
        of_host = [t.id for t in tickets.all() if host is not None and t.host == host]
        voided = of_host if host is not None else good
        for id in voided:
            tickets.void(id)
        return len(set(voided) & set(good))


def joined(config: Config) -> list[Joined]:
    """Return the machines that were let in, by name."""
    found = _joined(broker_folder(config))
    return [found[name] for name in sorted(found)]


def _with_users(config: Config) -> set[str]:
    """Return the machines that have users of this broker, made by hand or not."""
    from relayq.embedded.users import users

    return {user.host for user in users(config) if user.host is not None}


def user_of(role: str, host: str) -> str:
    """Return the name of the broker's user that a machine is."""
    return f"{role}-{host}"


def revoke(config: Config, host: str) -> list[str]:
    """Take from a machine what it was given here, at once; return the users that are no more.

    It can join again only by a new token.
    """
    from relayq.embedded.users import remove_user, users

    folder = broker_folder(config)
    void_tickets(config, host=host)
    known = [user.name for user in users(config) if user.host == host]
    removed = [name for name in known if remove_user(config, name)]
    with locked(folder / "join.lock"):
        found = _joined(folder)
        if found.pop(host, None) is not None:
            _note(folder, found)
    return removed


class Gate:
    """Where machines ask to be let in; one for the process that hears them, for all its threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = broker_folder(config)
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self._wrong_of: dict[str, int] = {}

    def admit(self, wish: Wish, proof: str, *, address: str) -> Mapping[str, str]:
        """Return the sealed answer to a machine; raises JoinRefused.

        Who hasn't the token isn't told whether there is such a ticket.
        """
        self._check_patience(address)
        tickets = _tickets(self._folder)
        ticket = tickets.find(wish.ticket)
        if ticket is None or not ticket.is_proven(wish, proof):
            self._count(address, ticket)
            raise JoinRefused(
                "this token isn't known here: it was made elsewhere, or long ago, or voided",
                hint=_NEW_ONE,
                reason="unknown_token",
            )
        with locked(self._folder / "join.lock"):
            ticket = tickets.find(wish.ticket)
            if ticket is None:
                raise JoinRefused("the token was voided", hint=_NEW_ONE, reason="unknown_token")
            return self._admit(tickets, ticket, wish)

    def _admit(self, tickets: Tickets, ticket: Ticket, wish: Wish) -> Mapping[str, str]:
        if ticket.is_used:
            if kept := ticket.answered(wish, clock.now()):
                return dict(json.loads(kept))
            raise _used(ticket)
        if (late := clock.now() - ticket.expires) >= 0:
            raise JoinRefused(
                f"the token expired {_ago(late)}", hint=_NEW_ONE, reason="expired_token"
            )
        role = CLIENT if wish.as_client else ticket.role
        name = self._name_for(ticket, wish)
        agreement = Agreement()
        try:
            agreed = agreement.agreed(wish.public)
        except BadSignature as error:
            raise JoinRefused(error.message, reason="bad_request") from error
        key = answer_key(bytes.fromhex(ticket.answer_key), wish, agreement.public, agreed)
        before = _joined(self._folder)
        used = tickets.use(ticket, wish, name=name)
        try:
            # First whose name it is: what is cut off after this gives it to nobody else.
            new = Joined(name, role, wish.install, clock.now())
            _note(self._folder, {**before, name: new})
            admission = grant(self._config, role=role, host=name)
            sealed = seal(key, PURPOSE, admission.as_text()).hex()
            answer = {"public": agreement.public, "sealed": sealed}
            tickets.keep_answer(used, json.dumps(answer))
        except (RelayqError, OSError):
            tickets.put_back(ticket)
            if name not in _with_users(self._config):
                _note(self._folder, before)
            raise
        return answer

    def _name_for(self, ticket: Ticket, wish: Wish) -> str:
        """Return what the machine will be called."""
        if ticket.host is not None:
            if wish.is_named and wish.name != ticket.host:
                raise JoinRefused(
                    f"the token is for a machine that is to be called {ticket.host}",
                    hint=f"relayq join --name {ticket.host}, or a token without --host",
                    reason="name_fixed",
                )
            return ticket.host
        held = _joined(self._folder).get(wish.name)
        is_own = wish.name == self._config.worker.name
        is_others = (
            wish.name in _with_users(self._config) if held is None else held.install != wish.install
        )
        if is_own or is_others:
            whose = (
                "the broker's machine" if is_own else "another machine, or an older installation"
            )
            hint = "relayq join --name NAME takes another name"
            if not is_own:
                hint += (
                    f"; if that one is gone, on the broker's machine: relayq broker token "
                    f"--host {wish.name}"
                )
            raise JoinRefused(
                f"{wish.name} is the name of {whose} already", hint=hint, reason="name_taken"
            )
        return wish.name

    def _check_patience(self, address: str) -> None:
        with self._lock:
            since = clock.boottime() - _WHILE
            recent = [at for at in self._wrong.get(address, ()) if at > since]
            if len(recent) < _PER_ADDRESS:
                return
            wait = recent[0] + _WHILE - clock.boottime()
        raise JoinRefused(
            f"too many wrong tokens from {address}",
            hint=f"try again in {wait / 60:.0f} min",
            reason="too_many",
        )

    def _count(self, address: str, ticket: Ticket | None) -> None:
        """Note a wrong proof."""
        with self._lock:
            times = self._wrong.setdefault(address, [])
            times.append(clock.boottime())
            del times[:-_PER_ADDRESS]
            self._wrong.move_to_end(address)
            if len(self._wrong) > _ADDRESSES:
                self._wrong.popitem(last=False)
            if ticket is None:
                return
            self._wrong_of[ticket.id] = self._wrong_of.get(ticket.id, 0) + 1
            is_void = self._wrong_of[ticket.id] >= _PER_TICKET
        if is_void and not ticket.is_used:
            with locked(self._folder / "join.lock"):
                _tickets(self._folder).void(ticket.id)


def grant(config: Config, *, role: str, host: str) -> Admission:
    """Make a machine's user at the broker, and return all that the machine needs.

    A broker that isn't this machine's own has no users to be made: its one password is handed on.
    """
    key_path = config.fleet_key_path
    load_key(key_path)
    is_own = not config.broker.is_configured
    broker = _own_broker(config, role, host) if is_own else _configured(config)
    return Admission(
        fleet=config.worker.name,
        role=role,
        host=host,
        key=key_path.read_text("ascii"),
        broker=broker,
        is_own=is_own,
        version=__version__,
    )


def _own_broker(config: Config, role: str, host: str) -> dict[str, Any]:
    from relayq.embedded.broker import broker_authority, running_broker
    from relayq.embedded.users import add_user, remove_user

    facts = running_broker(config)
    if facts is None:
        raise RelayqError(
            "the broker doesn't run, so it can't be told of the new machine",
            hint="on the broker's machine: relayq broker start; then join again by the same token",
        )
    user = user_of(role, host)
    password = add_user(config, user, role=role, host=host)
    # A machine has one way in: that of its role before ends now.
    for old in {user_of(WORKER, host), user_of(CLIENT, host)} - {user}:
        remove_user(config, old)
    authority = broker_authority(config)
    checked = {"tls": True, "ca": authority.read_text()} if authority is not None else {}
    return {"port": facts.port, "user": user, "password": password, **checked}


def _configured(config: Config) -> dict[str, Any]:
    own = config.broker
    told: dict[str, Any] = {"user": own.user, "password": own.password}
    if own.url is not None:
        if (file := ca_file_of(own.url)) is not None:
            told["ca"] = Path(file).read_text()
        return {**told, "url": own.url}
    if own.ca_file is not None:
        told["ca"] = Path(own.ca_file).read_text()
    # At this machine itself others find it where they found this service.
    is_here = own.host in ("localhost", "127.0.0.1", "::1") or broker_address(config) == own.host
    host = {} if is_here else {"host": own.host}
    return {**told, **host, "port": own.port, "db": own.db, "tls": own.tls}


def _used(ticket: Ticket) -> JoinRefused:
    return JoinRefused(
        f"the token was used already, by {ticket.used_by}, {_ago(clock.now() - ticket.used_at)}",
        hint=f"each lets one machine in; if that wasn't you: relayq hosts rm {ticket.used_by} "
        "on the broker's machine, and relayq key rotate",
        reason="used_token",
    )


def _ago(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 2:
        return f"{seconds:.0f} s ago"
    return f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} h ago"


def _tickets(folder: Path) -> Tickets:
    return Tickets(folder / "tickets")


def _joined(folder: Path) -> dict[str, Joined]:
    path = folder / "joined.json"
    try:
        rows = json.loads(path.read_text())
        return {name: Joined(**row) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RelayqError(f"{path} can't be understood: {error}") from error


def _note(folder: Path, found: Mapping[str, Joined]) -> None:
    rows = {name: asdict(found[name]) for name in sorted(found)}
    write(folder / "joined.json", json.dumps(rows, indent=1).encode() + b"\n")
