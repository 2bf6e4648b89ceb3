"""What ffmpeg is asked: presets, options as people type them, encoders of hardware.

Nothing here starts a program or looks at a file.
"""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relayq.errors import RelayqError


@dataclass(frozen=True, slots=True)
class Preset:
    """Options with a name: what they are for, and the ending of the files that they make.

    One `on_hardware` has its encoder replaced by the host's own hardware, where that works.
    """

    says: str
    options: str
    ending: str = "mp4"
    on_hardware: bool = False


_AAC = "-c:a aac -b:a"
_PLAYABLE = "-pix_fmt yuv420p -movflags +faststart"
#: Never larger than these, and never enlarged; a dimension that is odd can't be encoded.
_EVEN = "-vf scale=trunc(iw/2)*2:trunc(ih/2)*2"
_UP_TO_720 = "-vf \"scale='min(1280,trunc(iw/2)*2)':-2\""
_UP_TO_1080 = "-vf \"scale=-2:'min(1080,trunc(ih/2)*2)'\""

PRESETS: Mapping[str, Preset] = {
    "web": Preset(
        "plays in every browser while it loads; up to 1080p",
        f"-c:v libx264 -preset medium -crf 23 -profile:v high {_UP_TO_1080} {_PLAYABLE} "
        f"{_AAC} 128k -ac 2",
    ),
    "h264": Preset(
        "plays everywhere, good quality", f"-c:v libx264 -crf 20 {_EVEN} {_PLAYABLE} {_AAC} 160k"
    ),
    "h264-small": Preset(
        "plays everywhere, small; up to 1280 wide",
        f"-c:v libx264 -preset slow -crf 28 {_UP_TO_720} {_PLAYABLE} {_AAC} 96k",
    ),
    "h264-fast": Preset(
        "as h264, by the host's graphics where it can",
        f"-c:v libx264 -preset veryfast -crf 22 {_EVEN} {_PLAYABLE} {_AAC} 160k",
        on_hardware=True,
    ),
    "h265": Preset(
        "half the size of h264, for newer players",
        f"-c:v libx265 -crf 25 -tag:v hvc1 {_EVEN} {_PLAYABLE} {_AAC} 160k",
    ),
    "h265-fast": Preset(
        "as h265, by the host's graphics where it can",
        f"-c:v libx265 -preset veryfast -crf 26 -tag:v hvc1 {_EVEN} {_PLAYABLE} {_AAC} 160k",
        on_hardware=True,
    ),
    "av1": Preset(
        "smallest, for newest players",
        f"-c:v libsvtav1 -preset 8 -crf 34 {_EVEN} {_PLAYABLE} {_AAC} 128k",
    ),
    "vp9": Preset(
        "free codecs for browsers",
        "-c:v libvpx-vp9 -crf 32 -b:v 0 -row-mt 1 -pix_fmt yuv420p -c:a libopus -b:a 96k",
        "webm",
    ),
    "m4a": Preset("its sound, as AAC", "-vn -c:a aac -b:a 192k -movflags +faststart", "m4a"),
    "mp3": Preset("its sound, as MP3", "-vn -c:a libmp3lame -q:a 2", "mp3"),
    "opus": Preset("its sound, as Opus: small", "-vn -c:a libopus -b:a 96k", "opus"),
    "flac": Preset("its sound, without loss", "-vn -c:a flac", "flac"),
    "wav": Preset("its sound, as it is for every program", "-vn -c:a pcm_s16le", "wav"),
    "copy": Preset(
        "another container, nothing encoded again", "-map 0:v? -map 0:a? -c copy", "mp4"
    ),
}
#: Other words for presets.
ALIASES = {"remux": "copy", "hevc": "h265", "x264": "h264", "x265": "h265"}
#: Means the preset of the output's ending.
AUDIO_ONLY = "audio-only"
_SOUND = {"m4a": "m4a", "aac": "m4a", "mp3": "mp3", "opus": "opus", "ogg": "opus"} | {
    "flac": "flac",
    "wav": "wav",
}


def preset_names() -> list[str]:
    """Return all that `find_preset` knows."""
    return sorted({*PRESETS, *ALIASES, AUDIO_ONLY})


