"""The k-th largest of values that are read in parts: which entries of a tensor are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim.core.errors import UsageError
from repsim.merging.arrays import Array, Part, Stream, namespace, to_numpy

Values = Callable[[], Iterable[Array]]

#: Size of the sample that brackets a cut.
SAMPLE = 1 << 14
#: Entries beyond which what lies in the bracket is too much to hold.
_HELD = 1 << 27
#: Bits that are counted per round.
_DIGIT = 16


class Cut(NamedTuple):
    """The least of some number of largest values.

    Attributes:
        value: That value.
        equal: How many of the values that equal it are among them, by lowest index.
        surplus: How many more values equal it.
    """

    value: float
    equal: int = 0
    surplus: int = 0


def cut_of(stream: Stream, values: Callable[[Part], Array], kept: int) -> Cut:
    """The cut that keeps the `kept` largest of the values of a tensor (of none: infinity).

    As many are kept as are asked for, the first ones of equal values: differences of bfloat16
    weights hold thousands of equal magnitudes.
    """
    if kept >= stream.entries:
        return Cut(0.0, stream.entries)
    if kept == 0:
        return Cut(np.inf)

    def read() -> Iterator[Array]:
        return (values(part) for part in stream.parts())

    some = np.sort(to_numpy(values(stream.sample(max(1, stream.entries // SAMPLE)))))
    found = select(read(), some, stream.entries, kept) if stream.entries <= _HELD else None
    return found or _counted(read, kept)


def select(parts: Iterable[Array], sample: Any, entries: int, kept: int) -> Cut | None:
    """The cut in one pass: only what a sample brackets is selected from; None if it misleads."""
    rank = entries - kept
    place, spread = rank / entries * len(sample), 4 * len(sample) ** 0.5
    low = float(sample[int(place - spread)]) if place > spread else -np.inf
    high = float(sample[int(place + spread)]) if place + spread < len(sample) else np.inf
    below, found = 0, []
    for values in parts:
        inside = values >= low
        below += len(values) - int(namespace(values).count_nonzero(inside))
        inside &= values <= high
        found.append(to_numpy(values[inside]))
    within = np.concatenate(found)
    if not 0 <= rank - below < len(within):
        return None
    cut = np.partition(within, rank - below)[rank - below]
    surplus = rank - below - int(np.count_nonzero(within < cut))
    return Cut(float(cut), int(np.count_nonzero(within == cut)) - surplus, surplus)


def _counted(parts: Values, kept: int) -> Cut:
    """The cut by counting digits: several passes, and nothing held."""
    value = kth_largest(parts, kept)
    more = equal = 0
    for values in map(to_numpy, parts()):
        more += int(np.count_nonzero(values > value))
        equal += int(np.count_nonzero(values == value))
    return Cut(value, kept - more, equal - (kept - more))


def kth_largest(parts: Values, kept: int) -> float:
    """The `kept`-th largest of magnitudes, exactly: floats of one sign order as their bits do.

    The leading bits of all are counted first, then the next bits of those that share the leading
    ones of the value looked for.
    """
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


def model_threshold(deltas: Values, entries: int, densities: Sequence[float], model: str) -> float:
    """The magnitude from which on entries of a whole model's delta are kept; 0 if all are."""
    if len(set(densities)) > 1:
        raise UsageError(
            f"scope 'model' trims model '{model}' by one density, and the recipe gives "
            f"{len(set(densities))} for different tensors",
            hint="give one number, or use scope: tensor",
        )
    kept = max(1, int(densities[0] * entries))
    return 0.0 if kept >= entries else kth_largest(deltas, kept)


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
