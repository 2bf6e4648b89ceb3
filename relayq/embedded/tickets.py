"""The tickets of this fleet, on the broker's machine: who has the token of one may join once.

Each is a file in `<home>/broker/tickets`, readable by its owner only, and never in Redis, which
every host can read. It has the keys that follow from the token's secret and not the secret; once
it was used, what opens the answer is gone as well. The caller holds `join.lock`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from relayq import clock
from relayq.embedded.processes import write
from relayq.model.joining import Token, Wish, is_id, keys_of

#: How long a lost answer can be asked for again by who got it.
ANSWER_KEPT = 600.0
#: How long it is still known why a ticket isn't good any more.
_REMEMBERED = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What lets one machine in, once.

    `host` is the only name that it is for, None for any. `used_by` and what follows are there once
    it was used; `answer_key` is there until then.
    """

    id: str
    role: str
    host: str | None
    created: float
    expires: float
    proof_key: str
    answer_key: str = ""
    used_by: str = ""
    used_at: float = 0.0
    wish: str = ""
    answer: str = ""

    @property
    def is_used(self) -> bool:
        """Whether somebody joined by it."""
        return bool(self.used_by)

    def is_proven(self, wish: Wish, proof: str) -> bool:
        """Tell whether who sent this has the token; takes as long for every proof."""
        right = wish.proof(bytes.fromhex(self.proof_key))
        return hmac.compare_digest(right.encode(), proof.encode())

    def answered(self, wish: Wish, now: float) -> str | None:
        """Return the answer that this very wish has had, None if it is another one's, or too old.

        Only who drew the nonce can open it.
        """
        is_same = hmac.compare_digest(self.wish.encode(), _name_of(wish).encode())
        return self.answer if is_same and now < self.used_at + ANSWER_KEPT else None


class Tickets:
    """The files of the tickets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, token: Token, *, role: str, host: str | None, lasts: float) -> Ticket:
        """Keep a new ticket, and throw away what nobody needs to remember."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        self.sweep()
        now = clock.now()
        proof_key, answer_key = keys_of(token.secret)
        ticket = Ticket(
            token.ticket, role, host, now, now + lasts, proof_key.hex(), answer_key.hex()
        )
        self._write(ticket)
        return ticket

    def find(self, id: str) -> Ticket | None:
        """Return a ticket, used or not; None if there is none."""
        if not is_id(id):
            return None
        try:
            return Ticket(**json.loads(self._path(id).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            # What can't be read lets nobody in.
            return None

    def all(self) -> Iterator[Ticket]:
        """Yield every ticket."""
        for path in sorted(self._folder.glob("*.json")):
            if (ticket := self.find(path.stem)) is not None:
                yield ticket

    def use(self, ticket: Ticket, wish: Wish, *, name: str) -> Ticket:
        """Mark a ticket as used, before anything is given for it: a crash costs the ticket."""
        used = replace(
            ticket, used_by=name, used_at=clock.now(), wish=_name_of(wish), answer_key=""
        )
        self._write(used)
        return used

    def put_back(self, ticket: Ticket) -> None:
        """Make a ticket good again for which nothing could be given."""
        self._write(ticket)

    def keep_answer(self, ticket: Ticket, answer: str) -> None:
        """Keep what was answered, sealed, for as long as it may be asked for again."""
        self._write(replace(ticket, answer=answer))

    def void(self, id: str) -> None:
        """Make a ticket good for nothing."""
        self._path(id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Forget old answers and old tickets."""
        now = clock.now()
        for ticket in self.all():
            if ticket.expires + _REMEMBERED < now:
                self.void(ticket.id)
            elif ticket.answer and ticket.used_at + ANSWER_KEPT < now:
                self._write(replace(ticket, answer=""))
            elif ticket.answer_key and ticket.expires < now:
                self._write(replace(ticket, answer_key=""))

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.json"

    def _write(self, ticket: Ticket) -> None:
        write(self._path(ticket.id), json.dumps(asdict(ticket)).encode() + b"\n")


def _name_of(wish: Wish) -> str:
    import hashlib

    return hashlib.sha256(wish.digested).hexdigest()
