"""The users of the private broker: one for each machine that reaches it, with a secret of its own.

They are kept in `users.json` (see `userfile`), and a broker that runs is told of a change at once.
`admin` and `local` aren't among them: they are the broker's own.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

from relayq.config import Config
from relayq.embedded import userfile
from relayq.embedded.broker import answered_url, broker_folder, url_of
from relayq.embedded.processes import locked
from relayq.embedded.userfile import LOCAL, BrokerUser
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.model.access import ADMIN, ROLES

if TYPE_CHECKING:
    from relayq.store import Store

__all__ = ["BrokerUser", "add_user", "admin_url", "remove_user", "renew_rules", "users"]

# In a URL and in users.acl it stands as it is.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def users(config: Config) -> list[BrokerUser]:
    """Return the users that were made, by name."""
    entries = userfile.read(broker_folder(config))
    return [entries[name].user for name in sorted(entries)]


def add_user(config: Config, name: str, *, role: str, host: str | None = None) -> str:
    """Make a user and return its password; one that is there gets this role and a new password.

    Whoever is connected as that user then is cut off. Without `host` it is the one of a name such
    as worker-HOST.
    """
    _check(name)
    if role not in ROLES:
        raise RelayqError(f"there is no role {role!r}", hint=f"one of: {', '.join(ROLES)}")
    secret = userfile.new_secret()
    start = f"{role}-"
    named = name.removeprefix(start) if name.startswith(start) else None
    made = userfile.entry(name, role, host or named or None, secret)
    folder = broker_folder(config)
    with locked(folder / "start.lock"):
        before = userfile.read(folder)
        userfile.keep(folder, {**before, name: made})
        try:
            if (url := answered_url(folder)) is not None:
                with closing(_connected(url)) as store:
                    store.access.put(name, made.words)
        except RelayqError:
            # Nobody is told this secret: the next start mustn't make it the only one.
            userfile.keep(folder, before)
            raise
    return secret


def remove_user(config: Config, name: str) -> bool:
    """Remove a user, which ends its connections; return False if there was none."""
    _check(name)
    folder = broker_folder(config)
    with locked(folder / "start.lock"):
        entries = userfile.read(folder)
        was_kept = entries.pop(name, None) is not None
        was_known = False
        # First: of what Redis didn't hear, the list must still tell that it is to be done.
        if (url := answered_url(folder)) is not None:
            with closing(_connected(url)) as store:
                was_known = store.access.remove(name)
        if was_kept:
            userfile.keep(folder, entries)
    return was_kept or was_known


def renew_rules(config: Config) -> bool:
    """Give the users of a broker that runs today's rules; return whether there was need.

    Nobody is cut off. A broker that doesn't run gets them at its start.
    """
    folder = broker_folder(config)
    if userfile.is_of_today(folder):
        return False
    with locked(folder / "start.lock"):
        if (url := answered_url(folder)) is None:
            return False
        with closing(_connected(url)) as store:
            for one in userfile.everybody(folder):
                store.access.change(one.user.name, one.words)
        # Last: until it is written, the next one who looks does this again.
        userfile.make(folder)
    return True


def admin_url(config: Config) -> str:
    """Return the URL with which the broker's owner reaches it, running or not."""
    url = url_of(broker_folder(config), ADMIN)
    if url is None:
        raise BrokerUnavailable("no broker has run here", hint="relayq broker start")
    return url


def _connected(url: str) -> Store:
    # Most commands know of no users, and shouldn't wait for it.
    from relayq.store import connect

    return connect(url)


def _check(name: str) -> None:
    if name in ("default", ADMIN, LOCAL):
        raise RelayqError(f"{name} is the broker's own user", hint="take another name")
    if not _NAME.fullmatch(name):
        raise RelayqError(
            f"{name!r} can't be a user's name",
            hint="lower-case letters, digits, dots and dashes: worker-pi4",
        )
