"""Parts of files within bounds: cut evenly, put together where they are small, filled level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be analysed: its path below the directory, its bytes and its lines."""

    path: str
    size: int
    sha256: str = ""
    mode: int = 0o644
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many files a part should have, and how many bytes at most; a file may have more."""

    smallest: int
    largest: int
    weight: int

    def holds(self, files: Sequence[SourceFile]) -> bool:
        """Tell whether so many files can be one part."""
        return len(files) <= self.largest and weight_of(files) <= self.weight

    def hold(self, one: Part, other: Part) -> bool:
        """Tell whether two parts can be one."""
        count = len(one.files) + len(other.files)
        return count <= self.largest and one.weight + other.weight <= self.weight

    def is_small(self, part: Part) -> bool:
        """Tell whether a part has fewer files than it should."""
        return len(part.files) < self.smallest


@dataclass(frozen=True)
class Part:
    """Files on their way to a shard; `labels` say what they are, such as their directories."""

    labels: tuple[str, ...]
    files: list[SourceFile]

    @cached_property
    def weight(self) -> int:
        """The bytes of its files."""
        return weight_of(self.files)

    def __add__(self, other: Part) -> Part:
        return Part(self.labels + other.labels, self.files + other.files)


def weight_of(files: Sequence[SourceFile]) -> int:
    """Return the bytes of these files."""
    return sum(file.size for file in files)


def split(part: Part, bounds: Bounds) -> list[Part]:
    """Return a part in pieces that the bounds hold; a file that is too large is one by itself."""
    if bounds.holds(part.files):
        return [part]
    heavy = [file for file in part.files if file.size > bounds.weight]
    rest = [file for file in part.files if file.size <= bounds.weight]
    pieces = [[file] for file in heavy]
    if rest:
        count = max(-(-len(rest) // bounds.largest), -(-weight_of(rest) // bounds.weight))
        for piece in _even(rest, count, bounds):
            pieces += _lightened(piece, bounds)
    return [Part(part.labels, piece) for piece in pieces]


#: The heaviest piece may be so many times as heavy as the mean one.
_UNEVEN = 1.4


def _even(files: Sequence[SourceFile], count: int, bounds: Bounds) -> list[list[SourceFile]]:
    """Return files in so many pieces, or one more where full ones can't be of the same weight."""
    pieces = cut(files, count, bounds)
    if count > 1 and _unevenness(pieces) > _UNEVEN and len(files) > count * bounds.smallest:
        more = cut(files, count + 1, bounds)
        pieces = min(pieces, more, key=_unevenness)
    return pieces


def _unevenness(pieces: Sequence[Sequence[SourceFile]]) -> float:
    weights = [weight_of(piece) for piece in pieces]
    return max(weights) * len(weights) / max(1, sum(weights))


def _lightened(files: Sequence[SourceFile], bounds: Bounds) -> list[list[SourceFile]]:
    """Return files in pieces that aren't too heavy, in halves of halves."""
    if bounds.holds(files) or len(files) < 2:
        return [list(files)]
    loose = Bounds(1, bounds.largest, bounds.weight)
    return [piece for half in cut(files, 2, loose) for piece in _lightened(half, bounds)]


