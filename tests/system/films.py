"""Small films and sounds for tests, made by ffmpeg itself."""

from __future__ import annotations

import subprocess
from pathlib import Path


def ffmpeg(*words: str) -> None:
    """Run ffmpeg quietly; what it complains about is the error."""
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *words], check=True)


def film(path: Path, *, seconds: float = 3.0, size: str = "160x120", sound: bool = True) -> Path:
    """Make a film of a test picture and a tone, with its index at the beginning."""
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc=size={size}:rate=25:duration={seconds}"),
        *(("-f", "lavfi", "-i", f"sine=duration={seconds}") if sound else ()),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
        *(("-c:a", "aac") if sound else ()),
        *("-movflags", "+faststart", str(path)),
    )
    return path


def cut(path: Path, to: Path, part: float = 0.5) -> Path:
    """Write the first part of a file."""
    raw = path.read_bytes()
    to.write_bytes(raw[: int(len(raw) * part)])
    return to


def probe(path: Path, what: str = "format=duration") -> str:
    """Return what ffprobe says of a file."""
    words = ["ffprobe", "-v", "error", "-show_entries", what, "-of", "csv=p=0", str(path)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def drafts(directory: Path) -> list[str]:
    """Return what was left of unfinished outputs."""
    return [one.name for one in directory.iterdir() if ".part" in one.name]
