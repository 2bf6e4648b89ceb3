"""A bench for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.shims.bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="rq-", ignore_cleanup_errors=True) as directory:
        made = Bench(Path(directory))
        made.forks.start()
        yield made
        made.clean_up()
