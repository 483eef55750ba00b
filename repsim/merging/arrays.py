"""Arrays of numpy or torch under the same names, and one tensor of several models read in parts."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

#: An array of numpy or a tensor of torch: methods use what both have.
Array = Any
#: Entries that are merged at a time. What a method holds of them fits the caches of a core, and an
#: array of them is small enough for the allocator to keep: with twice as many, SLERP takes 100,000
#: page faults for half a gigabyte, and up to half again the processor time.
PART = 1 << 15
#: Entries whose products are added up in the type of the tensors; their sums are, in float64.
_ROW = 1 << 12
#: Types in safetensors files -> numpy's; bfloat16 is the upper half of a float32.
_STORED = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def is_torch(array: Array) -> bool:
    """Whether an array is torch's, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def namespace(array: Array) -> Any:
    """The module of an array: numpy or torch."""
    return sys.modules["torch"] if is_torch(array) else np


def cast(array: Array, kind: str) -> Array:
    """An array in "float32" or "float64"; no copy where it is that already."""
    if is_torch(array):
        return array.to(getattr(namespace(array), kind))
    return array.astype(kind, copy=False)


def kind_of_array(array: Array) -> str:
    """Name of the type of the entries, without the name of the library."""
    return _name_of(array.dtype)


@functools.cache
def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def to_numpy(array: Array) -> Any:
    """An array as one of numpy, on the CPU."""
    return array.detach().cpu().numpy() if is_torch(array) else array


def like(values: Array, other: Array) -> Array:
    """Values of either library in the library and on the device of another array."""
    if not is_torch(other):
        return to_numpy(values)
    torch = namespace(other)
    found = values if is_torch(values) else torch.from_numpy(np.ascontiguousarray(values))
    return found.to(other.device)


