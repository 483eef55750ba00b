"""Correlations of distances without each row or document: no distance is ranked anew.

Leaving rows out takes away the pairs that they are in; pairs within a document count nowhere. A
Pearson correlation of the rest follows exactly from sums over those pairs. A rank correlation
changes in two more ways: ranks of the others move up where a smaller distance goes. To first order
that is another sum over the pairs that go, of the means of all ranks behind theirs (influence
function of Spearman's correlation: Croux, Dehon 2010, Statistical Methods and Applications 19).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from repsim.measures.features import Features, Mask, Side

#: Rows up to which the distances of all layers are held at once.
MOST_ROWS = 2000


def correlations_of_pairs_without(
    xs: Side,
    ys: Side,
    mask: Mask,
    vector_of: Callable[[Features], Tensor],
    *,
    centred: bool,
    ranks: bool,
) -> np.ndarray | None:
    """Correlation of vectors over pairs of rows without each document or row; None of too many."""
    if xs[0].n > MOST_ROWS:
        return None
    gone = _Gone(xs[0].labels.cpu().numpy())
    wanted = np.ones((len(xs), len(ys)), dtype=bool) if mask is None else mask
    sides = {id(f): f for f in (*xs, *ys)}
    vectors = {key: _vector(f, vector_of)[gone.apart] for key, f in sides.items()}
    orders = {key: np.argsort(v, kind="stable") for key, v in vectors.items()} if ranks else {}
    found = np.full((gone.units, *wanted.shape), np.nan)
    for i, j in np.argwhere(wanted).tolist():
        x, y = id(xs[i]), id(ys[j])
        a, b = vectors[x], vectors[y]
        if ranks:
            found[:, i, j] = _ranks_without(a, b, orders[x], orders[y], gone)
        else:
            found[:, i, j] = _without(a, b, gone, centred=centred)
    return found


class _Gone:
    """Which pairs of rows of different units go with each of them."""

    def __init__(self, labels: np.ndarray) -> None:
        sides = [labels[index] for index in np.triu_indices(len(labels), 1)]
        self.apart = sides[0] != sides[1]
        self.sides = [side[self.apart] for side in sides]
        self.units = int(labels.max()) + 1
        self.pairs = self.sums(np.ones(len(self.sides[0])))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of the values of the pairs that go with each unit, `[units]`."""
        return np.asarray(sum(np.bincount(side, values, self.units) for side in self.sides))


def _vector(x: Features, vector_of: Callable[[Features], Tensor]) -> np.ndarray:
    with x.temporarily():
        return np.asarray(vector_of(x).double().cpu().numpy())


def _without(a: np.ndarray, b: np.ndarray, gone: _Gone, *, centred: bool) -> np.ndarray:
    """Cosine of the rest, after their means are taken out if the whole is centred."""
    kept = len(a) - gone.pairs
    means = [gone.sums(v) if centred else np.zeros(gone.units) for v in (a, b)]

    def product(left: int, right: int) -> np.ndarray:
        values = (a, b)[left] * (a, b)[right]
        return np.asarray(values.sum() - gone.sums(values) - means[left] * means[right] / kept)

    squares = product(0, 0) * product(1, 1)
    return np.asarray(product(0, 1) / np.sqrt(np.where(squares > 0, squares, np.nan)))


def _ranks_without(
    a: np.ndarray, b: np.ndarray, order_a: np.ndarray, order_b: np.ndarray, gone: _Gone
) -> np.ndarray:
    """Rank correlation of the rest, to first order, from centred ranks."""
    scale = np.sqrt(np.mean(a * a) * np.mean(b * b))
    if scale == 0:
        return np.full(gone.units, np.nan)
    behind = _mean_behind(b, order_a) + _mean_behind(a, order_b)
    influence = (a * b + behind * len(a)) / scale
    value = np.mean(a * b) / scale
    influence -= influence.mean()
    return np.asarray(value - gone.sums(influence) / (len(a) - gone.pairs))


def _mean_behind(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sum of values from each place of an order on, over how many there are in all."""
    found = np.empty_like(values)
    found[order] = np.cumsum(values[order][::-1])[::-1] / len(values)
    return found
