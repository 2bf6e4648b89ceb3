"""The program that transcribes, as a job's process under its shim: one order, from files to words.

The order comes on standard input. What is said goes to standard output as it is understood, or into
the files that were asked for; all of it into the report that the worker reads when this has ended.
A batch loads its model once. One input that can't be heard doesn't keep the others from it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from relayq import clock
from relayq.errors import RelayqError
from relayq.host import engines, progress, sound, spool
from relayq.host.reports import LARGEST
from relayq.kinds.command import expand
from relayq.model import transcripts
from relayq.model.progress import Progress
from relayq.model.transcripts import Segment, Transcript

#: Of a report; what is more is in the files, or was printed.
_MOST = LARGEST // 2


def main() -> None:
    """Carry out the order on standard input; exit with 1 if that wasn't possible for all inputs."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    order = json.load(sys.stdin.buffer)
    environ = dict(os.environ)
    # Not in the job's environment from the beginning: a token may be among them.
    os.environ.update(order["hub"])
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    report = Run(order, environ).run()
    path = environ.get("RELAYQ_REPORT")
    if path:
        spool.replace(path, report)
    sys.stdout.flush()
    sys.exit(1 if "error" in report else 0)


@dataclass(slots=True)
class _Failure:
    """Why an input has no transcript."""

    name: str
    error: RelayqError

    def as_dict(self) -> dict[str, Any]:
        """Return it as the result has it."""
        return {"name": self.name, "error": str(self.error), "hint": self.error.hint or ""}


@dataclass(frozen=True, slots=True)
class _Looked:
    """An input: what there is to hear, or why there isn't."""

    position: int
    name: str
    source: sound.Source | None = None
    error: RelayqError | None = None


def _look(position: int, path: str, name: str) -> _Looked:
    try:
        return _Looked(position, name, source=sound.look(path, name))
    except RelayqError as error:
        return _Looked(position, name, error=error)


def groups(looked: Sequence[_Looked], at_once: float) -> list[list[_Looked]]:
    """Part inputs, in their order, into such as have so many seconds of sound together."""
    parts: list[list[_Looked]] = []
    left = 0.0
    for one in looked:
        # One whose length nobody knows may be of any.
        length = 0.0 if one.source is None else one.source.duration or at_once
        if not parts or length > left or not at_once:
            parts.append([])
            left = at_once
        parts[-1].append(one)
        left -= length
    return parts


class Gauge:
    """How far all inputs are together, by their durations."""

    def __init__(self, environ: Mapping[str, str], durations: Sequence[float]) -> None:
        self._environ = environ
        # One whose length nobody knows counts as a minute.
        self._durations = [one or 60.0 for one in durations]
        self._total = sum(self._durations) or 1.0
        self._began: float | None = None
        self._done = 0.0
        self._which = 0

    def say(self, text: str, fraction: float | None = None) -> None:
        """Say what is done before the first input."""
        progress.tell(self._environ, Progress(fraction or 0.0, text), at_once=True)

    def convert(self, name: str) -> None:
        """Say that an input is being converted."""
        self._tell(0.0, f"converting {name}")

    def hear(self, seconds: float, text: str) -> None:
        """Say how far the current input is transcribed."""
        if self._began is None:
            self._began = clock.boottime()
        self._tell(min(seconds, self._current), text)

    def end(self) -> None:
        """Go on to the next input."""
        self._done += self._current
        self._which += 1
        if self._which == len(self._durations):
            progress.tell(self._environ, Progress(1.0), at_once=True)

    @property
    def _current(self) -> float:
        return self._durations[min(self._which, len(self._durations) - 1)]

    def _tell(self, seconds: float, text: str) -> None:
        done = self._done + seconds
        eta, rate = None, ""
        spent = 0.0 if self._began is None else clock.boottime() - self._began
        if spent >= 1.0 and done > 0:
            eta = (self._total - done) * spent / done
            rate = f"{done / spent:.1f}x"
        fraction = min(done / self._total, 0.999)
        progress.tell(self._environ, Progress(fraction, text, eta=eta, rate=rate))


