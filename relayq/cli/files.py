"""What a job takes along and brings back, for people and as JSON."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from relayq.cli.texts import rfc3339
from relayq.model.files import FileIn, FileOut, Kept
from relayq.model.jobs import Outcome, Spec
from relayq.parsing import size_text

_PLACES = {"inline": "with the broker", "service": "in the file service", "placed": "at its place"}


def asked(spec: Spec) -> Iterable[tuple[str, str]]:
    """Yield what `show` says of the files that were asked for."""
    if spec.files_in:
        yield "Files in", "\n".join(_taken(FileIn.from_dict(one)) for one in spec.files_in)
    if spec.files_out:
        yield "Files out", "\n".join(_wanted(FileOut.from_dict(one)) for one in spec.files_out)


def _taken(file: FileIn) -> str:
    size = "" if file.is_url else f" ({size_text(file.size)})"
    return f"{file.source}{size} as {file.dest}"


def _wanted(file: FileOut) -> str:
    where = f" to {file.dest}" if file.dest else ""
    return f"{file.pattern}{where}{', if there is one' if file.is_optional else ''}"


def brought(outcome: Outcome, host: str | None) -> Iterable[tuple[str, str]]:
    """Yield what `show` says of the files that came back."""
    if outcome.files:
        kept = (Kept.from_dict(one) for one in outcome.files)
        yield "Brought", "\n".join(f"{k.name} ({size_text(k.size)}) {where(k, host)}" for k in kept)


def where(kept: Kept, host: str | None) -> str:
    """Say where a result file is."""
    if kept.place == "host":
        return f"on {host} at {kept.path}{f': {kept.error}' if kept.error else ''}"
    if kept.place == "placed":
        return f"at {os.path.normpath(kept.dest)}"
    return _PLACES[kept.place]


def of_spec(spec: Spec) -> dict[str, Any]:
    """Return the files that were asked for as JSON shows them."""
    return {
        "files_in": [_input_as_json(FileIn.from_dict(one)) for one in spec.files_in],
        "files_out": [asdict(FileOut.from_dict(one)) for one in spec.files_out],
    }


def _input_as_json(file: FileIn) -> Mapping[str, Any]:
    shown = asdict(file)
    modified = shown.pop("mtime")
    return {**shown, "modified_at": rfc3339(modified) if modified else None}


def of_result(files: Iterable[Kept]) -> list[dict[str, Any]]:
    """Return the files that came back as JSON shows them."""
    return [asdict(kept) for kept in files]
