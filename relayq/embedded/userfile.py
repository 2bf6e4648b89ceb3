"""What the private broker keeps of its users: `users.json`, and `users.acl` made from it.

Both have sums of secrets and no secret. The secrets that are used on this machine itself lie
beside them: `password` of `admin`, `local.password` of `local`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from relayq import clock
from relayq.embedded.processes import write
from relayq.errors import RelayqError
from relayq.model.access import ADMIN, ROLES, WORKER, rules
from relayq.store.keys import PREFIX

#: Who this machine's own worker, commands and file service are.
LOCAL = "local"
# Nobody can be it. Its rights are for Redis itself, which reads its append-only file as this user
# and checks each transaction in it: without them a restart loses what scripts wrote (6.2, 7.0.15).
NOBODY = "user default reset off ~* &* +@all"
_FILES = {ADMIN: "password", LOCAL: "local.password"}


@dataclass(frozen=True, slots=True)
class BrokerUser:
    """A user of the broker; `host` is the machine that has its secret, if one was named."""

    name: str
    role: str
    host: str | None
    created: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A user, and the sum of its secret."""

    user: BrokerUser
    sha256: str

    @property
    def words(self) -> tuple[str, ...]:
        """What ACL SETUSER is told after the name."""
        return ("reset", "on", f"#{self.sha256}", *rules(self.user.role, PREFIX))


def entry(name: str, role: str, host: str | None, secret: str) -> Entry:
    """Return a user that is made now."""
    user = BrokerUser(name, role, host, clock.now())
    return Entry(user, hashlib.sha256(secret.encode()).hexdigest())


def read(folder: Path) -> dict[str, Entry]:
    """Return the users that were made, by name."""
    path = folder / "users.json"
    try:
        rows = json.loads(path.read_text())
        return {
            name: Entry(BrokerUser(name, row["role"], row["host"], row["created"]), row["sha256"])
            for name, row in rows.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RelayqError(f"{path} can't be understood: {error}") from error


def keep(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write the users; the caller holds the lock."""
    rows = {}
    for name, one in entries.items():
        row = asdict(one.user) | {"sha256": one.sha256}
        del row["name"]
        rows[name] = row
    write(folder / "users.json", json.dumps(rows, indent=1).encode() + b"\n")


def make(folder: Path) -> Path:
    """Write `users.acl` by today's rules, and return it; the caller holds the lock."""
    path = folder / "users.acl"
    write(path, _lists(everybody(folder)))
    return path


def everybody(folder: Path) -> list[Entry]:
    """Return all users by today's rules, the broker's own with them."""
    own = [
        entry(ADMIN, ADMIN, None, made_secret(folder, ADMIN)),
        entry(LOCAL, WORKER, None, made_secret(folder, LOCAL)),
    ]
    # A role of a newer relayq's must not keep an older one's broker from starting.
    return [*own, *(one for one in read(folder).values() if one.user.role in ROLES)]


def is_of_today(folder: Path) -> bool:
    """Tell whether `users.acl` is what it would be now; also before there is one."""
    try:
        return (folder / "users.acl").read_bytes() == _lists(everybody(folder))
    except FileNotFoundError:
        return True
    except OSError as error:
        raise RelayqError(f"the private broker can't be used: {error}") from error


def _lists(entries: Sequence[Entry]) -> bytes:
    lines = [NOBODY, *(f"user {one.user.name} {' '.join(one.words)}" for one in entries)]
    return "".join(f"{line}\n" for line in lines).encode()


def secret_of(folder: Path, name: str) -> str | None:
    """Return the secret of `admin` or `local`, None before it is made."""
    path = folder / _FILES[name]
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RelayqError(f"the private broker can't be used: {error}") from error


def made_secret(folder: Path, name: str) -> str:
    """Return the secret of `admin` or `local`; made at the broker's first start."""
    secret = secret_of(folder, name)
    if secret is None:
        secret = new_secret()
        write(folder / _FILES[name], f"{secret}\n".encode())
    return secret


def new_secret() -> str:
    """Return a secret of 256 bits."""
    return secrets.token_hex(32)
