"""A Whisper model of random weights, small enough to be made in a second: real files, no sense.

It is what faster-whisper loads: CTranslate2's model.bin, a tokenizer, the preprocessor's settings.
"""

from __future__ import annotations

import json
from pathlib import Path

_WIDTH = 64
_MELS = 80
#: Plain tokens, then what Whisper has at the end of its vocabulary.
_PLAIN = 50_257
_LANGUAGES = 99
_TIMES = 1501


def _letters():
    """Return the letters that GPT-2 has for the 256 bytes; a space is \u0120."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [*map(chr, seen), *(chr(256 + number) for number in range(len(hidden)))]


def _special(languages: list[str]) -> list[str]:
    marks = "<|translate|> <|transcribe|> <|startoflm|> <|startofprev|> <|nospeech|>".split()
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{one}|>" for one in languages),
        *marks,
        "<|notimestamps|>",
        *(f"<|{number * 0.02:.2f}|>" for number in range(_TIMES)),
    ]


def build(folder: Path) -> Path:
    """Write the model into a directory."""
    from ctranslate2.specs import whisper_spec
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    languages = [one for one in _LANGUAGE_CODES if one != "yue"][:_LANGUAGES]
    letters = _letters()
    words = (f"\u0120w{number}" for number in range(_PLAIN - len(letters)))
    vocabulary = [*letters, *words, *_special(languages)]
    folder.mkdir(parents=True, exist_ok=True)
    spec = whisper_spec.WhisperSpec(2, 2, 2, 2)
    Weights().fill(spec, len(vocabulary))
    spec.register_vocabulary(vocabulary)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [vocabulary.index(f"<|{one}|>") for one in languages]
    spec.config.alignment_heads = [(1, 0)]
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(vocabulary)))
    settings = {"feature_size": _MELS, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


class Weights:
    """Random weights, the same each time."""

    def __init__(self):
        import numpy

        self._numpy = numpy
        self._random = numpy.random.default_rng(7)

    def fill(self, spec, tokens):
        """Give a Whisper model all that it must have."""
        encoder, decoder = spec.encoder, spec.decoder
        for convolution, width in ((encoder.conv1, _MELS), (encoder.conv2, _WIDTH)):
            convolution.weight = self._some(_WIDTH, width, 3)
            convolution.bias = self._some(_WIDTH)
        encoder.position_encodings.encodings = self._some(1500, _WIDTH)
        decoder.position_encodings.encodings = self._some(448, _WIDTH)
        decoder.embeddings.weight = self._some(tokens, _WIDTH)
        decoder.projection.weight = decoder.embeddings.weight
        for side in (encoder, decoder):
            self._norm(side.layer_norm)
            for layer in side.layer:
                self._attention(layer.self_attention, (3,))
                if side is decoder:
                    self._attention(layer.attention, (1, 2))
                self._linear(layer.ffn.linear_0, 4 * _WIDTH, _WIDTH)
                self._linear(layer.ffn.linear_1, _WIDTH, 4 * _WIDTH)
                self._norm(layer.ffn.layer_norm)

    def _some(self, *shape):
        numbers = self._random.standard_normal(shape, dtype=self._numpy.float32)
        return numbers * self._numpy.float32(0.05)

    def _attention(self, attention, parts):
        for linear, part in zip(attention.linear, (*parts, 1), strict=True):
            self._linear(linear, part * _WIDTH, _WIDTH)
        self._norm(attention.layer_norm)

    def _linear(self, linear, rows, columns):
        linear.weight, linear.bias = self._some(rows, columns), self._some(rows)

    def _norm(self, norm):
        norm.gamma = self._numpy.ones(_WIDTH, dtype=self._numpy.float32)
        norm.beta = self._some(_WIDTH)


def _tokenizer(vocabulary):
    """Return a tokenizer that knows the plain tokens as they are, each a word of its own."""
    special = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, token in enumerate(vocabulary)
        if number >= _PLAIN
    ]
    plain = {token: number for number, token in enumerate(vocabulary[:_PLAIN])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "vocab": plain,
            "merges": [],
        },
    }
