"""The speech engines by themselves: pocketsphinx and faster-whisper as they are, whisper-cli by a
stand-in that has its options and its JSON."""

import json
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from relayq.errors import RelayqError
from relayq.host import engines, sound
from relayq.host.engines import Order
from relayq.host.engines.sphinx import utterances
from relayq.model.transcripts import AUTO
from tests.speech import voices

GGML = b"lmgg and more"


@pytest.fixture
def spoken(tmp_path):
    """Words that pocketsphinx understands."""
    path = voices.speak(tmp_path / "said.wav")
    heard = sound.extract(sound.look(str(path), "said.wav"), str(tmp_path))
    yield heard
    heard.close()


def all_of(engine, spoken):
    with closing(engine.hear([spoken])) as heards:
        heard = next(heards)
        segments = list(heard.segments)
    return heard, [one for one in segments if one.text], segments


# pocketsphinx


@pytest.mark.speech
def test_pocketsphinx_understands_a_clear_voice(spoken):
    engine = engines.load("pocketsphinx", Order(words=True))

    heard, [segment], segments = all_of(engine, spoken)

    assert segment.text == voices.SENTENCE
    assert heard.language == "en"
    assert [word.text for word in segment.words] == voices.SENTENCE.split()
    assert 0 <= segment.start < segment.words[1].start < segment.end <= spoken.duration
    assert segments[-1].end == pytest.approx(spoken.duration)


@pytest.mark.speech
def test_one_utterance_does_not_spoil_the_next(spoken):
    engine = engines.load("pocketsphinx", Order())

    first, second = all_of(engine, spoken)[1], all_of(engine, spoken)[1]

    assert first == second
    assert first[0].words == ()


@pytest.mark.speech
def test_keywords_are_found_with_their_times(spoken, tmp_path):
    order = Order(keywords=["The  Meeting", "tuesday"], room=str(tmp_path))

    [found] = all_of(engines.load("pocketsphinx", order), spoken)[1]

    assert found.text == "the meeting"
    assert found.end < spoken.duration / 2


@pytest.mark.speech
@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        (Order(keywords=["xyzzy"]), "doesn't know the word 'xyzzy'"),
        (Order(model="small"), "no such model: 'small'.*pocketsphinx has en-us"),
        (Order(language="de"), "English only"),
        (Order(options={"x": 1}), "takes no options"),
    ],
)
def test_pocketsphinx_refuses_what_it_cannot_do(order, complaint):
    with pytest.raises(RelayqError, match=complaint):
        engines.load("pocketsphinx", order)


@pytest.mark.media
def test_a_long_sound_is_cut_where_it_is_quiet(tmp_path):
    path = tmp_path / "long.wav"
    tone = "sine=frequency=300:duration=20,volume=enable='between(t,7,7.3)':volume=0"
    quiet = ["-nostdin", "-loglevel", "error"]
    subprocess.run(["ffmpeg", *quiet, "-f", "lavfi", "-i", tone, path], check=True)
    heard = sound.extract(sound.look(str(path), "x"), str(tmp_path))

    parts = list(utterances(heard, longest=10))

    assert b"".join(samples for _, samples in parts) == heard.samples()
    assert all(len(samples) <= 10 * 32000 for _, samples in parts)
    assert parts[1][0] == pytest.approx(7.15, abs=0.15)
    heard.close()


# whisper-cli


@pytest.fixture
def cpp(tmp_path, monkeypatch):
    """A host with the stand-in for whisper-cli and a model; returns the rest of an order."""
    folder = voices.installed_cli(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    models = tmp_path / "models"
    models.mkdir()
    (models / "ggml-base.bin").write_bytes(GGML)
    return {"models": str(models), "room": str(tmp_path), "environ": {"HF_HUB_OFFLINE": "1"}}


@pytest.fixture
def tone(tmp_path):
    path = tmp_path / "tone.wav"
    quiet = ["-nostdin", "-loglevel", "error"]
    sine = "sine=frequency=300:duration=2"
    subprocess.run(["ffmpeg", *quiet, "-f", "lavfi", "-i", sine, path], check=True)
    heard = sound.extract(sound.look(str(path), "tone.wav"), str(tmp_path))
    yield heard
    heard.close()


def seen(tmp_path):
    return [json.loads(line) for line in (tmp_path / "bin" / "seen").read_text().splitlines()]


@pytest.mark.media
def test_whisper_cli_gets_the_sound_and_its_json_is_read(cpp, tone, tmp_path):
    engine = engines.load("whisper.cpp", Order(**cpp))

    heard, [segment], segments = all_of(engine, tone)

    assert (heard.language, segment.text) == ("de", "Guten Tag allerseits.")
    assert (segment.start, segment.end) == (0.0, 2.0)
    assert [one.end for one in segments[:-1]] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.0])
    [argv] = seen(tmp_path)
    assert argv[:2] == ["-m", str(tmp_path / "models" / "ggml-base.bin")]
    assert argv[argv.index("-l") + 1] == "auto"
    assert "-tr" not in argv
    assert [one.name for one in tmp_path.iterdir() if "transcript" in one.name] == []


