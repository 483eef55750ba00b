"""Information imbalance: is a row's nearest neighbour on one side also near on the other?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repsim.core.measure import Rung
from repsim.measures.algebra import rounding_step
from repsim.measures.base import ROTATION_BLIND, similarity_measure
from repsim.measures.features import Features, Mask, Side
from repsim.measures.neighbours import nearest

#: Rows whose distances are sorted at once.
BLOCK = 1024


def distance_ranks(x: Features) -> Tensor:
    """Rank of row j among the others by distance from row i, from 0: `[n, n]`."""
    # In float64 whatever the sweep's precision: ranks jump where float32 cannot tell rows apart.
    rows = x.centered64
    squares = rows.square().sum(dim=1)
    step = 4 * (float(squares.max()) or 1.0) * rounding_step(rows.dtype)
    ranks = torch.empty(x.n, x.n, device=x.device)
    for start in range(0, x.n, BLOCK):
        sums = squares[start : start + BLOCK, None] + squares
        block = ((sums - 2 * rows[start : start + BLOCK] @ rows.mT) / step).round_()
        here = torch.arange(len(block), device=x.device)
        block[here, here + start] = torch.inf  # a row is no neighbour of itself
        ordered = block.sort(dim=1).values
        closer = torch.searchsorted(ordered, block)
        as_close = torch.searchsorted(ordered, block, right=True)
        ranks[start : start + BLOCK] = (closer + as_close - 1) / 2
    return ranks


def _imbalances(xs: Side, ys: Side, orders: np.ndarray, mask: Mask = None) -> np.ndarray:
    """Imbalance with the rows of Y in each order, `[orders, len(xs), len(ys)]`."""
    first = [nearest(x, 1, "euclidean") for x in xs]
    found = np.full((len(orders), len(xs), len(ys)), np.nan)
    for j, y in enumerate(ys):
        wanted = [i for i in range(len(xs)) if mask is None or mask[i, j]]
        with y.temporarily():
            ranks = distance_ranks(y)
        for count, order in enumerate(torch.as_tensor(orders, device=ranks.device)):
            for i in wanted:
                reached = ranks[order[:, None], order[first[i].near]]
                mean = (reached * first[i].weights()).sum(dim=1).mean()
                found[count, i, j] = 2 * float(mean) / (y.n - 2)
    return found


def _grid(xs: Side, ys: Side) -> np.ndarray:
    return _imbalances(xs, ys, np.arange(xs[0].n)[None])[0]


@similarity_measure(
    name="information_imbalance",
    label="Information imbalance",
    rung=Rung.L4,
    direction="distance",
    range=(0.0, 2.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="2 / (n - 2) times the mean over rows of r_i, r_i = how many rows lie nearer to "
    "row i on side Y than its nearest row on side X does (Euclidean). 0: X (first argument) tells "
    "who is near in Y; 1: X says nothing of Y. The paper's value is 2 / n + (n - 2) / n times "
    "this one.",
    reference="Glielmo, Zeni, Cheng, Csányi, Laio 2022, PNAS Nexus 1",
    estimator="1 in expectation on independent data, at any n.",
    symmetric=False,
    grid=_grid,
    shuffled=_imbalances,
    null_value=1.0,
    holds_pairs=2,
)
def information_imbalance(x: Features, y: Features) -> float:
    """How little the neighbours of X tell of those of Y."""
    return float(_grid([x], [y])[0, 0])
