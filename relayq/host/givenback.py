"""What a batch gives back while it runs: the worker makes jobs of their own of these items.

They are submitted below the batch, so a cancel of it reaches them, and under ids that follow from
its own, so that a repeat makes none twice. Items that became jobs are no batch's again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relayq.dispatch import Dispatcher
from relayq.errors import BrokerUnavailable, NoSuchJob, RelayqError
from relayq.host.batching import GIVEN
from relayq.host.delivery import Attempt
from relayq.model import batches
from relayq.model.jobs import Spec, Token
from relayq.signing import Signer
from relayq.store import Store

log = logging.getLogger(__name__)


class GivenBack:
    """What the batch of one attempt gives back."""

    def __init__(self, store: Store, signer: Signer, attempt: Attempt) -> None:
        self._store = store
        self._signer = signer
        self._attempt = attempt
        self._path = attempt.directory / GIVEN
        self._is_done = False

    def look(self) -> None:
        """Submit what was given back, if anything was; without a broker it is tried again."""
        if self._is_done or not self._path.exists():
            return
        try:
            self.submit()
        except BrokerUnavailable as error:
            log.debug("%s can't give back yet: %s", self._attempt.token.id, error)

    def submit(self) -> None:
        """Submit what was given back; BrokerUnavailable where that can't be done now.

        Of a batch that was cancelled, or isn't this attempt's any more, nothing is made.
        """
        numbers = [] if self._is_done else _read(self._path)
        if not numbers:
            return
        token = self._attempt.token
        spec = self._signer.check_spec(self._attempt.note.signed, id=token.id)
        try:
            self._submit(spec, numbers)
        except BrokerUnavailable:
            raise
        except RelayqError as error:
            if self._is_ours(token):
                # Its lease is open, and the next beat takes it: the outcome waits for that.
                raise BrokerUnavailable(f"{token.id} can't give back now: {error}") from error
        self._is_done = True

    def _submit(self, spec: Spec, numbers: list[int]) -> None:
        singles = batches.given_back(spec, numbers)
        Dispatcher(self._store, self._signer).submit(singles)
        log.info("%s gave %d items back", spec.id, len(singles), extra={"job": spec.id})

    def _is_ours(self, token: Token) -> bool:
        try:
            record = self._store.jobs.fetch(token.id)
        except NoSuchJob:
            return False
        is_going = not record.state.is_final and record.cancel_at is None
        return is_going and record.attempt == token.attempt


def of_attempt(store: Store, signer: Signer, attempt: Attempt) -> GivenBack | None:
    """Return what watches an attempt's batch, None for another kind of job."""
    # Looked at for every job that runs: its spec is read only where it may be one.
    is_batch = f'"kind":"{batches.KIND}"'.encode() in attempt.note.signed
    return GivenBack(store, signer, attempt) if is_batch else None


def left_of(
    store: Store, spec: Spec, token: Token, payload: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the payload of a batch's further attempt, without what became jobs of their own."""
    if spec.kind != batches.KIND or token.attempt == 1:
        return payload
    ids = {batches.id_of(spec.id, number): number for number in batches.numbers_of(spec)}
    gone = {ids[one] for one in store.jobs.known(ids)}
    kept = [one for one in payload["items"] if one[0] not in gone]
    if not kept:
        raise RelayqError("all of its items have become jobs of their own")
    return {**payload, "items": kept}


def _read(path: Path) -> list[int]:
    try:
        said = json.loads(path.read_bytes())["items"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [number for number in said if isinstance(number, int)]
