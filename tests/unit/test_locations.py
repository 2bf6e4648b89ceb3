"""Where the files of a media job are, as people type it."""

from __future__ import annotations

import os

import pytest

from relayq.errors import RelayqError
from relayq.model.locations import Location, Luggage, read_location


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("talk.mov", Location("talk.mov", is_here=True)),
        ("/films/talk.mov", Location("/films/talk.mov", is_here=True)),
        ("./a:b.mov", Location("./a:b.mov", is_here=True)),
        ("mini:talk.mov", Location("~/talk.mov", host="mini")),
        ("Mini:/mnt/a:b.mov", Location("/mnt/a:b.mov", host="mini")),
        (":~/talk.mov", Location("~/talk.mov")),
        (":/mnt/talk.mov", Location("/mnt/talk.mov")),
        ("https://host/a.mov?x=1", Location("https://host/a.mov?x=1", is_url=True)),
    ],
)
def test_a_place_is_read(text, place):
    assert read_location(text) == place


@pytest.mark.parametrize("text", ["", "mini:", "mini:films/", "a b:x.mov", "x\0y"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(RelayqError):
        read_location(text)


def test_ones_own_files_travel_each_under_a_name_of_its_own():
    luggage = Luggage()

    assert luggage.take("a/talk.mov") == "in/talk.mov"
    assert luggage.take("b/talk.mov") == "in/2/talk.mov"
    assert luggage.bring("out/talk.mp4") == "out/talk.mp4"
    assert luggage.files_in == [("a/talk.mov", "in/talk.mov"), ("b/talk.mov", "in/2/talk.mov")]
    assert luggage.files_out == [("out/talk.mp4", os.path.abspath("out/talk.mp4"))]
    assert luggage.host is None


def test_a_name_that_would_be_a_pattern_stays_here():
    luggage = Luggage()

    assert luggage.bring("take [1]*.mp4") == "out/output.mp4"
    assert luggage.files_out[0][1].endswith("/take [1]*.mp4")


def test_files_of_a_host_choose_it_and_stay_there():
    luggage = Luggage()

    assert luggage.take("mini:/films/talk.mov") == "/films/talk.mov"
    assert luggage.bring("mini:talk.mp4") == "~/talk.mp4"
    assert (luggage.host, luggage.files_in, luggage.files_out) == ("mini", [], [])
    with pytest.raises(RelayqError, match="two hosts"):
        luggage.take("pi4:other.mov")


def test_a_url_is_fetched_first_unless_it_is_read_as_it_comes():
    luggage = Luggage()

    assert luggage.take("https://host/a.mov", reads_urls=True) == "https://host/a.mov"
    assert luggage.take("s3://films/a.mov") == "in/a.mov"
    assert luggage.files_in == [("s3://films/a.mov", "in/a.mov")]
