"""Transcripts: how they are written, which languages and models there are, how a batch is dealt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from relayq.errors import RelayqError
from relayq.model import transcripts
from relayq.model.transcripts import LANGUAGES, MODELS, Segment, Transcript, Word

WORDS = (Word(0.0, 0.5, "Good", 0.9), Word(0.5, 1.25, "day.", 0.8))
TALK = Transcript(
    text="Good day. a < b & c --> d",
    language="en",
    duration=3723.5,
    segments=(
        Segment(0.0, 1.25, "Good day.", WORDS),
        Segment(3661.0, 3661.0, "a < b &\n\nc --> d"),
    ),
    engine="faster-whisper",
    model="base",
    name="talk.mp3",
)


def test_text_has_a_line_for_each_segment():
    assert TALK.txt == "Good day.\na < b & c --> d\n"


def test_srt_is_numbered_and_no_line_in_it_is_empty_but_between_two():
    assert TALK.srt == (
        "1\n00:00:00,000 --> 00:00:01,250\nGood day.\n\n"
        "2\n01:01:01,000 --> 01:01:01,001\na < b & c --> d\n\n"
    )


def test_vtt_escapes_what_would_be_its_marks():
    assert TALK.vtt == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nGood day.\n\n"
        "01:01:01.000 --> 01:01:01.001\na &lt; b &amp; c --&gt; d\n\n"
    )


def test_json_has_everything_and_is_read_again():
    assert Transcript.from_dict(json.loads(TALK.write("json"))) == TALK


def test_only_what_was_asked_for_has_times_of_words():
    assert "words" not in TALK.segments[1].as_dict()
    assert TALK.words == list(WORDS)


@given(some.floats(0, 1e6))
def test_a_time_has_hours_minutes_seconds_and_three_decimals(seconds):
    [line] = [
        one
        for one in transcripts.piece(Segment(seconds, seconds, "x"), 1, "srt").splitlines()
        if "-->" in one
    ]
    clock, thousandths = line.split(" --> ")[0].split(",")
    hours, minutes, rest = map(int, clock.split(":"))

    assert hours * 3600 + minutes * 60 + rest + int(thousandths) / 1000 == pytest.approx(
        seconds, abs=0.00051
    )


def test_an_unknown_format_names_those_that_there_are():
    with pytest.raises(RelayqError, match="txt, srt, vtt, json, not as 'doc'"):
        transcripts.check_formats("srt,doc")


def test_formats_are_taken_once_each():
    assert transcripts.check_formats("srt, vtt,srt") == ("srt", "vtt")


# Languages and models


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("de", "de"),
        ("DE", "de"),
        ("German", "de"),
        ("en-US", "en"),
        ("yue", "yue"),
        ("mandarin", "zh"),
        ("nb", "no"),
    ],
)
def test_a_language_is_a_code_or_a_name(given, code):
    assert transcripts.check_language(given) == code


@pytest.mark.parametrize("given", ["klingon", "", "xx", "germn"])
def test_an_unsupported_language_is_refused_with_what_to_type(given):
    with pytest.raises(RelayqError, match="no engine knows the language") as told:
        transcripts.check_language(given)

    assert told.value.hint
    assert ("did you mean german?" in str(told.value)) == (given == "germn")


def test_every_language_has_one_code():
    assert len(set(LANGUAGES.values())) == len(LANGUAGES) == 100


@pytest.mark.parametrize("model", [*MODELS, "distil-large-v3.5", "me/my-model", "/srv/m", "~/m"])
def test_a_model_is_a_name_or_a_path_on_the_host(model):
    assert transcripts.check_model(model) == model


@pytest.mark.parametrize("model", ["", "../base", "a b", "a/b/c", "-base", "x\0"])
def test_what_can_be_no_model_is_refused(model):
    with pytest.raises(RelayqError, match="no model can be called"):
        transcripts.check_model(model)


@pytest.mark.parametrize(
    ("asked", "complaint", "hint"),
    [
        ({"model": "base.en", "language": "de"}, "knows no German", "--model base"),
        ({"model": "base.en", "translate": True}, "translates nothing", "--model base"),
        ({"model": "turbo", "translate": True}, "doesn't translate", "--model medium"),
    ],
)
def test_a_model_that_cannot_do_what_is_asked_is_refused(asked, complaint, hint):
    with pytest.raises(RelayqError, match=complaint) as told:
        transcripts.check_model(**asked)

    assert told.value.hint == hint


def test_an_unknown_model_names_those_at_hand():
    error = transcripts.no_model("bsae", ["base", "tiny"])

    assert "did you mean base? (this host has base, tiny;" in str(error)
    assert error.hint == "--model base"


# Results


def test_the_value_of_one_transcript_is_its_text_and_of_several_their_texts():
    failed = {"name": "b.mp3", "error": "b.mp3 is empty", "hint": ""}

    assert transcripts.value_in(TALK.as_dict()) == TALK.text
    assert transcripts.value_in({"transcripts": [TALK.as_dict(), failed]}) == [TALK.text]
    assert transcripts.value_in({"output": "x.mp4"}) == {"output": "x.mp4"}


def test_a_result_that_is_too_long_loses_its_words_and_then_its_segments():
    whole = {**TALK.as_dict(), "srt": TALK.srt}
    size = len(json.dumps(whole))

    assert transcripts.fitted(whole, size) == (whole, "")
    without, told = transcripts.fitted(whole, size - 1)
    assert told == "the times of its words"
    assert [one["text"] for one in without["segments"]] == ["Good day.", "a < b &\n\nc --> d"]
    without, told = transcripts.fitted({"transcripts": [whole]}, 10)
    assert told == "its segments"
    assert without["transcripts"][0]["segments"] == []
    assert without["transcripts"][0]["text"] == TALK.text
    assert "srt" not in without["transcripts"][0]


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (
            {"audio": "in/ep42.mp3", "names": ["~/x/ep42.mp3"], "model": "large-v3"},
            "ep42.mp3 (large-v3)",
        ),
        ({"audio": ["a.wav", "b.wav", "c.wav"]}, "a.wav and 2 more (base)"),
        ({"audio": "a.wav", "keywords": ["fire"]}, "a.wav (pocketsphinx)"),
        ({"audio": []}, "? (base)"),
    ],
)
def test_a_job_is_described_by_its_first_input_and_its_model(payload, told):
    assert transcripts.described(payload) == told


@given(some.lists(some.integers(0, 1000), min_size=1, max_size=40), some.integers(1, 10))
def test_a_batch_is_dealt_out_whole_and_evenly(sizes, parts):
    dealt = transcripts.shares(sizes, parts)

    assert sorted(one for share in dealt for one in share) == list(range(len(sizes)))
    assert len(dealt) == min(parts, len(sizes))
    assert all(dealt)
    loads = [sum(sizes[one] for one in share) for share in dealt]
    assert max(loads) - min(loads) <= max(sizes)
