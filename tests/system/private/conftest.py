"""Configurations of fresh homes, and each server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayq.config import Config, load
from tests.conftest import end_all
from tests.system.private.brokers import own_server, wheel_server


@pytest.fixture(params=["redis7", "redis62"])
def each_server(request, monkeypatch) -> None:
    path = own_server() if request.param == "redis7" else wheel_server()
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", path)


@pytest.fixture
def new_config() -> Iterator[Callable[[], Config]]:
    """Make configurations of fresh homes whose paths are hard to quote."""
    homes = []

    def make() -> Config:
        homes.append(Path(tempfile.mkdtemp(prefix='rq\'s "odd" \\ höme ', dir="/tmp")))
        return load({"RELAYQ_HOME": str(homes[-1])})

    yield make
    for home in homes:
        end_all(home)
        shutil.rmtree(home)


@pytest.fixture
def config(new_config) -> Config:
    return new_config()
