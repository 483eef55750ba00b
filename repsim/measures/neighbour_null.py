"""Neighbour lists with the rows of one side shuffled: what they still have in common.

Row i of the shuffled side is row `order[i]`, so that it has in common with row i of the other side
what `order[N_X(i)]` and `N_Y(order[i])` share. The lists of Y are spread out once for all shuffles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from repsim.measures.features import Mask
from repsim.measures.nearest import Neighbours

#: Numbers of the spread-out lists of all layers that are held at once.
HELD = 1 << 26
#: Entries that are looked up at once.
LOOKED_UP = 1 << 18


def overlaps_shuffled(
    left: Sequence[Neighbours],
    right: Sequence[Neighbours],
    permutations: np.ndarray,
    mask: Mask,
    score: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Mean over rows of a score of the number of common neighbours, `[count, left, right]`."""
    n = len(left[0].near)
    orders = torch.as_tensor(permutations, dtype=torch.long, device=left[0].near.device)
    inverse = torch.argsort(orders, dim=1)
    wanted = np.ones((len(left), len(right)), dtype=bool) if mask is None else mask
    total = np.where(wanted, np.zeros((len(orders), *wanted.shape)), np.nan)
    block = max(1, HELD // (n * len(right)))
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        spread = [_spread(one, rows) for one in right]
        at_once = max(1, LOOKED_UP // ((rows.stop - rows.start) * left[0].near.shape[1]))
        for first in range(0, len(orders), at_once):
            some = slice(first, first + at_once)
            for i in np.flatnonzero(wanted.any(axis=1)).tolist():
                here, places = _places(left[i], orders[some], inverse[some], rows, n)
                for j in np.flatnonzero(wanted[i]).tolist():
                    picked = spread[j].take(places)
                    if left[i].weight is not None or right[j].weight is not None:
                        picked = torch.minimum(picked.double(), left[i].weights()[here])
                    shared = reduce(picked.double(), "draw row k -> draw row", "sum")
                    total[some, i, j] += score(shared).sum(dim=1).cpu().numpy()
    return total / n


def _spread(found: Neighbours, rows: slice) -> Tensor:
    """Weight of every row as a neighbour of some rows, `[rows, n]`."""
    weights = found.weights()[rows]
    weights = weights.byte() if found.weight is None else weights
    index = found.near[rows]
    return weights.new_zeros(len(index), len(found.near)).scatter_(1, index, weights)


def _places(
    found: Neighbours, orders: Tensor, inverse: Tensor, rows: slice, n: int
) -> tuple[Tensor, Tensor]:
    """Which rows of X meet these rows of Y, and where their neighbours stand in `_spread`."""
    here = inverse[:, rows]
    draws = rearrange(torch.arange(len(orders), device=orders.device), "draw -> draw 1 1")
    columns = orders[draws, found.near[here]]
    local = torch.arange(here.shape[1], device=orders.device)
    return here, columns + rearrange(local * n, "row -> row 1")
