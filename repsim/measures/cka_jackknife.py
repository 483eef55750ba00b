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
from einops import einsum, rearrange, reduce
from torch import Tensor

from repsim.measures.documents import effects_of, rows_apart
from repsim.measures.features import Features

#: Numbers that the kernel rows of one block of rows may hold.
BLOCK_NUMBERS = 1 << 24


def cka_replicates(xs: Sequence[Features], ys: Sequence[Features]) -> np.ndarray:
    """Debiased linear CKA of all layer pairs without each document, or each row where none is.

    Returns:
        `[documents or rows, len(xs), len(ys)]`.
    """
    n, device = xs[0].n, xs[0].device
    known = xs[0].documents
    labels = torch.arange(n, device=device) if known is None else known
    layers = list({id(f): f for f in [*xs, *ys]}.values())
    place = {id(f): i for i, f in enumerate(layers)}
    left, right = ([place[id(f)] for f in side] for side in (xs, ys))
    rows = [f.centered for f in layers]
    effects = [effects_of(a, labels)[1].to(a.dtype) for a in rows]
    cross = torch.empty(n, len(xs), len(ys), dtype=torch.float64, device=device)
    own = torch.empty(n, len(layers), dtype=torch.float64, device=device)
    block = max(1, BLOCK_NUMBERS // (n * len(layers)))
    for start in range(0, n, block):
        here = slice(start, min(start + block, n))
        kernels = torch.stack(
            [rows_apart(a, e, labels, here) for a, e in zip(rows, effects, strict=True)], dim=1
        )
        cross[here] = einsum(kernels[:, left], kernels[:, right], "i a j, i b j -> i a b").double()
        own[here] = reduce(kernels.square(), "i l j -> i l", "sum").double()
    h_xy, h_own = (_left_out(by_row, labels) for by_row in (cross, own))
    scale = rearrange(h_own[:, left], "g a -> g a 1") * rearrange(h_own[:, right], "g b -> g 1 b")
    defined = torch.where(scale > 0, scale, torch.nan)
    return np.asarray((h_xy / defined.sqrt()).cpu().numpy())


def _left_out(by_row: Tensor, labels: Tensor) -> Tensor:
    """`<A, B>` without each document from its parts by row, `[n, ...]` -> `[documents, ...]`."""
    count = int(labels.max()) + 1
    by_document = by_row.new_zeros(count, *by_row.shape[1:]).index_add_(0, labels, by_row)
    return by_row.sum(dim=0) - 2 * (count - 2) / (count - 3) * by_document
