"""How transcodes are asked for: names of a batch, and the one host that their files are on."""

from __future__ import annotations

import pytest

from relayq.client import Relay
from relayq.errors import RelayqError
from relayq.mediajobs import batch


def test_a_batch_names_each_output_after_its_input():
    assert batch(["a/one.mov", "mini:two.mkv"], "small/", preset="web") == [
        ("a/one.mov", "small/one.mp4"),
        ("mini:two.mkv", "small/two.mp4"),
    ]
    assert batch(["one.mov"], "mini:small", preset="copy") == [("one.mov", "mini:small/one.mov")]
    assert batch(["one.mov"], ".", preset="web", ending=".mkv") == [("one.mov", "./one.mkv")]
    assert batch(["https://host/x.mov?a=1"], "/", preset="mp3") == [
        ("https://host/x.mov?a=1", "/x.mp3")
    ]


def test_two_inputs_never_become_one_output():
    with pytest.raises(RelayqError, match=r"a/x.mov and b/x.mkv would both be small/x.mp4"):
        batch(["a/x.mov", "b/x.mkv"], "small", preset="web")


@pytest.fixture
def asks(home, tmp_path, monkeypatch):
    """Return what is asked of a fleet that is never connected to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.mov").write_bytes(b"x")
    job = Relay(url="redis://127.0.0.1:1", home=home).job
    return job.asked_of_transcode


def test_files_here_travel_and_the_result_knows_them_by_their_own_names(asks, tmp_path):
    asked = asks("talk.mov", tmp_path / "talk.mp4", "-c copy", timeout="2h")

    assert asked == {
        "inputs": "in/talk.mov",
        "output": "out/talk.mp4",
        "options": "-c copy",
        "target": str(tmp_path / "talk.mp4"),
        "files_in": [("talk.mov", "in/talk.mov")],
        "files_out": [("out/talk.mp4", str(tmp_path / "talk.mp4"))],
        "overwrite": False,
        "timeout": "2h",
    }


def test_a_file_of_a_host_chooses_that_host(asks):
    assert asks("mini:a.mov", ":b.mp4")["host"] == "mini"
    assert asks("mini:a.mov", ":b.mp4", host="mini")["host"] == "mini"
    assert asks(":/a.mov", ":b.mp4", on="mac*")["on"] == "mac*"
    assert "host" not in asks("mini:a.mov", ":b.mp4", on=["mini"])
    with pytest.raises(RelayqError, match="its files are on mini, and it is to run on pi4"):
        asks("mini:a.mov", ":b.mp4", on=["pi4"])


def test_to_overwrite_is_said_of_the_file_here_and_of_the_hosts(asks, tmp_path):
    (tmp_path / "talk.mp4").write_bytes(b"y")

    with pytest.raises(RelayqError, match="exists"):
        asks("talk.mov", "talk.mp4")
    asked = asks("talk.mov", "talk.mp4", overwrite=True)

    assert (asked["overwrite"], asked["replaces"]) == (True, True)
