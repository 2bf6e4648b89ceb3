"""A worker's watch over the private broker and the file service beside it."""

from __future__ import annotations

import logging

from relayq.config import Config
from relayq.embedded.broker import is_dead, keep_broker
from relayq.embedded.files import are_files_wanted, files_pid, keep_files
from relayq.embedded.users import renew_rules
from relayq.errors import RelayqError

log = logging.getLogger(__name__)


class Keeper:
    """Starts again what died, and gives up the broker's ballast on a full disk."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._was_dead = False
        self._had_no_files = False
        self._complaint = ""
        self._has_renewed = False

    def look(self) -> None:
        """Look once; call it every few seconds.

        What is dead is started at the second look that finds it so: who is just starting it, or
        a service manager, comes first.
        """
        self._look_at_files()
        was_dead, self._was_dead = self._was_dead, is_dead(self._config)
        if self._was_dead and not was_dead:
            return
        try:
            done = keep_broker(self._config)
            self._renew_rules()
        except RelayqError as error:
            if error.message != self._complaint:
                log.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
                self._complaint = error.message
            return
        self._complaint = ""
        if done:
            log.warning("%s", done)

    def _renew_rules(self) -> None:
        """Have a broker that an older relayq started let its users do what this one needs."""
        if not self._has_renewed:
            if renew_rules(self._config):
                log.info("the broker's users have the rights that this relayq gives them")
            self._has_renewed = True

    def _look_at_files(self) -> None:
        had_none, self._had_no_files = self._had_no_files, self._lacks_files()
        if not had_none or not self._had_no_files:
            return
        try:
            if done := keep_files(self._config):
                log.warning("%s", done)
        except (RelayqError, OSError) as error:
            log.warning("%s", error)

    def _lacks_files(self) -> bool:
        return are_files_wanted(self._config) and files_pid(self._config) is None
