"""The sound of audio and video files, by the real ffmpeg; what has none says why."""

import struct
import subprocess
import wave

import pytest

from relayq.errors import RelayqError
from relayq.host import sound

pytestmark = pytest.mark.media


def make(path, *options):
    quiet = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    subprocess.run(["ffmpeg", *quiet, *options, path], check=True)
    return path


SINE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=2")
PICTURE = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=10:duration=2")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", SINE),
        ("a.mp3", SINE),
        ("a b'[1].flac", SINE),
        ("a.mp4", (*PICTURE, *SINE)),
        ("a.mkv", (*PICTURE, *SINE, "-ac", "2", "-ar", "48000")),
    ],
)
def test_any_file_with_sound_becomes_16_khz_mono(tmp_path, name, options):
    path = make(tmp_path / name, *options)
    source = sound.look(str(path), name)
    heard = sound.extract(source, str(tmp_path))

    assert source.duration == pytest.approx(2.0, abs=0.1)
    assert heard.duration == pytest.approx(2.0, abs=0.1)
    with wave.open(heard.rewound(), "rb") as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (16000, 1, 2)
        samples = read.readframes(read.getnframes())
    assert samples == heard.samples() == b"".join(heard.pieces(0.3))
    assert max(struct.unpack(f"<{len(samples) // 2}h", samples)) > 1000
    # The file has no name: whatever ends this process ends it.
    assert [one.name for one in tmp_path.iterdir()] == [name]
    heard.close()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "a.mp3 is empty"),
        (b"just words, and no sound", "a.mp3 is no sound or video file: Invalid data"),
        (None, "a.mp3: no such file or directory"),
    ],
)
def test_what_is_no_media_file_is_refused_by_its_submitters_name(tmp_path, content, complaint):
    path = tmp_path / "host's own name"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RelayqError, match=complaint) as told:
        sound.look(str(path), "a.mp3")

    assert "own name" not in str(told.value)


def test_a_file_without_a_sound_track_says_what_it_is(tmp_path):
    path = make(tmp_path / "mute.mp4", *PICTURE)

    with pytest.raises(RelayqError, match=r"mute.mp4 has no sound track \(it is 2.0 s, .*64x64\)"):
        sound.look(str(path), "mute.mp4")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(RelayqError, match="x is a directory"):
        sound.look(str(tmp_path), "x")


def test_a_file_without_its_index_is_refused(tmp_path):
    path = make(tmp_path / "cut.m4a", *SINE)
    path.write_bytes(path.read_bytes()[:8000])

    with pytest.raises(RelayqError, match="cut.m4a is no sound or video file: moov atom not found"):
        sound.look(str(path), "cut.m4a")


def test_a_file_that_was_cut_in_the_middle_is_no_success(tmp_path):
    long = ("-f", "lavfi", "-i", "sine=frequency=440:duration=20")
    path = make(tmp_path / "cut.m4a", *long, "-movflags", "+faststart")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    source = sound.look(str(path), "cut.m4a")

    with pytest.raises(RelayqError, match=r"cut.m4a can't be read to its end: .* of 20.0 s"):
        sound.extract(source, str(tmp_path))


def test_a_damaged_frame_does_no_harm(tmp_path):
    path = make(tmp_path / "a.mp3", *SINE)
    data = bytearray(path.read_bytes())
    data[5000:5010] = b"\xff" * 10
    path.write_bytes(data)

    heard = sound.extract(sound.look(str(path), "a.mp3"), str(tmp_path))

    assert heard.duration == pytest.approx(2.0, abs=0.2)
    heard.close()


@pytest.mark.root
def test_a_full_disk_is_the_hosts_fault(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    path = make(tmp_path / "a.mp3", "-f", "lavfi", "-i", "sine=frequency=440:duration=60")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", small], check=True)
    try:
        with pytest.raises(sound.NoRoom, match=r"no room for the sound of a.mp3 \(2 MB a minute"):
            sound.extract(sound.look(str(path), "a.mp3"), str(small))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
