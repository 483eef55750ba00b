"""Measures that are the cosine of one matrix over pairs of sentences per side (CKA, RSA ...).

Shuffling the sentences of one side re-indexes its matrix: nothing is factorised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.algebra import TEMPORARY_NUMBERS, products
from repsim.measures.features import Features, Side
from repsim.measures.limits import share

#: Rows of one block of pairs; small enough for its re-indexed copy to stay in cache.
BLOCK = 128

#: Bytes that the matrices of one chunk of layers may take.
CHUNK_BYTES = 1 << 30

PairMatrix = Callable[[Features], Tensor]


def cosine_grid(xs: Side, ys: Side, vector_of: PairMatrix) -> np.ndarray:
    """Cosine of the layers' `[m]` vectors, all pairs; NaN where a vector is zero."""
    group = max(1, share(TEMPORARY_NUMBERS) // (xs[0].n ** 2 + 1))
    grid = np.empty((len(xs), len(ys)))
    for top in range(0, len(xs), group):
        rows = _unit_vectors(xs[top : top + group], vector_of, {})
        known = {id(x): row for x, row in zip(xs[top : top + group], rows, strict=True)}
        for left in range(0, len(ys), group):
            columns = _unit_vectors(ys[left : left + group], vector_of, known)
            grid[top : top + group, left : left + group] = products(rows, columns)
    return grid


def _unit_vectors(layers: Side, vector_of: PairMatrix, known: dict[int, Tensor]) -> list[Tensor]:
    vectors = []
    for layer in layers:
        if id(layer) in known:
            vectors.append(known[id(layer)])
            continue
        with layer.temporarily():
            vector = vector_of(layer).to(layer.dtype)
        length = torch.linalg.vector_norm(vector, dtype=torch.float64)
        vectors.append(vector / length.to(vector.dtype))
    return vectors


def shuffled_products(
    matrix_of: PairMatrix, xs: Side, ys: Side, permutations: np.ndarray
) -> np.ndarray:
    """`cos(A_i, P B_j P')` for all layers and permutations, `[count, len(xs), len(ys)]`."""
    n = xs[0].n
    at_once = max(1, share(CHUNK_BYTES) // (4 * n * n))
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
    """One layer's matrix, norm 1, in float32; nothing of size n x n stays in the features."""
    with features.temporarily():
        matrix = matrix_of(features)
    norm = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    return (matrix / norm if norm > 0 else matrix * math.nan).float()


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
