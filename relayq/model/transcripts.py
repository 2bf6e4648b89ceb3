"""What was said, and when: transcripts, and how they are written as txt, srt, vtt and json.

Pure: no engine is known here but by its name. Times are seconds from the beginning of the sound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relayq.errors import RelayqError

FORMATS = ("txt", "srt", "vtt", "json")
#: The engines by which a host may transcribe, the first choice first, and how each is installed.
#: pocketsphinx, which gets few words right, is used only when somebody asks for it.
ENGINES: Mapping[str, str] = {
    "faster-whisper": "pip install 'relayq[transcribe]'",
    "whisper.cpp": "brew install whisper-cpp, or whisper-cli of whisper.cpp on the PATH",
    "pocketsphinx": "pip install 'relayq[pocketsphinx]'",
}
#: Those that are chosen unasked.
WHISPERS = ("faster-whisper", "whisper.cpp")
AUTO = "auto"
#: The models that OpenAI published, by the names that every engine knows.
MODELS = (
    "tiny tiny.en base base.en small small.en medium medium.en large-v1 large-v2 large-v3 "
    "large turbo"
).split()
DEFAULT_MODEL = "base"
#: Other names of them, by which files and hubs have them.
SAME_MODELS: Mapping[str, str] = {"large": "large-v3", "turbo": "large-v3-turbo"}
#: The only language of a model whose name ends so.
_ENGLISH_ONLY = ".en"
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")

#: What Whisper knows, by its code.
LANGUAGES: Mapping[str, str] = dict(
    pair.split(":")
    for pair in (
        "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese "
        "pt:portuguese tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian "
        "id:indonesian hi:hindi fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay "
        "cs:czech ro:romanian da:danish hu:hungarian ta:tamil no:norwegian th:thai ur:urdu "
        "hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak "
        "te:telugu fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian "
        "kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic hy:armenian "
        "ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi "
        "pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan "
        "ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao "
        "uz:uzbek fo:faroese ht:haitian ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit "
        "lb:luxembourgish my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar "
        "haw:hawaiian ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese yue:cantonese"
    ).split()
)
_CODES = {name: code for code, name in LANGUAGES.items()}
_OTHER_NAMES = {
    "mandarin": "zh",
    "castilian": "es",
    "valencian": "ca",
    "flemish": "nl",
    "burmese": "my",
    "farsi": "fa",
    "jv": "jw",
    "iw": "he",
    "nb": "no",
}


@dataclass(frozen=True, slots=True)
class Word:
    """One word, with the certainty that its engine has, from 0 to 1, if it tells."""

    start: float
    end: float
    text: str
    certainty: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        kept = {"start": _rounded(self.start), "end": _rounded(self.end), "text": self.text}
        return kept if self.certainty is None else {**kept, "certainty": _rounded(self.certainty)}


@dataclass(frozen=True, slots=True)
class Segment:
    """A few words that were said in one go; `words` only where they were asked for."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        kept = {"start": _rounded(self.start), "end": _rounded(self.end), "text": self.text}
        return {**kept, "words": [word.as_dict() for word in self.words]} if self.words else kept


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that was said in one input, which its submitter calls `name`.

    `language` is that of the sound, also where the text is a translation, which is English.
    """

    text: str
    language: str
    duration: float
    segments: tuple[Segment, ...] = ()
    engine: str = ""
    model: str = ""
    name: str = ""
    is_translated: bool = False

    def write(self, format: str) -> str:
        """Return it in one of `FORMATS`."""
        return _WRITERS[check_format(format)](self)

    @property
    def txt(self) -> str:
        """Its segments, a line each."""
        return self.write("txt")

    @property
    def srt(self) -> str:
        """Subtitles as SubRip has them."""
        return self.write("srt")

    @property
    def vtt(self) -> str:
        """Subtitles as the web has them."""
        return self.write("vtt")

    @property
    def words(self) -> Sequence[Word]:
        """All words with their times, if they were asked for."""
        return [word for segment in self.segments for word in segment.words]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, which is also the format `json`."""
        return {
            "text": self.text,
            "language": self.language,
            "duration": _rounded(self.duration),
            "is_translated": self.is_translated,
            "engine": self.engine,
            "model": self.model,
            "name": self.name,
            "segments": [segment.as_dict() for segment in self.segments],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Transcript:
        """Read what `as_dict` wrote."""
        segments = tuple(
            Segment(
                float(one["start"]),
                float(one["end"]),
                str(one["text"]),
                tuple(Word(**word) for word in one.get("words", ())),
            )
            for one in raw.get("segments", ())
        )
        return cls(
            text=str(raw["text"]),
            language=str(raw["language"]),
            duration=float(raw["duration"]),
            segments=segments,
            engine=str(raw.get("engine", "")),
            model=str(raw.get("model", "")),
            name=str(raw.get("name", "")),
            is_translated=bool(raw.get("is_translated", False)),
        )


def _rounded(number: float) -> float:
    return round(number, 3)


def beginning(format: str) -> str:
    """Return what a text in this format begins with."""
    return "WEBVTT\n\n" if format == "vtt" else ""


def piece(segment: Segment, number: int, format: str) -> str:
    """Return one segment, counted from 1, as a part of a text in this format; none for json."""
    text = _one_line(segment.text)
    if format == "txt":
        return f"{text}\n"
    start, end = segment.start, max(segment.end, segment.start + 0.001)
    if format == "srt":
        return f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{text}\n\n"
    if format == "vtt":
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"{_time(start, '.')} --> {_time(end, '.')}\n{text}\n\n"
    return ""


def _one_line(text: str) -> str:
    # An empty line ends a subtitle.
    return " ".join(text.split())


def _time(seconds: float, point: str) -> str:
    whole = max(0, round(seconds * 1000))
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _pieces(transcript: Transcript, format: str) -> str:
    numbered = enumerate(transcript.segments, 1)
    return beginning(format) + "".join(piece(one, number, format) for number, one in numbered)


def _json(transcript: Transcript) -> str:
    return json.dumps(transcript.as_dict(), ensure_ascii=False, indent=2) + "\n"


_WRITERS = {
    "txt": lambda transcript: _pieces(transcript, "txt"),
    "srt": lambda transcript: _pieces(transcript, "srt"),
    "vtt": lambda transcript: _pieces(transcript, "vtt"),
    "json": _json,
}


def check_format(format: str) -> str:
    """Return the format, or raise which there are."""
    if format not in FORMATS:
        raise RelayqError(f"a transcript is written as {', '.join(FORMATS)}, not as {format!r}")
    return format


def check_formats(formats: str | Iterable[str]) -> tuple[str, ...]:
    """Return formats, given as `srt,vtt` or one by one, each once."""
    given = formats.split(",") if isinstance(formats, str) else formats
    found = tuple(dict.fromkeys(check_format(one.strip()) for one in given))
    if not found:
        raise RelayqError(f"in which format? {', '.join(FORMATS)}")
    return found


def check_language(language: str) -> str:
    """Return the code of a language, which may be given by its name in English."""
    given = language.strip().lower()
    given = given.partition("-")[0] if "-" in given or len(given) > 3 else given
    code = given if given in LANGUAGES else _CODES.get(given, _OTHER_NAMES.get(given))
    if code is None:
        close = _closest(given, [*_CODES, *_OTHER_NAMES], 0.75)
        meant = f"; did you mean {close}?" if close else ""
        raise RelayqError(
            f"no engine knows the language {language!r}{meant}",
            hint="a code such as en, de, fr, ja, or nothing: then it is found out",
        )
    return code


def check_engine(engine: str) -> str:
    """Return the engine's name, or raise which there are."""
    if engine != AUTO and engine not in ENGINES:
        raise RelayqError(f"an engine is {AUTO}, {', '.join(ENGINES)}, not {engine!r}")
    return engine


def check_model(model: str, *, language: str | None = None, translate: bool = False) -> str:
    """Return the model's name, or raise why it can't do that."""
    is_path = model.startswith(("/", "~/"))
    if "\0" in model or not (is_path or _MODEL.fullmatch(model)):
        raise RelayqError(
            f"no model can be called {model!r}",
            hint=f"one of {', '.join(MODELS)}, or a directory or file on the host",
        )
    if model.endswith(_ENGLISH_ONLY) and (language not in (None, "en") or translate):
        other = model.removesuffix(_ENGLISH_ONLY)
        what = "translates nothing" if translate else f"knows no {LANGUAGES[str(language)].title()}"
        raise RelayqError(f"the model {model} {what}: it is for English", hint=f"--model {other}")
    if translate and SAME_MODELS.get(model, model) == "large-v3-turbo":
        raise RelayqError(f"the model {model} doesn't translate", hint="--model medium")
    return model


def no_model(model: str, at_hand: Iterable[str], *, where: str = "this host") -> RelayqError:
    """Return the error for a model that nobody knows."""
    here = sorted(at_hand)
    close = _closest(model, [*here, *MODELS], 0.6)
    meant = f"; did you mean {close}?" if close else ""
    has = f"{where} has {', '.join(here)}" if here else f"{where} has none yet"
    return RelayqError(
        f"no such model: {model!r}{meant} ({has}; {', '.join(MODELS)} can be downloaded)",
        hint=f"--model {close or DEFAULT_MODEL}",
    )


def _closest(word: str, words: Sequence[str], cutoff: float) -> str:
    # Imported for who mistyped only: a worker reads this module at its start.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, words, 1, cutoff)), "")


def all_in(result: object) -> Sequence[Transcript]:
    """Return the transcripts that a job's result has."""
    if not isinstance(result, dict):
        return ()
    several = result.get("transcripts", [result])
    return [Transcript.from_dict(one) for one in several if "segments" in one]


def described(payload: Mapping[str, Any]) -> str:
    """Return what a job transcribes, in a few words: `ep42.mp3 (large-v3)`."""
    audio = payload["audio"]
    names = payload.get("names") or ([audio] if isinstance(audio, str) else audio)
    first = str(names[0]).rpartition("/")[2] if names else "?"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    spots = payload.get("engine") == "pocketsphinx" or payload.get("keywords")
    what = "pocketsphinx" if spots else payload.get("model", DEFAULT_MODEL)
    return f"{first}{more} ({what})"


def value_in(result: object) -> object:
    """Return what `get` gives for a job's result: of transcripts the text alone."""
    texts = [one.text for one in all_in(result)]
    is_batch = isinstance(result, dict) and "transcripts" in result
    return texts if is_batch else next(iter(texts), result)


def fitted(result: dict[str, Any], most: int) -> tuple[dict[str, Any], str]:
    """Return a result no larger than so many bytes, and what was left out of it.

    The times of the words go first, then the segments; files have all of it in any case.
    """
    if _size(result) <= most:
        return result, ""
    without = _without(result, "words")
    if _size(without) <= most:
        return without, "the times of its words"
    without = _without(result, "segments")
    return without, "its segments"


def _size(result: Mapping[str, Any]) -> int:
    return len(json.dumps(result))


def _without(result: dict[str, Any], what: str) -> dict[str, Any]:
    if "transcripts" in result:
        return {**result, "transcripts": [_without(one, what) for one in result["transcripts"]]}
    if "segments" not in result:
        return result
    if what == "segments":
        # What was asked for in a format besides is as large again.
        kept = {name: value for name, value in result.items() if name not in FORMATS}
        return {**kept, "segments": []}
    segments = [{k: v for k, v in one.items() if k != what} for one in result["segments"]]
    return {**result, "segments": segments}


def shares(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Deal inputs of these sizes out to so many jobs, evenly; returns the positions of each."""
    count = max(1, min(parts, len(sizes)))
    dealt: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for position in sorted(range(len(sizes)), key=lambda one: (-sizes[one], one)):
        # Of equal loads the one with the fewest inputs: sizes may be unknown, and 0.
        least = min(range(count), key=lambda one: (loads[one], len(dealt[one]), one))
        dealt[least].append(position)
        loads[least] += sizes[position]
    return [sorted(one) for one in dealt]
