"""Where the models of the speech engines lie on this host, and how a missing one gets here.

Below the models' directory a model of faster-whisper is a directory with a `model.bin`, or what the
hub's own cache makes of it; one of whisper.cpp is a file `ggml-NAME.bin`. What the hub has already
cached for this user is used as well. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from relayq.errors import RelayqError
from relayq.model.transcripts import MODELS, SAME_MODELS, no_model

#: Where all models are, unless this variable of the worker names another place.
VARIABLE = "RELAYQ_MODELS"
_BIN = "model.bin"
#: What is in every repository of the hub; a download that was cut off may lack either.
_SETTINGS = "config.json"
_GGML = re.compile(r"ggml-(.+)\.bin")
#: With what every model file of whisper.cpp begins: "ggml" as a little-endian number.
_MAGIC = b"lmgg"
#: Who publishes Whisper for faster-whisper: what comes after it is the model's name.
_PUBLISHERS = ("Systran/faster-whisper-", "Systran/faster-", "mobiuslabsgmbh/faster-whisper-")
_CPP_HUB = "ggerganov/whisper.cpp"
_PATIENCE = 30.0
_PIECE = 2**20
_YES = frozenset({"1", "ON", "YES", "TRUE"})


def directory(environ: Mapping[str, str], home: str) -> str:
    """Return the directory of the models, for the relayq of this home."""
    return os.path.expanduser(environ.get(VARIABLE) or os.path.join(home, "models"))


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether nothing may be downloaded."""
    return environ.get("HF_HUB_OFFLINE", "").upper() in _YES


def at_hand(models: str, environ: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of the models that lie here, by engine."""
    faster = set(_plain(models))
    for cache in (models, _hub_cache(environ)):
        faster |= {_name_of(repository) for repository in _cached(cache)}
    found = {"faster-whisper": sorted(faster), "whisper.cpp": sorted(_ggml(models))}
    return {engine: names for engine, names in found.items() if names}


def find_faster(model: str, models: str, environ: Mapping[str, str]) -> str:
    """Return the directory of a model of faster-whisper, "" if it isn't here."""
    name = SAME_MODELS.get(model, model)
    for one in (model, name):
        if one in _plain(models):
            return os.path.join(models, one)
    for cache in (models, _hub_cache(environ)):
        for repository, snapshot in _cached(cache).items():
            if repository == model or _name_of(repository) in (model, name):
                return snapshot
    return ""


def find_cpp(model: str, models: str) -> str:
    """Return the file of a model of whisper.cpp, "" if it isn't here."""
    found = _ggml(models)
    return found.get(model) or found.get(SAME_MODELS.get(model, model), "")


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _has(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))


def _plain(models: str) -> list[str]:
    return [one for one in _names(models) if _has(os.path.join(models, one), _BIN)]


def _ggml(models: str) -> dict[str, str]:
    found = {}
    for folder in (os.path.join(models, "whisper.cpp"), models):
        for file in _names(folder):
            if match := _GGML.fullmatch(file):
                found[match[1]] = os.path.join(folder, file)
    return found


def _hub_cache(environ: Mapping[str, str]) -> str:
    if "HF_HUB_CACHE" in environ:
        return environ["HF_HUB_CACHE"]
    home = environ.get("HF_HOME")
    if not home:
        caches = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        home = os.path.join(caches, "huggingface")
    return os.path.join(home, "hub")


def _cached(cache: str) -> dict[str, str]:
    """Return the newest whole snapshot of each model in the hub's cache, by repository."""
    found: dict[str, str] = {}
    for folder in _names(cache):
        if not folder.startswith("models--"):
            continue
        snapshots = os.path.join(cache, folder, "snapshots")
        paths = [os.path.join(snapshots, one) for one in _names(snapshots)]
        whole = [path for path in paths if all(_has(path, name) for name in (_BIN, _SETTINGS))]
        if whole:
            repository = folder.removeprefix("models--").replace("--", "/", 1)
            found[repository] = max(whole, key=os.path.getmtime)
    return found


def _name_of(repository: str) -> str:
    for publisher in _PUBLISHERS:
        if repository.startswith(publisher):
            return repository.removeprefix(publisher)
    return repository


def fetch_cpp(
    model: str,
    models: str,
    environ: Mapping[str, str],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Download a model of whisper.cpp, and return its file."""
    if model not in MODELS and not model.startswith("large-v3-turbo"):
        raise no_model(model, _ggml(models))
    file = f"ggml-{SAME_MODELS.get(model, model)}.bin"
    if is_offline(environ):
        raise cannot_fetch(
            model, "HF_HUB_OFFLINE is set", os.path.join(models, file), _ggml(models)
        )
    import http.client  # the worker imports this module, and downloads nothing

    hub = (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    draft = os.path.join(models, f".{file}.{os.getpid()}")
    try:
        os.makedirs(models, exist_ok=True)
        with open(draft, "wb") as target:
            for piece in _download(f"{hub}/{_CPP_HUB}/resolve/main/{file}", progress):
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        os.replace(draft, os.path.join(models, file))
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = str(error) or type(error).__name__
        raise cannot_fetch(model, why, os.path.join(models, file), _ggml(models)) from error
    finally:
        with suppress(OSError):
            os.unlink(draft)
    return os.path.join(models, file)


def _download(url: str, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    import urllib.error
    import urllib.request

    try:
        answer = urllib.request.urlopen(url, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        with error:  # it has the connection
            raise OSError(f"{url}: {error.code} {error.reason}") from None
    with answer:
        total = int(answer.headers.get("Content-Length") or 0)
        done = 0
        while piece := answer.read(_PIECE):
            if not done and not piece.startswith(_MAGIC):
                raise ValueError(f"{url} is no model of whisper.cpp")
            done += len(piece)
            progress(done, total)
            yield piece
        if not done or (total and done != total):
            raise ValueError(f"{url} ended after {done} of {total} bytes")


def cannot_fetch(
    model: str, why: str, place: str, have: Mapping[str, str] | list[str]
) -> RelayqError:
    """Return the error for a model that isn't here and can't be had."""
    names = sorted(have)
    here = f"this host has {', '.join(names)}" if names else "this host has none"
    return RelayqError(
        f"the model {model} isn't here and can't be downloaded: {why} ({here})",
        hint=f"--model {names[0]}" if names else f"put it at {place} on this host",
    )
