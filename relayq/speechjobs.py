"""Transcripts, for who asks: where the sound is, where the text goes, and what became of it.

Every command imports this module; what is said of transcripts themselves only who asks for one.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from relayq.errors import RelayqError, Unplaceable
from relayq.filejobs import check_free
from relayq.mediajobs import one_host
from relayq.model.locations import Luggage, read_location

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.jobs import JobRecord, Outcome
    from relayq.model.transcripts import Transcript
    from relayq.results import JobResult

KIND = "transcribe"
_Path = str | os.PathLike[str]
#: Jobs a host for a batch: a fast host takes more of them than a slow one.
_JOBS_PER_HOST = 2


class OfSpeech:
    """What a `Job` can do with what was said."""

    relay: Relay

    #: What the client itself has.
    submit: Callable[..., JobResult]

    def transcribe(
        self,
        audio: _Path | Sequence[_Path],
        model: str = "base",
        *,
        language: str | None = None,
        format: str | Sequence[str] = "txt",
        output: _Path | None = None,
        words: bool = False,
        translate: bool = False,
        engine: str = "auto",
        **asked: Any,
    ) -> JobResult:
        """Queue the transcription of a sound or video file: `job.transcribe("talk.mp3").get()`.

        `audio` is your own file, one on a host ("mini:talk.mp3", ":/mnt/talk.mp3" on whatever host
        runs it), or a URL; of several, one job transcribes all with one loaded model. `model` is
        tiny, base, small, medium, large-v3, turbo, one that lies on the host, or a path there;
        `language` a code or a name, found out if it isn't given. `output` is the file to write, or
        a directory if it ends with "/" or there are several inputs or formats; `format` is one or
        several of txt, srt, vtt, json. `words` adds the times of words, `translate` puts all
        into English. `engine` is auto (what the host has), faster-whisper, whisper.cpp or
        pocketsphinx. `prompt` has names and spelling to be expected, `keywords` are the only words
        to listen for (pocketsphinx), `options` the engine's own. The rest is as for `submit`.

        `get` returns the text, of several inputs a list of texts; `JobResult.transcript` has the
        segments with their times, and all formats.
        """
        given = self.asked_of_transcript(
            audio,
            model=model,
            language=language,
            format=format,
            output=output,
            words=words,
            translate=translate,
            engine=engine,
            **asked,
        )
        with explained(engine):
            return self.submit(KIND, **given)

    def asked_of_transcript(
        self,
        audio: _Path | Sequence[_Path],
        *,
        model: str = "base",
        format: str | Sequence[str] = "txt",
        output: _Path | None = None,
        engine: str = "auto",
        overwrite: bool = False,
        host: str | None = None,
        files_in: Iterable[Any] = (),
        files_out: Iterable[Any] = (),
        **asked: Any,
    ) -> dict[str, Any]:
        """Return the keywords of `submit` for a transcript."""
        from relayq.model import transcripts

        is_one = isinstance(audio, str | os.PathLike)
        sources = paths_of(audio)
        if not sources:
            raise RelayqError("there is no input", hint="relayq transcribe FILE")
        formats = transcripts.check_formats(format)
        targets = [] if output is None else targets_of(sources, formats, os.fspath(output))
        self._check_model(model, engine)
        luggage = Luggage()
        paths = [luggage.take(one) for one in sources]
        for one in targets:
            place = read_location(one)
            if place.is_here:
                check_free(os.path.abspath(place.path), overwrite=overwrite)
        given = {
            "audio": paths[0] if is_one else paths,
            "model": model,
            "format": formats[0] if len(formats) == 1 else list(formats),
            "engine": engine,
            "names": sources,
            "outputs": [luggage.bring(one) for one in targets],
            "files_in": [*files_in, *luggage.files_in],
            "files_out": [*files_out, *luggage.files_out],
            "overwrite": overwrite,
            "host": one_host(luggage.host, host, asked.get("on")),
        }
        return {**{k: v for k, v in given.items() if v not in (None, [], False)}, **asked}

    def transcribe_all(
        self,
        files: Sequence[_Path],
        output: _Path | None = None,
        *,
        jobs: int | None = None,
        **asked: Any,
    ) -> Sequence[JobResult]:
        """Queue a few jobs that transcribe all these files, each with its share of them.

        So that a model is loaded once a job, and not once a file, there are two `jobs` for each
        host that can take one, unless it is said how many. `output` is a directory.
        """
        given = self.asked_of_transcripts(files, output, jobs=jobs, **asked)
        with explained(asked.get("engine", "auto")):
            return [self.submit(KIND, **one) for one in given]

    def asked_of_transcripts(
        self,
        files: Sequence[_Path],
        output: _Path | None = None,
        *,
        jobs: int | None = None,
        **asked: Any,
    ) -> list[dict[str, Any]]:
        """Return the keywords of `submit` for each job of a batch; all files are looked at."""
        from relayq.model import transcripts

        given = [os.fspath(one) for one in files]
        into = None if output is None else os.path.join(os.fspath(output), "")
        if into is not None:
            targets_of(given, transcripts.check_formats(asked.get("format", "txt")), into)
        shares = transcripts.shares(list(map(_size, given)), jobs or self._jobs(asked))
        return [
            self.asked_of_transcript([given[one] for one in share], output=into, **asked)
            for share in shares
        ]

    def _jobs(self, asked: dict[str, Any]) -> int:
        """Return how many jobs a batch is dealt out to."""
        from relayq.model.placement import constrain, facts_of, lacks

        if asked.get("host"):
            return 1
        names = ("on", "needs", "excluded")
        where = {name: asked[name] for name in names if asked.get(name)}
        found = constrain(**{**where, "needs": ("ffmpeg", *_texts(where.get("needs")))})
        engine = "pocketsphinx" if asked.get("keywords") else asked.get("engine", "auto")
        need = "transcribe" if engine == "auto" else f"transcribe:{engine}"
        able = [
            host
            for host in self.relay.hosts()
            if host.is_online
            and not lacks(found, facts_of(host))
            and need in facts_of(host).capabilities
        ]
        return 1 if len(able) <= 1 else _JOBS_PER_HOST * len(able)

    def _check_model(self, model: str, engine: str) -> None:
        """Refuse a model that neither has a known name nor lies on any host."""
        from relayq.model import transcripts

        transcripts.check_model(model)
        is_known = model in transcripts.MODELS or model.startswith(("large-v3-turbo", "distil-"))
        if is_known or "/" in model or engine == "pocketsphinx":
            return
        tables = [host.facts.get("models") or {} for host in self.relay.hosts()]
        at_hand = {name for table in tables for names in table.values() for name in names}
        if model not in at_hand:
            raise transcripts.no_model(model, at_hand, where="the fleet")


def paths_of(audio: _Path | Sequence[_Path]) -> list[str]:
    """Return the inputs as texts."""
    several = [audio] if isinstance(audio, str | os.PathLike) else audio
    return [os.fspath(one) for one in several]


def _texts(given: Iterable[str] | str | None) -> list[str]:
    return [given] if isinstance(given, str) else [*(given or ())]


def _size(path: str) -> int:
    try:
        return os.path.getsize(os.path.expanduser(path))
    except OSError:
        return 0


def targets_of(sources: Sequence[str], formats: Sequence[str], output: str) -> list[str]:
    """Return where each transcript goes: for each input one in each format."""
    place = read_location(output.rstrip("/") if output.endswith("/") and ":" in output else output)
    is_here = place.is_here
    path = os.path.expanduser(output) if is_here else output
    many = len(sources) * len(formats) > 1
    if not (many or path.endswith("/") or (is_here and os.path.isdir(path))):
        return [path]
    if is_here and many and os.path.exists(path) and not os.path.isdir(path):
        raise RelayqError(f"{path} is no directory, and there are several transcripts")
    found: dict[str, str] = {}
    for source in sources:
        stem = os.path.splitext(read_location(source).name)[0] or "transcript"
        for format in formats:
            target = f"{path.rstrip('/')}/{stem}.{format}"
            if target in found:
                raise RelayqError(
                    f"{found[target]} and {source} would both be {target}",
                    hint="transcribe them apart, each with its own output",
                )
            found[target] = source
    return list(found)


@contextmanager
def explained(engine: str) -> Iterator[None]:
    """Say of a job that no host can take what would have to be installed."""
    try:
        yield
    except Unplaceable as error:
        from relayq.model.transcripts import ENGINES

        way = ENGINES.get(engine, ENGINES["faster-whisper"])
        raise Unplaceable(
            error.message,
            missing=error.missing,
            hint=f"on a host, beside ffmpeg: {way}; then relayq worker stop && relayq up",
        ) from error


class WithTranscript:
    """What a `JobResult` has of a transcript."""

    outcome: Callable[[], Outcome | None]

    @property
    @abstractmethod
    def record(self) -> JobRecord:
        """The record, which JobResult reads."""

    @property
    def transcript(self) -> Transcript | None:
        """What was said, with times and in every format; None of another job, and before the end.

        Of a job with several inputs it is the first; `transcripts` has all.
        """
        return next(iter(self.transcripts), None)

    @property
    def transcripts(self) -> Sequence[Transcript]:
        """The transcripts of all its inputs, those that failed left out."""
        outcome = self.outcome() if self.record.kind == KIND else None
        if outcome is None:
            return ()
        from relayq.model.transcripts import all_in

        return all_in(outcome.result)


def text_of(several: Sequence[Transcript], *, named: bool = False) -> str:
    """Return transcripts as a terminal shows them; several with their names."""
    if len(several) == 1 and not named:
        return f"{several[0].text}\n"
    return "".join(f"==> {one.name} <==\n{one.text}\n" for one in several)


def value_of(record: JobRecord, result: Any) -> Any:
    """Return what `get` returns for a result: of a transcript the text."""
    if record.kind != KIND or (record.spec is not None and record.spec.fans):
        return result
    from relayq.model.transcripts import value_in

    return value_in(result)
