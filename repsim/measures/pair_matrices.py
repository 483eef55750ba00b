"""Measures that are one inner product of one matrix per side, and their cheap null.

CKA and RSA describe each side by a symmetric matrix over pairs of sentences and take the cosine of
the two. Shuffling the sentences of one side re-indexes its matrix: no factorisation, one product of
all layers with all layers per shuffle. The matrices are laid out pair by pair, so that re-indexing
moves the numbers of all layers of one pair of sentences together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.core import Measure
from repsim.measures.algebra import u_centred
from repsim.measures.base import ALIASES
from repsim.measures.cosines import centred_vector
from repsim.measures.features import Features, Metric
from repsim.measures.rbf import centred_kernel

#: Rows of one block of pairs; small enough for its re-indexed copy to stay in cache.
BLOCK = 128

#: Bytes that the matrices of one chunk of layers may take.
CHUNK_BYTES = 1 << 30

PairMatrix = Callable[[Features], Tensor]


def pair_matrix(measure: Measure) -> PairMatrix | None:
    """`f(features) -> [n, n]` symmetric with norm 1, such that the measure is `sum(f(x) * f(y))`.

    Returns:
        None for a measure that is not of this form.

    Example:
        >>> from repsim.measures import as_features, compute, get_measure
        >>> x, y = (as_features(np.random.default_rng(i).normal(size=(20, 3))) for i in (0, 1))
        >>> of = pair_matrix(get_measure("cka"))
        >>> abs(float((of(x) * of(y)).sum()) - compute("cka", x, y)) < 1e-12
        True
    """
    name = ALIASES.get(measure.name, (measure.name, {}))[0]
    params = dict(measure.params)
    if name == "cka":
        return lambda x: _unit(u_centred(x.gram))
    if name == "cka_biased":
        return lambda x: _unit(x.gram)
    if name == "cka_lange":
        return lambda x: _unit(x.gram.clone().fill_diagonal_(0))
    if name == "rsa" and params["comparison"] in ("spearman", "pearson", "cosine"):
        return lambda x: _dissimilarities(x, params["metric"], params["comparison"])
    if name == "cka_rbf":
        return lambda x: _unit(centred_kernel(x, **params))
    if name == "distance_correlation_debiased":
        return lambda x: _unit(u_centred(x.distances("euclidean")))
    return None


def _unit(matrix: Tensor) -> Tensor:
    norm = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    return matrix / norm if norm > 0 else matrix * math.nan


def _dissimilarities(x: Features, metric: Metric, comparison: str) -> Tensor:
    """Distances of all pairs of different rows, as they are compared by their cosine."""
    values = x.rdm_ranks(metric) if comparison == "spearman" else x.rdm(metric)
    above = torch.ones(x.n, x.n, dtype=torch.bool, device=values.device).triu(1)
    matrix = values.new_zeros(x.n, x.n)
    matrix[above] = values if comparison == "cosine" else centred_vector(values)
    return _unit(matrix + matrix.mT)


def shuffled_products(
    matrix_of: PairMatrix,
    xs: Sequence[Features],
    ys: Sequence[Features],
    permutations: np.ndarray,
) -> np.ndarray:
    """`sum(A_i * P B_j P')` for all layers i, j and all permutations, `[count, len(xs), len(ys)]`.

    Args:
        matrix_of: Makes the `[n, n]` matrix of one layer.
        xs: Layers of A.
        ys: Layers of B, whose rows are shuffled: row i becomes row `order[i]`.
        permutations: `[count, n]`.
    """
    n = xs[0].n
    at_once = max(1, CHUNK_BYTES // (4 * n * n))
    result = np.empty((len(permutations), len(xs), len(ys)))
    for b in range(0, len(ys), at_once):
        shuffled = torch.stack([_single(matrix_of, y) for y in ys[b : b + at_once]])
        shuffled = rearrange(shuffled, "l i j -> (i j) l").contiguous()
        for a in range(0, len(xs), at_once):
            fixed = list(_upper_blocks([_single(matrix_of, x) for x in xs[a : a + at_once]]))
            for count, order in enumerate(permutations):
                index = torch.as_tensor(order, device=shuffled.device)
                result[count, a : a + at_once, b : b + at_once] = _product(fixed, shuffled, index)
    return result


def _single(matrix_of: PairMatrix, features: Features) -> Tensor:
    """One layer's matrix in float32, leaving nothing of size n x n behind in the features."""
    with features.temporarily():
        return matrix_of(features).float()


def _upper_blocks(matrices: Sequence[Tensor]) -> Iterator[Tensor]:
    """Block rows from the diagonal on, `[layers, rows * columns]`; mirrored entries count twice."""
    n = matrices[0].shape[0]
    for top in range(0, n, BLOCK):
        rows = torch.stack([m[top : top + BLOCK, top:] for m in matrices])
        square = rows[:, :, : rows.shape[1]]
        diagonal = torch.diagonal(square, dim1=1, dim2=2).clone()
        rows = 2 * rows
        rows[:, :, : rows.shape[1]].triu_(1).diagonal(dim1=1, dim2=2).copy_(diagonal)
        yield rearrange(rows, "l i j -> l (i j)")


def _product(fixed: Sequence[Tensor], shuffled: Tensor, order: Tensor) -> np.ndarray:
    n = len(order)
    total = torch.zeros(
        fixed[0].shape[0], shuffled.shape[1], dtype=torch.float64, device=shuffled.device
    )
    for block, top in zip(fixed, range(0, n, BLOCK), strict=True):
        rows, columns = order[top : top + BLOCK], order[top:]
        pairs = rearrange(rows * n, "i -> i 1") + rearrange(columns, "j -> 1 j")
        total += block @ shuffled.index_select(0, rearrange(pairs, "i j -> (i j)"))
    return total.cpu().numpy()
