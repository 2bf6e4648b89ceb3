"""A person's home."""

import pytest


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A person's home directory with an empty ~/.relayq, and a project in it."""
    (tmp_path / ".relayq").mkdir()
    (tmp_path / "project" / "src").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "src")
    return tmp_path
