"""What ffprobe and ffmpeg say, read; and whether an output is what was asked for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.model import mediafiles
from relayq.model.media import read_options
from relayq.model.mediafiles import AUDIO, VIDEO, Expected, Media, Reports, Stream, seconds_in

FILM = Media((Stream(VIDEO, "h264", 60.0, rate=25.0), Stream(AUDIO, "aac", 59.0)), 60.0)
SOUND = Media((Stream(AUDIO, "mp3", 60.0),), 60.0)


def asked(options: str = "", *inputs: Media, name: str = "o.mp4", before: str = "") -> Expected:
    return mediafiles.expected(
        inputs or (FILM,), read_options(options), input_options=read_options(before), name=name
    )


def test_what_ffprobe_shows_is_read():
    shown = {
        "format": {"duration": "6.014000", "format_name": "mov,mp4"},
        "streams": [
            {
                "codec_type": "video",
                "codec_name": "h264",
                "width": 160,
                "height": 120,
                "avg_frame_rate": "30000/1001",
                "duration": "6.0",
            },
            {"codec_type": "audio", "codec_name": "aac", "tags": {"DURATION": "00:00:05.500"}},
            {"codec_type": "video", "codec_name": "mjpeg", "disposition": {"attached_pic": 1}},
        ],
    }

    found = mediafiles.read_probe(json.dumps(shown))

    assert found.duration == 6.014
    assert found.streams[0].as_dict() == {
        **{"type": "video", "codec": "h264", "duration": 6.0, "width": 160, "height": 120},
        "fps": 29.97,
    }
    assert found.streams[1].duration == 5.5
    assert found.streams[2].is_cover
    assert str(found) == "6.0 s, h264 160x120, aac, mjpeg"


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_nothing_that_ffprobe_shows_is_an_error(shown):
    assert mediafiles.read_probe(shown).streams == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("1:30", 90.0), ("00:01:30.5", 90.5), ("500ms", 0.5), ("2.5s", 2.5)],
)
def test_times_are_read_as_ffmpeg_does(text, seconds):
    assert seconds_in(text) == seconds


def test_an_output_lasts_as_long_as_the_shorter_of_its_inputs_streams():
    assert asked() == Expected(least=59.0, length=60.0, sorts=frozenset({VIDEO, AUDIO}))
    assert asked("-an").least == 60.0
    assert asked("-vn", name="o.m4a") == Expected(59.0, 59.0, frozenset({AUDIO}))


@pytest.mark.parametrize(
    ("options", "before", "least"),
    [
        ("-ss 10", "", 49.0),
        ("-t 5", "", 5.0),
        ("-ss 10 -to 0:30", "", 20.0),
        ("", "-ss 50", 9.0),
        ("-t 5", "-ss 57", 2.0),
        ("-ss 100", "", None),
        ("-vf scale=640:-2", "", 59.0),
    ],
)
def test_a_part_lasts_as_long_as_was_asked(options, before, least):
    assert asked(options, before=before).least == least


@pytest.mark.parametrize(
    "options",
    [
        "-vf setpts=0.5*PTS",
        "-filter:a atempo=2",
        "-filter_complex [0:v]null",
        "-shortest",
        "-frames:v 10",
        "-stream_loop 3",
    ],
)
def test_where_nobody_knows_how_long_it_will_be_nothing_is_demanded(options):
    assert asked(options).least is None


def test_an_estimated_length_demands_nothing():
    guessed = Media(SOUND.streams, 60.0, is_estimated=True)

    assert asked("", guessed, name="o.mp3").least is None
    assert asked("", guessed, name="o.mp3").length == 60.0


def test_which_streams_must_be_there_goes_by_options_and_format():
    assert asked("", name="o.mp3").sorts == {AUDIO}
    assert asked("", name="o.gif").sorts == {VIDEO}
    assert asked("-map 0:v").sorts == frozenset()
    assert asked("", SOUND).sorts == {AUDIO}


def made(seconds: float | None, *sorts: str) -> Media:
    streams = tuple(Stream(sort, "x", rate=25.0) for sort in sorts or (VIDEO, AUDIO))
    return Media(streams, seconds)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (made(60.0), ""),
        (made(58.6), ""),
        (made(30.0), "30.0 s of 59.0 s"),
        (made(58.3), "couldn't be read to its end"),
        (made(60.0, VIDEO), "no sound"),
        (made(60.0, AUDIO), "no picture"),
        (Media(()), "no streams"),
        (made(None), ""),
        (made(99.0), ""),
    ],
)
def test_what_is_wrong_with_an_output_is_said(output, says):
    wrong = mediafiles.wrong_with(output, asked())

    assert says in wrong
    assert bool(says) == bool(wrong)


def test_where_no_length_is_known_what_ffmpeg_said_of_the_input_counts():
    unknown = Expected(sorts=frozenset({VIDEO}))

    assert not mediafiles.wrong_with(made(3.0), unknown)
    assert "partial file" in mediafiles.wrong_with(made(3.0), unknown, cut="partial file")


def test_progress_comes_in_blocks():
    reports = Reports()
    lines = ["frame=10", "out_time_us=2500000", "speed=2.4x", "progress=continue"]

    found = [one for line in lines if (one := reports.feed(line)) is not None]

    assert [(one.seconds, one.speed, one.frames, one.is_last) for one in found] == [
        (2.5, 2.4, 10, False)
    ]
    assert reports.feed("out_time_us=N/A") is None
    assert reports.feed("speed=N/A") is None
    end = reports.feed("progress=end")
    assert end is not None
    assert (end.seconds, end.speed, end.is_last) == (0.0, None, True)


@given(st.lists(st.text()))
def test_no_line_of_progress_is_an_error(lines):
    reports = Reports()
    for line in lines:
        reports.feed(line)


def test_the_cause_is_what_says_the_most():
    said = [
        "[libx264 @ 0x55] Error setting preset/tune nope/(null).",
        "Error initializing output stream 0:0",
        "Conversion failed!",
    ]

    assert mediafiles.cause_in(said) == "Error setting preset/tune nope/(null)"
    assert mediafiles.cause_in([]) == "ffmpeg said nothing"
    assert mediafiles.unknown_encoder(["Unknown encoder 'libx999'"]) == "libx999"
