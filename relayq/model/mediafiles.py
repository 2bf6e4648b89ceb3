"""What ffprobe and ffmpeg say of media files, read; and whether an output is what was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relayq.errors import RelayqError
from relayq.model.media import Option, audio_encoder, ending_of, value_of, video_encoder

VIDEO, AUDIO = "video", "audio"
#: An encoder pads and rounds to whole frames; an hour may be so much shorter, not more.
_SHORTER_BY = 0.5
_SHORTER_PART = 0.01
_SHORTER_MOST = 5.0


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of a file; `is_cover` is a picture that belongs to the sound."""

    sort: str
    codec: str
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    rate: float | None = None
    channels: int | None = None
    is_cover: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return what there is to tell of it."""
        told = {
            "type": self.sort,
            "codec": self.codec,
            "duration": self.duration,
            "width": self.width,
            "height": self.height,
            "fps" if self.sort == VIDEO else "rate": self.rate,
            "channels": self.channels,
        }
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Media:
    """A file, as ffprobe sees it. An `is_estimated` duration comes of the bit rate, and may be off.

    Durations are seconds, None where the file doesn't tell.
    """

    streams: tuple[Stream, ...]
    duration: float | None = None
    is_estimated: bool = False
    format: str = ""

    def has(self, sort: str) -> bool:
        """Whether it has a stream of this sort that isn't a cover."""
        return any(one.sort == sort and not one.is_cover for one in self.streams)

    def lasts(self, sort: str) -> float | None:
        """Return how long its longest stream of this sort lasts, else the file."""
        known = [one.duration for one in self.streams if one.sort == sort and one.duration]
        return max(known) if known else self.duration

    @property
    def pixels_per_second(self) -> float:
        """Return how much there is to encode."""
        for one in self.streams:
            if one.sort == VIDEO and not one.is_cover:
                return (one.width or 0) * (one.height or 0) * (one.rate or 0.0)
        return 0.0

    def __str__(self) -> str:
        kinds = [_told(one) for one in self.streams if one.sort in (VIDEO, AUDIO)]
        length = [] if self.duration is None else [length_text(self.duration)]
        return ", ".join([*length, *kinds]) or "nothing"


def _told(stream: Stream) -> str:
    size = f" {stream.width}x{stream.height}" if stream.width else ""
    return f"{stream.codec}{size}"


