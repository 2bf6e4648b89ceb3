"""The catalogue of capabilities: what came with relayq, and a user's own over it."""

from __future__ import annotations

import pytest

from relayq import catalogue
from relayq.errors import ConfigError, RelayqError


def test_it_has_more_than_twenty_entries_in_at_least_four_categories(tmp_path):
    known = catalogue.load(tmp_path)

    assert len(known.entries) > 20
    assert {"build", "mobile", "media", "backend", "ai"} <= set(known.categories)
    assert all(entry.about and entry.check_line for entry in known.entries.values())


def test_every_entry_can_be_installed_somewhere_but_those_that_only_apple_gives(tmp_path):
    known = catalogue.load(tmp_path)

    by_hand = [e.name for e in known.entries.values() if not e.recipe("linux") + e.recipe("darwin")]

    assert by_hand == ["xcode", "swift"]


def test_a_recipe_is_for_a_system(tmp_path):
    ffmpeg = catalogue.load(tmp_path).find("ffmpeg")

    assert ffmpeg.recipe("linux").endswith("--no-install-recommends ffmpeg")
    assert ffmpeg.recipe("darwin") == "brew install ffmpeg"
    assert ffmpeg.recipe("plan9") == ""


def test_an_agent_is_found_by_the_capability_that_its_login_gives(tmp_path):
    claude = catalogue.load(tmp_path).find("agent:claude")

    assert claude.name == "claude"
    assert "npm install -g" in claude.recipe("linux")


def test_a_users_file_adds_entries_and_changes_single_keys(tmp_path):
    (tmp_path / "caps.yml").write_text(
        "ffmpeg: {apt: ffmpeg-nonfree}\nlint: {category: custom, linux: make -C ~/lint install}\n"
    )

    known = catalogue.load(tmp_path)

    assert known.find("ffmpeg").apt == "ffmpeg-nonfree"
    assert known.find("ffmpeg").brew == "ffmpeg"
    assert known.find("lint").recipe("linux") == "make -C ~/lint install"
    assert known.find("lint").check_line == "command -v lint"
    assert [entry.name for entry in known.of("custom")] == ["lint"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ffmpeg: {yum: ffmpeg}\n", "ffmpeg has no 'yum'"),
        ("a b: {apt: x}\n", "expected a capability"),
        ("- ffmpeg\n", "expected 'key: value'"),
        ("ffmpeg: {apt: [a, b]}\n", "expected one value"),
        ("ffmpeg: {apt: x\n", "expected"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_place(tmp_path, text, said):
    (tmp_path / "caps.yml").write_text(text)

    with pytest.raises(ConfigError, match="caps.yml") as caught:
        catalogue.load(tmp_path)

    assert said in str(caught.value)


def test_what_it_lacks_is_an_error_that_names_what_may_have_been_meant(tmp_path):
    known = catalogue.load(tmp_path)

    with pytest.raises(RelayqError, match="did you mean ffmpeg"):
        known.find("ffmpg")
    with pytest.raises(RelayqError, match="there is build, mobile"):
        known.of("toys")
