"""The methods that are asked for most, in numpy: merging on a CPU need not import torch for them.

Importing torch takes longer than merging half a gigabyte. Each function here is the definition of
the method of the same name, taken in parts of a tensor, so that it suits the caches of a CPU and
holds no whole tensor. `tests/unit/merging/test_arrays.py` holds them against those definitions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from repsim.merging.base import TensorContext
from repsim.merging.methods.averaging import divisor_of
from repsim.merging.methods.selection import (
    SAMPLE,
    Selected,
    check_density,
    select,
)
from repsim.merging.methods.spherical import (
    ANTIPODAL_NOTE,
    NEARLY_PARALLEL,
    TINY,
    ZERO_NOTE,
    check_share,
)
from repsim.merging.methods.task_vectors import CANCELLED_NOTE, ZERO_WEIGHT

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Parts = Iterator[list[Array]]

#: Entries whose products are added up in the type of the tensors; their sums are, in float64.
ROW = 1 << 12
#: Cosine from which on an angle hangs on digits that float32 lacks.
CLOSE = 0.999


class Streamed(Protocol):
    """One tensor of several models that is read in parts, as often as needed."""

    @property
    def entries(self) -> int:
        """Number of entries."""
        ...

    def parts(self) -> Parts:
        """Flat parts: one array per model, the base last; float32 or float64, not to be written."""
        ...

    def sample(self, step: int) -> list[Array]:
        """Every `step`-th entry of each model, the base last."""
        ...


class ArrayMethod(NamedTuple):
    """A merge method on arrays.

    Attributes:
        merge: `f(tensor, values, context)` -> merged parts, in the order of `tensor.parts()`.
        fits: Whether it covers these values of the method's parameters.
    """

    merge: Callable[[Streamed, Mapping[str, Any], TensorContext], Iterable[Array]]
    fits: Callable[[Mapping[str, Any]], bool]


def weighted_sum(tensors: Sequence[Array], weights: Sequence[float]) -> Array:
    """Sum of `w_i * tensor_i`.

    Example:
        >>> import numpy as np
        >>> weighted_sum([np.ones(2), np.array([1.0, 2.0])], [0.5, 2.0]).tolist()
        [2.5, 4.5]
    """
    total: Array = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += tensor if weight == 1 else tensor * weight
    return total


def linear(tensor: Streamed, values: Mapping[str, Any], context: TensorContext) -> Iterator[Array]:
    """Weighted average."""
    weights = values["weight"]
    divisor = divisor_of(weights, context.name) if values["normalize"] else None
    for tensors in tensor.parts():
        merged = weighted_sum(tensors, weights)
        if divisor is not None:
            merged /= divisor
        yield merged


def task_arithmetic(
    tensor: Streamed, values: Mapping[str, Any], context: TensorContext
) -> Iterator[Array]:
    """Weighted sum of the differences to the base."""
    weights, scale = values["weight"], values["lambda"]
    divisor = sum(weights) if values["normalize"] else 1.0
    if abs(divisor) < ZERO_WEIGHT:
        context.note(CANCELLED_NOTE)
        divisor = 1.0
    for *tensors, base in tensor.parts():
        merged = weighted_sum([each - base for each in tensors], weights)
        merged /= divisor
        merged *= scale
        merged += base
        yield merged


def slerp(tensor: Streamed, values: Mapping[str, Any], context: TensorContext) -> Iterator[Array]:
    """Spherical interpolation; one pass finds the angle, another one interpolates."""
    t = values["t"]
    check_share(t, context.name)
    first, second = _shares(tensor, t, context)
    for a, b in tensor.parts():
        merged = a * first
        merged += b * second
        yield merged


def _shares(tensor: Streamed, t: float, context: TensorContext) -> tuple[float, float]:
    """What each of two tensors is multiplied by: along the great circle, or straight."""
    straight = 1 - t, t
    aa, ab, bb = _products(tensor, exact=False)
    lengths = math.sqrt(aa) * math.sqrt(bb) if aa >= 0 and bb >= 0 else math.nan
    if min(aa, bb) <= TINY**2:
        context.note(ZERO_NOTE)
        return straight
    if not abs(ab) < CLOSE * lengths < math.inf:
        aa, ab, bb = _products(tensor, exact=True)
        lengths = math.sqrt(aa) * math.sqrt(bb)
    cosine = max(-1.0, min(1.0, ab / lengths))
    if cosine <= -NEARLY_PARALLEL:
        context.note(ANTIPODAL_NOTE)
    if not abs(cosine) < NEARLY_PARALLEL:
        return straight
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _products(tensor: Streamed, *, exact: bool) -> tuple[float, float, float]:
    """Inner products of two tensors: first with itself, with the second, second with itself."""
    import numpy as np

    sums = [0.0, 0.0, 0.0]
    for pair in tensor.parts():
        wide = [each.astype(np.float64) if exact else each for each in pair]
        for index, (x, y) in enumerate(itertools.combinations_with_replacement(wide, 2)):
            sums[index] += _inner(x, y)
    return sums[0], sums[1], sums[2]


def _inner(x: Array, y: Array) -> float:
    """Inner product; short rows, so that it does not depend on the number of threads."""
    import numpy as np

    whole = len(x) // ROW * ROW
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.vecdot(x[:whole].reshape(-1, ROW), y[:whole].reshape(-1, ROW))
        rest = np.vecdot(x[whole:], y[whole:])
    return float(rows.sum(dtype=np.float64)) + float(rest)


def ties(tensor: Streamed, values: Mapping[str, Any], context: TensorContext) -> Iterator[Array]:
    """Trim each difference to its largest entries, elect signs, merge the entries that agree."""
    weights, scale = values["weight"], values["lambda"]
    shares = [check_density(density, context.name) for density in values["density"]]
    trims = [_Trim(cut) for cut in _cuts(tensor, shares)]
    for *tensors, base in tensor.parts():
        votes = []
        for each, trim, weight in zip(tensors, trims, weights, strict=True):
            delta = each - base
            trim.apply(delta)
            if weight != 1:
                delta *= weight
            votes.append(delta)
        merged = _elect(votes, weights, normalize=values["normalize"])
        merged *= scale
        merged += base
        yield merged


def _ties_fits(values: Mapping[str, Any]) -> bool:
    """Trimmed tensor by tensor, weighted first, no scaling back, no weights that may cancel."""
    usual = {"scope": "tensor", "weighting": "before", "rescale": "none"}
    return all(values[key] == value for key, value in usual.items()) and (
        min(values["weight"]) >= ZERO_WEIGHT
    )


def _cuts(tensor: Streamed, shares: Sequence[float]) -> list[Selected]:
    """Per model, the least magnitude that is kept."""
    found = []
    sample = tensor.sample(max(1, tensor.entries // SAMPLE))
    for place, share in enumerate(shares):
        kept = max(1, int(share * tensor.entries))
        if kept >= tensor.entries:
            found.append(Selected(0.0, tensor.entries, 0))
            continue
        some = abs(sample[place] - sample[-1])
        some.sort()
        cut = select(_magnitudes(tensor, place), some, tensor.entries, kept)
        # A sample that misleads leaves nothing but to look at all of them.
        found.append(cut or _cut_of_all(tensor, place, kept))
    return found


def _magnitudes(tensor: Streamed, place: int) -> Iterator[Array]:
    import numpy as np

    for tensors in tensor.parts():
        delta = tensors[place] - tensors[-1]
        yield np.abs(delta, out=delta)


def _cut_of_all(tensor: Streamed, place: int, kept: int) -> Selected:
    import numpy as np

    every = np.concatenate(list(_magnitudes(tensor, place)))
    found = select([every], np.array([-np.inf, np.inf]), len(every), kept)
    if found is None:  # NaN: the tensor is refused when it is merged
        return Selected(0.0, len(every), 0)
    return found


class _Trim:
    """Zeroes entries below a cut, part by part; of those at it, the first ones stay."""

    def __init__(self, cut: Selected) -> None:
        self.cut = cut
        self.left = cut.equal

    def apply(self, delta: Array) -> None:
        import numpy as np

        if self.cut.value <= 0:
            return
        size = np.abs(delta)
        kept = size >= self.cut.value
        if self.cut.surplus:
            at_cut = np.flatnonzero(size == self.cut.value)
            kept[at_cut[self.left :]] = False
            self.left = max(0, self.left - len(at_cut))
        delta *= kept


def _elect(votes: Sequence[Array], weights: Sequence[float], *, normalize: bool) -> Array:
    """Per entry, the mean of the votes that have the sign of their sum (positive at zero)."""
    import numpy as np

    elected = votes[0]
    for vote in votes[1:]:
        elected = elected + vote
    positive = elected >= 0
    total, divisor = np.zeros_like(elected), np.zeros_like(elected)
    for vote, weight in zip(votes, weights, strict=True):
        agrees = (vote > 0) == positive
        agrees &= vote != 0
        total += vote * agrees
        if normalize:
            divisor += np.multiply(agrees, weight, dtype=elected.dtype)
    if normalize:
        divisor += divisor == 0
        total /= divisor
    return total


def _always(values: Mapping[str, Any]) -> bool:
    return True


ON_ARRAYS: dict[str, ArrayMethod] = {
    "linear": ArrayMethod(linear, _always),
    "slerp": ArrayMethod(slerp, _always),
    "task_arithmetic": ArrayMethod(task_arithmetic, _always),
    "ties": ArrayMethod(ties, _ties_fits),
}