def length_text(seconds: float) -> str:
    """Return a length as players show it: 1:02:03, 4:05, 7.5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def read_probe(shown: str, said: str = "") -> Media:
    """Return what `ffprobe -show_format -show_streams -of json` shows; `said` are its messages."""
    try:
        raw = json.loads(shown)
    except ValueError:
        raw = {}
    streams = raw.get("streams", []) if isinstance(raw, dict) else []
    format = raw.get("format", {}) if isinstance(raw, dict) else {}
    found = tuple(_stream(one) for one in streams if isinstance(one, dict))
    return Media(
        found,
        duration=_positive(format.get("duration")),
        is_estimated="Estimating duration from bitrate" in said,
        format=str(format.get("format_name", "")),
    )


def _stream(raw: Mapping[str, Any]) -> Stream:
    sort = str(raw.get("codec_type", ""))
    rate = raw.get("avg_frame_rate") if sort == VIDEO else raw.get("sample_rate")
    return Stream(
        sort,
        str(raw.get("codec_name", "unknown")),
        duration=_positive(raw.get("duration")) or _tagged(raw),
        width=raw.get("width"),
        height=raw.get("height"),
        rate=_ratio(rate),
        channels=raw.get("channels"),
        is_cover=bool(raw.get("disposition", {}).get("attached_pic")),
    )


def _tagged(raw: Mapping[str, Any]) -> float | None:
    """Return the duration that Matroska has as a tag."""
    text = str(raw.get("tags", {}).get("DURATION", ""))
    try:
        return seconds_in(text) if text else None
    except ValueError:
        return None


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def _ratio(text: Any) -> float | None:
    above, _, below = str(text or "").partition("/")
    number, divisor = _positive(above), _positive(below or 1)
    return round(number / divisor, 3) if number and divisor else None


_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def seconds_in(text: str) -> float:
    """Return a time as ffmpeg takes it: 90, 1:30, 00:01:30.5, 500ms; raises ValueError."""
    if found := re.fullmatch(r"([0-9.]+)(s|ms|us)?", text):
        return float(found[1]) * _UNITS[found[2] or ""]
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise ValueError(f"no time: {text!r}")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + float(part)
    return seconds


#: With these nobody can say beforehand how long the output is.
_UNTOLD = frozenset(
    "filter_complex filter_complex_script lavfi stream_loop loop itsscale itsoffset frames vframes "
    "aframes shortest fs sseof map_chapters".split()
)
_UNTOLD_INPUT = frozenset("r framerate f".split())
_STRETCHES = re.compile(
    r"\b(a?setpts|atempo|a?trim|concat|a?loop|a?select|a?pad=|tpad|apad|rubberband|asetrate|"
    r"xfade|acrossfade|silenceremove|atrim)\b"
)
_SOUND_ONLY = frozenset("m4a mp3 opus ogg oga flac wav aac ac3 wma aiff aif caf m4b weba".split())
_PICTURES_ONLY = frozenset("gif apng webp png jpg jpeg y4m h264 264 h265 hevc ivf".split())


@dataclass(frozen=True, slots=True)
class Expected:
    """What an output should be: how long at least (None: nobody knows), and which streams.

    `length` is for the progress only.
    """

    least: float | None = None
    length: float | None = None
    sorts: frozenset[str] = frozenset()


def expected(
    inputs: Sequence[Media],
    options: Sequence[Option],
    *,
    input_options: Sequence[Option] = (),
    name: str = "",
) -> Expected:
    """Say what an output of these inputs should be."""
    sorts = _sorts(inputs, options, name)
    lasting = {sort: _longest(inputs, sort) for sort in sorts or {VIDEO, AUDIO}}
    known = [one for one in lasting.values() if one is not None]
    if not known:
        return Expected(length=_cut(None, input_options, options), sorts=sorts)
    length = _cut(max(known), input_options, options)
    stretched = _is_stretched(options) or any(one.name in _UNTOLD_INPUT for one in input_options)
    is_told = (
        not stretched
        and len(known) == len(lasting)
        and not _is_untold((*options, *input_options))
        and not any(media.is_estimated for media in inputs)
    )
    least = _cut(min(known), input_options, options) if is_told else None
    return Expected(least=least, length=length, sorts=sorts)


def _longest(inputs: Sequence[Media], sort: str) -> float | None:
    known = [media.lasts(sort) for media in inputs if media.has(sort)]
    lasting = [one for one in known if one is not None]
    return max(lasting) if len(lasting) == len(known) and lasting else None


def _sorts(inputs: Sequence[Media], options: Sequence[Option], name: str) -> frozenset[str]:
    """Return the sorts of streams that must be there."""
    names = {one.name for one in options}
    if "map" in names or any(one.startswith(("filter_complex", "lavfi")) for one in names):
        return frozenset()
    sorts = {sort for sort in (VIDEO, AUDIO) if any(media.has(sort) for media in inputs)}
    ending = ending_of(name)
    if "vn" in names or ending in _SOUND_ONLY:
        sorts.discard(VIDEO)
    if "an" in names or ending in _PICTURES_ONLY:
        sorts.discard(AUDIO)
    return frozenset(sorts)


def _is_untold(options: Sequence[Option]) -> bool:
    return any(one.name.partition(":")[0] in _UNTOLD for one in options)


def _is_stretched(options: Sequence[Option]) -> bool:
    filters = [one.value or "" for one in options if one.name in ("vf", "af")]
    filters += [one.value or "" for one in options if one.name.startswith("filter:")]
    return any(_STRETCHES.search(one) for one in filters)


def _cut(length: float | None, *sides: Sequence[Option]) -> float | None:
    """Return what `-ss`, `-t` and `-to` leave of a length, of the inputs first; None if unknown."""
    for options in sides:
        try:
            start = seconds_in(value_of(options, "ss") or "0")
            limit = value_of(options, "t")
            end = value_of(options, "to")
            longest = seconds_in(limit) if limit else seconds_in(end) - start if end else None
        except ValueError:
            return None
        if length is not None:
            length = length - start
        if longest is not None:
            length = longest if length is None else min(length, longest)
    return length if length is not None and length > 0 else None


def wrong_with(output: Media, asked: Expected, *, cut: str = "") -> str:
    """Say what is wrong with an output; nothing when it is as it should be.

    `cut` is what ffmpeg said of an input that ended before its end: it counts where nobody can say
    how long the output should be.
    """
    if not output.streams:
        return "the output has no streams"
    for sort in (VIDEO, AUDIO):
        if sort in asked.sorts and not output.has(sort):
            return f"the output has no {'picture' if sort == VIDEO else 'sound'}"
    if asked.least is None:
        return f"an input couldn't be read to its end ({cut})" if cut else ""
    if output.duration is None:
        return ""
    longest = max((one.duration or 0.0 for one in output.streams), default=0.0)
    lasts = max(output.duration, longest)
    frame = max(
        (1 / one.rate for one in output.streams if one.sort == VIDEO and one.rate), default=0
    )
    part = min(asked.least * _SHORTER_PART, _SHORTER_MOST)
    if lasts < asked.least - max(_SHORTER_BY, part, 2 * frame):
        why = f" ({cut})" if cut else ""
        return (
            f"the output has {length_text(lasts)} of {length_text(asked.least)}: an input couldn't "
            f"be read to its end{why}"
        )
    return ""


def encoder_of(output: Media, options: Sequence[Option]) -> str:
    """Return what encoded the output: of its pictures, else of its sound."""
    for sort, asked in ((VIDEO, video_encoder(options)), (AUDIO, audio_encoder(options))):
        if output.has(sort):
            codec = next(one.codec for one in output.streams if one.sort == sort)
            return asked or codec
    return "none"


class Reports:
    """Puts the lines of ffmpeg's `-progress` together."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def feed(self, line: str) -> Report | None:
        """Return a report when this line ends one."""
        name, _, value = line.strip().partition("=")
        if name != "progress":
            self._values[name] = value.strip()
            return None
        values, self._values = self._values, {}
        # `out_time_ms` are microseconds as well, and either is N/A before the first frame.
        made = _positive(values.get("out_time_us"))
        return Report(
            seconds=(made or 0.0) / 1e6,
            speed=_positive(values.get("speed", "").removesuffix("x")),
            frames=int(_positive(values.get("frame")) or 0),
            is_last=value == "end",
        )


