"""What the weights of two models say of a common origin: readings of a sample of rows.

*Namesakes* (unit i and unit i) are alike beyond any other order (an exact permutation test) only
from the same initial weights. *Gains* of norms begin as ones everywhere: they agree where training
was shared. *Distance* orders the rest; *columns* find units that stand under another number.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from repsim.merging.checkpoint import TensorSource
from repsim.merging.sampling import RowSample, as_matrix, body_matrices, sample_rows, shared_tensors

#: Blocks that are sampled, and the least length of a vector of gains.
_BLOCKS, _LEAST_GAINS = 8, 16
_BIAS = re.compile(r"(^|[._])(bias|b|beta)$")
#: Share of the budget for rows of both models; the rest is for columns and gains.
_ROWS = 0.7
#: Rows of a band that columns are told apart by, at most and at least; columns that are looked for;
#: cosine from which one is found.
_BAND, _LEAST_BAND, _SOUGHT, _SAME = 128, 32, 256, 0.9


@dataclasses.dataclass(frozen=True)
class PairReadings:
    """Readings of the weights of two models; see the columns of `LineageTable`."""

    cosine: float
    distance: float
    gap: float
    deviations: float
    unit_match: float
    reordered: float
    gain_correlation: float
    tensors: int
    megabytes: float


def read_pair(a: TensorSource, b: TensorSource, megabytes: float) -> PairReadings | None:
    """Read a sample of two models; None if they have no matrix of one name and shape."""
    samples = samples_of(a, b, megabytes)
    if not samples:
        return None
    cosines, matches = [], []
    squares = gap = above = spread = 0.0
    for sample in samples:
        x, y = _finite(sample.read(a), sample.read(b))
        inner, size_x, size_y = float((x * y).sum()), float((x**2).sum()), float((y**2).sum())
        squares, gap = squares + size_x + size_y, gap + float(((x - y) ** 2).sum())
        if size_x and size_y:
            cosines.append(inner / math.sqrt(size_x * size_y))
            excess, variance, match = _namesakes(x, y)
            above, spread = above + excess, spread + variance
            matches.append(match)
    read = sum(sample.megabytes(source) for sample in samples for source in (a, b))
    gains, gains_read = _gain_correlation(a, b, megabytes * (1 - _ROWS) / 2)
    moved, columns_read = (
        _reordered(a, b, megabytes * (1 - _ROWS) / 4)
        if gap and (not cosines or float(np.mean(matches)) < _SAME)
        else (0.0, 0.0)
    )
    return PairReadings(
        cosine=float(np.mean(cosines)) if cosines else math.nan,
        distance=math.sqrt(2 * gap / squares) if squares else math.nan,
        gap=gap,
        deviations=above / math.sqrt(spread) if spread > 0 else math.nan,
        unit_match=float(np.mean(matches)) if matches else math.nan,
        reordered=moved,
        gain_correlation=gains,
        tensors=len(samples),
        megabytes=read + gains_read + columns_read,
    )


def samples_of(a: TensorSource, b: TensorSource, megabytes: float) -> list[RowSample]:
    """The rows that are read of both models at a budget."""
    return sample_rows([a, b], body_matrices([a, b], _BLOCKS), megabytes * _ROWS / 2)


def _finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are finite in both: damaged weights are another check's to name."""
    kept = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    return (x, y) if kept.all() else (x[kept], y[kept])


def _namesakes(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Excess similarity of namesakes, its variance over orders (Mantel 1967), and matches."""
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    kept = (norms[0] > 0) & (norms[1] > 0)
    m = int(kept.sum())
    if m < 3:
        return 0.0, 0.0, 0.0
    similar = (x[kept] / norms[0][kept, None]) @ (y[kept] / norms[1][kept, None]).T
    excess = float(np.trace(similar) - similar.sum() / m)
    centred = similar - similar.mean(0) - similar.mean(1, keepdims=True) + similar.mean()
    hits = float((similar.argmax(axis=1) == np.arange(m)).mean())
    return excess, float((centred**2).sum() / (m - 1)), (hits - 1 / m) / (1 - 1 / m)


def _gain_correlation(a: TensorSource, b: TensorSource, megabytes: float) -> tuple[float, float]:
    """Mean correlation of norm gains (ones at first; biases, zeros, move alike); megabytes read."""
    found, read = [], 0.0
    vectors = [
        (name, shape) for name, shape in shared_tensors([a, b])
        if len(shape) == 1 and shape[0] >= _LEAST_GAINS and not _BIAS.search(name)
    ]  # fmt: skip
    for sample in sample_rows([a, b], vectors, megabytes, most=1 << 20):
        x, y = (values.ravel() for values in _finite(sample.read(a), sample.read(b)))
        read += sample.megabytes(a) + sample.megabytes(b)
        if x.size and x.std() > 0 and y.std() > 0:
            found.append(float(np.corrcoef(x, y)[0, 1]))
    return (float(np.mean(found)) if found else math.nan), read


def _reordered(a: TensorSource, b: TensorSource, megabytes: float) -> tuple[float, float]:
    """Largest share of unit columns that stand elsewhere in the other model; megabytes read."""
    best, read = math.nan, 0.0
    for sample in sample_rows([a, b], list(_oblong(a, b)), megabytes, most=_BAND):
        x, y = _finite(sample.read(a), sample.read(b))
        read += sample.megabytes(a) + sample.megabytes(b)
        if len(x) < _LEAST_BAND:
            continue
        chosen = np.linspace(0, x.shape[1] - 1, min(_SOUGHT, x.shape[1])).round().astype(int)
        units, others = x.T[chosen], y.T
        norms = np.linalg.norm(units, axis=1), np.linalg.norm(others, axis=1)
        similar = units @ others.T / np.maximum(np.outer(*norms), np.finfo(float).tiny)
        moved = (similar.max(axis=1) > _SAME) & (similar.argmax(axis=1) != chosen)
        best = float(np.nanmax([best, moved.mean()]))
    return best, read


def _oblong(a: TensorSource, b: TensorSource) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The largest matrix of a middle block for each order of its two sides, where they differ."""
    seen: dict[bool, tuple[str, tuple[int, ...]]] = {}
    for name, shape in body_matrices([a, b], 1):
        rows, columns = as_matrix(shape)
        known = seen.get(rows < columns)
        if rows != columns and (known is None or rows * columns > math.prod(known[1])):
            seen[rows < columns] = (name, shape)
    yield from seen.values()
