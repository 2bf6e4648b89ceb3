"""The kind transcribe: its payload, what it needs of a host, what its end means."""

import json

import pytest

from relayq.errors import RelayqError
from relayq.kinds import Ended, HostFacts, find
from relayq.model.jobs import JobState, Reason

HERE = HostFacts(
    name="mini", home="/home/ann", models="/home/ann/.relayq/models", hub={"HF_X": "1"}
)
ENDED = Ended(exit_code=0, signal=None, reason="exit")


@pytest.fixture
def declared():
    return find("transcribe")


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({}, "needs 'audio'"),
        ({"audio": ""}, "no file is named"),
        ({"audio": []}, "no file is named"),
        ({"audio": 7}, "audio must be texts"),
        ({"audio": ["a", 7]}, "audio must be texts"),
        ({"audio": "a\0b"}, "NUL"),
        ({"audio": "a", "format": "doc"}, "not as 'doc'"),
        ({"audio": "a", "language": "klingon"}, "no engine knows the language"),
        ({"audio": "a", "language": 7}, "language must be text"),
        ({"audio": "a", "model": "../x"}, "no model can be called"),
        ({"audio": "a", "model": "tiny.en", "language": "de"}, "knows no German"),
        ({"audio": "a", "engine": "siri"}, "an engine is auto"),
        ({"audio": "a", "outputs": ["x", "y"]}, "one for each input in each format"),
        ({"audio": ["a", "b"], "names": ["x"]}, "names are one for each input"),
        ({"audio": "a", "keywords": [" "]}, "a keyword can't be empty"),
        ({"audio": "a", "keywords": ["x"], "engine": "whisper.cpp"}, "only pocketsphinx"),
        ({"audio": "a", "engine": "pocketsphinx", "language": "de"}, "English only"),
        ({"audio": "a", "keywords": ["x"], "translate": True}, "English only"),
        ({"audio": "a", "options": {"a b": 1}}, "an option's name"),
        ({"audio": "a", "options": ["x"]}, "options must map"),
        ({"audio": "a", "speaker": "x"}, "no field 'speaker'"),
    ],
)
def test_a_wrong_payload_is_refused_with_the_reason(declared, raw, complaint):
    with pytest.raises(RelayqError, match=complaint):
        declared.read_payload(raw)


@pytest.mark.parametrize(
    ("raw", "need"),
    [
        ({}, "transcribe"),
        ({"engine": "whisper.cpp"}, "transcribe:whisper.cpp"),
        ({"engine": "faster-whisper"}, "transcribe:faster-whisper"),
        ({"engine": "pocketsphinx"}, "transcribe:pocketsphinx"),
        ({"keywords": ["fire"]}, "transcribe:pocketsphinx"),
    ],
)
def test_an_engine_that_is_named_is_a_need(declared, raw, need):
    assert declared.read_payload({"audio": "a.wav", **raw}).needs == ("ffmpeg", need)


def test_the_runner_gets_its_order_on_standard_input_only(declared):
    payload = declared.read_payload({"audio": ["~/a.wav"], "format": "srt,vtt", "prompt": "secret"})

    command = declared.kind.plan(payload, HERE)

    order = json.loads(command.stdin)
    assert order["audio"] == ["~/a.wav"]
    assert order["is_batch"] is True
    assert order["format"] == ["srt", "vtt"]
    assert order["models"] == HERE.models
    assert order["hub"] == {"HF_X": "1"}
    assert command.cwd == HERE.home
    assert not any("secret" in text or "a.wav" in text for text in command.argv)
    assert not command.env


def test_a_job_with_files_works_in_its_scratch_directory(declared):
    payload = declared.read_payload({"audio": "in/a.wav"})
    here = HostFacts(name="mini", home="/home/ann", scratch="/home/ann/.relayq/scratch/1")

    assert declared.kind.plan(payload, here).cwd == here.scratch


def test_success_is_the_transcript_that_was_left(declared):
    result = {"text": "hi", "segments": []}
    ended = Ended(**{**_fields(ENDED), "report": {"result": result}})

    verdict = declared.kind.interpret(ended)

    assert (verdict.state, verdict.reason, verdict.result) == (
        JobState.SUCCEEDED,
        Reason.EXIT,
        result,
    )


def test_an_end_without_a_transcript_is_no_success(declared):
    verdict = declared.kind.interpret(ENDED)

    assert (verdict.state, verdict.error) == (JobState.FAILED, "it left no transcript")


def test_a_batch_with_a_bad_input_fails_and_keeps_what_it_has(declared):
    result = {"transcripts": [{"text": "hi", "segments": []}, {"name": "b", "error": "b is empty"}]}
    report = {"result": result, "error": "1 of 2 not transcribed: b is empty"}
    ended = Ended(**{**_fields(ENDED), "exit_code": 1, "report": report})

    verdict = declared.kind.interpret(ended)

    assert (verdict.state, verdict.reason) == (JobState.FAILED, Reason.EXIT)
    assert verdict.result == result
    assert verdict.error == report["error"]


def test_a_host_without_room_is_no_failure_of_the_job(declared):
    report = {"error": "no room for the sound", "is_hosts_fault": True}
    ended = Ended(**{**_fields(ENDED), "exit_code": 1, "report": report})

    assert declared.kind.interpret(ended).reason == Reason.HOST


def test_a_runner_that_was_killed_says_so(declared):
    ended = Ended(exit_code=None, signal=9, reason="signal")

    assert declared.kind.interpret(ended).reason == Reason.SIGNAL


def _fields(ended):
    return {name: getattr(ended, name) for name in ("exit_code", "signal", "reason")}
