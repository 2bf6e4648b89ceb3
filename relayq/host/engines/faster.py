"""faster-whisper: Whisper's models by CTranslate2, on the processor or on a CUDA card."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from importlib import import_module
from itertools import chain, islice
from typing import Any

from relayq.errors import RelayqError
from relayq.host.engines import Heard, Order, weights
from relayq.host.sound import Sound
from relayq.model.transcripts import MODELS, Segment, Word, no_model

_ENGINE = "faster-whisper"


class Faster:
    """A loaded model of faster-whisper."""

    at_once = 0.0

    def __init__(self, order: Order, path: str) -> None:
        self.model = order.model
        self._order = order
        self._path = path
        self._open(_devices()[0])

    def _open(self, device: str) -> None:
        whisper: Any = import_module("faster_whisper")
        # Half the memory of what is stored, and three times as fast, on a processor.
        sort = "default" if device == "cuda" else "int8"
        try:
            self._whisper = whisper.WhisperModel(
                self._path, device=device, compute_type=sort, local_files_only=True
            )
        except (RuntimeError, ValueError) as error:
            if device == "cuda":
                self._fall_back(error)
                return
            raise RelayqError(
                f"the model {self.model} can't be loaded from {self._path}: {error}",
                hint=f"remove {self._path} on this host: it is downloaded again",
            ) from error
        self._device = device
        self.manner = f"{device}, {sort}"

    def _fall_back(self, error: Exception) -> None:
        """Go on with the processor: a card's libraries are often missing, or its memory is."""
        self._order.warn(f"the CUDA card can't be used, so the processor is: {error}")
        self._open("cpu")

    def hear(self, sounds: Sequence[Sound]) -> Generator[Heard, None, None]:
        """Yield what is heard in each sound."""
        for sound in sounds:
            try:
                heard = self._begun(sound)
            except RuntimeError as error:
                if self._device != "cuda":
                    raise _failed(sound, error) from error
                self._fall_back(error)
                heard = self._begun(sound)
            yield heard

    def _begun(self, sound: Sound) -> Heard:
        order = self._order
        language = order.language
        if language is not None and language not in self._whisper.supported_languages:
            known = ", ".join(self._whisper.supported_languages)
            raise RelayqError(f"the model {self.model} doesn't know {language!r}, only {known}")
        asked = {
            "language": language,
            "task": "translate" if order.translate else "transcribe",
            "word_timestamps": order.words,
            "initial_prompt": order.prompt,
            "vad_filter": True,
            **order.options,
        }
        try:
            found, told = self._whisper.transcribe(sound.rewound(), **asked)
        except TypeError as error:
            raise RelayqError(
                f"{_ENGINE} doesn't take {', '.join(order.options)}: {error}"
            ) from error
        except ValueError as error:
            raise _failed(sound, error) from error
        # It computes when its segments are asked for: only the first shows that a card works.
        first = list(islice(found, 1))
        heard = Heard(iter(()), str(told.language))
        heard.segments = self._segments(chain(first, found), sound, heard.pieces)
        return heard

    def _segments(self, found: Iterator[Any], sound: Sound, pieces: list[str]) -> Iterator[Segment]:
        while True:
            try:
                one = next(found, None)
            except (RuntimeError, ValueError) as error:
                raise _failed(sound, error) from error
            if one is None:
                return
            pieces.append(one.text)
            words = tuple(
                Word(
                    float(word.start),
                    float(word.end),
                    word.word.strip(),
                    float(word.probability),
                )
                for word in one.words or ()
            )
            yield Segment(float(one.start), float(one.end), one.text.strip(), words)


def _failed(sound: Sound, error: Exception) -> RelayqError:
    return RelayqError(f"{_ENGINE} can't transcribe {sound.name}: {error}")


def _devices() -> list[str]:
    cards = import_module("ctranslate2").get_cuda_device_count()
    return ["cuda", "cpu"] if cards else ["cpu"]


def load(order: Order) -> Faster:
    """Return the loaded model, downloaded if need be."""
    is_path = order.model.startswith(("/", "~/"))
    path = os.path.expanduser(order.model) if is_path else _found(order)
    if not os.path.isfile(os.path.join(path, "model.bin")):
        raise RelayqError(
            f"{path} is no model of {_ENGINE}: it has no model.bin", hint=f"ls {path}, on this host"
        )
    order.say(f"loading {order.model}", None)
    return Faster(order, path)


def _found(order: Order) -> str:
    if path := weights.find_faster(order.model, order.models, order.environ):
        return path
    here = weights.at_hand(order.models, order.environ).get(_ENGINE, [])
    whisper: Any = import_module("faster_whisper")
    known = {*whisper.available_models(), *MODELS}
    if "/" not in order.model and order.model not in known:
        raise no_model(order.model, here)
    place = os.path.join(order.models, order.model)
    if weights.is_offline(order.environ):
        raise weights.cannot_fetch(order.model, "HF_HUB_OFFLINE is set", place, here)
    order.say(f"downloading {order.model}", None)
    try:
        os.makedirs(order.models, exist_ok=True)
        return str(whisper.download_model(order.model, cache_dir=order.models))
    except Exception as error:  # of three libraries, which share nothing but this
        # The hub goes on with advice that isn't ours.
        why = " ".join(str(error).split()).partition(" An error happened")[0][:200]
        why = why or type(error).__name__
        raise weights.cannot_fetch(order.model, why, place, here) from error