def find_preset(name: str, ending: str = "") -> Preset:
    """Return the preset of this name, for an output with this ending; RelayqError for no such."""
    word = name.strip().lower().replace("_", "-")
    word = ALIASES.get(word, word)
    if word == AUDIO_ONLY:
        word = _SOUND.get(ending.lower(), "m4a")
    if word not in PRESETS:
        from difflib import get_close_matches

        close = get_close_matches(word, preset_names(), 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise RelayqError(
            f"no such preset: {name!r}; {meant}there is {', '.join(preset_names())}",
            hint="relayq transcode --presets",
        )
    return PRESETS[word]


def ending_of(name: str) -> str:
    """Return a file name's ending, in small letters, without the dot."""
    return os.path.splitext(name)[1].removeprefix(".").lower()


#: ffmpeg's options that take no value; each also with `no` before it.
_FLAGS = frozenset(
    "an vn sn dn shortest re copyts start_at_zero accurate_seek autorotate bitexact intra "
    "ignore_unknown copy_unknown stats hide_banner xerror dump hex benchmark benchmark_all "
    "fix_sub_duration copyinkf find_stream_info psnr vstats qphist deinterlace isync debug_ts "
    "seek_timestamp autoscale auto_conversion_filters fix_sub_duration_heartbeat cpucount".split()
)
#: What the runner says by itself; of each what to do instead.
_OWN = {
    "i": "name each further input as an input of the job",
    "y": "ask for it: overwrite=True, --overwrite",
    "n": "leave it out: what exists is never overwritten unasked",
    **dict.fromkeys(
        ("progress", "nostdin", "stdin", "loglevel", "v", "report", "stats_period"),
        "leave it out: relayq reads ffmpeg's progress and messages",
    ),
}
_VIDEO_ENCODER = ("c:v", "codec:v", "vcodec", "c:v:0", "codec:v:0")
_AUDIO_ENCODER = ("c:a", "codec:a", "acodec", "c:a:0", "codec:a:0")
_ANY_ENCODER = ("c", "codec")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of ffmpeg: its name without the dash, and its value, if it takes one."""

    name: str
    value: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Return it as words of a command line."""
        return (f"-{self.name}",) if self.value is None else (f"-{self.name}", self.value)


def read_options(given: str | Sequence[str]) -> tuple[Option, ...]:
    """Return the options that a text (quoted as in a shell) or a list of words has.

    No shell ever sees them. Words that would be a further output are refused, and so is what the
    runner says by itself.
    """
    if isinstance(given, str):
        try:
            words = shlex.split(given)
        except ValueError as error:
            raise RelayqError(
                f"the options can't be read: {error}: {given!r}",
                hint="close each quote, or give the options as a list",
            ) from error
    else:
        words = list(given)
    if any("\0" in word for word in words):
        raise RelayqError("an option can't hold a NUL character")
    found, ahead = [], iter(words)
    for word in ahead:
        name = word.removeprefix("-")
        if not re.match(r"-[A-Za-z]", word):
            raise RelayqError(
                f"{word!r} belongs to no option: the output is named by itself",
                hint="give a value that has spaces as one word, in quotes",
            )
        if name in _OWN:
            raise RelayqError(f"-{name} isn't for you to say; {_OWN[name]}")
        if _is_flag(name):
            found.append(Option(name))
        elif (value := next(ahead, None)) is None:
            raise RelayqError(f"the option -{name} has no value")
        else:
            found.append(Option(name, value))
    return tuple(found)


def _is_flag(name: str) -> bool:
    plain = name.partition(":")[0]
    return plain in _FLAGS or plain.removeprefix("no") in _FLAGS


def words_of(options: Iterable[Option]) -> list[str]:
    """Return options as words of a command line."""
    return [word for option in options for word in option.words]


def value_of(options: Iterable[Option], *names: str) -> str | None:
    """Return the last value of an option that has several names, None without it."""
    return next((one.value for one in reversed([*options]) if one.name in names), None)


def video_encoder(options: Iterable[Option]) -> str | None:
    """Return the encoder that is asked for pictures, `copy` if they aren't encoded."""
    return value_of(options, *_VIDEO_ENCODER, *_ANY_ENCODER)


def audio_encoder(options: Iterable[Option]) -> str | None:
    """Return the encoder that is asked for the sound."""
    return value_of(options, *_AUDIO_ENCODER, *_ANY_ENCODER)


#: Encoders whose hosts publish them, so that a job may need them; those of hardware by ending.
_PUBLISHED = frozenset(
    "libx264 libx265 libsvtav1 libaom-av1 libvpx-vp9 libopus libmp3lame libfdk_aac".split()
)
_SORTS = ("videotoolbox", "nvenc", "qsv", "vaapi", "v4l2m2m", "amf", "omx", "rkmpp")
#: What hardware can take over of an encoder in software.
_CODECS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1", "libaom-av1": "av1"}


def is_hardware(encoder: str) -> bool:
    """Tell whether an encoder needs hardware."""
    return encoder.rpartition("_")[2] in _SORTS


def needs_of(options: Iterable[Option]) -> list[str]:
    """Return the capabilities that a host must have for these options."""
    listed = [*options]
    asked = {video_encoder(listed), audio_encoder(listed)} - {None}
    published = {one for one in asked if one and (one in _PUBLISHED or is_hardware(one))}
    return ["ffmpeg", *sorted(f"encoder:{one}" for one in published)]


def stand_ins(encoder: str) -> list[str]:
    """Return the encoders of hardware that may take over from one in software, best first."""
    codec = _CODECS.get(encoder)
    return [f"{codec}_{sort}" for sort in _SORTS] if codec else []


#: Of x264 and its like alone: another encoder has other words for these, or none.
_OF_SOFTWARE = frozenset(
    "preset tune crf qp x264-params x264opts x265-params svtav1-params profile level cpu-used "
    "row-mt".split()
)


def on_hardware(
    options: Sequence[Option],
    encoder: str,
    *,
    render_node: str = "",
    pixels_per_second: float = 0.0,
) -> tuple[list[Option], list[Option]] | None:
    """Return the options before the inputs and those of the output, for an encoder of hardware.

    The quality of `-crf` becomes what that encoder has for it; None where it can't take over.
    """
    sort = encoder.rpartition("_")[2]
    crf = _number(value_of(options, "crf", "qp"), 23.0)
    before: list[Option] = []
    kept = [
        one
        for one in options
        if one.name.partition(":")[0] not in _OF_SOFTWARE
        and one.name not in _VIDEO_ENCODER
        and not (one.name.partition(":")[0] == "pix_fmt" and sort in ("vaapi", "qsv"))
    ]
    if sort == "vaapi":
        filters = value_of(options, "vf", "filter:v")
        if value_of(options, "filter_complex", "lavfi") is not None or not render_node:
            return None
        before = [Option("vaapi_device", render_node)]
        chain = ",".join(filter(None, [filters, "format=nv12", "hwupload"]))
        kept = [one for one in kept if one.name not in ("vf", "filter:v")]
        kept.append(Option("vf", chain))
    has_rate = value_of(options, "b:v", "b") is not None
    quality = [] if has_rate else _quality(sort, crf, pixels_per_second)
    return before, [Option("c:v", encoder), *quality, *kept]


def _quality(sort: str, crf: float, pixels_per_second: float) -> list[Option]:
    match sort:
        case "nvenc":
            return [Option("rc", "vbr"), Option("cq", f"{crf:g}"), Option("b:v", "0")]
        case "vaapi":
            return [Option("qp", f"{crf:g}")]
        case "qsv":
            return [Option("global_quality", f"{crf:g}")]
        case "videotoolbox":
            # From 1 (worst) to 100; 65 looks about as crf 23 does.
            return [Option("q:v", f"{min(max(65 + (23 - crf) * 2.5, 20), 90):g}")]
        case _:
            # These know a bit rate only: a tenth of a bit a pixel is about crf 23, and 6 steps
            # of crf are half of it.
            pixels = pixels_per_second or 1280 * 720 * 30
            return [Option("b:v", str(int(pixels * 0.1 * 2 ** ((23 - crf) / 6))))]


def _number(text: str | None, otherwise: float) -> float:
    try:
        return float(text) if text is not None else otherwise
    except ValueError:
        return otherwise


#: Formats of many files: the parts would lie under temporary names.
_MANY_FILES = {"m3u8": "HLS", "mpd": "DASH", "ism": "Smooth Streaming"}
_MANY_MUXERS = frozenset("hls dash segment stream_segment ssegment smoothstreaming tee".split())


def check_output(name: str, options: Sequence[Option]) -> None:
    """Raise RelayqError for an output that isn't one file with a format."""
    ending = ending_of(name)
    muxer = value_of(options, "f") or ""
    if ending in _MANY_FILES or muxer in _MANY_MUXERS or re.search(r"%0?\d*d", name):
        raise RelayqError(
            f"{name!r} would be many files, and transcode makes one",
            hint="relayq run --needs ffmpeg --in FILE --out 'PATTERN' -- ffmpeg ...",
        )
    if not ending and not muxer:
        raise RelayqError(
            f"{name!r} has no ending, by which ffmpeg chooses the format",
            hint=f"{name}.mp4, or options -f mp4",
        )
