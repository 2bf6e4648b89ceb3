"""What tools and systems say of a machine, read: recorded on Linux, macOS and a Raspberry Pi."""

from __future__ import annotations

import json

import pytest

from relayq.model import machines

PC = """\
processor	: 0
vendor_id	: AuthenticAMD
model		: 1
model name	: AMD Ryzen 7 5800X 8-Core Processor
cpu MHz		: 3800.000
"""
PI = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41

Hardware	: BCM2835
Revision	: c03114
Serial		: 10000000abcdef01
Model		: Raspberry Pi 4 Model B Rev 1.4
"""
NVIDIA = """\
NVIDIA GeForce RTX 3090, 24576 MiB, 535.183.01
NVIDIA GeForce GTX 1650, 4096 MiB, 535.183.01
"""
M2 = json.dumps(
    {
        "SPDisplaysDataType": [
            {
                "_name": "Apple M2",
                "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
                "spdisplays_vendor": "sppci_vendor_Apple",
                "sppci_bus": "spdisplays_builtin",
                "sppci_cores": "10",
                "sppci_device_type": "spdisplays_gpu",
                "sppci_model": "Apple M2",
            }
        ]
    }
)
INTEL_MAC = json.dumps(
    {
        "SPDisplaysDataType": [
            {
                "_name": "kHW_IntelUHDGraphics630Item",
                "spdisplays_metal": "spdisplays_supported",
                "spdisplays_vram_shared": "1536 MB",
                "sppci_model": "Intel UHD Graphics 630",
            }
        ]
    }
)
ENCODERS = """\
Encoders:
 V..... = Video
 A..... = Audio
 .F.... = Frame-level multithreading
 ------
 V....D libx264              libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 (codec h264)
 V....D libx264rgb           libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 RGB (codec h264)
 V....D h264_nvenc           NVIDIA NVENC H.264 encoder (codec h264)
 V..... h264_v4l2m2m         V4L2 mem2mem H.264 encoder wrapper (codec h264)
 V....D hevc_vaapi           H.265/HEVC (VAAPI) (codec hevc)
 V..... mjpeg_qsv            MJPEG (Intel Quick Sync Video acceleration) (codec mjpeg)
 V....D h264_videotoolbox    VideoToolbox H.264 Encoder (codec h264)
 A....D libopus              libopus Opus (codec opus)
 A....D aac                  AAC (Advanced Audio Coding)
