"""The worker's socket: its jobs' way to the fleet, each with a token of its own.

Whoever may open the socket is this user; what they may ask depends on the token, which is good for
one attempt, from its start to the end of its shim. It lies with the attempt's command, so that the
next worker process knows it as well, and listens at the same place.
"""

from __future__ import annotations

import hmac
import logging
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from relayq import clock, passage
from relayq.errors import RelayqError
from relayq.host import tokens
from relayq.host.delivery import Attempt
from relayq.host.errands import Errands
from relayq.host.runner import Runner
from relayq.store import Store

log = logging.getLogger(__name__)

#: How many questions are answered at once; one of them may wait 2.5 s for something to happen.
_AT_ONCE = 64
#: How long one may take to be asked, or to be heard.
_PATIENCE = 30.0
#: How long a job may be ahead of the worker that has just started it.
_STARTS = 2.0
_LOOK = 0.02


class Doorway:
    """Listens, and lets in whoever has the token of an attempt that runs here."""

    def __init__(self, runner: Runner, store: Store, home: Path) -> None:
        self._runner = runner
        self._errands = Errands(store, runner.signer, runner.config, runner.who.host)
        self._path = tokens.address(home)
        self._tokens: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen; without a socket jobs run as well, and can ask nothing."""
        try:
            self._listener = self._bound()
        except OSError as error:
            log.warning("jobs can't ask this worker anything: %s: %s", self._path, error)
            return
        threading.Thread(target=self._listen, name="doorway", daemon=True).start()

    def close(self) -> None:
        """Listen no more; who asks now waits for the next worker."""
        if self._listener is not None:
            # Closing alone doesn't wake the thread that waits for somebody to come.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _bound(self) -> socket.socket:
        folder = os.path.dirname(self._path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder).st_uid != os.getuid():
            raise PermissionError(f"{folder} is somebody else's")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Bound beside its place: so nobody sees it before it has its mode, or none at all.
        draft = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(draft)
        listener.bind(draft)
        os.chmod(draft, 0o600)
        listener.listen(_AT_ONCE)
        os.replace(draft, self._path)
        return listener

    def _listen(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._room.acquire()
            threading.Thread(
                target=self._serve, args=(connection,), name="errand", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_PATIENCE)
                question = passage.received(connection)
                if question is not None:
                    connection.sendall(passage.written(self._answer(question)))
        except (OSError, ValueError, RecursionError) as error:
            log.debug("a job's question came to nothing: %s", error)
        finally:
            self._room.release()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            attempt = self._attempt_of(str(question.get("token", "")))
            if attempt is None:
                raise RelayqError(
                    "this job's token isn't good any more, or never was: only a job that runs on "
                    "this host may ask its worker"
                )
            value = self._errands.run(
                attempt,
                str(question.get("verb")),
                passage.unpacked(question.get("args")),
                passage.unpacked(question.get("options")),
            )
            return {"value": passage.packed(value)}
        except RelayqError as error:
            return passage.refused(error)
        except Exception as error:
            # The edge: whatever a job asks, it gets an answer, and the worker goes on.
            log.exception("a job's question broke")
            return passage.refused(RelayqError(f"the worker can't answer that: {error}"))

    def _attempt_of(self, token: str) -> Attempt | None:
        """Return the running attempt whose token this is."""
        attempt = self._with_token(token) if token.isascii() else None
        deadline = clock.boottime() + _STARTS
        while attempt is not None and attempt.shim is None and clock.boottime() < deadline:
            clock.sleep(_LOOK)
        if attempt is None or attempt.shim is None or attempt.is_stale:
            return None
        return attempt if attempt.shim.is_alive() else None

    def _with_token(self, token: str) -> Attempt | None:
        attempts = {attempt.directory: attempt for attempt in self._runner.attempts()}
        with self._lock:
            known = {path: own for path, own in self._tokens.items() if path in attempts}
            for path in attempts:
                # An attempt that is just prepared has none yet.
                if path not in known and (own := tokens.read(path)):
                    known[path] = own
            self._tokens = known
        for path, own in known.items():
            if hmac.compare_digest(own, token):
                return attempts[path]
        return None
