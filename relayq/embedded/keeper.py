"""A worker's watch over the private broker beside it."""

from __future__ import annotations

import logging

from relayq.config import Config
from relayq.embedded.broker import is_dead, keep_broker
from relayq.errors import RelayqError

log = logging.getLogger(__name__)


class Keeper:
    """Starts a private broker that died again, and gives up its ballast on a full disk."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._was_dead = False
        self._complaint = ""

    def look(self) -> None:
        """Look once; call it every few seconds.

        A broker is started at the second look that finds it dead, so that who is just starting
        it, or a service manager, comes first.
        """
        was_dead, self._was_dead = self._was_dead, is_dead(self._config)
        if self._was_dead and not was_dead:
            return
        try:
            done = keep_broker(self._config)
        except RelayqError as error:
            if error.message != self._complaint:
                log.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
                self._complaint = error.message
            return
        self._complaint = ""
        if done:
            log.warning("%s", done)
