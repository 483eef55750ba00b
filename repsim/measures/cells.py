"""Which layer pairs of a grid are computed, and how: the whole grid at once, or chosen cells.

A grid is `[layers of A, layers of B]`. Some statistics are taken on all of its cells, some, of
measures whose every pair needs a decomposition, at matched depth only; `mask` says which.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repsim.core import Measure
from repsim.core.similarity_summary import matched_cells
from repsim.measures.base import ALIASES, compute_grid
from repsim.measures.features import Features
from repsim.measures.pair_matrices import pair_matrix

#: Measures that need only a product or a count per pair once each side is factorised, besides those
#: that are an inner product of one matrix per side (`pair_matrices`).
CHEAP = frozenset({"mutual_knn", "jaccard_knn", "unit_correlation"})


def is_dear(measure: Measure) -> bool:
    """Whether every pair of layers needs a decomposition or an assignment of its own.

    Example:
        >>> from repsim.measures import get_measure
        >>> is_dear(get_measure("cka")), is_dear(get_measure("procrustes"))
        (False, True)
    """
    name = ALIASES.get(measure.name, (measure.name, {}))[0]
    return name not in CHEAP and pair_matrix(measure) is None


def matched_mask(layers_a: Sequence[int], layers_b: Sequence[int]) -> np.ndarray:
    """Boolean `[len(layers_a), len(layers_b)]`: for each layer of the shallower side, its partner.

    The partner is the layer nearest in relative depth, as `SimilarityTable.summary` has it.

    Example:
        >>> matched_mask([0, 1, 2], [0, 1, 2]).astype(int).tolist()
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
        >>> matched_mask([0, 2], [0, 1, 2, 3, 4]).astype(int).tolist()
        [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    """
    chosen = {
        (cell["layer_a"], cell["layer_b"])
        for cell in matched_cells(
            [{"layer_a": a, "layer_b": b} for a in layers_a for b in layers_b]
        )
    }
    return np.array([[(a, b) in chosen for b in layers_b] for a in layers_a], dtype=bool)


def evaluate(
    measure: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The measure on all cells, or on those of `mask`.

    Args:
        measure: What to compute, with its own default parameters.
        xs: Features of the layers of A.
        ys: Features of the layers of B, same rows.
        mask: Boolean `[len(xs), len(ys)]`; None for all.

    Returns:
        `[len(xs), len(ys)]` float64, NaN outside the mask.
    """
    if mask is None or mask.all():
        return compute_grid(measure, xs, ys)
    if pair_matrix(measure) is not None:
        # The fast path over all cells holds no n x n matrix per layer, single cells would.
        return np.where(mask, compute_grid(measure, xs, ys), np.nan)
    values = np.full((len(xs), len(ys)), np.nan)
    for i, j in np.argwhere(mask):
        # A grid of one cell takes the measure's fast path, where it has one.
        values[i, j] = compute_grid(measure, [xs[i]], [ys[j]])[0, 0]
    return values
