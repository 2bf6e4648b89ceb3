"""The engines that turn sound into words, each in a module of its own, imported when it is used.

An engine is opened with an order and told of one sound after the other: what it loads, it loads
once. It runs inside the job of `relayq.host.transcribing`, never in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any, Protocol

from relayq.errors import RelayqError
from relayq.model.transcripts import AUTO, DEFAULT_MODEL, ENGINES, WHISPERS, Segment

if TYPE_CHECKING:
    from relayq.host.sound import Sound

#: What shows that an engine is installed: a Python module, or a program.
_MODULES = {"faster-whisper": "faster_whisper", "pocketsphinx": "pocketsphinx"}
_PROGRAMS = {"whisper.cpp": "whisper-cli"}
_WHERE = {"faster-whisper": "faster", "whisper.cpp": "cpp", "pocketsphinx": "sphinx"}


@dataclass(frozen=True, slots=True)
class Order:
    """What an engine is asked to do with every sound.

    `models` is this host's directory of models, `environ` has the hub's variables, `room` is a
    directory for files that are gone when the job has ended. `say` tells of what takes long before
    the first sound: a text, and how far that is, if known.
    """

    model: str = DEFAULT_MODEL
    language: str | None = None
    words: bool = False
    translate: bool = False
    prompt: str | None = None
    keywords: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    models: str = ""
    room: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str, float | None], None] = lambda text, fraction: None
    warn: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class Heard:
    """What an engine makes of one sound: its segments as they come, and then its language.

    A segment without text only says how far the engine is. `text` is what joins the segments
    better than spaces do, if the engine knows; both are there once the segments are.
    """

    segments: Iterator[Segment]
    language: str = ""
    pieces: list[str] = field(default_factory=list)


class Engine(Protocol):
    """A loaded engine.

    `model` is what its model is called, `manner` how it is run, such as "cpu, int8". It hears
    several inputs `at_once`, up to so many seconds of sound together; 0 means one at a time.
    """

    model: str
    manner: str
    at_once: float

    def hear(self, sounds: Sequence[Sound]) -> Generator[Heard, None, None]:
        """Yield what is heard in each sound; its segments are read before the next one."""


def has(engine: str) -> bool:
    """Whether this engine is installed here."""
    if engine in _MODULES:
        return find_spec(_MODULES[engine]) is not None
    return which(_PROGRAMS[engine]) is not None


def choose(asked: str, model: str, models: str, environ: Mapping[str, str]) -> str:
    """Return the engine for an order: of those that are here the first that has the model."""
    from relayq.host.engines import weights

    if asked != AUTO:
        if not has(asked):
            raise missing(asked)
        return asked
    here = [engine for engine in WHISPERS if has(engine)]
    if not here:
        raise missing(WHISPERS[0])
    is_here = {
        "faster-whisper": lambda: weights.find_faster(model, models, environ),
        "whisper.cpp": lambda: weights.find_cpp(model, models),
    }
    return next((engine for engine in here if is_here[engine]()), here[0])


def missing(engine: str) -> RelayqError:
    """Return the error for an engine that isn't installed here."""
    return RelayqError(f"{engine} isn't installed on this host", hint=ENGINES[engine])


def load(engine: str, order: Order) -> Engine:
    """Return the engine with its model loaded."""
    opened: Engine = import_module(f"relayq.host.engines.{_WHERE[engine]}").load(order)
    return opened
