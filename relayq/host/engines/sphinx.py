"""pocketsphinx: small, quick, offline and English; for keywords and for tests, not for prose."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Generator, Iterator, Sequence
from importlib import import_module
from typing import Any

from relayq.errors import RelayqError
from relayq.host.engines import Heard, Order
from relayq.host.sound import RATE, WIDTH, Sound
from relayq.model.transcripts import DEFAULT_MODEL, Segment, Word, no_model

#: The model that is inside its package.
MODEL = "en-us"
_FRAMES = 100
#: A longer utterance than this is cut, where it is most quiet in its second half.
_LONGEST = 30
_QUIET = RATE // 10
#: A pause that long, in seconds, parts two segments.
_PAUSE = 0.5
#: How sure it has to be of a keyword: less for longer ones, which are rarely said by chance.
_SURE = {1: 1e-10, 2: 1e-20, 3: 1e-30}
_SUREST = 1e-40


class Sphinx:
    """The English model, or one that waits for keywords."""

    manner = "cpu"
    at_once = 0.0

    def __init__(self, order: Order) -> None:
        self.model = MODEL
        self._order = order
        self._options: dict[str, Any] = {"samprate": RATE, "loglevel": "FATAL"}
        if order.keywords:
            self._options["lm"] = None
        self._decoder = self._loaded()
        self._means = self._decoder.get_cmn(False)
        self._check_words()

    def _loaded(self) -> Any:
        decoder = import_module("pocketsphinx").Decoder(**self._options)
        if self._order.keywords:
            with tempfile.NamedTemporaryFile("w", dir=self._order.room or None) as table:
                table.writelines(
                    f"{one.lower()} /{_threshold(one)}/\n" for one in _each(self._order)
                )
                table.flush()
                decoder.add_kws("keywords", table.name)
            decoder.activate_search("keywords")
        return decoder

    def _check_words(self) -> None:
        for keyword in self._order.keywords:
            for word in keyword.lower().split():
                if self._decoder.lookup_word(word) is None:
                    raise RelayqError(
                        f"pocketsphinx doesn't know the word {word!r}, so it can't hear it"
                    )

    def hear(self, sounds: Sequence[Sound]) -> Generator[Heard, None, None]:
        """Yield what is heard in each sound."""
        for sound in sounds:
            yield Heard(self._segments(sound), "en")

    def _segments(self, sound: Sound) -> Iterator[Segment]:
        decoder = self._decoder
        for begin, samples in utterances(sound):
            # What it has got used to in one utterance spoils the next one.
            decoder.reinit_feat()
            decoder.set_cmn(self._means)
            decoder.start_utt()
            decoder.process_raw(samples, full_utt=True)
            decoder.end_utt()
            words = [
                Word(
                    begin + one.start_frame / _FRAMES,
                    begin + (one.end_frame + 1) / _FRAMES,
                    _plain(one.word),
                    min(1.0, float(one.prob)),
                )
                for one in decoder.seg() or ()
            ]
            words.sort(key=lambda one: one.start)
            for said in parted([word for word in words if word.text], bool(self._order.keywords)):
                yield self._segment(said)
            end = begin + len(samples) / (RATE * WIDTH)
            yield Segment(end, end, "")

    def _segment(self, said: Sequence[Word]) -> Segment:
        text = " ".join(word.text for word in said)
        words = tuple(said) if self._order.words else ()
        return Segment(said[0].start, said[-1].end, text, words)


def _each(order: Order) -> list[str]:
    return list(dict.fromkeys(" ".join(one.lower().split()) for one in order.keywords))


def _threshold(keyword: str) -> float:
    return _SURE.get(len(keyword.split()), _SUREST)


def _plain(word: str) -> str:
    """Return a word as it is written; nothing for a noise or a silence."""
    word = word.strip()
    if word.startswith(("<", "[", "+")):
        return ""
    return word.partition("(")[0]


def parted(words: Sequence[Word], each: bool) -> list[list[Word]]:
    """Part words where nobody speaks for a while, or `each` from the next."""
    parts: list[list[Word]] = []
    for word in words:
        if each or not parts or word.start - parts[-1][-1].end >= _PAUSE:
            parts.append([])
        parts[-1].append(word)
    return parts


def utterances(sound: Sound, longest: int = _LONGEST) -> Iterator[tuple[float, bytes]]:
    """Yield the sound in parts that are not too long, with their beginnings in seconds."""
    begin, left = 0.0, b""
    for piece in sound.pieces(longest):
        left += piece
        while len(left) > longest * RATE * WIDTH:
            cut = quietest(left[: longest * RATE * WIDTH])
            yield begin, left[:cut]
            begin, left = begin + cut / (RATE * WIDTH), left[cut:]
    if left:
        yield begin, left


def quietest(samples: bytes) -> int:
    """Return the position, in bytes, of the quietest tenth of a second in the second half."""
    numbers = array("h", samples)
    starts = range(len(numbers) // 2, len(numbers) - _QUIET, _QUIET)
    if not starts:
        return len(samples)
    best = min(starts, key=lambda start: max(map(abs, numbers[start : start + _QUIET])))
    return (best + _QUIET // 2) * WIDTH


def load(order: Order) -> Sphinx:
    """Return the decoder."""
    if order.model not in (DEFAULT_MODEL, MODEL):
        raise no_model(order.model, [MODEL], where="pocketsphinx")
    if order.language not in (None, "en") or order.translate:
        raise RelayqError("pocketsphinx knows English only, and translates nothing")
    if order.options:
        raise RelayqError("pocketsphinx takes no options")
    order.say(f"loading {MODEL}", None)
    return Sphinx(order)
