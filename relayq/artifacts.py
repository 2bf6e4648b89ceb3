"""The files of jobs between machines: small ones in Redis, large ones in the file service.

What a job refers to is kept as long as it needs it: its inputs until it ended, its result files as
long as its record. A content has no name but its sha256; names are the jobs' business.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from relayq import clock
from relayq.config import Config
from relayq.contents import Digest, Progress, changed, hash_file, read_file, write_content
from relayq.errors import BadSignature, NoFileService
from relayq.model.files import INLINE
from relayq.parsing import size_text
from relayq.signing import Signer
from relayq.store import Store
from relayq.transfer import Remark, Service, get, put

__all__ = [
    "SCOPE",
    "Artifacts",
    "Digest",
    "Progress",
    "Remark",
    "Service",
    "hash_file",
    "read_file",
]

log = logging.getLogger(__name__)

#: What a bearer token for the file service is good for.
SCOPE = "files"
#: How long one is good that isn't for a job.
_LASTS = 86_400.0
_NOTE = "fileserver"
#: Put back into Redis later than that, it is believed by nobody, whose clock isn't as wrong.
_STALE = 86_400.0
#: How long an announcement is believed without another look.
_LOOK_AGAIN = 10.0


class Artifacts:
    """Where a fleet's files are."""

    def __init__(self, store: Store, config: Config, signer: Signer) -> None:
        self._store = store
        self._config = config
        self._signer = signer
        self._url: str | None = None
        self._looked_at = -_LOOK_AGAIN

    def service(self, *, lasts: float = _LASTS) -> Service | None:
        """Return the file service as this machine reaches it, with a token for so many seconds."""
        if self._url is None or clock.boottime() > self._looked_at + _LOOK_AGAIN:
            announced = self.announced()
            self._url = None if announced is None else self._reached(announced)
            self._looked_at = clock.boottime()
        return None if self._url is None else Service(self._url, self.token(lasts=lasts))

    def announce(self, name: str, service: Mapping[str, Any]) -> str | None:
        """Say for a minute where the file service `name` is; returns the name of another one.

        Nothing is said while that is there.
        """
        other = self.announced()
        if other is not None and other["name"] != name:
            return str(other["name"])
        said = {**service, "name": name, "at": clock.now()}
        self._store.artifacts.announce(self._signer.sign_note(_NOTE, json.dumps(said).encode()))
        return None

    def announced(self) -> dict[str, Any] | None:
        """Return what the file service says of itself, None without one.

        Who can write to Redis, and hasn't the fleet's key, must not be sent files and tokens.
        """
        signed = self._store.artifacts.announced()
        if signed is None:
            return None
        try:
            said = dict(json.loads(self._signer.check_note(signed, name=_NOTE)))
        except BadSignature as error:
            log.warning("the announcement of a file service is refused: %s", error.message)
            return None
        return said if abs(clock.now() - said["at"]) < _STALE else None

    def withdraw(self, name: str) -> None:
        """Say that the file service `name` is going."""
        mine = self.announced()
        if mine is not None and mine["name"] == name:
            self._store.artifacts.withdraw()

    def token(self, *, lasts: float = _LASTS) -> str:
        """Return a bearer token for the file service, good for so many seconds."""
        return self._signer.bearer(SCOPE, lasts)

    def _reached(self, announced: dict[str, object]) -> str:
        """Return the URL of an announced service: where the broker is, by this machine's name."""
        if known := self._config.serve.url or announced.get("url"):
            return str(known)
        broker = urlsplit(self._config.broker_url or "redis://127.0.0.1")
        host = broker.hostname or "127.0.0.1"
        if broker.scheme == "sentinel":
            # Its hosts are sentinels, and the broker may be any machine: the service says its own.
            host = str(announced.get("host") or host)
        return f"http://{f'[{host}]' if ':' in host else host}:{announced['port']}"

    def keep(
        self,
        path: str | os.PathLike[str],
        *,
        job: str,
        digest: Digest | None = None,
        is_result: bool = False,
        progress: Progress | None = None,
        remark: Remark | None = None,
        patience: float = 600.0,
    ) -> Digest:
        """Put a file where every host can fetch it, for this job; hashes it unless that was done.

        Raises NoFileService for a large one when there is no service.
        """
        if digest is None:
            digest = hash_file(path)
        if digest.size <= INLINE:
            with open(path, "rb") as file:
                content = file.read(INLINE + 1)
            if hashlib.sha256(content).hexdigest() != digest.sha256:
                raise changed(path)
            self._store.artifacts.keep(digest.sha256, content, job=job, is_result=is_result)
            if progress is not None:
                progress(digest.size, digest.size)
            return digest
        # Noted first: the sweep must not take a content that the service happens to have.
        self.refer(job, [digest], is_result=is_result)
        service = self.needed(os.path.basename(path), digest.size)
        put(service, path, digest, progress=progress, remark=remark, patience=patience)
        return digest

    def keep_small(self, content: bytes, *, job: str, is_result: bool = False) -> Digest:
        """Put at most INLINE bytes into Redis, for this job."""
        if len(content) > INLINE:
            raise ValueError(f"{len(content)} bytes are more than travel through Redis")
        digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
        self._store.artifacts.keep(digest.sha256, content, job=job, is_result=is_result)
        return digest

    def keep_inputs(self, contents: Sequence[tuple[str, str, bytes | None]]) -> None:
        """Put small inputs into Redis in one go: each its sha256, its job, and its bytes.

        Without bytes it is one that is there already, for another job.
        """
        self._store.artifacts.keep_all(contents)

    def refer_inputs(self, used: Sequence[tuple[str, Iterable[Digest]]]) -> None:
        """Say what jobs that were submitted right now need, in one go."""
        named = [(job, [digest.sha256 for digest in digests]) for job, digests in used]
        self._store.artifacts.refer_all([(job, some) for job, some in named if some])

    def read_small(self, sha256: str) -> bytes | None:
        """Return a content that is in Redis, else None; one that isn't what it says is none."""
        content = self._store.artifacts.read(sha256)
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            return None
        return content

    def fetch(
        self,
        digest: Digest,
        path: str | os.PathLike[str],
        *,
        mode: int | None = None,
        progress: Progress | None = None,
        remark: Remark | None = None,
        patience: float = 600.0,
    ) -> None:
        """Fetch a content into a file, wherever it is kept; as `relayq.transfer.get` does."""
        if digest.size <= INLINE and (content := self.read_small(digest.sha256)) is not None:
            write_content(path, content, mode)
            if progress is not None:
                progress(digest.size, digest.size)
            return
        service = self.needed(os.path.basename(path), digest.size)
        get(service, digest, path, mode=mode, progress=progress, remark=remark, patience=patience)

    def refer(self, job: str, digests: Iterable[Digest], *, is_result: bool = False) -> None:
        """Say that a job needs these: until it ended, and as long as its record if it made them.

        To be called right after the submit, and for results before the end: what was noted before
        a job has a record is forgotten after a day.
        """
        if sha256s := [digest.sha256 for digest in digests]:
            self._store.artifacts.refer(job, sha256s, is_result=is_result)

    def needed(self, name: str, size: int) -> Service:
        """Return the file service for a file that can't do without; raises NoFileService."""
        service = self.service()
        if service is None:
            limit = f"more than {INLINE >> 10} KiB needs the file service, and none is there"
            why = limit if size > INLINE else "it isn't in Redis, and there is no file service"
            raise NoFileService(
                f"{name} has {size_text(size)}: {why}",
                hint="start it on the broker's machine: relayq serve",
            )
        return service
