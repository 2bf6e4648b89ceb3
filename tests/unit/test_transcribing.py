"""The program that transcribes: a batch, its report, its progress; the engine is made up here."""

import errno
import json
import os

import pytest

from relayq.errors import RelayqError
from relayq.host import engines, sound, transcribing
from relayq.host.engines import Heard
from relayq.model.transcripts import Segment


class Engine:
    """Hears the name of each input, in two segments."""

    model = "base"
    manner = "cpu"
    at_once = 0.0
    loaded = 0

    def hear(self, sounds):
        for extracted in sounds:
            if extracted.name == "bad.mp3":
                raise RelayqError("bad.mp3 is all noise", hint="listen to it")
            segments = [Segment(0.0, 1.0, "It is"), Segment(1.0, 2.0, extracted.name)]
            heard = Heard(iter(()), "en")
            heard.segments = self._said(segments, heard.pieces)
            yield heard

    def _said(self, segments, pieces):
        for one in segments:
            pieces.append(f" {one.text}")
            yield one


class Extracted(sound.Sound):
    """A sound without a file."""

    duration = 2.0

    def __init__(self, name):
        self.name = name

    def close(self):
        pass


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A job's directory, with an engine that only counts how often it is loaded."""
    monkeypatch.chdir(tmp_path)
    Engine.loaded = 0

    def look(path, name):
        if not os.path.exists(path):
            raise RelayqError(f"{name}: no such file or directory")
        return sound.Source(path, name, 2.0)

    def load(engine, order):
        Engine.loaded += 1
        return Engine()

    monkeypatch.setattr(sound, "look", look)
    monkeypatch.setattr(sound, "extract", lambda source, room: Extracted(source.name))
    monkeypatch.setattr(engines, "choose", lambda *_: "faster-whisper")
    monkeypatch.setattr(engines, "load", load)
    return tmp_path


def order(*inputs, **changes):
    return {
        "audio": list(inputs),
        "model": "base",
        "language": None,
        "format": ["txt"],
        "words": False,
        "translate": False,
        "engine": "auto",
        "prompt": None,
        "keywords": [],
        "options": {},
        "outputs": [],
        "names": [],
        "overwrite": False,
        "is_batch": len(inputs) > 1,
        "host": "mini",
        "home": "/home/ann",
        "models": "/nowhere",
        "hub": {},
        **changes,
    }


def run(place, given):
    environ = {"RELAYQ_REPORT": str(place / "r.json"), "RELAYQ_DESK": str(place / "desk")}
    return transcribing.Run(given, environ).run()


def test_the_text_is_printed_as_it_comes_and_is_in_the_report(place, capsys):
    (place / "a.mp3").touch()

    report = run(place, order("a.mp3"))

    assert capsys.readouterr().out == "It is\na.mp3\n"
    result = report["result"]
    assert result["text"] == "It is a.mp3"
    assert (result["engine"], result["model"]) == ("faster-whisper", "base")
    assert (result["language"], result["duration"]) == ("en", 2.0)
    assert "error" not in report


def test_a_batch_loads_its_model_once_and_one_bad_input_spoils_no_other(place, capsys):
    for name in ("a.mp3", "bad.mp3", "b.mp3"):
        (place / name).touch()

    report = run(place, order("a.mp3", "gone.mp3", "bad.mp3", "b.mp3"))

    assert Engine.loaded == 1
    texts = [one.get("text") for one in report["result"]["transcripts"]]
    assert texts == ["It is a.mp3", None, None, "It is b.mp3"]
    assert report["error"] == "2 of 4 not transcribed: gone.mp3: no such file or directory"
    told = capsys.readouterr()
    assert told.out == "==> a.mp3 <==\nIt is\na.mp3\n==> b.mp3 <==\nIt is\nb.mp3\n"
    assert "relayq: bad.mp3 is all noise (listen to it)\n" in told.err


def test_without_any_good_input_no_model_is_loaded(place):
    report = run(place, order("gone.mp3"))

    assert report == {"error": "gone.mp3: no such file or directory"}
    assert Engine.loaded == 0


def test_formats_are_files_and_fields(place, capsys):
    (place / "a.mp3").touch()
    given = order("a.mp3", format=["srt", "json"], outputs=["out/a.srt", "out/a.json"])

    report = run(place, given)

    srt = (place / "out" / "a.srt").read_text()
    assert srt.startswith("1\n00:00:00,000 --> 00:00:01,000\nIt is\n")
    assert report["result"]["srt"] == srt
    assert json.loads((place / "out" / "a.json").read_text())["text"] == "It is a.mp3"
    assert sorted(os.listdir(place / "out")) == ["a.json", "a.srt"]
    assert capsys.readouterr().out == ""


def test_an_output_that_exists_is_refused_before_any_work(place):
    (place / "a.mp3").touch()
    (place / "a.txt").write_text("mine")

    report = run(place, order("a.mp3", outputs=["a.txt"]))

    assert report == {"error": "a.txt exists already on mini (--overwrite)"}
    assert Engine.loaded == 0
    assert (place / "a.txt").read_text() == "mine"
    assert "error" not in run(place, order("a.mp3", outputs=["a.txt"], overwrite=True))
    assert (place / "a.txt").read_text() == "It is\na.mp3\n"


@pytest.mark.parametrize(
    ("error", "is_hosts"),
    [
        (sound.NoRoom("no room for the sound of a.mp3"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_full_disk_is_the_hosts_fault(place, monkeypatch, error, is_hosts):
    (place / "a.mp3").touch()

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(sound, "extract", fail)

    assert bool(run(place, order("a.mp3")).get("is_hosts_fault")) == is_hosts


def test_progress_is_that_of_all_inputs_by_their_durations(place, monkeypatch):
    told = []
    monkeypatch.setattr(
        transcribing.progress, "tell", lambda environ, one, at_once=False: told.append(one)
    )
    for name in ("a.mp3", "b.mp3"):
        (place / name).touch()

    run(place, order("a.mp3", "b.mp3"))

    fractions = [one.fraction for one in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {one.text for one in told} == {
        "a.mp3",
        "converting a.mp3",
        "b.mp3",
        "converting b.mp3",
        "",
    }
    assert max(one.fraction for one in told if one.text == "a.mp3") == pytest.approx(0.5)


def test_a_result_that_is_too_long_says_what_it_lacks(place, monkeypatch, capsys):
    (place / "a.mp3").touch()
    monkeypatch.setattr(transcribing, "_MOST", 150)

    report = run(place, order("a.mp3"))

    assert report["result"]["segments"] == []
    assert report["result"]["text"] == "It is a.mp3"
    assert "too long for the record, which lacks its segments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("at_once", "parts"),
    [
        (0.0, [[0], [1], [2], [3], [4]]),
        (10.0, [[0, 1], [2], [3], [4]]),
        (100.0, [[0, 1, 2], [3], [4]]),
    ],
)
def test_an_engine_hears_so_much_at_once_and_the_unknown_alone(at_once, parts):
    lengths = (4.0, 5.0, 6.0, 0.0, 1.0)
    looked = [
        transcribing._Looked(number, "x", source=sound.Source("x", "x", length))
        for number, length in enumerate(lengths)
    ]

    found = [[one.position for one in group] for group in transcribing.groups(looked, at_once)]

    assert found == parts
