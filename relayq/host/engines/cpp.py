"""whisper.cpp: Whisper's models by its program `whisper-cli`, on processors, Metal and Vulkan.

It gets all sounds of a batch as open files and writes a file of JSON for each; how far it is it
says on standard error. It exits with 0 after most mistakes: the JSON alone shows that it did it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from relayq.errors import RelayqError
from relayq.host.engines import Heard, Order, weights
from relayq.host.sound import Sound
from relayq.model.transcripts import Segment, Word

PROGRAM = "whisper-cli"
_PROGRESS = re.compile(rb"progress\s*=\s*(\d+)%")
#: What it says when it has read a file, and begins with it.
_BEGINNING = b": processing '"
_END_OF_MESSAGE = 4_000
_MOST_THREADS = 8


class WhisperCpp:
    """whisper-cli with a model that is on this host."""

    #: Each hour of sound takes 115 MB of the disk meanwhile.
    at_once = 4 * 3600.0

    def __init__(self, order: Order, program: str, path: str) -> None:
        self.model = order.model
        self.manner = PROGRAM
        self._order = order
        self._program = program
        self._path = path

    def hear(self, sounds: Sequence[Sound]) -> Generator[Heard, None, None]:
        """Yield what is heard in each sound."""
        files = [sound.rewound() for sound in sounds]
        with tempfile.TemporaryDirectory(dir=self._order.room or None) as room:
            stems = [os.path.join(room, str(number)) for number in range(len(sounds))]
            with subprocess.Popen(
                self._argv([f"/dev/fd/{file.fileno()}" for file in files], stems),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[file.fileno() for file in files],
            ) as program:
                said = _Said(program)
                try:
                    for sound, stem in zip(sounds, stems, strict=True):
                        heard = Heard(iter(()))
                        heard.segments = self._segments(sound, stem, said, heard)
                        yield heard
                finally:
                    program.kill()

    def _segments(self, sound: Sound, stem: str, said: _Said, heard: Heard) -> Iterator[Segment]:
        for percent in said.percents():
            at = sound.duration * percent / 100
            yield Segment(at, at, "")
        raw = self._read(f"{stem}.json", said)
        heard.language = str(raw.get("result", {}).get("language", ""))
        for one in raw.get("transcription", ()):
            heard.pieces.append(str(one["text"]))
            yield segment_of(one, words=self._order.words)

    def _argv(self, inputs: Sequence[str], stems: Sequence[str]) -> list[str]:
        order = self._order
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        argv = [self._program, "-m", self._path, "-pp", "-t", str(threads)]
        for path, stem in zip(inputs, stems, strict=True):
            argv += ["-f", path, "-of", stem]
        argv += ["-l", order.language or "auto", "-ojf" if order.words else "-oj"]
        argv += ["-tr"] if order.translate else []
        argv += ["--prompt", order.prompt] if order.prompt else []
        for name, value in order.options.items():
            argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return argv

    def _read(self, path: str, said: _Said) -> Mapping[str, Any]:
        """Return what it wrote; its texts may hold half a letter, where two tokens share one."""
        try:
            with open(path, "rb") as file:
                raw = json.loads(file.read().decode(errors="replace"), strict=False)
        except (OSError, ValueError) as error:
            raise RelayqError(
                f"{PROGRAM} wrote no transcript ({said.end()}): {said.last() or error}",
                hint=f"{PROGRAM} -m {self._path} FILE.wav, on this host",
            ) from error
        return raw if isinstance(raw, dict) else {}


class _Said:
    """What whisper-cli says on standard error, file by file."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        self._told = b""
        self._has_begun = False

    def percents(self) -> Iterator[int]:
        """Yield how far the current file is, until the next one begins or the program ends."""
        assert self._program.stderr is not None
        for line in self._program.stderr:
            self._told = (self._told + line)[-_END_OF_MESSAGE:]
            if _BEGINNING in line and self._has_begun:
                # What it wrote for the file before is whole now.
                return
            if _BEGINNING in line:
                self._has_begun = True
            elif found := _PROGRESS.search(line):
                yield int(found[1])
        self._program.wait()

    def last(self) -> str:
        """Return the last line, or the last that names an error."""
        lines = self._told.decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error")]
        return (errors or lines or [""])[-1].strip()

    def end(self) -> str:
        """Return how it ended."""
        code = self._program.poll()
        if code is None:
            return "it goes on"
        return f"signal {-code}" if code < 0 else f"exit {code}"


def segment_of(raw: Mapping[str, Any], *, words: bool) -> Segment:
    """Return one entry of the JSON's `transcription`."""
    start, end = _times(raw)
    found = tuple(_words(raw.get("tokens", ()))) if words else ()
    return Segment(start, end, str(raw["text"]).strip(), found)


def _times(raw: Mapping[str, Any]) -> tuple[float, float]:
    offsets = raw["offsets"]
    return int(offsets["from"]) / 1000, int(offsets["to"]) / 1000


def _words(tokens: Any) -> Iterator[Word]:
    """Yield the words of a segment: a token that doesn't begin with a space goes on with one."""
    word: Word | None = None
    for token in tokens:
        text = str(token.get("text", ""))
        if not text or text.startswith("[_") or "offsets" not in token:
            continue
        start, end = _times(token)
        certainty = float(token.get("p", 0.0))
        if word is not None and not text.startswith(" "):
            least = min(certainty, word.certainty or 0.0)
            word = Word(word.start, end, word.text + text, least)
            continue
        if word is not None:
            yield word
        word = Word(start, end, text.strip(), certainty)
    if word is not None:
        yield word


def load(order: Order) -> WhisperCpp:
    """Return whisper-cli with the model's file, downloaded if need be."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise RelayqError(
            f"{PROGRAM} isn't installed on this host", hint="brew install whisper-cpp"
        )
    if order.model.startswith(("/", "~/")):
        path = os.path.expanduser(order.model)
        if not os.path.isfile(path):
            raise RelayqError(f"there is no model file {path} on this host")
        return WhisperCpp(order, program, path)
    path = weights.find_cpp(order.model, order.models)
    if not path:
        path = weights.fetch_cpp(
            order.model,
            order.models,
            order.environ,
            progress=lambda done, total: order.say(
                f"downloading {order.model}", done / total if total else None
            ),
        )
    return WhisperCpp(order, program, path)