@pytest.mark.media
def test_whisper_cli_is_started_once_for_all_sounds(cpp, tone, tmp_path):
    path = tmp_path / "long.wav"
    quiet = ["-nostdin", "-loglevel", "error"]
    sine = "sine=frequency=300:duration=5"
    subprocess.run(["ffmpeg", *quiet, "-f", "lavfi", "-i", sine, path], check=True)
    longer = sound.extract(sound.look(str(path), "long.wav"), str(tmp_path))
    engine = engines.load("whisper.cpp", Order(**cpp))

    with closing(engine.hear([tone, longer])) as heards:
        ends = [[one.end for one in heard.segments if one.text] for heard in heards]

    assert ends == [[2.0], [5.0]]
    assert len(seen(tmp_path)) == 1
    longer.close()


@pytest.mark.media
def test_words_are_made_of_tokens(cpp, tone):
    engine = engines.load("whisper.cpp", Order(words=True, language="de", **cpp))

    [segment] = all_of(engine, tone)[1]

    assert [(one.text, one.start, one.end) for one in segment.words] == [
        ("Guten", 0.0, 0.4),
        ("Tag", 0.4, 0.7),
        ("allerseits.", 0.7, 1.3),
    ]


@pytest.mark.media
def test_translation_prompt_and_options_reach_whisper_cli(cpp, tone, tmp_path):
    order = Order(translate=True, prompt="Ann, -x", options={"beam-size": 5}, **cpp)

    [segment] = all_of(engines.load("whisper.cpp", order), tone)[1]

    assert segment.text == "Good day to you."
    [argv] = seen(tmp_path)
    assert argv[argv.index("--prompt") + 1] == "Ann, -x"
    assert argv[argv.index("--beam-size") + 1] == "5"


@pytest.mark.media
def test_an_option_that_whisper_cli_does_not_know_is_an_error_although_it_exits_with_0(cpp, tone):
    engine = engines.load("whisper.cpp", Order(options={"nonsense": True}, **cpp))

    with pytest.raises(RelayqError, match=r"no transcript \(exit 0\): .*unknown argument: --nonse"):
        all_of(engine, tone)


@pytest.mark.media
def test_a_broken_model_is_an_error(cpp, tone, tmp_path):
    (tmp_path / "models" / "ggml-tiny.bin").write_bytes(b"<html>")
    engine = engines.load("whisper.cpp", Order(model="tiny", **cpp))

    with pytest.raises(RelayqError, match=r"\(exit 3\): error: failed to initialize"):
        all_of(engine, tone)


def test_a_model_may_be_a_file_on_the_host(cpp, tmp_path):
    path = tmp_path / "models" / "ggml-base.bin"

    assert engines.load("whisper.cpp", Order(model=str(path), **cpp)).model == str(path)
    with pytest.raises(RelayqError, match="there is no model file /nowhere"):
        engines.load("whisper.cpp", Order(model="/nowhere", **cpp))


def test_without_the_program_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(RelayqError, match="whisper.cpp isn't installed on this host") as told:
        engines.choose("whisper.cpp", "base", "/nowhere", {})

    assert "whisper-cpp" in told.value.hint


@pytest.mark.skipif(find_spec("faster_whisper") is None, reason="needs faster-whisper")
def test_of_two_engines_the_one_that_has_the_model_is_taken(cpp):
    environ = {"HF_HOME": cpp["room"]}

    assert engines.choose(AUTO, "base", cpp["models"], environ) == "whisper.cpp"
    assert engines.choose(AUTO, "small", cpp["models"], environ) == "faster-whisper"
    assert engines.choose("pocketsphinx", "base", cpp["models"], environ) == "pocketsphinx"