@dataclass(frozen=True, slots=True)
class Report:
    """How far ffmpeg is: the seconds of output that are made, and how many of them a second."""

    seconds: float
    speed: float | None
    frames: int
    is_last: bool


#: Of ffmpeg's messages those of an input that ends too early.
_CUT = re.compile(
    r"partial file|Truncat|truncated|Error during demuxing|End of file|stream ends prematurely|"
    r"File ended prematurely|Packet corrupt|error reading|Invalid data found when processing input",
    re.IGNORECASE,
)
_NO_ROOM = "No space left on device"
#: What says nothing by itself, and comes after what does.
_IDLE = re.compile(r"^(Conversion failed|Error while (filtering|opening).*$|Exiting|Terminating)")


def says_cut(message: str) -> bool:
    """Tell whether a message is about an input that ended before its end."""
    return _CUT.search(message) is not None


def says_no_room(message: str) -> bool:
    """Tell whether a message is about a full disk."""
    return _NO_ROOM in message


def cause_in(messages: Sequence[str]) -> str:
    """Return the message that says the most about why ffmpeg failed."""
    telling = [one for one in messages if one.strip() and not _IDLE.search(one)]
    best = [
        one
        for one in telling
        if re.search(r"Unknown|Unrecognized|No such|Invalid|not found|Error|error|Unable", one)
    ]
    text = (best or telling or ["ffmpeg said nothing"])[0]
    return plain(text)


def plain(message: str) -> str:
    """Return a message without the part of ffmpeg that says it."""
    return re.sub(r"^\[[^\]]*\] *", "", message.strip()).removesuffix(".")[:300]


def unknown_encoder(messages: Sequence[str]) -> str | None:
    """Return the encoder that ffmpeg doesn't have, if that is what it said."""
    for one in messages:
        if found := re.search(r"Unknown (?:en|de)coder '([^']*)'", one):
            return found[1]
    return None


def not_media(name: str, said: str) -> RelayqError:
    """Return the error for a file that ffprobe can't read."""
    if "moov atom not found" in said:
        return RelayqError(
            f"{name} is cut off: the end, with its index, is missing (moov atom not found)",
            hint="copy it again, or wait until it is written to its end",
        )
    if re.search(r"Server returned|Connection|Protocol not found|HTTP error|resolve", said):
        return RelayqError(f"{name} can't be read: {cause_in(said.splitlines())}")
    return RelayqError(
        f"{name} is no video or sound that ffmpeg can read",
        hint=f"look at it with: ffprobe {name!r}",
    )
