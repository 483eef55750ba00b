"""All pairs of layers by the cosine of one long vector per layer.

RSA, RBF-kernel CKA and distance correlation are all of this form; the vector has n^2 / 2 entries,
so layers are taken in groups that fit a stated amount of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.algebra import TEMPORARY_NUMBERS, rounding_step, triangle
from repsim.measures.features import Features

#: Products that are summed in the vectors' own precision before float64 takes over.
RUN = 1 << 16


def half(matrix: Tensor) -> Tensor:
    """A symmetric matrix as a vector of half the size with the same inner products.

    Args:
        matrix: `[n, n]`.

    Returns:
        `[n (n + 1) / 2]`, off-diagonal entries times sqrt 2, then the diagonal.
    """
    return torch.cat([triangle(matrix) * math.sqrt(2), matrix.diagonal()])


def centred_vector(vector: Tensor) -> Tensor:
    """The vector minus its mean; exactly zero if its entries are equal up to rounding."""
    spread, largest = vector.max() - vector.min(), vector.abs().max()
    if bool(spread <= largest * rounding_step(vector.dtype)):
        return torch.zeros_like(vector)
    return (vector.double() - vector.mean(dtype=torch.float64)).to(vector.dtype)


def cosine_grid(
    xs: Sequence[Features], ys: Sequence[Features], vector_of: Callable[[Features], Tensor]
) -> np.ndarray:
    """Cosine of the layers' vectors, all pairs.

    Args:
        xs: Layers of the rows.
        ys: Layers of the columns.
        vector_of: Makes the `[m]` vector of a layer; what it computes on the way is dropped.

    Returns:
        `[len(xs), len(ys)]`, NaN where a vector is zero.
    """
    group = max(1, TEMPORARY_NUMBERS // (xs[0].n ** 2 + 1))
    grid = np.empty((len(xs), len(ys)))
    for top in range(0, len(xs), group):
        rows = _unit_vectors(xs[top : top + group], vector_of, {})
        known = {id(x): row for x, row in zip(xs[top : top + group], rows, strict=True)}
        for left in range(0, len(ys), group):
            columns = _unit_vectors(ys[left : left + group], vector_of, known)
            grid[top : top + group, left : left + group] = products(rows, columns)
    return grid


def _unit_vectors(
    layers: Sequence[Features], vector_of: Callable[[Features], Tensor], known: dict[int, Tensor]
) -> list[Tensor]:
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


def products(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> np.ndarray:
    """Inner products of two lists of `[m]` vectors, `[len(rows), len(columns)]` float64."""
    total = torch.zeros(len(rows), len(columns), dtype=torch.float64, device=rows[0].device)
    for start in range(0, len(rows[0]), RUN):
        a = torch.stack([row[start : start + RUN] for row in rows])
        b = torch.stack([column[start : start + RUN] for column in columns])
        total += (a @ rearrange(b, "b m -> m b")).double()
    return total.cpu().numpy()
