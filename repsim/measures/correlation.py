"""Units against units: are they the same as they stand (L0), or after re-ordering (L1)?

Averaging averages unit i with unit i: a permuted twin has CKA 1 and a unit correlation near 0.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from repsim.core.measure import Rung
from repsim.measures.algebra import RUN, column_products, products, summed, unit_chunks
from repsim.measures.base import PERMUTATION, SCALING, TRANSLATION, similarity_measure
from repsim.measures.features import Features, Mask, Side
from repsim.measures.held import by_unit, cosines_without, units_of

LI = "Li, Yosinski, Clune, Lipson, Hopcroft 2016, arXiv:1511.07543"


def best_assignment(gain: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of row and column with the largest total gain (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    # What every choice for a row, or for a column, costs at least decides nothing: without it fewer
    # paths are searched.
    cost = -gain.double().cpu().numpy()
    for axis in (1, 0):
        # Of the longer side not all are chosen.
        if cost.shape[axis] >= cost.shape[1 - axis]:
            cost -= cost.min(axis=axis, keepdims=True)
    rows, columns = linear_sum_assignment(cost)
    return rows, columns


def unit_correlations(x: Features, y: Features) -> Tensor:
    """Pearson correlation of every unit of X with every unit of Y, `[d1, d2]`; constant ones 0."""
    return x.unit_columns64.mT @ y.unit_columns64


def _alive(x: Features) -> Tensor:
    """`[d]`, whether a unit varies."""
    return x.remember("alive units", lambda origin: (origin.unit_columns != 0).any(dim=0))


def _alive_units(xs: Side, ys: Side) -> np.ndarray:
    """How many units vary on either side, `[len(xs), len(ys)]`; NaN where none does."""
    dead_x, dead_y = (torch.stack([~_alive(f) for f in side]).double() for side in (xs, ys))
    alive = xs[0].d - (dead_x @ dead_y.mT).cpu().numpy()
    return np.where(alive > 0, alive, np.nan)


def _unit_correlation_grid(xs: Side, ys: Side) -> np.ndarray:
    sides = [[rearrange(f.unit_columns, "n d -> (n d)") for f in side] for side in (xs, ys)]
    return products(*sides) / _alive_units(xs, ys)


def _shuffled_unit_correlations(
    xs: Side, ys: Side, permutations: np.ndarray, mask: Mask = None
) -> np.ndarray:
    """Unit-wise correlation with the rows of Y shuffled, `[count, len(xs), len(ys)]`."""
    left, right = ([f.unit_columns for f in side] for side in (xs, ys))
    n, d, device = xs[0].n, xs[0].d, xs[0].device
    orders = torch.as_tensor(permutations, dtype=torch.long, device=device)
    sums = torch.zeros(len(orders), len(xs), len(ys), dtype=torch.float64, device=device)
    step = max(1, RUN // d)
    for start in range(0, n, step):
        fixed = torch.stack([x[start : start + step].flatten() for x in left])
        for total, order in zip(sums, orders[:, start : start + step], strict=True):
            moved = torch.stack([y[order].flatten() for y in right])
            total += (fixed @ moved.mT).double()
    found = sums.cpu().numpy() / _alive_units(xs, ys)
    return found if mask is None else np.where(mask, found, np.nan)


def _unit_correlations_by_document(
    xs: Side, ys: Side, weights: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean correlation where each document's part, less its share of the whole, is weighted."""
    labels = xs[0].documents
    assert labels is not None
    sizes = torch.bincount(labels).double()
    # The share of the variance that is left where the mean is taken out.
    left = 1 - (sizes / len(labels)).square().sum()
    drawn = torch.as_tensor(weights, dtype=torch.float64, device=labels.device)
    found = np.full((len(weights), *mask.shape), np.nan)
    for i, j in np.argwhere(mask):
        by_row = reduce(xs[i].unit_columns * ys[j].unit_columns, "n d -> n", "sum").double()
        parts = torch.zeros_like(sizes).index_add_(0, labels, by_row)
        parts -= sizes / len(labels) * parts.sum()
        alive = int((_alive(xs[i]) | _alive(ys[j])).sum())
        found[:, i, j] = (drawn @ (parts / left.sqrt())).cpu().numpy() / (alive or np.nan)
    return found, _left_out_unit_correlations(xs, ys, mask)


