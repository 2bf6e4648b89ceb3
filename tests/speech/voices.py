"""Spoken words for tests, and whether this machine has what the tests of speech need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

#: What pocketsphinx understands of espeak-ng's voice, each time.
SENTENCE = "the meeting is on monday morning"
_MODULES = ("faster_whisper", "pocketsphinx")
_PROGRAMS = ("espeak-ng", "ffmpeg")


def missing() -> list[str]:
    """Return what the tests of speech lack here."""
    modules = [name for name in _MODULES if find_spec(name) is None]
    return modules + [name for name in _PROGRAMS if shutil.which(name) is None]


def speak(path: Path, text: str = SENTENCE) -> Path:
    """Have a text spoken into a file of any format that ffmpeg writes."""
    spoken = path.with_name(f"{path.stem}.spoken.wav")
    subprocess.run(["espeak-ng", "-v", "en-us+f3", "-s", "120", "-w", spoken, text], check=True)
    quiet = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    subprocess.run(["ffmpeg", *quiet, "-i", spoken, path], check=True)
    spoken.unlink()
    return path


def installed_cli(folder: Path) -> Path:
    """Put the stand-in for whisper-cli into a directory that can be on a PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "whisper-cli"
    source = Path(__file__).with_name("whisper_cli.py").read_text()
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(0o755)
    return folder