# faster-whisper


QUICK = {"temperature": 0, "max_new_tokens": 12, "beam_size": 1}


@pytest.mark.speech
def test_faster_whisper_loads_a_model_and_gives_segments_with_times(
    whisper_models, spoken, tmp_path
):
    said = []
    order = Order(
        words=True,
        models=str(whisper_models),
        options=QUICK,
        environ={"HF_HOME": str(tmp_path)},
        say=lambda text, fraction: said.append(text),
    )
    engine = engines.load("faster-whisper", order)

    heard, found, _ = all_of(engine, spoken)

    assert said == ["loading base"]
    assert engine.manner == "cpu, int8"
    assert heard.language == "en"
    assert found
    assert "".join(heard.pieces).split()
    assert all(one.start <= one.end <= spoken.duration + 30 for one in found)
    assert all(type(word.certainty) is float for one in found for word in one.words)


@pytest.mark.speech
@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"language": "de"}, "the model base doesn't know 'de', only en"),
        ({"options": {"nonsense": 1}}, "faster-whisper doesn't take nonsense"),
    ],
)
def test_what_the_model_cannot_do_is_an_error(whisper_models, spoken, asked, complaint):
    engine = engines.load("faster-whisper", Order(models=str(whisper_models), **asked))

    with pytest.raises(RelayqError, match=complaint):
        all_of(engine, spoken)


@pytest.mark.speech
@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("small", r"the model small isn't here and can't be downloaded: HF_HUB_OFFLINE is set"),
        ("bsae", r"no such model: 'bsae'; did you mean base\? \(this host has base;"),
        ("/nowhere", "/nowhere is no model of faster-whisper"),
    ],
)
def test_a_model_that_is_not_here_is_an_error(whisper_models, tmp_path, model, complaint):
    environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}

    with pytest.raises(RelayqError, match=complaint):
        engines.load(
            "faster-whisper", Order(model=model, models=str(whisper_models), environ=environ)
        )


@pytest.mark.speech
def test_a_models_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    environ = {"HF_HOME": str(tmp_path)}

    with pytest.raises(RelayqError, match="the model base isn't here and can't be downloaded: .*"):
        engines.load("faster-whisper", Order(models=str(tmp_path / "file/models"), environ=environ))


@pytest.mark.speech
def test_a_damaged_model_says_what_to_remove(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.bin").write_bytes(b"nonsense")

    with pytest.raises(RelayqError, match="the model base can't be loaded") as told:
        engines.load("faster-whisper", Order(models=str(tmp_path)))

    assert told.value.hint.startswith(f"remove {tmp_path}/base")


class Told:
    """What faster-whisper gives: one segment."""

    language = "en"
    start, end, text, words = 0.0, 1.0, " Hello.", None


@pytest.mark.media
@pytest.mark.parametrize("fails_at", ["load", "transcribe", "segments"])
def test_without_the_cards_libraries_the_processor_is_used(monkeypatch, tone, tmp_path, fails_at):
    tried = []

    class Whisper:
        supported_languages = ("en",)

        def __init__(self, path, *, device, compute_type, local_files_only):
            tried.append((device, compute_type))
            self.device = device
            self.fail("load")

        def fail(self, where):
            if (self.device, where) == ("cuda", fails_at):
                raise RuntimeError("Library libcublas.so.12 is not found")

        def transcribe(self, file, **_):
            self.fail("transcribe")
            return self.segments(), Told

        def segments(self):
            self.fail("segments")
            yield Told

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.bin").touch()
    cards = SimpleNamespace(get_cuda_device_count=lambda: 1)
    monkeypatch.setitem(sys.modules, "ctranslate2", cards)
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Whisper))
    warned = []

    engine = engines.load("faster-whisper", Order(models=str(tmp_path), warn=warned.append))
    [found] = all_of(engine, tone)[1]

    assert found.text == "Hello."
    assert tried == [("cuda", "default"), ("cpu", "int8")]
    assert engine.manner == "cpu, int8"
    assert len(warned) == 1
    assert "libcublas" in warned[0]
