"""config.yml changed by a program: the asked keys and nothing else, or nothing at all."""

from __future__ import annotations

import pytest

from relayq import configfile
from relayq.errors import ConfigError

BROKER = {"broker.host": "100.64.0.1", "broker.port": 6400, "broker.url": None}


@pytest.fixture
def file(home):
    home.mkdir(exist_ok=True)
    return home / "config.yml"


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(file):
    configfile.change(file, BROKER)

    assert file.read_text() == 'broker:\n  host: "100.64.0.1"\n  port: 6400\n'
    assert file.stat().st_mode & 0o777 == 0o600


def test_comments_order_and_other_keys_stay(file):
    before = """\
# mine
worker:
    name: old
    labels: [heavy, fast]   # both

broker:
  url: redis://old/0
  # where it was
hosts: {mini: {aliases: [m]}}
"""
    file.write_text(before)
    file.chmod(0o640)

    configfile.change(file, {**BROKER, "worker.name": "pi4", "defaults.timeout": "2h"})

    assert (
        file.read_text()
        == """\
# mine
worker:
    name: pi4
    labels: [heavy, fast]   # both

broker:
  # where it was
  host: "100.64.0.1"
  port: 6400
hosts: {mini: {aliases: [m]}}
defaults:
  timeout: "2h"
"""
    )
    assert file.stat().st_mode & 0o777 == 0o640


def test_done_twice_it_changes_nothing_more(file):
    configfile.change(file, BROKER)
    first = file.read_text()

    configfile.change(file, BROKER)

    assert file.read_text() == first


@pytest.mark.parametrize("text", ["", "broker:\n", "broker: {}\n", "broker: ~  # none\n", "---\n"])
def test_an_empty_section_is_filled(file, text):
    file.write_text(text)

    configfile.change(file, BROKER)

    assert "  port: 6400\n" in file.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "broker: {host: old}\n",
        "{broker: {host: old}}\n",
        "broker: &b\n  host: old\n",
        "? broker\n: host: old\n",
        "worker:\n  name: |\n    a\nbroker: {host: old,\n port: 5}\n",
    ],
)
def test_what_is_written_in_another_way_stays_as_it_is_and_says_what_it_needs(file, text):
    file.write_text(text)

    with pytest.raises(ConfigError, match="no program should change") as caught:
        configfile.change(file, BROKER)

    assert "broker.port: 6400" in caught.value.message
    assert file.read_text() == text


def test_a_value_that_is_not_good_changes_nothing(file):
    file.write_text("worker:\n  name: old\n")

    with pytest.raises(ConfigError, match="nothing was changed"):
        configfile.change(file, {"worker.name": "Not A Name"})

    assert file.read_text() == "worker:\n  name: old\n"
    assert [one.name for one in file.parent.iterdir()] == ["config.yml"]


def test_a_link_stays_one(file, tmp_path):
    real = tmp_path / "dotfiles.yml"
    real.write_text("")
    file.symlink_to(real)

    configfile.change(file, BROKER)

    assert file.is_symlink()
    assert "6400" in real.read_text()