class Run:
    """One order."""

    def __init__(self, order: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._raw = order
        self._environ = environ
        self._home = str(order["home"])
        self._formats: Sequence[str] = order["format"]
        self._inputs: Sequence[str] = order["audio"]
        # It is removed with the attempt, whatever ends this process.
        report = environ.get("RELAYQ_REPORT")
        self._room = os.path.dirname(report) if report else ""

    def run(self) -> dict[str, Any]:
        """Return the report."""
        try:
            self._check_outputs()
            done = list(self._transcripts())
        except sound.NoRoom as error:
            return {"error": _told(error), "is_hosts_fault": True}
        except RelayqError as error:
            return {"error": _told(error)}
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            said = f"can't write the transcript: {error.strerror or error}"
            return {"error": said, "is_hosts_fault": is_full}
        return self._report(done)

    def _report(self, done: Sequence[Transcript | _Failure]) -> dict[str, Any]:
        failures = [one for one in done if isinstance(one, _Failure)]
        if self._raw["is_batch"]:
            result: dict[str, Any] = {"transcripts": [self._shown(one) for one in done]}
        elif failures:
            return {"error": _told(failures[0].error)}
        else:
            result = self._shown(done[0])
        result, left_out = transcripts.fitted(result, _MOST)
        if left_out:
            sys.stderr.write(f"relayq: too long for the record, which lacks {left_out}\n")
        report: dict[str, Any] = {"result": result}
        if failures:
            which = f"{len(failures)} of {len(done)} not transcribed: " if len(done) > 1 else ""
            report["error"] = which + _told(failures[0].error)
        return report

    def _shown(self, one: Transcript | _Failure) -> dict[str, Any]:
        if isinstance(one, _Failure):
            return one.as_dict()
        others = [format for format in self._formats if format not in ("txt", "json")]
        return {**one.as_dict(), **{format: one.write(format) for format in others}}

    def _transcripts(self) -> Iterator[Transcript | _Failure]:
        """Yield a transcript, or what went wrong, for each input in their order."""
        names = self._raw["names"] or self._inputs
        looked = [
            _look(position, expand(path, self._home) if _at_home(path) else path, name)
            for position, (path, name) in enumerate(zip(self._inputs, names, strict=True))
        ]
        sources = [one.source for one in looked if one.source is not None]
        if not sources:
            yield from (_Failure(one.name, one.error) for one in looked if one.error is not None)
            return
        gauge = Gauge(self._environ, [one.duration for one in sources])
        engine = self._loaded(gauge)
        for group in groups(looked, engine.at_once):
            yield from self._of_group(engine, group, gauge)

    def _of_group(
        self, engine: engines.Engine, group: Sequence[_Looked], gauge: Gauge
    ) -> Iterator[Transcript | _Failure]:
        """Yield what comes of a few inputs that the engine hears at once."""
        ready = [(one, self._extracted(one, gauge)) for one in group]
        sounds = [there for _, there in ready if isinstance(there, sound.Sound)]
        with closing(engine.hear(sounds)) as heards:
            for one, there in ready:
                try:
                    if isinstance(there, RelayqError):
                        raise there
                    transcript = self._heard(engine, next(heards), there, gauge)
                    self._write(one.position, transcript)
                    yield transcript
                except RelayqError as error:
                    failure = _Failure(one.name, error)
                    self._say(failure)
                    yield failure
                finally:
                    if isinstance(there, sound.Sound):
                        there.close()
                if one.source is not None:
                    gauge.end()

    def _extracted(self, one: _Looked, gauge: Gauge) -> sound.Sound | RelayqError:
        """Return an input's sound, or why there is none; a host without room has none for any."""
        if one.source is None:
            return one.error or RelayqError(f"{one.name} can't be read")
        gauge.convert(one.name)
        try:
            return sound.extract(one.source, self._room)
        except sound.NoRoom:
            raise
        except RelayqError as error:
            return error

    def _say(self, failure: _Failure) -> None:
        """Tell of one input of several; of a single one the job's end tells."""
        if len(self._inputs) > 1:
            _warn(_told(failure.error))

    def _loaded(self, gauge: Gauge) -> engines.Engine:
        raw = self._raw
        language = raw["language"] and transcripts.check_language(raw["language"])
        self._engine = engines.choose(raw["engine"], raw["model"], raw["models"], raw["hub"])
        return engines.load(
            self._engine,
            engines.Order(
                model=raw["model"],
                language=language,
                words=raw["words"],
                translate=raw["translate"],
                prompt=raw["prompt"],
                keywords=raw["keywords"],
                options=raw["options"],
                models=raw["models"],
                room=self._room,
                environ=raw["hub"],
                say=gauge.say,
                warn=_warn,
            ),
        )

    def _heard(
        self, engine: engines.Engine, heard: engines.Heard, there: sound.Sound, gauge: Gauge
    ) -> Transcript:
        """Read what the engine hears in an input to its end."""
        shown = there.name if len(self._inputs) > 1 else ""
        printer = Printer(self._formats[0], shown, not self._raw["outputs"])
        segments: list[Segment] = []
        for segment in heard.segments:
            gauge.hear(segment.end, shown)
            if segment.text:
                segments.append(segment)
                printer.print(segment)
        joined = "".join(heard.pieces) or " ".join(one.text for one in segments)
        transcript = Transcript(
            joined.strip(),
            heard.language,
            there.duration,
            tuple(segments),
            engine=self._engine,
            model=engine.model,
            name=there.name,
            is_translated=self._raw["translate"],
        )
        printer.end(transcript)
        return transcript

    def _outputs_of(self, position: int) -> list[tuple[str, str]]:
        """Return the files to write for an input, with the format of each."""
        count = len(self._formats)
        paths = self._raw["outputs"][position * count : (position + 1) * count]
        whole = [expand(path, self._home) if _at_home(path) else path for path in paths]
        return list(zip(whole, self._formats, strict=bool(paths)))

    def _check_outputs(self) -> None:
        """Raise for an output that is in the way, before any work."""
        for position in range(len(self._inputs)):
            for path, _ in self._outputs_of(position):
                if not self._raw["overwrite"] and os.path.lexists(path):
                    raise RelayqError(
                        f"{path} exists already on {self._raw['host']}", hint="--overwrite"
                    )
                if os.path.isdir(path):
                    raise RelayqError(f"{path} is a directory on {self._raw['host']}")

    def _write(self, position: int, transcript: Transcript) -> None:
        for path, format in self._outputs_of(position):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            _write_whole(path, transcript.write(format).encode())


class Printer:
    """Prints a transcript as it comes, where no files were asked for."""

    def __init__(self, format: str, name: str, is_wanted: bool) -> None:
        self._format = format
        self._is_wanted = is_wanted
        self._number = 0
        heading = f"==> {name} <==\n" if name and format == "txt" else ""
        # Not before anything is heard: nothing may be.
        self._first = heading + transcripts.beginning(format)

    def print(self, segment: Segment) -> None:
        """Print one segment."""
        self._number += 1
        self._put(transcripts.piece(segment, self._number, self._format))

    def end(self, transcript: Transcript) -> None:
        """Print what can only be printed as a whole."""
        self._put(transcript.write("json") if self._format == "json" else "")

    def _put(self, text: str) -> None:
        if self._is_wanted:
            sys.stdout.write(self._first + text)
            sys.stdout.flush()
            self._first = ""


def _at_home(path: str) -> bool:
    return path.startswith("~/")


def _told(error: RelayqError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _warn(text: str) -> None:
    sys.stderr.write(f"relayq: {text}\n")
    sys.stderr.flush()


def _write_whole(path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    draft = f"{path}.{os.getpid()}.part"
    try:
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
