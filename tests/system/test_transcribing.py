"""Transcripts by a real worker: from a file to words and subtitles, and what interrupts it."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from relayq.errors import JobCancelled, JobFailed, RelayqError, Unplaceable
from tests.speech import voices
from tests.system.commands import relayq
from tests.system.conftest import start_fleet
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.media]

QUICK = {"temperature": 0, "max_new_tokens": 12, "beam_size": 1}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A fleet of one host that has the stand-in for whisper-cli, and a model for it."""
    folder = tmp_path_factory.mktemp("transcribing")
    home = folder / "home"
    home.mkdir(mode=0o700)
    voices.installed_cli(folder / "bin")
    (folder / "models").mkdir()
    (folder / "models" / "ggml-base.bin").write_bytes(b"lmgg and more")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder / "bin"), prepend=":")
        patch.setenv("RELAYQ_MODELS", str(folder / "models"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(folder / "hub"))
        for fleet in start_fleet(home, patch):
            fleet.folder = folder
            yield fleet
            from relayq import config, embedded

            embedded.stop_broker(config.load())


@pytest.fixture
def slow(host):
    """Have the stand-in take its time."""
    pause = host.folder / "bin" / "pause"

    def take(seconds):
        pause.write_text(str(seconds))

    yield take
    pause.unlink(missing_ok=True)


def tone(path, seconds=2, *more):
    quiet = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    source = ["-f", "lavfi", "-i", f"sine=frequency=300:duration={seconds}"]
    subprocess.run(["ffmpeg", *quiet, *source, *more, path], check=True)
    return path


def running(name):
    """Return the processes whose command line has this word."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(name in word for word in words) and process.info["status"] != "zombie":
            found.append(process.pid)
    return found


def cli_of(host):
    return running(str(host.folder / "bin" / "whisper-cli"))


# What comes out


def test_the_text_is_what_get_returns_and_the_rest_is_beside_it(host, tmp_path):
    path = tone(tmp_path / "talk.mp4", 2, "-f", "mp4")

    result = host.job.transcribe(path, engine="whisper.cpp", words=True, language="german")

    assert result.get(60) == "Guten Tag allerseits."
    transcript = result.transcript
    assert transcript.language == "de"
    assert (transcript.engine, transcript.model) == ("whisper.cpp", "base")
    assert transcript.duration == pytest.approx(2.0, abs=0.1)
    assert [word.text for word in transcript.words] == ["Guten", "Tag", "allerseits."]
    assert transcript.name == str(path)
    assert result.stdout == "Guten Tag allerseits.\n"
    assert "00:00:02" in transcript.srt
    assert result.record.progress is None


def test_formats_are_files_where_they_were_wanted(host, tmp_path):
    path = tone(tmp_path / "a b'[1].wav")

    result = host.job.transcribe(
        path, output=tmp_path / "out", format=["srt", "vtt", "json"], engine="whisper.cpp"
    )

    assert result.get(60) == "Guten Tag allerseits."
    out = tmp_path / "out"
    assert sorted(os.listdir(out)) == ["a b'[1].json", "a b'[1].srt", "a b'[1].vtt"]
    assert (out / "a b'[1].srt").read_text() == result.transcript.srt
    assert (out / "a b'[1].vtt").read_text().startswith("WEBVTT\n")
    assert json.loads((out / "a b'[1].json").read_text())["language"] == "de"
    assert result.stdout == ""


def test_a_translation_is_english_and_keeps_the_language_of_the_sound(host, tmp_path):
    path = tone(tmp_path / "a.wav")

    result = host.job.transcribe(path, engine="whisper.cpp", translate=True)

    assert result.get(60) == "Good day to you."
    assert (result.transcript.language, result.transcript.is_translated) == ("de", True)


def test_a_batch_is_one_job_and_a_bad_input_fails_it_without_the_others(host, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    files = [tone(tmp_path / "a.wav"), tmp_path / "bad.wav", tone(tmp_path / "b.wav")]

    result = host.job.transcribe(files, engine="whisper.cpp")

    with pytest.raises(JobFailed, match="1 of 3 not transcribed: .*bad.wav is no sound or video"):
        result.get(60)
    assert [one.name for one in result.transcripts] == [str(files[0]), str(files[2])]
    assert "==> " in result.stdout
    assert (
        host.job.transcribe(files[::2], engine="whisper.cpp").get(60)
        == ["Guten Tag allerseits."] * 2
    )


def test_files_on_the_host_are_read_and_written_there(host, tmp_path):
    tone(tmp_path / "a.wav")

    result = host.job.transcribe(
        f"here:{tmp_path}/a.wav", output=f":{tmp_path}/a.srt", format="srt", engine="whisper.cpp"
    )

    assert result.get(60) == "Guten Tag allerseits."
    assert (tmp_path / "a.srt").read_text() == result.transcript.srt
    assert result.record.spec.host == "here"
    assert not result.files


def test_it_is_a_celery_task_as_well(host, tmp_path):
    path = tone(tmp_path / "a.wav")
    code = (
        "from relayq.tasks import transcribe; "
        f"print(transcribe.delay({str(path)!r}, 'base', engine='whisper.cpp').id)"
    )

    told = subprocess.run(
        [sys.executable, "-c", code], env=host.environ, capture_output=True, text=True, check=True
    )

    result = host.job.fetch(told.stdout.strip())
    assert result.get(60) == "Guten Tag allerseits."
    assert "transcribe:whisper.cpp" in result.record.spec.needs


def test_the_host_says_which_engines_and_models_it_has(host):
    [facts] = [one.facts for one in host.relay.hosts()]

    assert facts["models"] == {"whisper.cpp": ["base"]}
    assert {"transcribe", "transcribe:whisper.cpp", "model:base", "kind:transcribe"} <= {
        *facts["capabilities"]
    }


# What can't be done


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "x.mp3 is empty"), (b"nothing to hear", "x.mp3 is no sound or video file")],
)
def test_what_cannot_be_heard_fails_with_the_reason(host, tmp_path, content, complaint):
    (tmp_path / "x.mp3").write_bytes(content)

    with pytest.raises(JobFailed, match=complaint):
        host.job.transcribe(tmp_path / "x.mp3", engine="whisper.cpp").get(60)


def test_a_model_that_cannot_be_had_names_those_at_hand(host, tmp_path):
    path = tone(tmp_path / "a.wav")

    with pytest.raises(JobFailed, match=r"small isn't here and can't be downloaded: HF_HUB_OFFLIN"):
        host.job.transcribe(path, "small", engine="whisper.cpp").get(60)
    with pytest.raises(RelayqError, match=r"no such model: 'bsae'; did you mean base"):
        host.job.transcribe(path, "bsae", engine="whisper.cpp")


def test_nothing_is_queued_for_what_is_wrong_from_the_start(host, tmp_path):
    path = tone(tmp_path / "a.wav")
    (tmp_path / "a.srt").write_text("mine")
    before = len(host.job.list(limit=1000))

    for asked, complaint in (
        ({"language": "klingon"}, "no engine knows the language"),
        ({"output": tmp_path / "a.srt"}, "a.srt exists"),
        ({"format": "doc"}, "not as 'doc'"),
        ({"engine": "siri"}, "an engine is auto"),
    ):
        with pytest.raises(RelayqError, match=complaint):
            host.job.transcribe(path, **asked)
    with pytest.raises(RelayqError, match="no such file"):
        host.job.transcribe(tmp_path / "gone.wav", engine="whisper.cpp")
    with pytest.raises(Unplaceable) as told:
        host.job.transcribe(path, engine="whisper.cpp", needs=["quantum"])

    assert "whisper-cpp" in told.value.hint
    assert len(host.job.list(limit=1000)) == before
    assert (tmp_path / "a.srt").read_text() == "mine"


# What interrupts it


def test_a_cancel_ends_the_engine_and_leaves_no_transcript(host, slow, tmp_path):
    slow(30)
    path = tone(tmp_path / "a.wav")
    result = host.job.transcribe(path, output=tmp_path / "a.srt", engine="whisper.cpp")
    until(lambda: cli_of(host), within=30, what="the engine to start")

    result.cancel()

    with pytest.raises(JobCancelled):
        result.get(30)
    assert not cli_of(host)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_worker_that_is_killed_costs_no_transcript_and_no_progress(host, slow, tmp_path):
    slow(1.5)
    path = tone(tmp_path / "a.wav")
    result = host.job.transcribe(path, engine="whisper.cpp")
    until(lambda: cli_of(host), within=30, what="the engine to start")
    [engine] = cli_of(host)

    host.end_worker(signal.SIGKILL)
    host.start_worker()

    assert cli_of(host) == [engine]
    until(
        lambda: (told := result.record.progress) is not None and (told.fraction or 0) > 0.3,
        within=30,
        what="its progress to go on",
    )
    assert result.get(60) == "Guten Tag allerseits."
    assert result.record.attempt == 1


# The command


@pytest.fixture
def typed(host, tmp_path):
    """Run the command line in a directory with a sound file."""
    tone(tmp_path / "a.wav")

    def run(*words):
        return relayq(*words, env=host.environ, cwd=tmp_path)

    return run


def test_the_command_prints_the_text_and_nothing_else_on_stdout(typed):
    done = typed("transcribe", "--engine", "whisper.cpp", "a.wav")

    assert (done.returncode, done.stdout) == (0, "Guten Tag allerseits.\n"), done.stderr
    again = typed("result", "last")
    assert again.stdout == "Guten Tag allerseits.\n"
    assert "a.wav (base)" in typed("ps", "-a").stdout


def test_the_command_writes_subtitles_by_the_ending_of_their_name(typed, tmp_path):
    done = typed("transcribe", "--engine", "whisper.cpp", "a.wav", "-o", "a.srt")

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "a.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:02,000\n")
    again = typed("transcribe", "--engine", "whisper.cpp", "a.wav", "-o", "a.srt")
    assert again.returncode == 125
    assert "a.srt exists" in again.stderr
    assert "--overwrite" in again.stderr


def test_the_command_deals_several_files_out(typed, tmp_path):
    tone(tmp_path / "b.wav")

    words = ("--engine", "whisper.cpp", "a.wav", "b.wav", "--jobs", "2")
    done = typed("transcribe", *words, "-o", "out", "-f", "txt,srt")
    printed = typed("transcribe", *words)

    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["a.srt", "a.txt", "b.srt", "b.txt"]
    assert "2 jobs queued" in done.stderr
    said = ["Guten Tag allerseits."] * 2
    assert sorted(printed.stdout.splitlines()) == ["==> a.wav <==", "==> b.wav <==", *said]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("a.wav", "-f", "doc"), "not as 'doc'"),
        (("a.wav", "-f", "srt,vtt"), "-o DIR"),
        (("a.wav", "b.wav", "-f", "srt"), "-o DIR"),
        (("a.wav", "-l", "germn"), "did you mean german?"),
        (("a.wav", "-m", "base.en", "-l", "de"), "--model base"),
        ((), "Missing argument"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_connects(typed, words, complaint):
    done = typed("transcribe", *words)

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


# The real engines


@pytest.fixture(scope="module")
def speaking(tmp_path_factory, whisper_models):
    """A fleet of one host with the real engines and a model of random weights."""
    home = tmp_path_factory.mktemp("speaking") / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAYQ_MODELS", str(whisper_models))
        patch.setenv("HF_HUB_OFFLINE", "1")
        for fleet in start_fleet(home, patch):
            yield fleet
            from relayq import config, embedded

            embedded.stop_broker(config.load())


@pytest.mark.speech
def test_spoken_words_come_back(speaking, tmp_path):
    path = voices.speak(tmp_path / "said.flac")

    result = speaking.job.transcribe(path, engine="pocketsphinx")

    assert result.get(110) == voices.SENTENCE
    assert result.transcript.srt.endswith(f"\n{voices.SENTENCE}\n\n")


@pytest.mark.speech
def test_faster_whisper_is_chosen_where_it_is_and_loads_the_model_of_this_host(speaking, tmp_path):
    path = voices.speak(tmp_path / "said.mkv")

    result = speaking.job.transcribe(path, language="en", words=True, options=QUICK)

    assert isinstance(result.get(110), str)
    transcript = result.transcript
    assert (transcript.engine, transcript.model) == ("faster-whisper", "base")
    assert transcript.words
    [facts] = [one.facts for one in speaking.relay.hosts()]
    assert facts["models"]["faster-whisper"] == ["base"]
