"""A real file service for these tests, and files for it. No broker is there."""

from __future__ import annotations

import hashlib
import os
import random

import pytest

from tests.system.cutting import Link
from tests.system.service.uploads import MB
from tests.system.serving import serving


@pytest.fixture(scope="module")
def server():
    with serving() as one:
        yield one


@pytest.fixture
def source(tmp_path):
    """A file that nobody has sent before."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(5 * MB + 17))
    return path


@pytest.fixture
def link(server):
    one = Link(server.port)
    yield one
    one.close()


@pytest.fixture(scope="module")
def thousand(server):
    content = random.Random(1).randbytes(1000)
    sha256 = hashlib.sha256(content).hexdigest()
    assert server.ask("PUT", sha256, content)[0] == 201
    return sha256, content
