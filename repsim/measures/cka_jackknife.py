"""Delete-one and delete-a-document replicates of debiased CKA, in closed form.

HSIC_1 (Song et al. 2012) of zero-diagonal Gram matrices K and L with row sums k and l is

    [ <K, L> + (1'K1)(1'L1) / ((n-1)(n-2)) - 2 k'l / (n-2) ] / (n (n-3)).

Leaving out a group g of rows changes each of the three sums by what one pass over K and L knows, so
all replicates of all layer pairs cost about as much as the value itself: `2 n^2` operations a pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from einops import einsum, rearrange, reduce
from torch import Tensor

from repsim.measures.features import Features

#: Numbers that the Gram rows of one block of rows may hold.
BLOCK_NUMBERS = 1 << 24


@dataclasses.dataclass(frozen=True)
class _Side:
    """What one side's layers contribute; `l` layers, `n` rows, `g` groups; float64."""

    rows: tuple[Tensor, ...]
    squares: Tensor
    group_rows: tuple[Tensor, ...]
    row_sums: Tensor
    left_out_sums: Tensor


def cka_replicates(
    xs: Sequence[Features], ys: Sequence[Features], groups: np.ndarray
) -> np.ndarray:
    """Debiased linear CKA of all layer pairs without each group of rows."""
    device = xs[0].device
    labels = torch.as_tensor(groups, device=device)
    count = int(labels.max()) + 1
    sizes = torch.bincount(labels, minlength=count).double()
    left, right = _side(xs, labels, count), _side(ys, labels, count)
    kept = len(labels) - sizes
    cross, self_x, self_y = _sums(left, right, labels, count)
    h_xy = _hsic(cross, left.left_out_sums, right.left_out_sums, kept)
    h_xx = _hsic_self(self_x, left.left_out_sums, kept)
    h_yy = _hsic_self(self_y, right.left_out_sums, kept)
    scale = rearrange(h_xx, "g a -> g a 1") * rearrange(h_yy, "g b -> g 1 b")
    defined = torch.where(scale > 0, scale, torch.nan)
    return np.asarray((h_xy / defined.sqrt()).cpu().numpy())


def _side(layers: Sequence[Features], labels: Tensor, count: int) -> _Side:
    rows = tuple(f.centered.double() for f in layers)
    squares = torch.stack([reduce(x.square(), "n d -> n", "sum") for x in rows])
    sums = tuple(x.new_zeros(count, x.shape[1]).index_add_(0, labels, x) for x in rows)
    row_sums = torch.stack([x @ x.sum(0) for x in rows]) - squares
    by_group = row_sums.new_zeros(len(rows), count).index_add_(1, labels, row_sums)
    group_squares = row_sums.new_zeros(len(rows), count).index_add_(1, labels, squares)
    within = torch.stack([reduce(s.square(), "g d -> g", "sum") for s in sums]) - group_squares
    total = reduce(row_sums, "l n -> l 1", "sum")
    return _Side(rows, squares, sums, row_sums, total - 2 * by_group + within)


@dataclasses.dataclass
class _Sums:
    """`<K, L>` and `k'l` with each group left out, `[g, ...]`."""

    products: Tensor
    row_products: Tensor


def _sums(left: _Side, right: _Side, labels: Tensor, count: int) -> tuple[_Sums, _Sums, _Sums]:
    """One pass over blocks of rows for all pairs of layers and for each layer with itself."""
    n, a, b = len(labels), len(left.rows), len(right.rows)
    shapes = [(a, b), (a,), (b,)]
    patterns = ["a {0}, b {0} -> {1} a b", "a {0}, a {0} -> {1} a", "b {0}, b {0} -> {1} b"]
    by_row = [left.squares.new_zeros(n, *shape) for shape in shapes]
    row_products = [left.squares.new_zeros(count, *shape) for shape in shapes]
    block = max(1, BLOCK_NUMBERS // (n * (a + b)))
    for start in range(0, n, block):
        here = slice(start, min(start + block, n))
        grams = [_gram_rows(side, here) for side in (left, right)]
        rests = [_rows_without_group(side, here, labels) for side in (left, right)]
        for i, (p, q) in enumerate([(0, 1), (0, 0), (1, 1)]):
            over_rows = patterns[i].format("i j", "i")
            over_groups = patterns[i].format("i g", "g")
            by_row[i][here] = einsum(grams[p], grams[q], over_rows)
            row_products[i] += einsum(rests[p], rests[q], over_groups)
    within = _within_groups(left, right, labels, count, shapes)
    sums = []
    for i, shape in enumerate(shapes):
        total = by_row[i].sum(0)
        by_group = total.new_zeros(count, *shape).index_add_(0, labels, by_row[i])
        sums.append(_Sums(total - 2 * by_group + within[i], row_products[i]))
    return sums[0], sums[1], sums[2]


def _gram_rows(side: _Side, here: slice) -> Tensor:
    """Rows of the zero-diagonal Gram matrices, `[l, rows, n]`."""
    grams = torch.stack([x[here] @ x.mT for x in side.rows])
    torch.diagonal(grams, offset=here.start, dim1=1, dim2=2).zero_()
    return grams


def _rows_without_group(side: _Side, here: slice, labels: Tensor) -> Tensor:
    """Row sums of the Gram matrix without each group's columns; zero for the group's own rows."""
    to_group = torch.stack(
        [x[here] @ s.mT for x, s in zip(side.rows, side.group_rows, strict=True)]
    )
    rest = rearrange(side.row_sums[:, here], "l i -> l i 1") - to_group
    rows = torch.arange(rest.shape[1], device=rest.device)
    rest[:, rows, labels[here]] = 0
    return rest


def _within_groups(
    left: _Side, right: _Side, labels: Tensor, count: int, shapes: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """`<K, L>` over the pairs inside each group; nothing to do for groups of one row."""
    totals = [left.squares.new_zeros(count, *shape) for shape in shapes]
    sizes = torch.bincount(labels, minlength=count)
    for group in torch.nonzero(sizes > 1).squeeze(1).tolist():
        rows = torch.nonzero(labels == group).squeeze(1)
        grams = []
        for side in (left, right):
            inside = torch.stack([x[rows] @ x[rows].mT for x in side.rows])
            torch.diagonal(inside, dim1=1, dim2=2).zero_()
            grams.append(inside)
        totals[0][group] = einsum(grams[0], grams[1], "a i j, b i j -> a b")
        totals[1][group] = einsum(grams[0], grams[0], "a i j, a i j -> a")
        totals[2][group] = einsum(grams[1], grams[1], "b i j, b i j -> b")
    return totals


def _hsic(sums: _Sums, left: Tensor, right: Tensor, kept: Tensor) -> Tensor:
    n = rearrange(kept, "g -> g 1 1")
    outer = einsum(left, right, "a g, b g -> g a b")
    return _song(sums.products, outer, sums.row_products, n)


def _hsic_self(sums: _Sums, own: Tensor, kept: Tensor) -> Tensor:
    n = rearrange(kept, "g -> g 1")
    return _song(sums.products, rearrange(own.square(), "l g -> g l"), sums.row_products, n)


def _song(products: Tensor, outer: Tensor, row_products: Tensor, n: Tensor) -> Tensor:
    inside = products + outer / ((n - 1) * (n - 2)) - 2 * row_products / (n - 2)
    return inside / (n * (n - 3))
