"""One pass over the weights of some models: the sums from which distances and cosines are made."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from repsim.core.errors import InputError
from repsim.mergeability.features.layout import Place
from repsim.merging.checkpoint import TensorSource

if TYPE_CHECKING:
    import torch

#: Values per block: two or three models of it lie in the second-level cache.
BLOCK = 1 << 17
#: Signs are counted in every eighth block of a tensor that has more than so many.
FEW_BLOCKS, SIGN_STRIDE = 8, 8
Matrix = NDArray[np.float64]


@dataclasses.dataclass
class Moments:
    """Sums over the values of one tensor, or of several."""

    size: int
    dots: Matrix  # [k, k] inner products
    squares: Matrix  # squared distances, value by value: inner products would leave only rounding
    same_signs: Matrix  # values of one sign in both, among `signs` that were looked at
    signs: Matrix
    updates: Matrix  # inner products of model minus base; zeros without a base
    same_updates: Matrix
    update_signs: Matrix
    base: float  # squared norm of the base
    centred: Matrix  # inner products without the mean row, of embeddings

    @classmethod
    def zeros(cls, k: int, size: int = 0) -> Moments:
        """Of nothing yet, for `k` models."""
        matrices = {
            field.name: np.zeros((k, k))
            for field in dataclasses.fields(cls)
            if field.name not in ("size", "base")
        }
        return cls(size=size, base=0.0, **matrices)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            )
        )

    @property
    def norms(self) -> Matrix:
        """`[k]` norms of the models."""
        return np.sqrt(np.diag(self.dots))

    def cosine(self, i: int, j: int, *, centred: bool = False) -> float:
        """Cosine of two models; NaN if one is zero."""
        return _cosine(self.centred if centred else self.dots, i, j)

    def update_cosine(self, i: int, j: int) -> float:
        """Cosine of the updates of two models; NaN if one did not move."""
        return _cosine(self.updates, i, j)

    def distance(self, i: int, j: int) -> float:
        """Distance of two models over the mean of their norms."""
        scale = float(self.norms[i] + self.norms[j]) / 2
        return math.sqrt(self.squares[i, j]) / scale if scale else math.nan

    @property
    def variance(self) -> float:
        """Variance across models, summed over values."""
        k = len(self.dots)
        return float(self.squares.sum()) / 2 / k**2

    @property
    def mean_square(self) -> float:
        """Squared norm of the mean of the models."""
        return max(float(np.diag(self.dots).mean()) - self.variance, 0.0)


def _cosine(products: Matrix, i: int, j: int) -> float:
    scale = math.sqrt(products[i, i] * products[j, j])
    return float(products[i, j]) / scale if scale else math.nan


def tensor_moments(
    place: Place, sources: Sequence[TensorSource], base: TensorSource | None = None
) -> Moments:
    """Sums over one tensor of some models."""
    import torch

    flat = [
        source.read(place.tensor).reshape(-1) for source in (*sources, *([base] if base else []))
    ]
    size, k = flat[0].numel(), len(sources)
    found = Moments.zeros(k, size)
    columns = place.shape[-1] if place.group == "embedding" else 0
    block = columns * max(1, BLOCK // columns) if columns else BLOCK
    sums = np.zeros((k, columns))
    buffer = torch.empty(2 * len(flat) + 2, min(block, size), dtype=torch.float32)
    many = size > FEW_BLOCKS * block
    for number, start in enumerate(range(0, size, block)):
        length = min(block, size - start)
        rows = [buffer[i, :length] for i in range(len(buffer))]
        for row, tensor in zip(rows, flat, strict=False):
            row.copy_(tensor[start : start + length])
        signs = not many or number % SIGN_STRIDE == 0
        _add_block(found, rows, k, base is not None, signs)
        if columns:
            sums += np.stack([row.view(-1, columns).sum(0).double().numpy() for row in rows[:k]])
    if not np.isfinite(found.dots).all() or not math.isfinite(found.base):
        raise _not_finite(place.tensor, sources, base)
    found.centred = found.dots - sums @ sums.T / (size // columns) if columns else found.centred
    return found


def _add_block(
    found: Moments, rows: Sequence[torch.Tensor], k: int, has_base: bool, signs: bool
) -> None:
    """Add one block: rows are the models, the base if there is one, and room to work in."""
    import torch

    models, scratch = rows[:k], rows[-1]
    for i in range(k):
        found.dots[i, i] += float(models[i].dot(models[i]))
    updates = []
    if has_base:
        found.base += float(rows[k].dot(rows[k]))
        updates = [torch.sub(m, rows[k], out=rows[k + 1 + i]) for i, m in enumerate(models)]
        for i in range(k):
            found.updates[i, i] += float(updates[i].dot(updates[i]))
    for i, j in itertools.combinations(range(k), 2):
        _both(found.dots, i, j, float(models[i].dot(models[j])))
        torch.sub(models[i], models[j], out=scratch)
        _both(found.squares, i, j, float(scratch.dot(scratch)))
        if signs:
            _count(found.same_signs, found.signs, i, j, models, scratch)
        if has_base:
            _both(found.updates, i, j, float(updates[i].dot(updates[j])))
            if signs:
                _count(found.same_updates, found.update_signs, i, j, updates, scratch)


def _both(matrix: Matrix, i: int, j: int, value: float) -> None:
    matrix[i, j] += value
    matrix[j, i] += value


def _count(
    same: Matrix, seen: Matrix, i: int, j: int, rows: Sequence[torch.Tensor], scratch: torch.Tensor
) -> None:
    """Count values of one sign; products that underflow are far too small to matter."""
    import torch

    torch.mul(rows[i], rows[j], out=scratch)
    _both(same, i, j, float((scratch > 0).sum()))
    _both(seen, i, j, float(scratch.count_nonzero()))


def _not_finite(
    tensor: str, sources: Sequence[TensorSource], base: TensorSource | None
) -> InputError:
    for source in (*sources, *([base] if base else [])):
        if not bool(source.read(tensor).isfinite().all()):
            return InputError(f"tensor '{tensor}' of model '{source.name}' holds NaN or infinity")
    return InputError(f"tensor '{tensor}' holds values too large for float32")


def total(moments: Sequence[Moments], k: int) -> Moments:
    """Sums over several tensors."""
    found = Moments.zeros(k)
    for each in moments:
        found = found + each
    return found
