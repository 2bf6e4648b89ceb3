"""What a run of an analysis leaves where its files are: the checkpoint, and the reports.

The checkpoint has all that is needed to go on without Redis: the plan, the sessions, and the
results of the shards that are done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from relayq.config import Config
from relayq.errors import NoSuchAnalysis, RelayqError
from relayq.harvesting import Harvest
from relayq.model import reports, sarif
from relayq.model.analyses import Plan, Standing
from relayq.tracks import Track

VERSION = 1
CHECKPOINT = "checkpoint.json"
#: Below the directory that is analysed.
_PLACE = os.path.join(".relayq", "analyze")


def place_of(plan: Plan, config: Config) -> str:
    """Return the directory of a run; in relayq's own where the files' one can't be written."""
    own = os.path.join(plan.root, _PLACE, plan.id)
    above = own
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if os.access(above, os.W_OK | os.X_OK):
        return own
    return str(config.home / "analyses" / plan.id)


def _made(place: str) -> None:
    """Make the directory of a run, if there is none, and have git ignore it."""
    os.makedirs(place, exist_ok=True)
    ignore = os.path.join(os.path.dirname(place), ".gitignore")
    if not os.path.exists(ignore):
        _write(ignore, "*\n")


def save(place: str, run: Harvest) -> None:
    """Write what is known by now."""
    _made(place)
    done = [one for one in run.tracks if one.standing is Standing.DONE and one.answer is not None]
    kept = {
        "version": VERSION,
        "run": run.plan.id,
        "sessions": run.sessions,
        "completed": [one.name for one in done],
        "results": {one.name: _result(one) for one in done},
        "files": {path: one.name for one in done for path in one.shard.paths},
        "cached": {
            path: [issue.as_dict() for issue in issues] for path, issues in run.cached.items()
        },
        "plan": run.plan.as_dict(),
    }
    _write(os.path.join(place, CHECKPOINT), json.dumps(kept, indent=1))
    for one in run.tracks:
        if one.standing is Standing.UNREADABLE and one.raw:
            # Kept as it came: a person may read what a parser can't.
            name = "".join(c if c.isalnum() or c in "-._" else "_" for c in one.name)
            _write(os.path.join(place, f"unreadable.{name}.txt"), one.raw)


def _result(track: Track) -> dict[str, Any]:
    answer = track.answer
    assert answer is not None
    return {
        "job": track.job,
        "session": track.session_id,
        "host": track.host,
        "seconds": track.seconds,
        "cost_usd": track.cost_usd,
        "tokens": track.tokens,
        "attempts": track.attempts,
        "ended_at": track.ended_at,
        "analysed": list(answer.analysed),
        "issues": [issue.as_dict() for issue in answer.issues],
    }


def report(place: str, run: Harvest) -> list[str]:
    """Write the reports; returns their names."""
    _made(place)
    facts = run.report()
    made = {
        "report.md": reports.as_markdown(facts),
        "issues.json": json.dumps(reports.as_json(facts), indent=1),
        "issues.sarif": json.dumps(sarif.as_sarif(facts), indent=1),
    }
    for name, text in made.items():
        _write(os.path.join(place, name), text if text.endswith("\n") else f"{text}\n")
    return list(made)


def load(path: str) -> tuple[Plan, Mapping[str, Mapping[str, Any]]]:
    """Return the plan of a checkpoint, and the results of the shards that are done."""
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        if kept.get("version") != VERSION:
            raise ValueError(f"version {kept.get('version')!r}, this relayq reads {VERSION}")
        return Plan.from_dict(kept["plan"]), dict(kept["results"])
    except FileNotFoundError as error:
        raise NoSuchAnalysis(f"there is no {path}", hint="relayq analyze ls") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RelayqError(f"{path} can't be read: {error}", hint="relayq analyze DIR") from error


def saved(place: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the results that the checkpoint of a directory has, none if there is no good one."""
    try:
        return load(os.path.join(place, CHECKPOINT))[1]
    except RelayqError:
        return {}


def found(directory: str, text: str) -> str | None:
    """Return the path of a checkpoint below a directory: of the run `text`, or the newest."""
    above = os.path.join(os.path.realpath(directory), _PLACE)
    return max(_checkpoints(above, "" if text == "last" else text), key=_changed, default=None)


def _checkpoints(above: str, beginning: str) -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir(above):
            path = os.path.join(above, name, CHECKPOINT)
            if name.startswith(beginning) and os.path.isfile(path):
                yield path


def _changed(path: str) -> float:
    return os.stat(path).st_mtime


def _write(path: str, text: str) -> None:
    """Write a file whole, or leave the one that was there."""
    draft = f"{path}.{os.getpid()}.tmp"
    with open(draft, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
