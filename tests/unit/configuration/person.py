"""A person's configuration: written, loaded, refused."""

from pathlib import Path

import pytest

from relayq.config import Config, load
from relayq.errors import ConfigError


def configure(user: Path, text: str) -> None:
    (user / ".relayq" / "config.yml").write_text(text, encoding="utf-8")


def loaded(user: Path, **variables: str) -> Config:
    return load({"HOME": str(user), **variables})


def refusal(user: Path, text: str = "", **variables: str) -> str:
    configure(user, text)
    with pytest.raises(ConfigError) as caught:
        loaded(user, **variables)
    return str(caught.value)
