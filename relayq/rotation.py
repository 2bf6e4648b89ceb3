"""The fleet's key gives way to another one: who has the old one finds the new one by itself.

The new key lies in Redis, sealed under the old one. So it is no secret from who has both the old
key and a way into Redis: whom a host was taken from must have lost that way before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from relayq import clock
from relayq.config import Config
from relayq.errors import BadSignature, ConfigError, Conflict, RelayqError, WrongFleetKey
from relayq.identity import Identity, load_identity, write_private
from relayq.model.consents import LASTS
from relayq.privileges import as_owner
from relayq.signing import FleetKeys, FormerKey, Ring, Signer, key_id_of, load_keys, read_keys
from relayq.store import Store
from relayq.store.rotations import Resigned

log = logging.getLogger(__name__)

_PURPOSE = b"relayq fleet key\0"
_TRIES = 5


def signer_of(config: Config, store: Store | None = None) -> Signer:
    """Return what a person's commands sign with: the fleet's key, and their own if there is one.

    It finds its way to a key that came after this machine's; without a store it only looks whether
    another process of this machine has.
    """
    return _signer(config, store, load_identity(config.home))


def workers_signer(config: Config, store: Store) -> Signer:
    """Return what a worker signs with: nothing of what it signs is a person's word."""
    return _signer(config, store, None)


def _signer(config: Config, store: Store | None, identity: Identity | None) -> Signer:
    path = config.fleet_key_path
    with as_owner():
        ring = Ring(load_keys(path))
    ring.renew = Renewal(ring, path, store)
    return Signer(ring, identity)


class Renewal:
    """Looks for a key that came after this machine's: in its file, then in Redis."""

    def __init__(self, ring: Ring, path: Path, store: Store | None) -> None:
        self._ring = ring
        self._path = path
        self._store = store

    def __call__(self) -> bool:
        """Take the newest key, and say whether that is another one than before."""
        before = self._ring.keys
        # Another process of this machine may have found it.
        with as_owner():
            keys = load_keys(self._path)
        while self._store is not None:
            sealed = self._store.rotations.successor(key_id_of(keys.key))
            if sealed is None:
                break
            keys = _opened(keys, sealed)
            try:
                with as_owner():
                    write_private(self._path, keys.text)
            except ConfigError as error:
                # A full disk, for instance: the next process finds it in Redis as this one did.
                log.warning("the fleet's new key is known to this process only: %s", error)
        if keys == before:
            return False
        self._ring.replace(keys)
        return True


def found_newer(ring: Ring) -> bool:
    """Whether there was a key after this worker's, which it has from now on; why not is logged."""
    try:
        if ring.renew():
            return True
        why = "this host's fleet key isn't the broker's"
    except WrongFleetKey as error:
        why = error.message
    log.error("no job runs here: %s", why)
    return False


def _opened(keys: FleetKeys, sealed: bytes) -> FleetKeys:
    from relayq.sealing import unseal

    try:
        return read_keys(unseal(keys.key, _PURPOSE, sealed).decode("ascii"))
    except (BadSignature, ValueError) as error:
        # Somebody wrote there who hasn't the key.
        raise WrongFleetKey(
            "what is said to be the fleet's next key wasn't sealed with this machine's",
            hint="copy ~/.relayq/fleet.key from a machine that works",
        ) from error


def rotate(signer: Signer, config: Config, store: Store, *, at_once: bool, who: str) -> FleetKeys:
    """Give the fleet another key, and return what this machine has now.

    What the old one signed stays good for 30 days, or, `at_once`, no longer.
    """
    from relayq.sealing import seal

    path, now = config.fleet_key_path, clock.now()
    for _ in range(_TRIES):
        key = os.urandom(32)
        fresh = Signer(key)
        # First of all: what is signed with a newer key than this machine's leads it to that.
        count = len(store.schedules.names())
        schedules = list(_resigned(signer, store, fresh))
        old = signer.ring.keys
        former = (FormerKey(old.key, now + LASTS), *(f for f in old.former if f.until > now))
        new = FleetKeys(key, () if at_once else former)
        # First the file: whoever took over the new key from Redis alone would have the only copy.
        draft = path.with_name(f"{path.name}.new")
        write_private(draft, new.text)
        sealed = seal(old.key, _PURPOSE, new.text.encode())
        word = store.rotations.rotate(
            key_id_of(old.key), fresh.key_id, sealed, schedules=schedules, count=count, who=who
        )
        if word == "rotated":
            os.replace(draft, path)
            signer.ring.replace(new)
            return new
        draft.unlink()
        if word == "wrong_key" and not signer.ring.renew():
            raise WrongFleetKey(
                "this machine's fleet key isn't the broker's",
                hint="copy ~/.relayq/fleet.key from a machine that works",
            )
    raise Conflict("schedules change all the time: the key stays", hint="relayq schedule ls")


def _resigned(signer: Signer, store: Store, by: Signer) -> Iterator[Resigned]:
    """Yield the schedules as another key signs them; what isn't signed by this fleet stays so."""
    for record in store.schedules.list():
        with suppress(BadSignature):
            yield Resigned(record.name, record.signed, signer.signed_anew(record.signed, by=by))


def check_trusted(path: Path) -> None:
    """Raise if a file on which this host's rules stand can be written by others."""
    held = path.stat()
    if held.st_uid not in (0, os.geteuid()) or held.st_mode & 0o022:
        raise RelayqError(f"others can write {path}", hint=f"chmod 600 '{path}'")
