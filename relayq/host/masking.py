"""Secrets on their way out of a job: given to its command, and hidden in what that writes.

What is written is looked at before it reaches the disk, whole or in pieces, as it is and in the
encodings that programs print by themselves. Standard library only: the shim imports this module.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from relayq.host import spool
from relayq.host.spool import Facts
from relayq.host.stages import Step
from relayq.host.written import Output
from relayq.model.output import STDERR, STDOUT

HIDDEN = b"***"
#: The names of the secrets in a job's environment, for programs of ours that pass them on.
NAMES = "RELAYQ_SECRETS"

Begin = Callable[[Facts, Output], Step]


def forms(value: str) -> frozenset[bytes]:
    """Return a secret as it may be written: itself, in JSON, in a URL, and in base64."""
    raw = value.encode()
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    lower = {_lower_escapes(one) for one in quoted}
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    texts = {one.encode() for one in quoted | lower | escaped}
    return frozenset({raw, *texts, *_in_base64(raw)})


def of_job(environ: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """Return the secrets of the job whose environment this is, and what of them is hidden."""
    names = environ.get(NAMES, "").split(",")
    own = {name: environ[name] for name in names if name in environ}
    return own, {form.decode() for value in own.values() for form in forms(value)}


def _lower_escapes(text: str) -> str:
    head, *rest = text.split("%")
    return "%".join([head, *(one[:2].lower() + one[2:] for one in rest)])


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """Yield it in base64, alone and within a longer text: where that begins makes three forms."""
    yield base64.b64encode(raw)
    yield base64.urlsafe_b64encode(raw)
    for before in range(3):
        # Only the letters that depend on nothing but the secret.
        first, end = -(-8 * before // 6), 8 * (before + len(raw)) // 6
        padded = b"\0" * before + raw
        yield base64.b64encode(padded)[first:end]
        yield base64.urlsafe_b64encode(padded)[first:end]


class Hider:
    """Hides secrets in streams that come in pieces, each channel by itself.

    It holds back only what may be the beginning of a secret, until more is known.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = sorted({form for value in values for form in forms(value)}, key=len)
        self._held: dict[int, bytes] = {}
        #: How many bytes of what is held belong to a secret that was hidden already.
        self._covered: dict[int, int] = {}

    def feed(self, channel: int, data: bytes) -> bytes:
        """Return what may be written now."""
        held = self._held.get(channel, b"") + data
        return self._release(channel, held, len(held) - self._open_end(held))

    def rest(self, channel: int) -> bytes:
        """Return what is left at the end: the beginning of a secret without its end."""
        held = self._held.get(channel, b"")
        return self._release(channel, held, len(held))

    def _release(self, channel: int, held: bytes, cut: int) -> bytes:
        covered = self._covered.get(channel, 0)
        shown, at = [], 0
        for start, end in self._spans(held, covered):
            if start >= cut:
                break
            shown.append(held[at:start])
            if start > 0 or not covered:
                shown.append(HIDDEN)
            at = end
        shown.append(held[at:cut])
        self._held[channel] = held[cut:]
        self._covered[channel] = max(0, max(at, covered) - cut)
        return b"".join(shown)

    def _spans(self, held: bytes, covered: int) -> Iterator[tuple[int, int]]:
        """Yield where secrets are, those that overlap as one; the first ends a hidden one."""
        found = [(0, covered)] if covered else []
        for form in self._forms:
            at = held.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = held.find(form, at + 1)
        found.sort()
        while found:
            start, end = found.pop(0)
            while found and found[0][0] < end:
                end = max(end, found.pop(0)[1])
            yield start, end

    def _open_end(self, held: bytes) -> int:
        """Return how many of the last bytes may be the beginning of a secret."""
        longest = 0
        for form in self._forms:
            at = held.find(form[:1], max(0, len(held) - len(form) + 1))
            while at >= 0:
                if form.startswith(held[at:]):
                    longest = max(longest, len(held) - at)
                    break
                at = held.find(form[:1], at + 1)
        return longest


def given(begin: Begin) -> Begin:
    """Return what begins a command with the secrets that it asks for, and hides them."""

    def begin_with_secrets(command: Facts, output: Output) -> Step:
        asked = command.get("secrets")
        if not asked:
            return begin(command, output)
        values = command.get("given") or {}
        if missing := [name for name in asked["names"] if name not in values]:
            return _Refused(f"it was not given its secrets: {', '.join(missing)}")
        env = {**command["env"], **values, NAMES: ",".join(values)}
        output.hider = Hider(values.values())
        return _Hidden(begin({**command, "env": env}, output), output)

    return begin_with_secrets


class _Hidden:
    """A step of which nothing is written that is secret."""

    def __init__(self, step: Step, output: Output) -> None:
        self._step = step
        self._output = output

    def run(self) -> Facts:
        """Take it to its end, and write what was held back."""
        record = self._step.run()
        for channel in (STDOUT, STDERR):
            self._output.flush(channel)
        return {**record, "output_bytes": self._output.size, "dropped_bytes": self._output.dropped}


class _Refused:
    """A step that can't begin, since its secrets can't be had."""

    def __init__(self, error: str) -> None:
        self._error = error

    def run(self) -> Facts:
        """Say so."""
        return spool.unstarted("spawn", self._error)