def _left_out_unit_correlations(xs: Side, ys: Side, mask: Mask = None) -> np.ndarray:
    """Unit-wise correlation without each document, or each row where none is, in closed form."""
    labels, kept = units_of(xs[0])
    wanted = np.ones((len(xs), len(ys)), dtype=bool) if mask is None else mask
    found = np.full((len(kept), *wanted.shape), np.nan)
    for part in unit_chunks(labels, 2 * xs[0].d):
        units, here, place = part
        left, right = ([_without_units(f, part, kept[units]) for f in side] for side in (xs, ys))
        for i, j in np.argwhere(wanted):
            a, b = xs[i].unit_columns, ys[j].unit_columns
            inside = summed(a[here].double() * b[here], place, len(left[i][0]))
            cross = column_products(a, b) - inside - left[i][0] * right[j][0] / kept[units]
            scale = (left[i][1] * right[j][1]).sqrt()
            each = torch.where(scale > 0, cross / scale, 0.0)
            found[units, i, j] = each.sum(dim=1).cpu().numpy()
    return np.asarray(found / _alive_units(xs, ys))


def _without_units(
    x: Features, part: tuple[slice, Tensor, Tensor], kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Column sums of some documents, and of the squares of the rest, `[documents, d]`; kept."""
    units, here, place = part

    def compute(side: Features) -> tuple[Tensor, Tensor]:
        rows, whole = side.unit_columns[here].double(), _alive(side).double()
        sums = summed(rows, place, len(kept))
        rest = whole - summed(rows.square(), place, len(kept)) - sums.square() / kept
        return sums, rest.clamp(min=0)

    return by_unit(x, f"columns without documents {units}", compute)


@similarity_measure(
    name="unit_correlation",
    label="Unit-wise correlation",
    rung=Rung.L0,
    range=(-1.0, 1.0),
    invariances=(TRANSLATION, SCALING),
    min_samples=3,
    definition="Mean over units of the signed Pearson correlation of unit i with unit i. Units "
    "that are constant on both sides are left out; constant on one side counts 0.",
    reference="Del, Fishel 2022, arXiv:2212.01924 (average neuron-wise correlation)",
    estimator="0 in expectation on independent data. Signed: a flipped unit counts against.",
    needs_equal_width=True,
    grid=_unit_correlation_grid,
    shuffled=_shuffled_unit_correlations,
    left_out=_left_out_unit_correlations,
    by_document=_unit_correlations_by_document,
    null_value=0.0,
)
def unit_correlation(x: Features, y: Features) -> float:
    """Mean correlation of each unit with itself."""
    return float(_unit_correlation_grid([x], [y])[0, 0])


@similarity_measure(
    name="identity_match",
    label="Identity match",
    rung=Rung.L0,
    range=(0.0, 1.0),
    invariances=(TRANSLATION, SCALING),
    min_samples=3,
    cost="expensive",
    definition="Fraction of units whose partner under the best one-to-one matching of signed "
    "correlations (Hungarian) is the unit itself; units constant on both sides are left out.",
    reference="after " + LI,
    estimator="1/d in expectation on independent data.",
    # The jackknife of 200 planted models covered 0.32 of nominal 0.95.
    no_interval="a share of units, often the same whichever sentences are left out",
    needs_equal_width=True,
)
def identity_match(x: Features, y: Features) -> float:
    """Share of units that are matched with themselves."""
    alive = _alive(x) | _alive(y)
    rows, columns = best_assignment(unit_correlations(x, y)[alive][:, alive])
    return float(np.mean(rows == columns))


@similarity_measure(
    name="hard_match",
    label="Hard correlation match",
    rung=Rung.L1,
    range=(-1.0, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION),
    min_samples=3,
    cost="expensive",
    definition="Mean signed correlation of units matched one to one (Hungarian), over the narrower "
    "width.",
    reference=LI,
    estimator="biased upwards by the matching, the more the wider. Compare with a null.",
    aliases={"hard_correlation_match": {}},
)
def hard_match(x: Features, y: Features) -> float:
    """Mean correlation after the best one-to-one matching of units."""
    correlations = unit_correlations(x, y)
    rows, columns = best_assignment(correlations)
    return float(correlations[rows, columns].mean(dtype=torch.float64))


@similarity_measure(
    name="soft_match",
    label="Soft correlation match",
    rung=Rung.L1,
    range=(-1.0, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION),
    min_samples=3,
    cost="expensive",
    definition="Mean over units of the largest correlation with any unit of the other side, "
    "averaged over both directions.",
    reference=LI,
    estimator="biased upwards by the maximum, the more the wider. Compare with a null.",
    aliases={"soft_correlation_match": {}},
)
def soft_match(x: Features, y: Features) -> float:
    """Mean of each unit's best correlation."""
    correlations = unit_correlations(x, y)
    forward = correlations.amax(dim=1).mean(dtype=torch.float64)
    backward = correlations.amax(dim=0).mean(dtype=torch.float64)
    return float(forward + backward) / 2


def _matched(x: Features, y: Features) -> tuple[Tensor, Tensor]:
    """Both sides with their units re-ordered, `[n, narrower width]`."""
    a, b = x.centered64, y.centered64
    rows, columns = best_assignment(a.mT @ b)
    return a[:, rows], b[:, columns]


@similarity_measure(
    name="permutation",
    label="Permutation Procrustes",
    rung=Rung.L1,
    range=(-1.0, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION),
    min_samples=2,
    cost="expensive",
    definition="max over permutations P of <X P, Y> / (||X||_F ||Y||_F), columns centered, the "
    "narrower side padded with zeros.",
    reference="Williams, Kunz, Kornblith, Linderman 2021, arXiv:2110.14739",
    estimator="biased upwards by the matching. Compare with a null.",
    aliases={"permutation_similarity": {}},
    held=functools.partial(cosines_without, aligned=_matched),
    approximate=lambda documents: (
        "p of documents is approximate (documents of unlike length: 8.5 % of true nulls at 5 %)"
        if documents
        else ""
    ),
)
def permutation(x: Features, y: Features) -> float:
    """Cosine of two arrays after the best re-ordering of units."""
    products = x.centered64.mT @ y.centered64
    rows, columns = best_assignment(products)
    return float(products[rows, columns].sum(dtype=torch.float64)) / (x.norm * y.norm)


@similarity_measure(
    name="permutation_distance",
    label="Permutation distance",
    rung=Rung.L1,
    direction="distance",
    range=(0.0, None),
    invariances=(PERMUTATION,),
    min_samples=1,
    cost="expensive",
    definition="min over permutations P of ||X P - Y||_F on the arrays as they are, the narrower "
    "side padded with zeros.",
    reference="Williams, Kunz, Kornblith, Linderman 2021, arXiv:2110.14739",
    estimator="in the units of the activations; grows with sqrt(n).",
    aliases={"permutation_procrustes_raw": {}},
    undefined_on_constant=False,
)
def permutation_distance(x: Features, y: Features) -> float:
    """Frobenius distance after the best re-ordering of units."""
    a, b = x.x, y.x
    rows, columns = best_assignment(a.mT @ b)
    matched = (a[:, rows] - b[:, columns]).square().sum()
    wider, taken = (a, rows) if a.shape[1] > b.shape[1] else (b, columns)
    alone = np.setdiff1d(np.arange(wider.shape[1]), taken)
    return float((matched + wider[:, alone].square().sum()).sqrt())