def is_finite(array: Array) -> bool:
    """Whether no entry is NaN or infinite; only a sum that is not finite is looked into."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(float(array.sum())) or bool(namespace(array).isfinite(array).all())


def widen(stored: Array, kind: str) -> Array:
    """Entries of a file in the type of the computation; no copy where they are."""
    if stored.dtype == np.uint16:
        bits = stored.astype(np.uint32)
        bits <<= np.uint32(16)
        stored = bits.view(np.float32)
    return stored.astype(kind, copy=False)


def narrow(merged: Array, dtype: str) -> tuple[Any, bool]:
    """Entries as a file stores them, rounded once to nearest even; whether all are finite."""
    values = to_numpy(merged)
    if dtype != "BF16":
        stored = values.astype(_STORED[dtype], copy=False)
        return stored, bool(np.isfinite(stored).all())
    finite = bool(np.isfinite(values).all())
    bits = values.astype(np.float32, copy=False).view(np.uint32)
    half = np.uint32(16)
    rounded = bits >> half
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= half
    stored = rounded.astype("<u2")
    exponents = stored & np.uint16(0x7F80)
    return stored, finite and not bool((exponents == np.uint16(0x7F80)).any())


def stored_array(source: Any, dtype: str, start: int, entries: int) -> Any:
    """Entries of a memory map in their stored type, flat and without a copy."""
    return np.frombuffer(source, dtype=_STORED[dtype], count=entries, offset=start)


def flat_array(tensor: Array) -> Any:
    """A tensor of torch as `stored_array` gives one."""
    torch = namespace(tensor)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return (
        flat.view(torch.int16).numpy().view("<u2") if flat.dtype == torch.bfloat16 else flat.numpy()
    )


# -- a tensor of several models ------------------------------------------------------------------


class Part(NamedTuple):
    """Some entries of one tensor of all models, flat."""

    start: int  # First of them, counted in the flattened tensor
    stop: int  # One after the last
    tensors: list[Array]  # One array per model; not to be written to
    base: Array | None  # The base's, None if there is none

    @property
    def deltas(self) -> list[Array]:
        """Differences to the base, in memory of their own."""
        return [tensor - self.base for tensor in self.tensors]


@dataclasses.dataclass(frozen=True)
class Stream:
    """One tensor of several models that is read in parts, as often as a method needs.

    Attributes:
        stored: One flat array per model, the base last.
        shape: Shape of the tensor.
        has_base: Whether the last array is a base.
        load: Brings some stored entries into the type and to the device of the computation.
        size: Entries per part.
    """

    stored: Sequence[Array]
    shape: tuple[int, ...]
    has_base: bool = False
    load: Callable[[Array], Array] = lambda array: array
    size: int = PART

    @property
    def entries(self) -> int:
        """Number of entries of the tensor."""
        return math.prod(self.shape)

    @property
    def models(self) -> int:
        """Number of models besides the base."""
        return len(self.stored) - self.has_base

    def parts(self, width: int = 1) -> Iterator[Part]:
        """All entries in order, a whole number of runs of `width` entries at a time."""
        step = max(1, self.size // width) * width
        for start in range(0, self.entries, step):
            arrays = [self.load(each[start : start + step]) for each in self.stored]
            base = arrays.pop() if self.has_base else None
            yield Part(start, min(start + step, self.entries), arrays, base)

    def sample(self, step: int) -> Part:
        """Every `step`-th entry."""
        arrays = [self.load(each[::step]) for each in self.stored]
        base = arrays.pop() if self.has_base else None
        return Part(0, self.entries, arrays, base)

    def whole(self, model: int) -> Array:
        """The tensor of one model (-1: of the base) in its shape, for what needs it whole."""
        return self.load(self.stored[model][:]).reshape(self.shape)

    def gathered(self, values: Iterable[Array]) -> Array:
        """Flat parts as one array in the shape of the tensor."""
        found = list(values)
        whole = found[0] if len(found) == 1 else namespace(found[0]).concatenate(found)
        return whole.reshape(self.shape)


# -- combinations --------------------------------------------------------------------------------

Vectors = Literal["tensors", "deltas"]
Along = Literal["tensor", "row", "column"]


def weighted_sum(arrays: Sequence[Array], weights: Sequence[Any]) -> Array:
    """Sum of `w_i * array_i`, in memory of its own."""
    total = arrays[0] * weights[0]
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total += array if isinstance(weight, float) and weight == 1 else array * weight
    return total


def mean_of(stream: Stream, vectors: Vectors = "tensors") -> Iterator[Array]:
    """Parts of the plain mean of tensors or of their differences to the base."""
    weights = [1 / stream.models] * stream.models
    return (weighted_sum(getattr(part, vectors), weights) for part in stream.parts())


def width_of(stream: Stream, along: Along) -> int:
    """Entries that belong together where a tensor is read for its rows or columns."""
    if along == "tensor" or not stream.shape:
        return 1
    return stream.shape[-1] if along == "row" else max(1, math.prod(stream.shape[1:]))


def gram(
    stream: Stream, vectors: Vectors = "tensors", along: Along = "tensor", *, exact: bool = True
) -> Any:
    """Inner products of the models, float64 `[models, models, k]`: of all, per row, per column."""
    count = stream.models
    pairs = [(i, j) for i in range(count) for j in range(i + 1)]

    def of_part(part: Part) -> Iterator[tuple[Array, Array]]:
        arrays = getattr(part, vectors)
        wide = [cast(array, "float64") for array in arrays] if exact else arrays
        return ((wide[i], wide[j]) for i, j in pairs)

    lower = products(stream, of_part, along)
    whole = np.empty((count, count, lower.shape[-1]))
    for place, (i, j) in enumerate(pairs):
        whole[i, j] = whole[j, i] = lower[place]
    return whole


def products(
    stream: Stream, pairs: Callable[[Part], Iterable[tuple[Array, Array]]], along: Along
) -> Any:
    """Inner products of some pairs of arrays of each part, float64 `[pairs, k]`."""
    width = width_of(stream, along)
    found: list[Any] = []
    for part in stream.parts(width):
        own = np.array([inner_products(x, y, along, width) for x, y in pairs(part)])
        if along == "row" or not found:
            found.append(own)
        else:
            found[0] = found[0] + own
    return np.concatenate(found, axis=-1)


def inner_products(x: Array, y: Array, along: Along, width: int) -> Any:
    """Inner products of one part; in short rows, so that the number of threads does not matter."""
    if along == "column":
        return to_numpy(cast(x * y, "float64").reshape(-1, width).sum(0))
    if along == "row":
        return to_numpy(cast(_dot(x.reshape(-1, width), y.reshape(-1, width)), "float64"))
    whole = len(x) // _ROW * _ROW
    rows = cast(_dot(x[:whole].reshape(-1, _ROW), y[:whole].reshape(-1, _ROW)), "float64")
    return [float(rows.sum()) + float(_dot(x[whole:], y[whole:]))]


def squares_of(x: Array) -> float:
    """Sum of squares, float64 from sums of short rows on."""
    return float(inner_products(x, x, "tensor", 1)[0])


def bounded(array: Array, low: float | None = None, high: float | None = None) -> Array:
    """An array whose entries are raised to `low` and lowered to `high`, in its own memory."""
    if is_torch(array):
        return array.clamp_(low, high)
    if low is not None:
        np.maximum(array, low, out=array)
    if high is not None:
        np.minimum(array, high, out=array)
    return array


def _dot(x: Array, y: Array) -> Array:
    if is_torch(x):
        return (x * y).sum(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.vecdot(x, y)


def combined(
    stream: Stream, shares: Sequence[Any], vectors: Vectors = "tensors", along: Along = "tensor"
) -> Iterator[Array]:
    """Parts of a sum of tensors, or of base and differences, by shares (of rows, columns)."""
    width = width_of(stream, along)
    for part in stream.parts(width):
        arrays = getattr(part, vectors)
        if along == "tensor":
            merged = weighted_sum(arrays, shares)
        else:
            own = [_broadcast(share, part, along, width, arrays[0]) for share in shares]
            rows = [array.reshape(-1, width) for array in arrays]
            merged = weighted_sum(rows, own).reshape(-1)
        if vectors == "deltas":
            merged += part.base
        yield merged


def _broadcast(share: Any, part: Part, along: Along, width: int, other: Array) -> Array:
    if along == "row":
        share = share[part.start // width : part.stop // width, None]
    return cast(like(share, other), kind_of_array(other))
