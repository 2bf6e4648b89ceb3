"""transcribe: the words that are said in sound or video files, with their times.

The process is the runner of `relayq.host.transcribing`, which gets its order on standard input and
leaves a report. Which engine does it is decided on the host, by what that has.
"""

from __future__ import annotations

import json
import os.path
import re
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from relayq.errors import RelayqError
from relayq.kinds import Command, Ended, HostFacts, Verdict, kind
from relayq.kinds.command import expand
from relayq.model import transcripts
from relayq.model.jobs import JobState, Reason
from relayq.model.transcripts import AUTO, DEFAULT_MODEL

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: The engine that listens for certain words only.
SPOTTER = "pocketsphinx"
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class TranscribePayload:
    """`audio` are sound or video files on the host: one path, or several for one loaded model.

    Paths begin at the job's directory, or at `~`. `model` is a name such as base or large-v3, one
    of the host's own, or a path on the host; `language` a code or a name, found out if it isn't
    given. `format` is one or several of txt, srt, vtt and json; `words` adds the times of the
    words, `translate` puts all into English. `engine` is auto or one of `transcripts.ENGINES`.
    `prompt` is a text with the names and the spelling to be expected; `keywords` are the only
    words to listen for. `outputs` are the files to write: for each input one in each format; then
    nothing is printed. `names` are what the submitter calls the inputs. `options` are the engine's
    own: keywords of faster-whisper's `transcribe`, or long options of whisper-cli.
    """

    audio: str | Sequence[str]
    model: str = DEFAULT_MODEL
    language: str | None = None
    format: str | Sequence[str] = "txt"
    words: bool = False
    translate: bool = False
    engine: str = AUTO
    prompt: str | None = None
    keywords: Sequence[str] = ()
    outputs: Sequence[str] = ()
    names: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    cwd: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "engine"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be text")
        for name in ("language", "prompt", "cwd"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name} must be text")
        if not isinstance(self.audio, str):
            _check_texts("audio", self.audio)
        for name in ("keywords", "outputs", "names"):
            _check_texts(name, getattr(self, name))
        if not isinstance(self.options, Mapping):
            raise TypeError("options must map names to values")
        if any(not _OPTION.fullmatch(name) for name in self.options):
            raise ValueError("an option's name has letters, digits, '-' and '_'")
        if not self.inputs or not all(self.inputs):
            raise ValueError("no file is named")
        if any("\0" in text for text in (*self.inputs, *self.outputs, self.cwd or "")):
            raise ValueError("a path can't hold a NUL character")
        language = None if self.language is None else transcripts.check_language(self.language)
        transcripts.check_model(self.model, language=language, translate=self.translate)
        transcripts.check_engine(self.engine)
        formats = self.formats
        if self.outputs and len(self.outputs) != len(self.inputs) * len(formats):
            raise ValueError("the outputs are one for each input in each format")
        if self.names and len(self.names) != len(self.inputs):
            raise ValueError("the names are one for each input")
        self._check_engine()

    def _check_engine(self) -> None:
        if any(not one.strip() for one in self.keywords):
            raise ValueError("a keyword can't be empty")
        if self.keywords and self.engine not in (AUTO, SPOTTER):
            raise RelayqError(
                f"only {SPOTTER} listens for keywords, not {self.engine}",
                hint=f"--engine {SPOTTER}, or search the text for them",
            )
        if self.spots and (self.translate or self.language not in (None, "en", "english")):
            raise RelayqError(
                f"{SPOTTER} knows English only, and translates nothing",
                hint=f"without --engine {SPOTTER} and keywords",
            )

    @property
    def spots(self) -> bool:
        """Whether pocketsphinx is to do it."""
        return self.engine == SPOTTER or bool(self.keywords)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The paths of the inputs."""
        return (self.audio,) if isinstance(self.audio, str) else tuple(self.audio)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that were asked for."""
        return transcripts.check_formats(self.format)

    @property
    def needs(self) -> tuple[str, ...]:
        """What a host must have for it."""
        engine = SPOTTER if self.spots else self.engine
        return ("ffmpeg", "transcribe" if engine == AUTO else f"transcribe:{engine}")


def _check_texts(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} must be texts")


def is_hubs(variable: str) -> bool:
    """Whether a variable of the worker's own environment says how models are downloaded."""
    return variable.startswith("HF_") or variable.upper().endswith("_PROXY")


@kind("transcribe")
class Transcribe:
    """Write down what is said in sound or video files."""

    Payload: type[Any] = TranscribePayload

    def plan(self, payload: TranscribePayload, host: HostFacts) -> Command:
        """Return the runner with its order."""
        code = (
            f"import sys; sys.path.insert(0, {_ROOT!r}); "
            "from relayq.host.transcribing import main; main()"
        )
        order = {
            **asdict(payload),
            "audio": list(payload.inputs),
            "format": list(payload.formats),
            "engine": SPOTTER if payload.spots else payload.engine,
            "is_batch": not isinstance(payload.audio, str),
            "host": host.name,
            "home": host.home,
            "models": host.models,
            "hub": dict(host.hub),
        }
        # Isolated, but an engine may be installed for this user only.
        isolation = ("-E", "-P") if site.ENABLE_USER_SITE else ("-I",)
        return Command(
            argv=(sys.executable, *isolation, "-c", code),
            cwd=expand(payload.cwd, host.home, host.scratch),
            stdin=json.dumps(order).encode(),
        )

    def interpret(self, ended: Ended) -> Verdict:
        """Return what the runner's report says: what one input lacks fails the job."""
        report: Mapping[str, Any] = ended.report or {}
        result, error = report.get("result"), report.get("error")
        if ended.exit_code == 0 and ended.reason == Reason.EXIT and isinstance(result, dict):
            return Verdict(JobState.SUCCEEDED, Reason.EXIT, result=result)
        reason = Reason.HOST if report.get("is_hosts_fault") else ended.reason
        said = str(error) if error else ended.error
        if said is None and reason == Reason.EXIT and ended.exit_code == 0:
            said = "it left no transcript"
        return Verdict(JobState.FAILED, reason, result=result, error=said)
