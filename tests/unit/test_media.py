"""What ffmpeg is asked: presets, options as people type them, encoders of hardware."""

from __future__ import annotations

import pytest

from relayq.errors import RelayqError
from relayq.model import media
from relayq.model.media import Option


def read(text: str | list[str]) -> list[tuple[str, str | None]]:
    return [(one.name, one.value) for one in media.read_options(text)]


def test_options_are_read_as_a_shell_would_and_no_shell_sees_them():
    read_as = read(
        """-c:v libx264 -vf "scale=640:-2, drawtext=text='a b'" -metadata title='$HOME;x'"""
    )

    assert read_as == [
        ("c:v", "libx264"),
        ("vf", "scale=640:-2, drawtext=text='a b'"),
        ("metadata", "title=$HOME;x"),
    ]


def test_a_list_of_words_is_taken_as_it_is():
    assert read(["-metadata", 'title=it\'s "a b"', "-map", "-0:s"]) == [
        ("metadata", 'title=it\'s "a b"'),
        ("map", "-0:s"),
    ]


def test_options_without_a_value_are_known():
    assert read("-an -shortest -nostats -crf 20") == [
        ("an", None),
        ("shortest", None),
        ("nostats", None),
        ("crf", "20"),
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("-c:v libx264 other.mp4 -crf 23", "belongs to no option"),
        ("-crf", "has no value"),
        ("-vf 'scale=640", "No closing quotation"),
        ("-i other.mov -c copy", "further input"),
        ("-y -c copy", "overwrite"),
        ("-progress /tmp/x", "leave it out"),
        (["-metadata", "a\0b"], "NUL"),
        ("- x", "belongs to no option"),
    ],
)
def test_options_that_would_do_something_else_are_refused(options, says):
    with pytest.raises(RelayqError) as refused:
        media.read_options(options)

    assert says in str(refused.value)


@pytest.mark.parametrize("name", media.preset_names())
def test_every_preset_can_be_read_and_names_what_its_host_needs(name):
    preset = media.find_preset(name)
    options = media.read_options(preset.options)

    assert options
    assert preset.ending
    assert media.needs_of(options)[0] == "ffmpeg"
    assert not preset.on_hardware or media.stand_ins(media.video_encoder(options) or "")


def test_a_preset_that_is_misspelt_is_named_with_what_it_may_have_been():
    with pytest.raises(RelayqError) as refused:
        media.find_preset("h264-smal")

    assert "did you mean h264-small?" in str(refused.value)
    assert refused.value.hint == "relayq transcode --presets"


@pytest.mark.parametrize(
    ("ending", "encoder"), [("mp3", "libmp3lame"), ("opus", "libopus"), ("M4A", "aac"), ("", "aac")]
)
def test_audio_only_goes_by_the_ending(ending, encoder):
    options = media.read_options(media.find_preset("audio-only", ending).options)

    assert media.audio_encoder(options) == encoder


def test_an_encoder_that_hosts_publish_is_a_need():
    def needs(text: str) -> list[str]:
        return media.needs_of(media.read_options(text))

    assert needs("-c:v libx265 -c:a libopus") == ["ffmpeg", "encoder:libopus", "encoder:libx265"]
    assert needs("-codec:v h264_nvenc") == ["ffmpeg", "encoder:h264_nvenc"]
    assert needs("-c copy") == ["ffmpeg"]
    assert needs("-c:a aac") == ["ffmpeg"]


def on(encoder: str, options: str, **given) -> tuple[list[str], list[str]] | None:
    found = media.on_hardware(media.read_options(options), encoder, **given)
    return None if found is None else (media.words_of(found[0]), media.words_of(found[1]))


def test_the_quality_becomes_what_the_hardware_has_for_it():
    options = "-c:v libx264 -preset slow -crf 20 -tune film -c:a aac"

    assert on("h264_nvenc", options) == (
        [],
        ["-c:v", "h264_nvenc", "-rc", "vbr", "-cq", "20", "-b:v", "0", "-c:a", "aac"],
    )
    assert on("h264_videotoolbox", options)[1][:4] == ["-c:v", "h264_videotoolbox", "-q:v", "72.5"]


def test_vaapi_gets_its_device_and_its_filter_after_ones_own():
    before, words = on(
        "h264_vaapi", "-c:v libx264 -vf scale=640:-2 -pix_fmt yuv420p", render_node="/dev/dri/r"
    )

    assert before == ["-vaapi_device", "/dev/dri/r"]
    assert words == ["-c:v", "h264_vaapi", "-qp", "23", "-vf", "scale=640:-2,format=nv12,hwupload"]
    assert on("h264_vaapi", "-filter_complex x", render_node="/dev/dri/r") is None
    assert on("h264_vaapi", "-crf 20") is None


def test_an_encoder_that_knows_bit_rates_only_gets_one_unless_it_was_asked():
    words = on("h264_v4l2m2m", "-c:v libx264 -crf 23", pixels_per_second=1920 * 1080 * 25)[1]

    assert words == ["-c:v", "h264_v4l2m2m", "-b:v", str(int(1920 * 1080 * 25 * 0.1))]
    assert on("h264_v4l2m2m", "-c:v libx264 -b:v 2M")[1] == [
        *("-c:v", "h264_v4l2m2m", "-b:v", "2M")
    ]


def test_only_what_hardware_knows_is_taken_over():
    assert media.stand_ins("libx265")[0] == "hevc_videotoolbox"
    assert media.stand_ins("copy") == media.stand_ins("libvpx-vp9") == []


@pytest.mark.parametrize("name", ["a.m3u8", "a.mpd", "shot-%03d.png"])
def test_an_output_of_many_files_is_refused(name):
    with pytest.raises(RelayqError, match="many files"):
        media.check_output(name, ())


def test_an_output_needs_a_format():
    with pytest.raises(RelayqError, match="no ending"):
        media.check_output("talk", ())

    media.check_output("talk", (Option("f", "mp4"),))
