"""What a running job says of its progress: a file on its desk that the worker brings to the record.

Standard library and the rules only: this is imported by programs that run inside jobs.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from relayq import clock
from relayq.model.progress import Progress

log = logging.getLogger(__name__)

PROGRESS = "progress.json"
#: How often, in seconds, a job's word is written at most; nobody reads it more often than that.
_EVERY = 0.25
_LARGEST = 4096


def tell(environ: Mapping[str, str], progress: Progress, *, at_once: bool = False) -> None:
    """Say how far the job is whose environment this is; outside a job nobody is told.

    At most four times a second, the rest is dropped, except the end (a fraction of 1) and what is
    to be said `at_once`, such as that another part of the work begins. A disk without room costs
    what was said, and not the job.
    """
    desk = environ.get("RELAYQ_DESK")
    if not desk:
        return
    path = os.path.join(desk, PROGRESS)
    if not at_once and progress.fraction != 1.0 and 0 <= clock.now() - _written_at(path) < _EVERY:
        return
    if "RELAYQ_SECRETS" in environ:
        progress = _masked(environ, progress)
    draft = f"{path}.{os.getpid()}"
    try:
        _write(draft, progress)
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            os.unlink(draft)


def _masked(environ: Mapping[str, str], progress: Progress) -> Progress:
    from relayq.host import credentials, masking  # a job without secrets doesn't pay for it

    mask = credentials.Mask({}, masking.of_job(environ)[1])
    return replace(progress, text=mask.text(progress.text), rate=mask.text(progress.rate))


def _write(path: str, progress: Progress) -> None:
    raw = json.dumps(progress.as_dict()).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, flags, 0o600)
    try:
        if os.write(fd, raw) != len(raw):
            raise OSError("no room")
    finally:
        os.close(fd)


def _written_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def read(path: str) -> Progress | None:
    """Return what lies in a job's file, None when it says nothing that can be read."""
    try:
        # Not to wait for ever where a job made a pipe of that name.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            raw = os.read(fd, _LARGEST + 1)
        finally:
            os.close(fd)
        return Progress.from_dict(json.loads(raw)) if len(raw) <= _LARGEST else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.debug("can't read %s: %s", path, error)
        return None
