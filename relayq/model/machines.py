"""What tools say of a machine, read: versions, graphics, encoders; and what it all amounts to.

Nothing here starts a program: the texts come from host/probes.py, and from files of Linux.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relayq.model.transcripts import WHISPERS


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that jobs may need: its name as a capability, and how it tells its version.

    With no `asks` its version isn't asked for, being slow. One that `must_answer` counts only when
    it did: a client without its daemon, a stub that offers to install the real thing.
    """

    name: str
    program: str = ""
    asks: tuple[str, ...] = ("--version",)
    must_answer: bool = False

    @property
    def file(self) -> str:
        """What it is called on the PATH."""
        return self.program or self.name


_SLOW: tuple[str, ...] = ()
TOOLS = (
    *(Tool(name) for name in "git rsync make cmake ninja gcc clang cargo uv python3 node".split()),
    *(Tool(name) for name in "npm pnpm yarn bun deno podman jq yt-dlp pandoc brew".split()),
    *(Tool(name) for name in "sqlite3 psql ollama exiftool redis-server adb pod".split()),
    *(Tool(name, asks=_SLOW) for name in "gradle mvn flutter blender terraform kubectl".split()),
    *(Tool(name, asks=_SLOW) for name in "whisper whisper-cli mlx_whisper".split()),
    Tool("ffmpeg", asks=("-version",)),
    Tool("imagemagick", "magick", ("-version",)),
    Tool("handbrake", "HandBrakeCLI"),
    Tool("tmux", asks=("-V",)),
    Tool("go", asks=("version",)),
    Tool("tailscale", asks=("version",)),
    Tool("java", asks=("-version",), must_answer=True),
    Tool("docker", asks=("version", "--format", "{{.Server.Version}}"), must_answer=True),
    Tool("swift", must_answer=True),
    Tool("xcodebuild", asks=("-version",), must_answer=True),
)
#: On macOS these in /usr/bin open a window that offers to install the developer tools.
STUBS = frozenset("git make gcc clang python3 swift xcodebuild java".split())
#: A capability that several tools give, each in its own way.
_MEANS = {
    "whisper-cli": ("transcribe:whisper.cpp",),
    "mlx_whisper": ("whisper",),
    "xcodebuild": ("xcode",),
}
#: The slots that graphics are. A render node only encodes video; what asks for a GPU computes.
_COMPUTE = {"cuda": ("cuda", "gpu"), "metal": ("metal",)}
_ARCHITECTURES = {"aarch64": "arm64", "amd64": "x86_64"}
_SYSTEMS = {"darwin": "macos"}
#: Codecs whose encoders are worth a try, and the endings of those that need hardware.
_CODECS = ("h264", "hevc", "av1")
_HARDWARE = ("_nvenc", "_vaapi", "_qsv", "_v4l2m2m", "_videotoolbox", "_amf", "_omx", "_rkmpp")
_SOFTWARE = "libx264 libx265 libsvtav1 libaom-av1 libvpx-vp9 libopus libmp3lame libfdk_aac".split()


def architecture(machine: str) -> str:
    """Return one word for an architecture that has several."""
    return _ARCHITECTURES.get(machine.lower(), machine.lower())


def version_in(text: str) -> str:
    """Return the first version number of what a program says, empty if there is none."""
    found = re.search(r"(?<![0-9.])([0-9]+(?:\.[0-9]+)+)", text)
    found = found or re.search(r"\b([0-9]+)\b", text)
    return found[1] if found else ""


def is_older(version: str, least: str) -> bool:
    """Tell whether a version is below another one; one that isn't known is not."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"[0-9]+", text)]

    return bool(version) and numbers(version) < numbers(least)


def processor_in(cpuinfo: str) -> str:
    """Return the processor's name of Linux' /proc/cpuinfo; a Raspberry Pi has none there."""
    fields = _fields(cpuinfo)
    return fields.get("model name") or fields.get("Hardware") or fields.get("cpu model") or ""


def board_in(cpuinfo: str) -> str:
    """Return the board's name of /proc/cpuinfo, which a Raspberry Pi tells there."""
    return _fields(cpuinfo).get("Model", "")


def _fields(text: str) -> dict[str, str]:
    rows = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in rows if value.strip()}


