"""Jackknife replicates with the optimum held: no decomposition for each group left out.

Procrustes, permutation matching and canonical correlations are maxima over rotations, matchings or
directions. To first order a maximum changes as what it chose does (envelope theorem; Danskin 1966,
SIAM J. Applied Math. 14). So the rotation, matching or directions of the whole data are kept, and
each row or document is left out of the means, variances and products, exactly. For canonical
correlations this is their known influence function (Romanazzi 1992, Psychometrika 57).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.algebra import column_products, summed, unit_chunks
from repsim.measures.features import Features, Mask, Side

T = TypeVar("T")
#: Rows of two sides in coordinates in which column i of one goes with column i of the other.
Aligned = Callable[[Features, Features], tuple[Tensor, Tensor]]


def cosines_without(xs: Side, ys: Side, mask: Mask = None, *, aligned: Aligned) -> np.ndarray:
    """`<A, B> / (||X|| ||Y||)` of aligned sides without each document, or row if none is known."""
    labels, kept = units_of(xs[0])

    def cell(x: Features, y: Features) -> Tensor:
        squares = _squares(x, labels, kept) * _squares(y, labels, kept)
        a, b = aligned(x, y)
        whole = column_products(a, b)
        cross = torch.cat(
            [
                _without(whole, a, b, part, kept).sum(dim=1)
                for part in unit_chunks(labels, len(whole))
            ]
        )
        return cross / torch.where(squares > 0, squares, torch.nan).sqrt()

    return _cells(xs, ys, mask, len(kept), cell)


def correlations_without(xs: Side, ys: Side, mask: Mask = None, *, aligned: Aligned) -> np.ndarray:
    """Mean correlation of aligned columns without each document, or row where none is known."""
    labels, kept = units_of(xs[0])

    def cell(x: Features, y: Features) -> Tensor:
        a, b = aligned(x, y)
        whole = [column_products(*sides) for sides in ((a, a), (b, b), (a, b))]
        found = []
        for part in unit_chunks(labels, 2 * a.shape[1]):
            squares = _without(whole[0], a, a, part, kept) * _without(whole[1], b, b, part, kept)
            scale = torch.where(squares > 0, squares, torch.nan).sqrt()
            found.append((_without(whole[2], a, b, part, kept) / scale).nanmean(dim=1))
        return torch.cat(found)

    return _cells(xs, ys, mask, len(kept), cell)


def _cells(
    xs: Side, ys: Side, mask: Mask, units: int,
    cell: Callable[[Features, Features], Tensor],
) -> np.ndarray:  # fmt: skip
    wanted = np.ones((len(xs), len(ys)), dtype=bool) if mask is None else mask
    found = np.full((units, *wanted.shape), np.nan)
    for i, j in np.argwhere(wanted):
        found[:, i, j] = cell(xs[i], ys[j]).cpu().numpy()
    return found


def units_of(x: Features) -> tuple[Tensor, Tensor]:
    """Number of each row's unit, `[n]`, and how many rows are left without each, `[units, 1]`."""
    return x.labels, rearrange(x.n - torch.bincount(x.labels).double(), "g -> g 1")


def _without(
    whole: Tensor, a: Tensor, b: Tensor, part: tuple[slice, Tensor, Tensor], kept: Tensor
) -> Tensor:
    """Products of centred columns without each of some units, centred anew, `[units, columns]`."""
    units, rows, place = part
    rest = kept[units]
    mine, theirs = a[rows].double(), b[rows].double()
    sums = summed(mine, place, len(rest)) * summed(theirs, place, len(rest))
    return whole - summed(mine * theirs, place, len(rest)) - sums / rest


def _squares(x: Features, labels: Tensor, kept: Tensor) -> Tensor:
    """Squared norm of the centered rows without each unit, `[units]`."""

    def compute(side: Features) -> Tensor:
        own = side.gram_diagonal.new_zeros(len(kept)).index_add_(0, labels, side.gram_diagonal)
        rows = side.centered
        parts = unit_chunks(labels, side.d)
        sums = torch.cat(
            [
                summed(rows[here].double(), place, len(kept[units])).square().sum(dim=1)
                for units, here, place in parts
            ]
        )
        return side.gram_diagonal.sum() - own - sums / kept.squeeze(1)

    return by_unit(x, "squares without each unit", compute)


def by_unit(x: Features, key: str, compute: Callable[[Features], T]) -> T:
    """Numbers of each unit of one side, kept where units are documents, whose names rows carry."""
    return compute(x) if x.documents is None else x.remember(key, compute)
