"""Numerical building blocks that the measures share.

Blocks are multiplied in the arrays' own precision; what is summed over many blocks is summed in
float64, so that float32 activations with a few huge dimensions keep their digits.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

#: Rows and columns of a tile in blocked products: small enough to stay in cache, large enough for
#: the product to run at full speed.
TILE = 256

#: Numbers that one temporary may hold (1 GiB of float32).
TEMPORARY_NUMBERS = 1 << 28

#: Products that are summed in the vectors' own precision before float64 takes over.
RUN = 1 << 16


#: Numbers of the rows that are widened to float64 at once: what is larger than a few MiB comes from
#: the system page by page, which takes ten times as long as the arithmetic.
CHUNK_NUMBERS = 1 << 20


def row_chunks(n: int, d: int, at_once: int = 1) -> list[slice]:
    """Slices of `n` rows, so that a copy of `at_once` chunks of width `d` is small."""
    step = max(1, CHUNK_NUMBERS // (d * at_once))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def unit_chunks(labels: Tensor, width: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A few units at a time: their numbers, their rows, and which of them each row belongs to."""
    order, ends = labels.argsort(stable=True), torch.cumsum(torch.bincount(labels), 0).tolist()
    most, start, first = max(1, CHUNK_NUMBERS // width), 0, 0
    while start < len(ends):
        # As many units as have few enough rows in all, one at least.
        stop = max(start + 1, bisect.bisect_right(ends, first + most))
        rows = order[first : ends[stop - 1]]
        yield slice(start, stop), rows, labels[rows] - start
        start, first = stop, ends[stop - 1]


def summed(rows: Tensor, units: Tensor, count: int) -> Tensor:
    """Sums of the rows of each unit, `[count, d]`."""
    return rows.new_zeros(count, rows.shape[1]).index_add_(0, units, rows)


def column_products(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of column i with column i, `[d]` float64."""
    total = a.new_zeros(a.shape[1], dtype=torch.float64)
    for here in row_chunks(*a.shape):
        total += (a[here].double() * b[here]).sum(dim=0)
    return total


def column_means(rows: Tensor) -> Tensor:
    """Means of the columns, `[d]` float64."""
    total = rows.new_zeros(1, rows.shape[1], dtype=torch.float64)
    for here in row_chunks(*rows.shape):
        part = rows[here].double()
        total.addmm_(part.new_full((1, len(part)), 1 / len(rows)), part)
    return total.squeeze(0)


def rounding_step(dtype: torch.dtype) -> float:
    """Differences below this share of the largest value are rounding, in a sum of products."""
    return 2.0**-40 if dtype == torch.float64 else 2.0**-21


def symmetric_product(a: Tensor) -> Tensor:
    """`a @ a.T` from the tiles of one triangle, half the work of the full product."""
    n = a.shape[0]
    product = a.new_empty(n, n)
    for start in range(0, n, TILE):
        stop = min(start + TILE, n)
        torch.mm(a[start:stop], a[start:].mT, out=product[start:stop, start:])
        product[stop:, start:stop] = product[start:stop, stop:].mT
    # Inside a diagonal tile the two triangles are rounded apart by some BLAS.
    for start in range(0, n, TILE):
        tile = product[start : start + TILE, start : start + TILE]
        tile.copy_(torch.triu(tile) + torch.triu(tile, 1).mT)
    return product


def double_centred(matrix: Tensor) -> Tensor:
    """`H M H` with `H = I - 11'/n`: row, column and grand means taken out, in float64."""
    rows = matrix.mean(dim=1, dtype=torch.float64)
    grand = rows.mean()
    half = rows - grand / 2
    return matrix - (rearrange(half, "i -> i 1") + rearrange(half, "j -> 1 j")).to(matrix.dtype)


def u_centred(matrix: Tensor) -> Tensor:
    """U-centred matrix of Székely and Rizzo (2014): unbiased inner products, zero diagonal."""
    n = matrix.shape[0]
    centred = matrix.clone().fill_diagonal_(0)
    rows = centred.sum(dim=1, dtype=torch.float64)
    half = rows / (n - 2) - rows.sum() / (2 * (n - 1) * (n - 2))
    centred -= (rearrange(half, "i -> i 1") + rearrange(half, "j -> 1 j")).to(matrix.dtype)
    return centred.fill_diagonal_(0)


def inner(a: Tensor, b: Tensor) -> float:
    """Sum of products of two tensors of one shape, accumulated in float64."""
    if a.dtype == torch.float64:
        return float(torch.dot(a.reshape(-1), b.reshape(-1)))
    rows = zip(a.split(TILE), b.split(TILE), strict=True)
    return float(sum((u.double() * v.double()).sum() for u, v in rows))


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two tensors; NaN if one of them is zero."""
    squares = inner(a, a) * inner(b, b)
    return inner(a, b) / math.sqrt(squares) if squares > 0 else math.nan


def average_ranks(values: Tensor) -> Tensor:
    """Ranks 1..m as float64 of values >= 0; ties, up to rounding, share the mean of their ranks."""
    # A gap of under 2^-40 of the value is rounding. float32 values are counted, not sorted: those
    # whose leading 20 bits agree are equal, and so are all under 2^-21 of the largest.
    if values.dtype == torch.float64:
        ordered, order = torch.sort(values)
        gaps = ordered.diff()
        tied = gaps <= (ordered[1:] * 2.0**-40).clamp(min=float(values.max()) * 2.0**-44)
        keys = torch.zeros_like(order)
        keys[order[1:]] = torch.cumsum(~tied, dim=0)
        counts = torch.bincount(keys)
    else:
        floor = float(values.max()) * rounding_step(values.dtype)
        # The bits of floats >= 0 are ordered as the floats are.
        keys = (values.clamp(min=floor).view(torch.int32) + 8) >> 4
        keys -= keys.min()
        counts = torch.bincount(keys)
    mean_rank = torch.cumsum(counts, 0).double() - (counts.double() - 1) / 2
    return mean_rank[keys]


def triangle(matrix: Tensor) -> Tensor:
    """Upper triangle without the diagonal, row by row: `[n (n - 1) / 2]`."""
    return torch.cat([row[i + 1 :] for i, row in enumerate(matrix)])


def order_statistics(values: Tensor, positions: list[int]) -> list[float]:
    """The values that would stand at these positions if `values` were sorted."""
    if values.device.type == "cpu":
        partitioned = np.partition(values.numpy(), positions)
        return [float(partitioned[i]) for i in positions]
    ordered = torch.sort(values).values
    return [float(ordered[i]) for i in positions]


def unit_length(rows: Tensor) -> Tensor:
    """Rows scaled to length one; zero rows stay zero."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    return rows / torch.where(lengths > 0, lengths, 1.0).to(rows.dtype)


def unit_columns(rows: Tensor) -> Tensor:
    """Columns scaled to length one; zero columns stay zero."""
    lengths = column_products(rows, rows).sqrt()
    return rows / torch.where(lengths > 0, lengths, 1.0).to(rows.dtype)


def squared_lengths(rows: Tensor) -> Tensor:
    """Squared length of each row, `[n]`."""
    return torch.linalg.vector_norm(rows, dim=1).square_()


def square_eigenvalues(c: Tensor) -> Tensor:
    """Eigenvalues of `C'C`, ascending, of a float64 matrix."""
    if c.device.type != "cpu":
        return torch.linalg.eigvalsh(c.mT @ c)
    from scipy.linalg import eigvalsh

    return torch.from_numpy(eigvalsh(_square(c), overwrite_a=True, check_finite=False))


def square_eigen(c: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of `C'C`, ascending, and its eigenvectors as columns, of a float64 matrix."""
    if c.device.type != "cpu":
        values, vectors = torch.linalg.eigh(c.mT @ c)
        return values, vectors
    from scipy.linalg import eigh

    found = eigh(_square(c), overwrite_a=True, check_finite=False, driver="evd")
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _square(c: Tensor) -> np.ndarray:
    """Lower triangle of `C'C`; LAPACK through scipy is up to twice as fast as through torch."""
    from scipy.linalg import blas

    # The transpose of a C-ordered array is what Fortran calls ordered: nothing is copied.
    return np.asarray(blas.dsyrk(1.0, c.contiguous().numpy().T, lower=1))


def truncated_svd(matrix: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD without the singular values up to `tolerance` times the largest."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > tolerance * s[0]).sum())
    return u[:, :rank], s[:rank], vh[:rank]


def half(matrix: Tensor) -> Tensor:
    """A symmetric matrix as a vector of half the size with the same inner products."""
    return torch.cat([triangle(matrix) * math.sqrt(2), matrix.diagonal()])


def centred_vector(vector: Tensor) -> Tensor:
    """The vector minus its mean; exactly zero if its entries are equal up to rounding."""
    spread, largest = vector.max() - vector.min(), vector.abs().max()
    if bool(spread <= largest * rounding_step(vector.dtype)):
        return torch.zeros_like(vector)
    return (vector.double() - vector.mean(dtype=torch.float64)).to(vector.dtype)


def products(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> np.ndarray:
    """Inner products of two lists of `[m]` vectors, `[len(rows), len(columns)]` float64."""
    total = torch.zeros(len(rows), len(columns), dtype=torch.float64, device=rows[0].device)
    for start in range(0, len(rows[0]), RUN):
        a = torch.stack([row[start : start + RUN] for row in rows])
        b = torch.stack([column[start : start + RUN] for column in columns])
        total += (a @ rearrange(b, "b m -> m b")).double()
    return total.cpu().numpy()
