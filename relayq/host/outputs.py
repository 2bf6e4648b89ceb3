"""What a job gives to the steps after it: a file of its attempt's directory, read at its end."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from relayq.errors import RelayqError
from relayq.host import spool
from relayq.kinds import Verdict
from relayq.model import outputs
from relayq.model.jobs import JobState, Reason

log = logging.getLogger(__name__)

#: The file that RELAYQ_OUTPUT names.
OUTPUTS = "outputs"


def variables(directory: Path) -> Mapping[str, str]:
    """Return what tells a job where its file is."""
    return dict.fromkeys(outputs.VARIABLES, str(directory / OUTPUTS))


def judged(directory: Path, verdict: Verdict) -> Verdict:
    """Return the verdict on an attempt with what it gave; what can't be read fails a success."""
    path = os.path.join(directory, OUTPUTS)
    # Most jobs give nothing, and every one of them is asked.
    if not os.path.lexists(path):
        return verdict
    try:
        return replace(verdict, outputs=outputs.read(masked(directory, _content(path))))
    except (OSError, ValueError, RelayqError) as error:
        log.warning("can't read the outputs of %s: %s", directory.name, error)
        if verdict.state is not JobState.SUCCEEDED:
            return verdict
        said = f"its outputs can't be taken: {error}"
        return replace(verdict, state=JobState.FAILED, reason=Reason.OUTPUT, error=said)


def _content(path: str) -> bytes:
    # Not to wait for ever where a job made a pipe of that name.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("$RELAYQ_OUTPUT is no file any more")
        return file.read(outputs.LARGEST + 1)


def masked(directory: Path, raw: bytes) -> bytes:
    """Return it without the job's secrets, as nothing that it writes has them."""
    command = spool.load(os.path.join(directory, spool.COMMAND)) or {}
    asked = command.get("secrets")
    if not asked:
        return raw
    from relayq.host import given, masking  # a job without secrets doesn't pay for it

    hider = masking.Hider(given.known(asked).values())
    return hider.feed(1, raw) + hider.rest(1)
