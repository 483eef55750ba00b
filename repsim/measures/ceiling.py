"""How high a similarity could be: split halves of documents.

Documents of two sentences or more are split at random, each half is the mean of its sentences. The
reliability of a model is the measure between its own halves, the ceiling of a pair the geometric
mean of both (Spearman's correction for attenuation, 1904); to be compared with the value between A
on one half and B on the other, the mean of both ways.
"""

from __future__ import annotations

import numpy as np
import torch

from repsim.core import Measure
from repsim.measures.base import compute_grid
from repsim.measures.features import Features, Side

#: Fewest documents of two rows or more that a reliability is taken from.
LEAST_DOCUMENTS = 20


def ceiling(
    measure: Measure, xs: Side, ys: Side, tested: np.ndarray, seed: int = 0
) -> dict[str, np.ndarray]:
    """Columns `ceiling` and `across_halves`, or none where they are not defined."""
    known = xs[0].documents
    if known is None or measure.direction != "similarity":
        return {}
    split = int((torch.bincount(known) > 1).sum())
    if split < max(LEAST_DOCUMENTS, measure.min_samples):
        return {}
    first, second = zip(*(_halves(x, seed) for x in xs), strict=True)
    other_first, other_second = zip(*(_halves(y, seed) for y in ys), strict=True)
    own = [np.array([_reliability(measure, f, seed) for f in side]) for side in (xs, ys)]
    product = np.outer(*own)
    top = np.sqrt(np.where(np.minimum.outer(*own) > 0, product, np.nan))
    ways = [
        compute_grid(measure, first, other_second, tested),
        compute_grid(measure, second, other_first, tested),
    ]
    return {"ceiling": np.where(tested, top, np.nan), "across_halves": np.mean(ways, axis=0)}


def split_halves(labels: np.ndarray, seed: int) -> np.ndarray:
    """`2 document + half` for each row, `[n]`; -1 for rows of documents of one row."""
    generator = np.random.default_rng([seed, len(labels)])
    halves = np.full(len(labels), -1)
    kept = 0
    for document in range(int(labels.max()) + 1):
        rows = generator.permutation(np.flatnonzero(labels == document))
        if len(rows) > 1:
            halves[rows] = 2 * kept + np.arange(len(rows)) % 2
            kept += 1
    return halves


def _halves(x: Features, seed: int) -> tuple[Features, Features]:
    """Mean row of both halves of each document, `[count, d]` each; made once for a layer."""

    def compute(side: Features) -> tuple[Features, Features]:
        assert side.documents is not None
        halves = split_halves(side.documents.cpu().numpy(), seed)
        return _means(side, halves, 0), _means(side, halves, 1)

    return x.remember(f"halves {seed}", compute)


def _means(x: Features, halves: np.ndarray, half: int) -> Features:
    rows = np.flatnonzero((halves >= 0) & (halves % 2 == half))
    place = torch.as_tensor(halves[rows] // 2, device=x.device)
    own = x.rows_at(torch.as_tensor(rows, device=x.device))
    count = torch.bincount(place)
    sums = own.new_zeros(len(count), x.d).index_add_(0, place, own)
    return Features(sums / count[:, None], dtype=x.dtype)


def _reliability(measure: Measure, x: Features, seed: int) -> float:
    """The measure between both halves, once for a layer in a sweep."""

    def compute(side: Features) -> float:
        first, second = _halves(side, seed)
        return float(compute_grid(measure, [first], [second])[0, 0])

    return x.remember(f"reliability {measure.name} {measure.params} {seed}", compute)
