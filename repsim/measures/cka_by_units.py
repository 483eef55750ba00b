"""Replicates of debiased CKA from products of units, in O(n d) memory and O(n d^2) time.

`sum_j k_ij l_ij` over all rows is `x_i' (X'Y) y_i`: with many rows, products of units are far fewer
than pairs of rows. What rows of the own document have part in is taken off, and so are the row
effects: `A_ij = k_ij - a_i - a_j` with row sums 0 over rows of other documents, so that

    sum_j A_ij B_ij = sum_j (k_ij l_ij - k_ij b_j - l_ij a_j + a_j b_j) - m_i a_i b_i

over the `m_i` rows j of other documents.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.algebra import CHUNK_NUMBERS, row_chunks
from repsim.measures.documents import row_effects, sums_of
from repsim.measures.features import Features, Side


def cheaper_by_units(xs: Side, ys: Side, cells: int) -> bool:
    """Whether products of units are fewer operations than Gram matrices of all layers."""
    layers = list({id(f): f for f in [*xs, *ys]}.values())
    n, width = layers[0].n, max(f.d for f in layers)
    return 4 * width**2 * (cells + len(layers)) < n * (2 * sum(f.d for f in layers) + 8 * cells)


def sums_by_row(xs: Side, ys: Side, wanted: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """`sum_j A_ij B_ij` by row of all pairs of layers, and of each layer with itself."""
    cross = torch.full((xs[0].n, *wanted.shape), torch.nan, dtype=torch.float64)
    for i, j in np.argwhere(wanted):
        cross[:, i, j] = _sums(xs[i], ys[j]).cpu()
    own = [torch.stack([sums_with_itself(f).cpu() for f in side], dim=1) for side in (xs, ys)]
    return cross, own[0], own[1]


def sums_apart(x: Features) -> Tensor:
    """Row sums of the Gram matrix apart from documents, `[n]` float64; kept."""
    return x.remember_rows("sums apart", lambda side: sums_of(side.centered, side.labels))


def effects_apart(x: Features) -> Tensor:
    """The row effects `a_i`, `[n]` float64; kept."""
    return x.remember_rows("row effects", lambda f: row_effects(sums_apart(f), f.labels))


def sums_with_itself(x: Features) -> Tensor:
    """`sum_j A_ij^2` by row, `[n]` float64; kept."""
    return x.remember_rows("sums with itself", lambda side: _sums(side, side))


def _sums(x: Features, y: Features) -> Tensor:
    """The sums of one pair of layers, `[n]` float64."""
    (rows, a), (others, b) = ((side.centered, effects_apart(side)) for side in (x, y))
    exact, labels = x.has_long_rows or y.has_long_rows, x.labels
    covariance = rows.double().mT @ others.double() if exact else rows.mT @ others
    weighted = [_weighted(rows, b), _weighted(others, a)]
    sums = torch.empty_like(a)
    for here in row_chunks(*rows.shape):
        mine, theirs = rows[here].to(covariance.dtype), others[here].to(covariance.dtype)
        total = ((mine @ covariance).double() * theirs).sum(dim=1)
        sums[here] = total - mine.double() @ weighted[0] - theirs.double() @ weighted[1]
    sums -= _within(rows, others, a, b, labels)
    sizes = torch.bincount(labels).double()
    by_document = torch.zeros_like(sizes).index_add_(0, labels, a * b)
    return sums + (a @ b - by_document[labels]) - (len(labels) - sizes[labels]) * a * b


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Sum of the rows times their weights, `[d]` float64."""
    total = weights.new_zeros(rows.shape[1])
    for here in row_chunks(*rows.shape):  # a list of small sums would break up freed memory
        total += weights[here] @ rows[here].double()
    return total


def _within(rows: Tensor, others: Tensor, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """`sum_j k_ij l_ij - k_ij b_j - l_ij a_j` over the rows j of the own document, `[n]`."""
    found = torch.empty_like(a)
    sizes = torch.bincount(labels)
    order, first = labels.argsort(stable=True), torch.cumsum(sizes, 0) - sizes
    for size in sizes.unique().tolist():
        documents = torch.nonzero(sizes == size).squeeze(1)
        for some in documents.split(max(1, CHUNK_NUMBERS // (size * max(rows.shape[1], size)))):
            index = order[rearrange(first[some], "g -> g 1") + torch.arange(size).to(order)]
            mine, theirs = rows[index].double(), others[index].double()
            k, l = mine @ mine.mT, theirs @ theirs.mT
            part = k * l - k * b[index].unsqueeze(1) - l * a[index].unsqueeze(1)
            found[index] = part.sum(dim=2)
    return found
