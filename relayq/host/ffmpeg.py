"""ffmpeg and ffprobe as children of a runner: what they are told, what they say, and their end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from relayq.errors import RelayqError
from relayq.host.program import Program, Signals
from relayq.model import media, mediafiles
from relayq.model.files import is_url
from relayq.model.media import Option
from relayq.model.mediafiles import Media

#: An input that is asked over a network may take its time.
_PROBE_PATIENCE = 60.0
#: Messages of ffmpeg that are kept and passed on; a damaged file makes one a picture.
MOST_MESSAGES = 200
_GRACE = 5.0


def say(line: str) -> None:
    """Tell whoever reads the job's output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Ended(Exception):
    """The runner was asked to end."""


class HostsFault(RelayqError):
    """What another host could do."""


class Ran:
    """How a run of a program ended, and what it said on its two channels."""

    def __init__(self) -> None:
        self.code = 0
        self.shown: list[str] = []
        self.messages: list[str] = []
        self.is_cut = ""
        self.has_no_room = False

    def hear(self, message: str) -> None:
        """Keep a message."""
        if len(self.messages) < MOST_MESSAGES:
            self.messages.append(message)
        if not self.is_cut and mediafiles.says_cut(message):
            self.is_cut = mediafiles.plain(message)
        self.has_no_room = self.has_no_room or mediafiles.says_no_room(message)


class Tools:
    """The ffmpeg of this host. It ends when the runner is asked to, at once."""

    def __init__(self, environ: Mapping[str, str], signals: Signals) -> None:
        self._environ = {**environ, "AV_LOG_FORCE_NOCOLOR": "1"}
        self._signals = signals
        self.ffmpeg, self._ffprobe = self._find("ffmpeg"), self._find("ffprobe")

    def _find(self, name: str) -> str:
        for folder in self._environ.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise HostsFault(f"this host has no {name}", hint="install ffmpeg there, which brings it")

    def start(
        self,
        argv: Sequence[str],
        *,
        read: Callable[[str], None] | None = None,
        patience: float | None = None,
    ) -> Ran:
        """Run a program to its end, or to the end of our patience.

        With `read` that gets the lines of its output, and its messages are passed on. Raises Ended
        if the runner was asked to end, and then nothing is left of it.
        """
        if self._signals.is_asked:
            raise Ended
        ran = Ran()
        program = Program(
            argv,
            env=self._environ,
            cwd=os.getcwd(),
            stdin=b"",
            signals=self._signals,
            grace=_GRACE,
        )
        for line in program.lines():
            is_late = patience is not None and program.clock > patience
            if self._signals.is_asked or is_late:
                program.end(0.0)
            if line is None:
                continue
            text = line.raw.decode(errors="replace")
            if not line.is_error:
                (read or ran.shown.append)(text)
                continue
            ran.hear(text)
            if read is not None and len(ran.messages) < MOST_MESSAGES:
                say(text)
        if self._signals.is_asked:
            raise Ended
        ran.code = program.exit_code if program.exit_code is not None else 128
        if program.signal is not None:
            ran.hear(f"{os.path.basename(argv[0])} was ended by signal {program.signal}")
        return ran

    def encoders(self) -> list[str]:
        """Return the lines of ffmpeg's list of its encoders."""
        return self.start([self.ffmpeg, "-hide_banner", "-encoders"]).shown

    def probe(self, path: str, options: Sequence[Option] = ()) -> Media:
        """Return what a file is; RelayqError when it is no media."""
        argv = [self._ffprobe, "-hide_banner", "-v", "warning", *media.words_of(options)]
        argv += ["-show_format", "-show_streams", "-of", "json", as_file(path)]
        ran = self.start(argv, patience=_PROBE_PATIENCE)
        if ran.code != 0:
            raise _not_media(path, ran)
        return mediafiles.read_probe("\n".join(ran.shown), "\n".join(ran.messages))


def as_file(path: str) -> str:
    """Return a path so that no character of it is a protocol's or an option's to ffmpeg."""
    return path if is_url(path) else f"file:{path}"


def name_of(path: str) -> str:
    """Return what people call a file."""
    return path if is_url(path) else os.path.basename(path) or path


def _not_media(path: str, ran: Ran) -> RelayqError:
    said = "\n".join(ran.messages)
    if "moov atom not found" in said and not is_url(path):
        # ffmpeg says so of any file that is called .mp4.
        with suppress(OSError), open(path, "rb") as file:
            if file.read(12)[4:8] not in (b"ftyp", b"mdat", b"wide", b"free", b"skip"):
                said = ""
    return mediafiles.not_media(name_of(path), said)