"""


def test_a_pc_has_a_processor_and_no_board():
    assert machines.processor_in(PC) == "AMD Ryzen 7 5800X 8-Core Processor"
    assert machines.board_in(PC) == ""


def test_a_raspberry_pi_tells_its_board():
    assert machines.processor_in(PI) == "BCM2835"
    assert machines.board_in(PI) == "Raspberry Pi 4 Model B Rev 1.4"


def test_a_machine_that_tells_nothing_has_no_processor_name():
    assert (machines.processor_in(""), machines.board_in("")) == ("", "")


@pytest.mark.parametrize(
    ("machine", "word"),
    [("aarch64", "arm64"), ("arm64", "arm64"), ("AMD64", "x86_64"), ("armv7l", "armv7l")],
)
def test_an_architecture_has_one_word(machine, word):
    assert machines.architecture(machine) == word


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("git version 2.39.5 (Apple Git-154)\n", "2.39.5"),
        ("ffmpeg version n7.1 Copyright (c) 2000-2024 the FFmpeg developers", "7.1"),
        ("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2025", "5.1.9"),
        ("v20.20.2\n", "20.20.2"),
        ("go version go1.22.3 darwin/arm64", "1.22.3"),
        ("Xcode 15.4\nBuild version 15F31d\n", "15.4"),
        ("2.1.197 (Claude Code)", "2.1.197"),
        ("codex-cli 0.169.0", "0.169.0"),
        ('openjdk version "17.0.15" 2025-04-15', "17.0.15"),
        ("psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
        ("tmux 3.3a", "3.3"),
        ("Version: 7\n", "7"),
        ("no number at all", ""),
        ("", ""),
    ],
)
def test_a_version_is_the_first_number_that_looks_like_one(said, version):
    assert machines.version_in(said) == version


def test_cards_of_nvidia_have_their_memory():
    assert machines.nvidia_in(NVIDIA) == [
        {"name": "NVIDIA GeForce RTX 3090", "memory_bytes": 24_576 << 20, "driver": "535.183.01"},
        {"name": "NVIDIA GeForce GTX 1650", "memory_bytes": 4096 << 20, "driver": "535.183.01"},
    ]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't, x, y",
        "a, \u00b2, c",
    ],
)
def test_what_is_no_list_of_cards_is_none(said):
    assert machines.nvidia_in(said) == []


def test_a_mac_tells_its_graphics():
    assert machines.displays_in(M2) == [{"name": "Apple M2", "metal": True, "cores": 10}]
    assert machines.displays_in(INTEL_MAC) == [{"name": "Intel UHD Graphics 630", "metal": True}]


@pytest.mark.parametrize(
    "said",
    [
        *("", "{}", "[]", "not json", '{"SPDisplaysDataType": []}', '{"SPDisplaysDataType": 7}'),
        '{"SPDisplaysDataType": ["Apple M2", null, {}]}',
    ],
)
def test_what_is_no_graphics_is_none(said):
    assert machines.displays_in(said) == []


def test_encoders_are_those_of_note_and_those_that_need_a_try():
    software, hardware = machines.encoders_in(ENCODERS)

    assert software == ["libx264", "libopus"]
    assert hardware == ["h264_nvenc", "h264_v4l2m2m", "hevc_vaapi", "h264_videotoolbox"]
    assert machines.encoders_in("") == ([], [])


@pytest.mark.parametrize(
    ("encoder", "has"),
    [
        ("h264_nvenc", "-c:v h264_nvenc"),
        ("hevc_vaapi", "-vaapi_device /dev/dri/renderD129"),
        ("h264_v4l2m2m", "-pix_fmt yuv420p"),
        ("h264_qsv", "-vf format=nv12"),
    ],
)
def test_a_trial_encodes_one_picture_and_keeps_nothing(encoder, has):
    trial = " ".join(machines.trial_of(encoder, "/dev/dri/renderD129"))

    assert has in trial
    assert "-frames:v 1" in trial
    assert trial.endswith("-f null -")


def test_a_linux_machine_with_cards_can_compute_and_encode():
    found = {
        "os": "linux",
        "arch": "x86_64",
        "tools": {"ffmpeg": "7.1", "git": "2.39"},
        "encoders": ["libx264", "h264_nvenc"],
        "gpus": [{"sort": "cuda", "name": "a"}, {"sort": "cuda", "name": "b"}],
    }

    assert machines.capabilities_in(found, ["run_command"]) == {
        "linux",
        "x86_64",
        "ffmpeg",
        "git",
        "encoder:libx264",
        "encoder:h264_nvenc",
        "cuda",
        "gpu",
        "kind:run_command",
    }
    assert machines.resources_in(found["gpus"]) == {"cuda": 2, "gpu": 2}


def test_a_mac_has_xcode_if_xcodebuild_answered():
    found = {
        "os": "darwin",
        "arch": "arm64",
        "tools": {"xcodebuild": "15.4", "whisper-cli": ""},
        "gpus": [{"sort": "metal", "name": "Apple M2"}],
    }

    words = machines.capabilities_in(found)

    assert words >= {"macos", "arm64", "xcode", "metal", "gpu"}
    assert words >= {"whisper", "whisper-cli", "transcribe:whisper.cpp"}
    assert machines.resources_in(found["gpus"]) == {"metal": 1}


def test_a_raspberry_pi_is_one_and_its_render_node_computes_nothing():
    found = {
        "os": "linux",
        "arch": "arm64",
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "encoders": ["h264_v4l2m2m"],
        "gpus": [{"sort": "vaapi", "name": "/dev/dri/renderD128"}],
    }

    words = machines.capabilities_in(found)

    assert words == {"linux", "arm64", "raspberry-pi", "encoder:h264_v4l2m2m", "vaapi"}
    assert machines.resources_in(found["gpus"]) == {}


def test_an_agent_counts_unless_a_file_says_that_it_is_not_logged_in():
    agents = {
        "claude": {"version": "2.1", "logged_in": True},
        "codex": {"version": "0.169", "logged_in": False},
        "gemini": {"version": "0.61", "logged_in": None},
        "amp": {"version": "0.1", "logged_in": True, "too_old": "0.2"},
    }
    found = {"os": "linux", "arch": "x86_64", "agents": agents, "tools": dict.fromkeys(agents, "")}

    words = machines.capabilities_in(found)

    assert {word for word in words if word.startswith("agent:")} == {"agent:claude", "agent:gemini"}
    assert words >= {"claude", "codex", "gemini"}


@pytest.mark.parametrize(
    ("version", "least", "is_older"),
    [
        ("0.9.2", "0.10", True),
        ("2.1.197", "2.1", False),
        ("2.1", "2.1.0", True),
        ("", "2.1", False),
        ("2.1", "", False),
    ],
)
def test_versions_are_numbers(version, least, is_older):
    assert machines.is_older(version, least) == is_older


def test_a_module_of_python_can_be_a_capability():
    words = machines.capabilities_in({"modules": ["transcribe:faster-whisper"]})

    assert words == {"transcribe:faster-whisper", "transcribe", "whisper"}


def test_every_tool_has_a_name_that_is_a_capability_and_stands_once():
    from relayq.parsing import capability

    names = [tool.name for tool in machines.TOOLS]

    assert [capability(name) for name in names] == names
    assert len(set(names)) == len(names)
