"""Where transcripts go, and what is said when no host can make one."""

from types import SimpleNamespace

import pytest

from relayq.errors import RelayqError, Unplaceable
from relayq.model.hosts import Host
from relayq.speechjobs import OfSpeech, explained, targets_of, text_of
from tests.unit.test_transcripts import TALK


@pytest.mark.parametrize(
    ("sources", "formats", "output", "targets"),
    [
        (["a.mp3"], ["srt"], "x.srt", ["x.srt"]),
        (["a.mp3"], ["srt"], "out/", ["out/a.srt"]),
        (["sub/a.mp3"], ["srt", "vtt"], "out", ["out/a.srt", "out/a.vtt"]),
        (["a.mp3", "mini:b.c.wav"], ["txt"], "out", ["out/a.txt", "out/b.c.txt"]),
        (["https://x.org/d/talk.mp3?x=1"], ["txt"], "out/", ["out/talk.txt"]),
        (["mini:a.mp3"], ["srt"], "mini:subs/", ["mini:subs/a.srt"]),
        (["mini:a.mp3"], ["srt"], "mini:a.srt", ["mini:a.srt"]),
        ([":/mnt/a.mp3"], ["srt"], ":/mnt/", [":/mnt/a.srt"]),
    ],
)
def test_a_transcript_goes_to_a_file_or_into_a_directory(
    tmp_path, monkeypatch, sources, formats, output, targets
):
    monkeypatch.chdir(tmp_path)

    assert targets_of(sources, formats, output) == targets


def test_a_directory_that_is_there_needs_no_slash(tmp_path):
    assert targets_of(["a.mp3"], ["txt"], str(tmp_path)) == [f"{tmp_path}/a.txt"]


def test_two_transcripts_are_never_one_file(tmp_path):
    with pytest.raises(RelayqError, match="a.mp3 and y/a.wav would both be"):
        targets_of(["x/a.mp3", "y/a.wav"], ["txt"], str(tmp_path))


def test_several_transcripts_go_into_no_file(tmp_path):
    (tmp_path / "x.txt").touch()

    with pytest.raises(RelayqError, match=r"x.txt is no directory"):
        targets_of(["a.mp3", "b.mp3"], ["txt"], str(tmp_path / "x.txt"))


@pytest.mark.parametrize(
    ("engine", "way"), [("auto", "relayq[transcribe]"), ("whisper.cpp", "whisper-cpp")]
)
def test_what_no_host_can_do_is_told_with_what_to_install(engine, way):
    with pytest.raises(Unplaceable, match="lacks transcribe") as told, explained(engine):
        raise Unplaceable("pi4 lacks transcribe", missing={"pi4": ["transcribe"]})

    assert told.value.missing == {"pi4": ["transcribe"]}
    assert way in told.value.hint


def test_several_transcripts_are_shown_with_their_names():
    assert text_of([TALK]) == f"{TALK.text}\n"
    assert text_of([TALK, TALK]).startswith(f"==> talk.mp3 <==\n{TALK.text}\n==> talk.mp3 <==")


# Batches


def host(name, *capabilities, is_online=True, labels=()):
    facts = {"capabilities": ["ffmpeg", *capabilities], "labels": list(labels)}
    return Host(name, "i", "b", slots=2, seen_at=0.0, is_online=is_online, facts=facts)


WHISPER = ("transcribe", "transcribe:whisper.cpp", "model:base")


@pytest.fixture
def job():
    """What asks a fleet of two hosts that transcribe, one that listens for keywords, and two."""
    hosts = [
        host("mini", *WHISPER, labels=["heavy"]),
        host("gpu", *WHISPER),
        host("pi4", "transcribe:pocketsphinx"),
        host("off", *WHISPER, is_online=False),
        host("vm"),
    ]
    asking = OfSpeech()
    asking.relay = SimpleNamespace(hosts=lambda: hosts)
    return asking


@pytest.mark.parametrize(
    ("asked", "jobs"),
    [
        ({}, 4),
        ({"jobs": 3}, 3),
        ({"jobs": 9}, 6),
        ({"host": "mini"}, 1),
        ({"on": ("@heavy",)}, 1),
        ({"excluded": ("mini",)}, 1),
        ({"keywords": ["fire"]}, 1),
        ({"engine": "faster-whisper"}, 1),
    ],
)
def test_a_batch_is_two_jobs_for_each_of_several_hosts_that_can_take_them(job, asked, jobs):
    made = job.asked_of_transcripts([f":/mnt/{n}.mp3" for n in range(6)], **asked)

    assert len(made) == jobs
    assert sorted(path for one in made for path in one["audio"]) == [
        f"/mnt/{n}.mp3" for n in range(6)
    ]
    assert all(len(one["names"]) == len(one["audio"]) for one in made)


def test_a_batch_whose_outputs_would_meet_is_refused_before_anything(job, tmp_path):
    with pytest.raises(RelayqError, match="would both be"):
        job.asked_of_transcripts([":/a/x.mp3", ":/b/x.mp3"], tmp_path / "out")


def test_a_model_that_lies_on_no_host_is_refused(job):
    with pytest.raises(RelayqError, match=r"no such model: 'mine' \(the fleet has none yet;"):
        job.asked_of_transcript(":/a.mp3", model="mine")
    with pytest.raises(RelayqError, match="its files are on mini, and it is to run on gpu"):
        job.asked_of_transcript("mini:/a.mp3", host="gpu")


def test_files_of_ones_own_travel_and_those_of_hosts_do_not(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    own = job.asked_of_transcript("a.mp3", output="a.srt", format="srt")
    theirs = job.asked_of_transcript("mini:a.mp3", output=":a.srt", format="srt")

    assert own["files_in"] == [("a.mp3", "in/a.mp3")]
    assert own["files_out"] == [("out/a.srt", str(tmp_path / "a.srt"))]
    assert (own["audio"], own["outputs"]) == ("in/a.mp3", ["out/a.srt"])
    assert (theirs["audio"], theirs["outputs"]) == ("~/a.mp3", ["~/a.srt"])
    assert theirs["host"] == "mini"
    assert not {"files_in", "files_out"} & theirs.keys()
