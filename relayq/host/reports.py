"""The report that a job may leave: one JSON object in a file of its attempt's directory."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: The file that RELAYQ_REPORT names.
REPORT = "report.json"
LARGEST = 8 * 2**20


def read(directory: Path) -> dict[str, Any] | None:
    """Return the report of an attempt, None when it left none that can be read."""
    path = os.path.join(directory, REPORT)
    # Most jobs leave none, and every one of them is asked.
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
        report = json.loads(raw) if len(raw) <= LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("can't read the report of %s: %s", directory.name, error)
        return None
    if not isinstance(report, dict):
        log.warning("the report of %s is no object, or too large", directory.name)
        return None
    return report
