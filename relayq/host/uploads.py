"""An output whose place is a URL: sent there when it is whole, by fsspec."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from relayq.errors import RelayqError


def check(url: str, *, overwrite: bool) -> None:
    """Raise RelayqError for a URL that can't be written to, or that exists already."""
    system, path = _place(url)
    try:
        is_there = not overwrite and system.exists(path)
    except Exception as error:
        raise RelayqError(f"{url} can't be asked: {error}") from error
    if is_there:
        raise RelayqError(f"{url} exists", hint="another name, or overwrite it: --overwrite")


def send(file: str, url: str, *, overwrite: bool) -> None:
    """Put a file there."""
    check(url, overwrite=overwrite)
    system, path = _place(url)
    try:
        system.put_file(file, path)
    except Exception as error:
        raise RelayqError(f"the output couldn't be sent to {url}: {error!r}") from error


def _place(url: str) -> tuple[Any, str]:
    try:
        core = import_module("fsspec.core")
    except ImportError as error:
        raise RelayqError(
            "this host can't send files to URLs", hint="there: pip install 'relayq[files]'"
        ) from error
    try:
        system, path = core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise RelayqError(f"{url} can't be written to: {error}") from error
    return system, path