def nvidia_in(text: str) -> list[dict[str, Any]]:
    """Return the cards of `nvidia-smi --query-gpu=name,memory.total,driver_version` in CSV."""
    cards = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[1].split(" ")[0].isdecimal():
            megabytes = int(parts[1].split(" ")[0])
            cards.append({"name": parts[0], "memory_bytes": megabytes << 20, "driver": parts[2]})
    return cards


def displays_in(text: str) -> list[dict[str, Any]]:
    """Return the graphics of macOS' `system_profiler SPDisplaysDataType -json`."""
    try:
        rows = json.loads(text)["SPDisplaysDataType"]
    except (ValueError, KeyError, TypeError):
        return []
    cards: list[dict[str, Any]] = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        name = row.get("sppci_model") or row.get("_name")
        if name:
            # Of `spdisplays_metal` before macOS 13, of a family's name since.
            metal = any("metal" in f"{key} {value}" for key, value in row.items())
            cores = str(row.get("sppci_cores", ""))
            more = {"cores": int(cores)} if cores.isdigit() else {}
            cards.append({"name": name, "metal": metal, **more})
    return cards


def encoders_in(text: str) -> tuple[list[str], list[str]]:
    """Return of `ffmpeg -encoders` the software ones of note, and those that need hardware."""
    names = re.findall(r"^ [VA][A-Z.]{5} (\S+)", text, re.MULTILINE)
    codecs = tuple(f"{codec}_" for codec in _CODECS)
    hardware = [n for n in names if n.startswith(codecs) and n.endswith(_HARDWARE)]
    return [name for name in names if name in _SOFTWARE], hardware


def trial_of(encoder: str, render_node: str = "/dev/dri/renderD128") -> list[str]:
    """Return the arguments with which ffmpeg encodes one picture and throws it away."""
    # NVENC refuses anything narrower than 145 pixels.
    picture = ["-f", "lavfi", "-i", "color=black:size=640x360:rate=1", "-frames:v", "1"]
    before: list[str] = []
    between: list[str] = []
    if encoder.endswith("_vaapi"):
        before, between = ["-vaapi_device", render_node], ["-vf", "format=nv12,hwupload"]
    elif encoder.endswith("_qsv"):
        between = ["-vf", "format=nv12"]
    elif encoder.endswith("_v4l2m2m"):
        between = ["-pix_fmt", "yuv420p"]
    quiet = ["-hide_banner", "-nostdin", "-loglevel", "error"]
    return [*quiet, *before, *picture, *between, "-c:v", encoder, "-f", "null", "-"]


def capabilities_in(found: Mapping[str, Any], kinds: Iterable[str] = ()) -> set[str]:
    """Return what a machine can do, as words that jobs may ask for, of what was found there."""
    system = str(found.get("os", ""))
    words = {_SYSTEMS.get(system, system), str(found.get("arch", ""))}
    words |= {f"kind:{kind}" for kind in kinds}
    words |= {"raspberry-pi"} if str(found.get("model", "")).startswith("Raspberry Pi") else set()
    for tool in found.get("tools", {}):
        words |= {tool, *_MEANS.get(tool, ())}
    words |= {f"encoder:{encoder}" for encoder in found.get("encoders", ())}
    for agent, facts in found.get("agents", {}).items():
        # Where no file tells, only a try can.
        is_fit = facts.get("logged_in") is not False and not facts.get("too_old")
        words |= {f"agent:{agent}"} if is_fit else set()
    words |= set(found.get("modules", ()))
    if any(f"transcribe:{engine}" in words for engine in WHISPERS):
        words |= {"whisper", "transcribe"}
    for models in found.get("models", {}).values():
        words |= {f"model:{model.lower()}" for model in models}
    for card in found.get("gpus", ()):
        words |= {str(card["sort"])} | ({"gpu"} if card["sort"] in _COMPUTE else set())
    return words - {""}


def resources_in(gpus: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the named slots that the graphics are: `cuda: 2`, and as many `gpu`."""
    slots: dict[str, int] = {}
    for card in gpus:
        for name in _COMPUTE.get(str(card["sort"]), ()):
            slots[name] = slots.get(name, 0) + 1
    return slots
