"""The k-th largest of values that are read in parts: which entries of a tensor are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim.core.errors import UsageError
from repsim.merging.arrays import Array, Part, Stream, namespace, to_numpy

Values = Callable[[], Iterable[Array]]

#: Entries per entry of the sample that brackets cuts, and the least and largest size of a sample.
SHARE, LEAST, MOST = 256, 1 << 14, 1 << 20
#: Bits that are counted per round.
_DIGIT = 16


class Cut(NamedTuple):
    """The least of some number of largest values."""

    value: float  # Smallest value that is kept
    equal: int = 0  # How many of the values that equal it are among them, by lowest index
    surplus: int = 0  # How many more values equal it


def sample_step(entries: int) -> int:
    """Every how many entries one is looked at beforehand; odd, so that rows take turns."""
    return max(1, entries // min(max(entries // SHARE, LEAST), MOST)) | 1


def cuts_of(
    stream: Stream,
    values: Callable[[Part], Sequence[Array]],
    kept: Sequence[Sequence[int]],
    *,
    sample: Sequence[Array] | None = None,
    width: int = 1,
) -> list[list[Cut]]:
    """The cuts that keep so many largest values, of equal ones the first, all in one pass."""
    some = sample or values(stream.sample(sample_step(stream.entries)))
    searches = [
        [_Search(np.sort(to_numpy(own)), stream.entries, count) for count in counts]
        for own, counts in zip(some, kept, strict=True)
    ]
    if any(search.cut is None for own in searches for search in own):
        for part in stream.parts(width):
            for own, array in zip(searches, values(part), strict=True):
                for search in own:
                    search.look(array)

    def read(place: int) -> Iterator[Array]:
        return (values(part)[place] for part in stream.parts(width))

    return [
        [search.found() or _counted(lambda at=place: read(at), search.kept) for search in own]  # type: ignore[misc]
        for place, own in enumerate(searches)
    ]


class _Search:
    """One cut in one pass between two values of a sample, whose equals are counted, not held."""

    def __init__(self, sample: Any, entries: int, kept: int) -> None:
        self.kept = kept
        self.cut: Cut | None = None
        if kept >= entries:
            self.cut = Cut(0.0, entries)
        elif kept == 0:
            self.cut = Cut(np.inf)
        else:
            self._rank = entries - kept
            place, spread = self._rank / entries * len(sample), 4 * len(sample) ** 0.5
            self._low = float(sample[int(place - spread)]) if place > spread else -np.inf
            high = int(place + spread)
            self._high = float(sample[high]) if high < len(sample) else np.inf
            self._below = self._at_low = self._at_high = 0
            self._within: list[Any] = []

    def look(self, values: Array) -> None:
        """Take account of a part."""
        if self.cut is not None:
            return
        xp = namespace(values)
        inside = values > self._low
        above = int(xp.count_nonzero(inside))
        at_low = 0 if self._low == -np.inf else int(xp.count_nonzero(values == self._low))
        self._at_low += at_low
        self._below += len(values) - above - at_low
        if self._high > self._low:
            inside &= values < self._high
            self._within.append(to_numpy(values[inside]))
            if self._high < np.inf:
                self._at_high += int(xp.count_nonzero(values == self._high))

    def found(self) -> Cut | None:
        """The cut; None if the sample misled."""
        if self.cut is not None:
            return self.cut
        rank, value = self._rank - self._below, self._low
        equal = self._at_low
        if rank >= equal:
            rank -= equal
            within = np.concatenate(self._within) if self._within else np.zeros(0)
            if 0 <= rank < len(within):
                value = float(np.partition(within, rank)[rank])
                equal = int(np.count_nonzero(within == value))
                rank -= int(np.count_nonzero(within < value))
            else:
                rank, value, equal = rank - len(within), self._high, self._at_high
        if not 0 <= rank < equal:
            return None
        return Cut(value, equal - rank, rank)


def _counted(parts: Values, kept: int) -> Cut:
    """The cut by counting digits: several passes, and nothing held."""
    value = kth_largest(parts, kept)
    more = equal = 0
    for values in map(to_numpy, parts()):
        more += int(np.count_nonzero(values > value))
        equal += int(np.count_nonzero(values == value))
    return Cut(value, kept - more, equal - (kept - more))


def kth_largest(parts: Values, kept: int) -> float:
    """The `kept`-th largest of magnitudes, exactly, by radix selection on their bits."""
    first = next((to_numpy(values) for values in parts()), np.zeros(0, np.float32))
    bits = first.dtype.itemsize * 8
    kind = np.uint32 if bits == 32 else np.uint64
    prefix, rest, remaining = 0, bits, kept
    while rest > 0:
        counts = np.zeros(1 << _DIGIT, dtype=np.int64)
        for values in parts():
            found = np.abs(to_numpy(values)).reshape(-1).view(kind)
            if rest < bits:
                found = found[(found >> kind(rest)) == prefix]
            digits = (found >> kind(rest - _DIGIT)) & kind((1 << _DIGIT) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=1 << _DIGIT)
        if kept < 1 or counts.sum() < remaining:
            raise UsageError(f"no entry of rank {kept}: there are fewer, or the rank is below 1")
        above = np.concatenate([[0], np.cumsum(counts[::-1])])
        place = int(np.searchsorted(above[1:], remaining))
        remaining -= int(above[place])
        prefix = (prefix << _DIGIT) | ((1 << _DIGIT) - 1 - place)
        rest -= _DIGIT
    return float(np.array(prefix, kind).view(first.dtype))


class Kept:
    """Marks the entries that a cut keeps, part by part; of those at it, the first ones."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self._left = cut.equal

    def __call__(self, values: Array) -> Array:
        """Boolean array; all parts of a tensor are to be given in order."""
        kept = values >= self.cut.value
        if self.cut.surplus:
            at_cut = np.flatnonzero(to_numpy(values == self.cut.value))
            kept[at_cut[self._left :]] = False
            self._left = max(0, self._left - len(at_cut))
        return kept
