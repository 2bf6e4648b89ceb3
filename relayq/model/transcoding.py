"""What a transcode is asked to do; apart from its kind, since its runner starts quicker so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relayq.model import media
from relayq.model.media import Option

#: What may be asked of the host's hardware.
HARDWARE = ("auto", "off")
#: The exit code of a runner whose host hasn't even room for its report.
UNREPORTED = 74


@dataclass(frozen=True, slots=True)
class TranscodePayload:
    """What is made of what: `inputs` and `output` are paths on the host, or URLs.

    A path that doesn't begin with "/" or "~/" is below `cwd`. `options` are ffmpeg's for the
    output, a text quoted as for a shell or a list of words; they come after those of the `preset`
    and win. `input_options` come before each input. `hw` "auto" has an encoder of hardware take
    over where the host has one that works, "off" never; else the preset says. An output that exists
    is refused unless this one `replaces` it, one that is shorter than its inputs unless `check` is
    off. `target` is what the result calls the output.
    """

    inputs: str | Sequence[str]
    output: str
    options: str | Sequence[str] = ()
    preset: str | None = None
    input_options: str | Sequence[str] = ()
    hw: str | None = None
    replaces: bool = False
    check: bool = True
    cwd: str | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "options", "input_options"):
            _check_texts(name, getattr(self, name))
        for name in ("output", "preset", "hw", "cwd", "target"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "output"):
                raise TypeError(f"{name} must be text")
        if not self.sources or not all(self.sources):
            raise ValueError("there is no input")
        if not self.output or self.output.endswith("/"):
            raise ValueError("the output has no file name")
        if any("\0" in one for one in (*self.sources, self.output, self.cwd or "")):
            raise ValueError("a path can't hold a NUL character")
        if self.hw not in (None, *HARDWARE):
            raise ValueError(f"hw is one of {', '.join(HARDWARE)}, not {self.hw!r}")
        media.read_options(self.input_options)
        media.check_output(self.output, self.all_options)

    @property
    def sources(self) -> tuple[str, ...]:
        """The inputs, also where there is but one."""
        return (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)

    @property
    def all_options(self) -> tuple[Option, ...]:
        """The options of the preset, then its own."""
        own = media.read_options(self.options)
        if self.preset is None:
            return own
        preset = media.find_preset(self.preset, media.ending_of(self.output))
        return (*media.read_options(preset.options), *own)

    @property
    def wants_hardware(self) -> bool:
        """Whether the host's hardware is to encode, if it can."""
        if self.hw is not None:
            return self.hw == "auto"
        return self.preset is not None and media.find_preset(self.preset).on_hardware

    @property
    def needs(self) -> list[str]:
        """What a host must have for it."""
        return media.needs_of(self.all_options)


def _check_texts(name: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} must be text or a list of texts")
