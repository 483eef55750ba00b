"""Delete-one-row and delete-one-document replicates of debiased CKA, in closed form.

Debiased CKA is the cosine of U-centered matrices A and B. Leaving out row r takes `2 R_r` from
`<A, B>`, `R_r = sum_j A_rj B_rj`, and centering the rest anew takes `2 R_r / (n - 3)` more:
exactly, because the rows of A and B sum to zero. Of documents the second part is taken as
`2 R_g / (documents - 3)`, an upper bound for positive R. So one pass over blocks of rows gives all
replicates of all layer pairs; nothing of size n x n is held.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from repsim.measures.documents import effects_of, rows_apart
from repsim.measures.features import Features

#: Numbers that the kernel rows of one block of rows may hold.
BLOCK_NUMBERS = 1 << 24


def cka_replicates(
    xs: Sequence[Features], ys: Sequence[Features], mask: np.ndarray | None = None
) -> np.ndarray:
    """Debiased linear CKA of all layer pairs without each document, or each row where none is.

    Returns:
        `[documents or rows, len(xs), len(ys)]`, NaN outside the mask.
    """
    labels = _labels(xs[0])
    by_row = _pass(xs, ys, labels, torch.empty(len(labels), 0, dtype=torch.float64), mask)[:3]
    h_xy, h_x, h_y = (_left_out(sums, labels) for sums in by_row)
    scale = rearrange(h_x, "g a -> g a 1") * rearrange(h_y, "g b -> g 1 b")
    defined = torch.where(scale > 0, scale, torch.nan)
    return np.asarray((h_xy / defined.sqrt()).cpu().numpy())


def cka_flipped(
    xs: Sequence[Features],
    ys: Sequence[Features],
    signs: np.ndarray,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Debiased CKA where each document's kernel rows change sign (wild bootstrap).

    With `M_gh` the part of `<A, B>` between documents g and h, `sum s_g s_h M_gh` over the norms:
    the null of a degenerate U-statistic for documents of any sizes, Chwialkowski, Sejdinovic,
    Gretton 2014, "A wild bootstrap for degenerate kernel tests". The more alike the sides, the
    wider it is.

    Returns:
        `[draws, len(xs), len(ys)]`, NaN outside the mask.
    """
    labels = _labels(xs[0])
    drawn = torch.as_tensor(signs, dtype=torch.float64, device=labels.device).mT[labels]
    *by_row, flipped = _pass(xs, ys, labels, drawn, mask)
    norm_x, norm_y = (sums.sum(dim=0) for sums in by_row[1:])
    scale = rearrange(norm_x, "a -> a 1") * norm_y
    return np.asarray((flipped / torch.where(scale > 0, scale, torch.nan).sqrt()).cpu().numpy())


def _labels(x: Features) -> Tensor:
    return torch.arange(x.n, device=x.device) if x.documents is None else x.documents


def _pass(
    xs: Sequence[Features], ys: Sequence[Features], labels: Tensor, drawn: Tensor,
    mask: np.ndarray | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`sum_j A_ij B_ij` by row and pair of layers, and of each x and y with itself; with signs.

    In one pass over blocks of rows: `[n, a, b]`, `[n, a]`, `[n, b]`, and for each column s of
    `drawn` `[n, draws]` the sum of `s_i s_j A_ij B_ij`, `[draws, a, b]`.
    """
    n, device = xs[0].n, xs[0].device
    wanted = np.ones((len(xs), len(ys)), dtype=bool) if mask is None else mask
    layers = list({id(f): f for f in [*xs, *ys]}.values())
    place = {id(f): i for i, f in enumerate(layers)}
    left, right = ([place[id(f)] for f in side] for side in (xs, ys))
    rows = [f.centered for f in layers]
    effects = [effects_of(a, labels)[1].to(a.dtype) for a in rows]
    columns = torch.cat([drawn.new_ones(n, 1), drawn], dim=1).to(device, rows[0].dtype)
    cross = drawn.new_full((n, *wanted.shape), torch.nan, device=device)
    own = cross.new_empty(n, len(layers))
    flipped = cross.new_full((drawn.shape[1], *wanted.shape), torch.nan)
    flipped[:, torch.as_tensor(wanted, device=device)] = 0
    block = max(1, BLOCK_NUMBERS // (n * len(layers)))
    for start in range(0, n, block):
        here = slice(start, min(start + block, n))
        kernels = [rows_apart(a, e, labels, here) for a, e in zip(rows, effects, strict=True)]
        for i, j in np.argwhere(wanted):
            sums = ((kernels[left[i]] * kernels[right[j]]) @ columns).double()
            cross[here, i, j] = sums[:, 0]
            flipped[:, i, j] += (sums[:, 1:] * drawn[here]).sum(dim=0)
        own[here] = torch.stack(
            [reduce(k.square(), "i j -> i", "sum") for k in kernels], 1
        ).double()
    return cross, own[:, left], own[:, right], flipped


def _left_out(by_row: Tensor, labels: Tensor) -> Tensor:
    """`<A, B>` without each document from its parts by row, `[n, ...]` -> `[documents, ...]`."""
    count = int(labels.max()) + 1
    by_document = by_row.new_zeros(count, *by_row.shape[1:]).index_add_(0, labels, by_row)
    return by_row.sum(dim=0) - 2 * (count - 2) / (count - 3) * by_document
