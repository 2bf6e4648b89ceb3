"""The worker's part of the files that travel with jobs: what passes through Redis, and the orders.

Whatever is large, or may take long, is done by the steps under the shim (`relayq.host.stage`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayq import clock
from relayq.artifacts import Artifacts
from relayq.config import Config, install_id
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.host import attempts, spool
from relayq.host.returned import Returned
from relayq.host.stages import ORDER
from relayq.host.staging import SMALL
from relayq.host.worktrees import Tree
from relayq.model.files import INLINE, FileIn, FileOut, inside
from relayq.model.jobs import Spec, Token
from relayq.signing import Signer
from relayq.store import Store
from relayq.transfer import Digest, Service

log = logging.getLogger(__name__)

SCRATCH = "scratch"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = f"import sys; sys.path.insert(0, {_ROOT!r}); from relayq.host.stage import main; main()"
#: How long a token for the file service is good, and how old the one of an attempt may get.
_LASTS, _RENEWED = 86_400.0, 6 * 3600.0
#: How often the file service of a running attempt is looked at, and how often while there is none.
_LOOK, _LOOK_SOON = 15.0, 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """What an attempt's directory is to hold before its steps begin."""

    order: Mapping[str, Any]
    small: Mapping[str, bytes]
    scratch: str

    @property
    def argv(self) -> list[str]:
        """The program of both steps; nothing of an order is in its arguments."""
        return [sys.executable, "-I", "-c", _PROGRAM]

    def write(self, directory: Path) -> None:
        """Lay everything into the attempt's directory."""
        if self.scratch:
            os.makedirs(self.scratch, mode=0o700, exist_ok=True)
        os.mkdir(directory / SMALL, 0o700)
        for sha256, content in self.small.items():
            (directory / SMALL / sha256).write_bytes(content)
        spool.write_new(str(directory / ORDER), dict(self.order))


class Cargo:
    """The files of this host's attempts."""

    def __init__(self, config: Config, store: Store, signer: Signer) -> None:
        self._config = config
        self._artifacts = Artifacts(store, config, signer)

    def scratch(self, spec: Spec, directory: Path) -> str:
        """Return the directory for a job that names none, "" for one without files."""
        if not spec.files_in and not spec.files_out:
            return ""
        if spec.accounts:
            # An agent's session goes on there in a later attempt.
            return str(self._config.home / "agents" / SCRATCH / spec.id)
        return str(directory / SCRATCH)

    def load(
        self, spec: Spec, token: Token, directory: Path, cwd: str, tree: Tree | None = None
    ) -> Load:
        """Return what the steps of an attempt need; raises RelayqError for files that can't be."""
        files_in, files_out = _read(spec)
        scratch = self.scratch(spec, directory)
        worker = self._config.worker
        order = {
            "job": token.id,
            "attempt": token.attempt,
            "cwd": cwd,
            "is_scratch": cwd == str(directory / SCRATCH),
            "is_resumed": bool(spec.accounts) and token.attempt > 1,
            "install": install_id(self._config.home),
            "paths": dict(worker.paths),
            "cache": str(self._config.home / "cache" / "files"),
            "cache_limit": worker.cache,
            "patience": worker.patience,
            "files_in": [one.as_dict() for one in files_in],
            "files_out": [one.as_dict() for one in files_out],
            "git": None if tree is None else tree.as_dict(),
            "service": _as_dict(self._artifacts.service(lasts=_LASTS)),
        }
        small = {
            one.sha256: content
            for one in files_in
            if one.sha256 and 0 < one.size <= INLINE
            if (content := self._artifacts.read_small(one.sha256)) is not None
        }
        return Load(order, small, scratch if cwd == scratch else "")

    def supply(self, directory: Path) -> Supply:
        """Return what keeps an attempt's order fresh."""
        return Supply(self._artifacts, directory)

    def bring(self, token: Token, directory: Path, returned: Returned) -> None:
        """Put the small result files into Redis, and note that the job needs the others."""
        for one in returned.files:
            if one.place == "inline":
                content = (directory / SMALL / one.sha256).read_bytes()
                self._artifacts.keep_small(content, job=token.id, is_result=True)
        large = [Digest(one.sha256, one.size) for one in returned.files if one.place == "service"]
        self._artifacts.refer(token.id, large, is_result=True)

    def tidy(self, directory: Path, *, keep: bool) -> None:
        """Remove what only the steps needed of a directory that stays for its output."""
        attempts.remove(directory / SMALL)
        with suppress(OSError):
            os.unlink(directory / ORDER)
        if not keep:
            attempts.remove(directory / SCRATCH)


def _read(spec: Spec) -> tuple[list[FileIn], list[FileOut]]:
    try:
        files_in = [FileIn.from_dict(one) for one in spec.files_in]
        files_out = [FileOut.from_dict(one) for one in spec.files_out]
    except (ValueError, AttributeError) as error:
        raise RelayqError(f"its files can't be read: {error}") from error
    for name in [one.dest for one in files_in] + [one.pattern for one in files_out]:
        inside(name)
    return files_in, files_out


def _as_dict(service: Service | None) -> dict[str, str] | None:
    return None if service is None else {"url": service.url, "token": service.token}


class Supply:
    """Tells the steps of one attempt where the file service is, and gives them a token for it."""

    def __init__(self, artifacts: Artifacts, directory: Path) -> None:
        self._artifacts = artifacts
        self._path = str(directory / ORDER)
        self._due_at = 0.0
        self._written_at = -_RENEWED

    def look(self) -> None:
        """Renew the order if the service has moved or its token is old; ten times a second."""
        now = clock.boottime()
        if now < self._due_at:
            return
        self._due_at = now + _LOOK_SOON
        order = spool.load(self._path)
        if order is None:
            return
        known = order.get("service")
        try:
            service = _as_dict(self._artifacts.service(lasts=_LASTS))
        except BrokerUnavailable as error:
            log.debug("no broker to ask for the file service: %s", error)
            return
        if service is None:
            return  # one that was there may be there still, when only the broker restarts
        self._due_at = now + _LOOK
        has_moved = known is None or known["url"] != service["url"]
        if has_moved or now >= self._written_at + _RENEWED:
            with suppress(OSError):
                spool.replace(self._path, {**order, "service": service})
                self._written_at = now