def cut(files: Sequence[SourceFile], count: int, bounds: Bounds) -> list[list[SourceFile]]:
    """Return files in so many pieces of about the same weight, in their order.

    Each piece has a number of files within the bounds where that can be, at least one.
    """
    low = max(1, min(bounds.smallest, len(files) // count))
    high = max(bounds.largest, -(-len(files) // count))
    if count < 2 or len(files) < 2:
        return [list(files)]
    count = min(count, len(files))
    left = count // 2
    start = max(left * low, len(files) - (count - left) * high)
    end = min(left * high, len(files) - (count - left) * low)
    sums = list(accumulate((file.size for file in files), initial=0))
    wanted = sums[-1] * left / count
    middle = len(files) * left / count  # where the weights leave it open
    at = min(range(start, end + 1), key=lambda n: (abs(sums[n] - wanted), abs(n - middle)))
    return cut(files[:at], left, bounds) + cut(files[at:], count - left, bounds)


def merged(parts: Sequence[Part], bounds: Bounds) -> list[Part]:
    """Return neighbours with the small ones among them put together, as far as that helps."""
    enough = [part for part in parts if not bounds.is_small(part)]
    wanted = (bounds.smallest + bounds.largest) // 2
    joined: list[Part] = []
    for part in parts:
        if not bounds.is_small(part):
            continue
        # The last one first: it is the nearest.
        for n in reversed(range(len(joined))):
            count = len(joined[n].files) + len(part.files)
            is_better = bounds.is_small(joined[n]) or count <= wanted
            if is_better and bounds.hold(joined[n], part):
                joined[n] += part
                break
        else:
            joined.append(part)
    enough += [part for part in joined if not bounds.is_small(part)]
    return _placed(enough, [part for part in joined if bounds.is_small(part)], bounds)


def _placed(enough: list[Part], small: Sequence[Part], bounds: Bounds) -> list[Part]:
    """Return the parts, the small ones each added to that with the fewest files that has room."""
    left = []
    for part in small:
        open_ = [n for n, one in enumerate(enough) if bounds.hold(one, part)]
        if not open_:
            left.append(part)
            continue
        best = min(open_, key=lambda n: (len(enough[n].files), enough[n].weight, n))
        enough[best] += part
    return enough + left


def settled(parts: Sequence[Part], bounds: Bounds) -> list[Part]:
    """Return parts of which none is small that needn't be.

    A small one that fits nowhere shares with another: the two are cut anew in the middle.
    """
    found = merged(parts, bounds)
    while (shared := _shared(found, bounds)) is not None:
        found = merged(shared, bounds)
    return found


def _shared(parts: Sequence[Part], bounds: Bounds) -> list[Part] | None:
    """Return the parts with a small one and another cut anew, None if that helps none."""
    for part in parts:
        if not bounds.is_small(part):
            continue
        for other in parts:
            is_enough = len(part.files) + len(other.files) >= 2 * bounds.smallest
            if not is_enough or part.weight + other.weight > 2 * bounds.weight or other is part:
                continue
            both = sorted(other.files + part.files, key=lambda file: file.path)
            pieces = cut(both, 2, bounds)
            if all(len(one) >= bounds.smallest and bounds.holds(one) for one in pieces):
                labels = other.labels + part.labels
                rest = [one for one in parts if one is not part and one is not other]
                return [*rest, *(Part(labels, piece) for piece in pieces)]
    return None


def level(files: Sequence[SourceFile], bounds: Bounds) -> list[list[SourceFile]]:
    """Return files in parts of about the same weight, whatever belongs together."""
    heavy = [[file] for file in files if file.size > bounds.weight]
    rest = [file for file in files if file.size <= bounds.weight]
    count = max(-(-len(rest) // bounds.largest), -(-weight_of(rest) // bounds.weight))
    while rest:
        filled = _filled(rest, count, bounds)
        if filled is not None:
            return heavy + filled
        count += 1
    return heavy


def _filled(
    files: Sequence[SourceFile], count: int, bounds: Bounds
) -> list[list[SourceFile]] | None:
    """Return so many parts, the heaviest file first into the lightest part; None if one is full."""
    parts: list[list[SourceFile]] = [[] for _ in range(count)]
    weights = [0] * count
    for file in sorted(files, key=lambda one: (-one.size, one.path)):
        open_ = [
            n
            for n in range(count)
            if len(parts[n]) < bounds.largest and weights[n] + file.size <= bounds.weight
        ]
        if not open_:
            return None
        best = min(open_, key=lambda n: (weights[n], len(parts[n]), n))
        parts[best].append(file)
        weights[best] += file.size
    found = [part for part in parts if part]
    for part in found:
        while len(part) < bounds.smallest and _give(found, part, bounds):
            pass
    return found


def _give(parts: Sequence[list[SourceFile]], to: list[SourceFile], bounds: Bounds) -> bool:
    """Move the lightest file of the part with the most files into one that has too few."""
    source = max(parts, key=len)
    file = min(source, key=lambda one: (one.size, one.path))
    if len(source) <= bounds.smallest or weight_of(to) + file.size > bounds.weight:
        return False
    source.remove(file)
    to.append(file)
    return True
