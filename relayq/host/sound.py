"""The sound of any audio or video file, as speech engines want it: 16 kHz, mono, 16 bits.

ffmpeg writes it into a file that has no name any more, so that no end of this process leaves it.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from relayq.errors import RelayqError
from relayq.model.mediafiles import AUDIO, read_probe

#: Samples a second, and bytes a sample.
RATE = 16_000
WIDTH = 2
#: Of RIFF, in front of the samples.
HEADER = 44
_LARGEST_RIFF = 2**32 - HEADER
_END_OF_MESSAGE = 2_000
#: What ffmpeg puts before a message: the part of it that speaks.
_PART = re.compile(r"^\[[^]]* @ 0x[0-9a-f]+\] ")
#: Seconds that a file may be shorter than it says, or a fiftieth of it.
_TOLERATED = 2.0


class NoRoom(RelayqError):
    """This host has no room for the sound: not the job's fault."""


@dataclass(frozen=True, slots=True)
class Source:
    """An input that has sound: its path, its name for its submitter, its length if it tells."""

    path: str
    name: str
    duration: float = 0.0


class Sound:
    """The samples of one input, in a WAV file that has no name."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._file = file
        self.size = os.fstat(file.fileno()).st_size - HEADER

    @property
    def duration(self) -> float:
        """Its length in seconds."""
        return self.size / (RATE * WIDTH)

    def rewound(self) -> IO[bytes]:
        """Return the WAV file, at its beginning."""
        self._file.seek(0)
        return self._file

    def samples(self) -> bytes:
        """Return all samples."""
        return os.pread(self._file.fileno(), self.size, HEADER) if self.size else b""

    def pieces(self, seconds: float) -> Iterator[bytes]:
        """Yield the samples in pieces of this length."""
        step = int(seconds * RATE) * WIDTH
        for position in range(0, self.size, step):
            length = min(step, self.size - position)
            yield os.pread(self._file.fileno(), length, HEADER + position)

    def close(self) -> None:
        """Let go of the file, and so of its room."""
        self._file.close()


def look(path: str, name: str) -> Source:
    """Return an input with its length, or raise why nothing can be heard in it."""
    hint = f"ffprobe {name}"
    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise RelayqError(f"{name}: {(error.strerror or str(error)).lower()}") from error
    if os.path.isdir(path):
        raise RelayqError(f"{name} is a directory")
    if not size:
        raise RelayqError(f"{name} is empty")
    # Only files: a playlist or a picture's path may name what isn't the submitter's to read.
    asked = ("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", _url(path))
    try:
        probed = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise RelayqError("ffprobe isn't installed on this host", hint="install ffmpeg") from error
    said = probed.stderr.decode(errors="replace")
    media = read_probe(probed.stdout.decode(errors="replace"), said)
    if not media.streams:
        why = _last(said, path)
        raise RelayqError(f"{name} is no sound or video file{f': {why}' if why else ''}", hint=hint)
    if not media.has(AUDIO):
        raise RelayqError(f"{name} has no sound track (it is {media})", hint=hint)
    # An estimate of the bit rate may be far off.
    return Source(path, name, 0.0 if media.is_estimated else media.lasts(AUDIO) or 0.0)


def _url(path: str) -> str:
    """Return what ffmpeg takes as this file and as nothing else, whatever it is called."""
    return f"file:{path}"


def extract(source: Source, room: str) -> Sound:
    """Return the sound of an input, kept in the directory `room`."""
    file = tempfile.TemporaryFile(dir=room or None)  # noqa: SIM115
    try:
        file.write(bytes(HEADER))
        file.flush()
        _convert(source, file)
        sound = Sound(file, source.name)
        if not sound.size:
            raise RelayqError(f"{source.name}: its sound track is empty")
        os.pwrite(file.fileno(), _header(sound.size), 0)
    except OSError as error:
        file.close()
        raise _failed(source, error) from error
    except BaseException:
        file.close()
        raise
    return sound


def _convert(source: Source, file: IO[bytes]) -> None:
    sort = ("-vn", "-sn", "-dn", "-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1")
    quiet = ("-nostdin", "-hide_banner", "-loglevel", "error")
    done = subprocess.run(
        ("ffmpeg", *quiet, "-i", _url(source.path), *sort),
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.PIPE,
        check=False,
    )
    code, text = done.returncode, done.stderr.decode(errors="replace")
    if code and "No space left" in text:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    had = _seconds(file)
    # A damaged frame is nothing that players mind; what is missing at the end would be missed.
    is_cut = bool(text) and had < source.duration - max(_TOLERATED, source.duration / 50)
    if code or is_cut:
        raise RelayqError(
            f"{source.name} can't be read to its end: {_last(text, source.path) or f'exit {code}'} "
            f"(after {had:.1f} of {source.duration:.1f} s)",
            hint=f"ffmpeg -v error -i {source.name} -f null -",
        )


def _seconds(file: IO[bytes]) -> float:
    return max(0, os.fstat(file.fileno()).st_size - HEADER) / (RATE * WIDTH)


def _header(size: int) -> bytes:
    """Return what makes a WAV file of the samples that follow."""
    # A longer sound than 37 hours has no true length there; readers go by the file's.
    size = min(size, _LARGEST_RIFF)
    riff = struct.pack("<4sI4s", b"RIFF", HEADER - 8 + size, b"WAVE")
    sort = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * WIDTH, WIDTH, 8 * WIDTH)
    return riff + sort + struct.pack("<4sI", b"data", size)


def _failed(source: Source, error: OSError) -> RelayqError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        minutes = source.duration / 60
        return NoRoom(
            f"no room for the sound of {source.name} (2 MB a minute, {minutes:.0f} minutes)",
            hint="free some room there, or --on another host",
        )
    if isinstance(error, FileNotFoundError):
        return RelayqError("ffmpeg isn't installed on this host", hint="install ffmpeg")
    return RelayqError(f"{source.name}: {error.strerror or error}")


def _last(said: str, path: str) -> str:
    """Return the last thing that ffmpeg said, without the path that only the host knows."""
    lines = [line.strip() for line in said[-_END_OF_MESSAGE:].splitlines() if line.strip()]
    told = [_PART.sub("", line).replace(_url(path), "").replace(path, "") for line in lines]
    # The general one comes last, and the one before it says more.
    if len(told) > 1 and told[-1].endswith("Invalid data found when processing input"):
        told.pop()
    return told[-1].strip(": ") if told else ""
