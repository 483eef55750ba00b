"""Delete-one-row and delete-one-document replicates of debiased CKA, in closed form.

Debiased CKA is the cosine of U-centered matrices A and B. Leaving out row r takes `2 R_r` from
`<A, B>`, `R_r = sum_j A_rj B_rj`, and centering the rest anew takes `2 R_r / (n - 3)` more:
exactly, because the rows of A and B sum to zero. Of documents the second part is taken as
`2 R_g / (documents - 3)`, an upper bound for positive R. So one pass over blocks of rows gives all
replicates of all layer pairs; nothing of size n x n is held. Where rows are many, they come from
products of units instead (`cka_by_units`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from repsim.measures.cka_by_units import cheaper_by_units, effects_apart, sums_by_row
from repsim.measures.documents import effective_number, rows_apart
from repsim.measures.features import Features, Mask, Side

#: Numbers that the kernel rows of one block of rows may hold.
BLOCK_NUMBERS = 1 << 24


def cka_replicates(xs: Side, ys: Side, mask: Mask = None) -> np.ndarray:
    """Debiased linear CKA of all layer pairs without each document, or each row where none is."""
    labels = xs[0].labels
    wanted = np.ones((len(xs), len(ys)), dtype=bool) if mask is None else mask
    if not cheaper_by_units(xs, ys, int(wanted.sum())):
        return _without_each(_pass(xs, ys, labels, labels.new_empty(len(labels), 0).double(), mask))
    units = int(labels.max()) + 1
    parts = [_by_document(part, labels, units) for part in sums_by_row(xs, ys, wanted)]
    return _without_each(_Sums(parts[0], parts[1], parts[2], parts[0][:0]))


def cka_by_document(
    xs: Side, ys: Side, weights: np.ndarray, mask: Mask = None
) -> tuple[np.ndarray, np.ndarray]:
    """CKA under a wild bootstrap (Chwialkowski et al. 2014), and without each document."""
    labels = xs[0].labels
    drawn = torch.as_tensor(weights, dtype=torch.float64, device=labels.device).mT[labels]
    found = _pass(xs, ys, labels, drawn, mask)
    norm_x, norm_y = (sums.sum(dim=0) for sums in (found.own_x, found.own_y))
    scale = rearrange(norm_x, "a -> a 1") * norm_y
    null = found.weighted / torch.where(scale > 0, scale, torch.nan).sqrt()
    null *= _few_documents(labels)
    return np.asarray(null.cpu().numpy()), _without_each(found)


def _few_documents(labels: Tensor) -> float:
    """Spread over permutations to that over signs: sqrt((g - 1) / (g - 3)) of g equal documents."""
    count = max(effective_number(torch.bincount(labels).double()), 4.0)
    return math.sqrt((count - 1) / (count - 3))


class _Sums(NamedTuple):
    """Sums over pairs of rows of different documents, by the document of the first row."""

    cross: Tensor  # sum_j A_ij B_ij, [documents, a, b]
    own_x: Tensor  # of each x with itself, [documents, a]
    own_y: Tensor  # of each y, [documents, b]
    weighted: Tensor  # sum_ij w_i w_j A_ij B_ij, [draws, a, b]


def _pass(
    xs: Side, ys: Side, labels: Tensor, drawn: Tensor,
    mask: Mask,
) -> _Sums:  # fmt: skip
    """All sums in one pass over blocks of rows; `drawn`: weights of rows, `[n, draws]`."""
    n, device, units = xs[0].n, xs[0].device, int(labels.max()) + 1
    wanted = np.ones((len(xs), len(ys)), dtype=bool) if mask is None else mask
    left, right = np.any(wanted, axis=1), np.any(wanted, axis=0)
    layers = list({id(f): f for f in [*_some(xs, left), *_some(ys, right)]}.values())
    place = {id(f): i for i, f in enumerate(layers)}
    # What hangs on weighted products is the width of a null and of an interval: float32 will do.
    exact = drawn.shape[1] == 0 or any(f.has_long_rows for f in layers)
    dtype = layers[0].dtype if exact else torch.float32
    columns = torch.cat([drawn.new_ones(n, 1), drawn], dim=1).to(device, dtype)
    cross = drawn.new_zeros(n, *wanted.shape, device=device)
    own = cross.new_empty(n, len(layers))
    weighted = cross.new_zeros(drawn.shape[1], *wanted.shape)
    block = max(1, BLOCK_NUMBERS // (n * len(layers)))
    for start in range(0, n, block):
        here = slice(start, min(start + block, n))
        kernels = [_apart(f, dtype, here) for f in layers]
        for i, j in np.argwhere(wanted):
            product = kernels[place[id(xs[i])]] * kernels[place[id(ys[j])]]
            sums = (product @ columns).double()
            cross[here, i, j] = sums[:, 0]
            weighted[:, i, j] += (sums[:, 1:] * drawn[here]).sum(dim=0)
        own[here] = torch.stack(
            [reduce(k.square(), "i j -> i", "sum") for k in kernels], 1
        ).double()
    outside = torch.as_tensor(~wanted, device=device)
    cross[:, outside], weighted[:, outside] = torch.nan, torch.nan
    of_x, of_y = (
        own[:, [place.get(id(f), -1) for f in side]].masked_fill(
            torch.as_tensor(~known, device=device), torch.nan
        )
        for side, known in ((xs, left), (ys, right))
    )
    by_document = [_by_document(part, labels, units) for part in (cross, of_x, of_y)]
    return _Sums(by_document[0], by_document[1], by_document[2], weighted)


def _apart(x: Features, dtype: torch.dtype, here: slice) -> Tensor:
    """Rows of the kernel apart from documents, `[rows, n]`; kept if no larger than the rows are."""

    def compute(side: Features, wanted: slice = slice(0, x.n)) -> Tensor:
        rows, effects = side.centered.to(dtype), effects_apart(side).to(dtype)
        return rows_apart(rows, effects, side.labels, wanted)

    if x.n * dtype.itemsize <= x.d * x.dtype.itemsize:
        return x.remember_matrix(f"apart {dtype}", compute)[here]
    return compute(x, here)


def _some(side: Side, wanted: Iterable[bool]) -> list[Features]:
    return [f for f, chosen in zip(side, wanted, strict=True) if chosen]


def _by_document(by_row: Tensor, labels: Tensor, units: int) -> Tensor:
    return by_row.new_zeros(units, *by_row.shape[1:]).index_add_(0, labels, by_row)


def _without_each(sums: _Sums) -> np.ndarray:
    """Debiased CKA without each document."""
    h_xy, h_x, h_y = (_left_out(part) for part in sums[:3])
    scale = rearrange(h_x, "g a -> g a 1") * rearrange(h_y, "g b -> g 1 b")
    return np.asarray((h_xy / torch.where(scale > 0, scale, torch.nan).sqrt()).cpu().numpy())


def _left_out(by_document: Tensor) -> Tensor:
    """`<A, B>` without each document from its parts, `[documents, ...]`."""
    count = len(by_document)
    return by_document.sum(dim=0) - 2 * (count - 2) / (count - 3) * by_document
