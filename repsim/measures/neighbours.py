"""Neighbourhoods: do the same sentences lie next to each other?

Rows that tie for the last places share them by weight, so that no order of rows matters; what two
sides have in common is the smaller weight. `k` is cut to n - 2: with n - 1 all rows are neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.base import ORTHOGONAL, PERMUTATION, SCALING, similarity_measure
from repsim.measures.features import Features, Mask, Side
from repsim.measures.nearest import Metric, Neighbours
from repsim.measures.neighbour_null import overlaps_shuffled

COSINE_BLIND = (SCALING, PERMUTATION, ORTHOGONAL)
#: Rows whose neighbours are compared at once.
BLOCK = 2048
#: Score of the number of common neighbours of each row, and of k.
Score = Callable[[Tensor, int], Tensor]

PLATONIC = "Huh, Cheung, Wang, Isola 2024, arXiv:2405.07987"
SURVEY = "Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329"


def rows_for_neighbours(*, k: int, **others: object) -> int:
    """Fewest rows of which k are a neighbourhood: a third of them."""
    return 3 * k


def nearest(x: Features, k: int, metric: Metric = "cosine") -> Neighbours:
    """The k (n - 2 if smaller) nearest rows of each row."""
    if k < 1:
        raise UsageError(f"k={k} is not possible", hint="use at least one neighbour")
    return x.neighbours(min(k, x.n - 2), metric)


def _dense(found: Neighbours, values: Tensor, rows: slice) -> Tensor:
    """One value per listed neighbour, as `[b, n]` with zeros elsewhere."""
    index = found.near[rows]
    return values.new_zeros(len(index), len(found.near)).scatter_(1, index, values[rows])


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def _shared(mine: Tensor, theirs: Neighbours, rows: slice) -> Tensor:
    """How many neighbours are common, `[b]`, mine as dense weights."""
    picked = mine.gather(1, theirs.near[rows])
    if theirs.weight is not None:
        picked = torch.minimum(picked.double(), theirs.weight[rows])
    return picked.sum(dim=1, dtype=torch.float64)


def _shared_by_row(xs: Side, ys: Side, k: int, metric: Metric, score: Score) -> np.ndarray:
    """A score of the number of common neighbours (and of k) of each row, `[n, xs, ys]`."""
    found = min(k, xs[0].n - 2)
    left = [nearest(x, k, metric) for x in xs]
    right = [nearest(y, k, metric) for y in ys]
    scores = np.empty((xs[0].n, len(xs), len(ys)))
    for rows in _blocks(xs[0].n):
        for i, mine in enumerate(left):
            # Whole places take a byte, shared ones need their fraction.
            weights = mine.weights()
            dense = _dense(mine, weights.byte() if mine.weight is None else weights, rows)
            shared = torch.stack([_shared(dense, theirs, rows) for theirs in right], dim=1)
            scores[rows, i] = score(shared, found).cpu().numpy()
    return scores


def _scored(score: Score) -> tuple[Callable[..., np.ndarray], ...]:
    """Scores by row, values of all pairs, and with the rows of Y shuffled."""

    def by_row(xs: Side, ys: Side, *, k: int, metric: Metric) -> np.ndarray:
        return _shared_by_row(xs, ys, k, metric, score)

    def grid(xs: Side, ys: Side, *, k: int, metric: Metric) -> np.ndarray:
        return np.asarray(by_row(xs, ys, k=k, metric=metric).mean(axis=0))

    def shuffled(
        xs: Side, ys: Side, permutations: np.ndarray,
        mask: Mask = None, *, k: int, metric: Metric,
    ) -> np.ndarray:  # fmt: skip
        left, right = ([nearest(f, k, metric) for f in side] for side in (xs, ys))
        found = min(k, xs[0].n - 2)
        return overlaps_shuffled(
            left, right, permutations, mask, lambda shared: score(shared, found)
        )

    return by_row, grid, shuffled


_mutual_by_row, _mutual_grid, _mutual_shuffled = _scored(lambda shared, k: shared / k)
_jaccard_by_row, _jaccard_grid, _jaccard_shuffled = _scored(
    lambda shared, k: shared / (2 * k - shared)
)


@similarity_measure(
    name="mutual_knn",
    label="Mutual k-NN",
    rung=Rung.L4,
    range=(0.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    definition="Mean over rows of |N_X(i) & N_Y(i)| / k; N the k nearest rows by the metric.",
    reference=PLATONIC,
    estimator="k/(n-1) on independent data; depends on n, so compare at one n only.",
    aliases={"mutual_knn_cosine_k10": {"k": 10, "metric": "cosine"}},
    grid=_mutual_grid,
    by_row=_mutual_by_row,
    shuffled=_mutual_shuffled,
    undefined_on_constant=False,
    rows_for=rows_for_neighbours,
)
def mutual_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Share of common nearest neighbours."""
    return float(_mutual_grid([x], [y], k=k, metric=metric)[0, 0])


@similarity_measure(
    name="jaccard_knn",
    label="Jaccard k-NN",
    rung=Rung.L4,
    range=(0.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    definition="Mean over rows of |N_X(i) & N_Y(i)| / |N_X(i) | N_Y(i)|.",
    reference="Schumacher et al. 2021, arXiv:2010.04046; " + SURVEY,
    estimator="about k/(2n-k) on independent data; depends on n.",
    aliases={
        "knn_jaccard_cosine_k10": {"k": 10, "metric": "cosine"},
        "knn_jaccard_euclidean_k10": {"k": 10, "metric": "euclidean"},
    },
    grid=_jaccard_grid,
    by_row=_jaccard_by_row,
    shuffled=_jaccard_shuffled,
    undefined_on_constant=False,
    rows_for=rows_for_neighbours,
)
def jaccard_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Jaccard similarity of the sets of nearest neighbours."""
    return float(_jaccard_grid([x], [y], k=k, metric=metric)[0, 0])


# -- order, similarities, kernels and cycles ------------------------------------------------------


@similarity_measure(
    name="rank_similarity",
    label="Rank similarity",
    rung=Rung.L4,
    range=(0.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Mean over rows of sum over common neighbours v of 2 / ((1 + |r - r'|)(r + r')), r "
    "and r' its ranks on the two sides, over the harmonic number of how many are common.",
    reference="Wang, Chen, Rosenblum 2020 (rank similarity); " + SURVEY,
    estimator="depends on n and k.",
    aliases={"rank_similarity_cosine_k10": {"k": 10, "metric": "cosine"}},
    undefined_on_constant=False,
    rows_for=rows_for_neighbours,
)
def rank_similarity(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Agreement of the ranks of common neighbours."""
    a, b = nearest(x, k, metric), nearest(y, k, metric)
    total = 0.0
    for rows in _blocks(x.n):
        columns, mine = b.near[rows], b.ranks()[rows]
        theirs = _dense(a, a.ranks(), rows).gather(1, columns)
        weight = _dense(a, a.weights(), rows).gather(1, columns)
        weight = torch.minimum(weight, b.weights()[rows])
        terms = 2 * weight / ((1 + (theirs - mine).abs()) * (theirs + mine))
        common = weight.sum(dim=1)
        most = (_most(a, rows, common) + _most(b, rows, common)) / 2
        total += float((terms.sum(dim=1) / most.clamp(min=1e-300)).sum())
    return total / x.n


def _most(found: Neighbours, rows: slice, common: Tensor) -> Tensor:
    """Sum of 1 / rank over the first `common` places: the harmonic number where nothing ties."""
    weight = found.weights()[rows]
    before = torch.cumsum(weight, dim=1) - weight
    taken = torch.minimum((rearrange(common, "b -> b 1") - before).clamp(min=0), weight)
    return (taken / found.ranks()[rows]).sum(dim=1)


def _cosines(x: Features) -> Tensor:
    return x.remember_matrix("cosines", lambda origin: 1 - origin.distances("cosine"))


@similarity_measure(
    name="second_order_cosine",
    label="Second-order cosine",
    rung=Rung.L4,
    range=(-1.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Mean over rows of the cosine between the two vectors of cosine similarities (of "
    "'values' 'similarity'; 'distance': of distances) to the union of the row's "
    "neighbours on both sides.",
    reference="Hamilton, Leskovec, Jurafsky 2016, arXiv:1606.02821",
    estimator="near 0 on independent isotropic data with similarities, near 1 with distances.",
    aliases={
        "second_order_cosine_k10": {"k": 10, "values": "similarity"},
        "second_order_cosine_dist_k10": {"k": 10, "values": "distance"},
    },
    undefined_on_constant=False,
    rows_for=rows_for_neighbours,
    holds_pairs=4,
)
def second_order_cosine(
    x: Features, y: Features, *, k: int = 10, values: str = "similarity"
) -> float:
    """Cosine of the similarities to the joint neighbourhood."""
    if values not in ("similarity", "distance"):
        raise UsageError(
            f"values='{values}' is not possible", hint="use 'similarity' or 'distance'"
        )
    found = [nearest(side, k) for side in (x, y)]
    of = _cosines if values == "similarity" else (lambda side: side.distances("cosine"))
    total = 0.0
    for rows in _blocks(x.n):
        union = torch.maximum(*(_dense(one, one.weights(), rows) for one in found))
        a, b = (of(side)[rows].double() * union for side in (x, y))
        lengths = a.norm(dim=1) * b.norm(dim=1)
        cosines = (a * b).sum(dim=1) / lengths.clamp(min=1e-300)
        total += float(torch.where(lengths > 0, cosines, 0.0).sum())
    return total / x.n


@similarity_measure(
    name="cknna",
    label="CKNNA",
    rung=Rung.L4,
    range=(None, None),
    invariances=COSINE_BLIND,
    min_samples=4,
    cost="expensive",
    definition="Debiased CKA of cosine kernels, restricted to pairs that are neighbours on both "
    "sides; epsilon is added to the root (the original adds 1e-6, which makes it depend "
    "on scale).",
    reference=PLATONIC,
    estimator="depends on n and k. Compare with a null.",
    symmetric=False,
    aliases={"cknna_cosine_k10": {"k": 10, "epsilon": 1e-6}},
    undefined_on_constant=False,
    rows_for=rows_for_neighbours,
)
def cknna(x: Features, y: Features, *, k: int = 10, epsilon: float = 0.0) -> float:
    """CKA over mutual nearest neighbours."""
    left, right = _entries(nearest(x, k), x.n), _entries(nearest(y, k), y.n)
    shared = _in_both(left, right)
    cross = _masked_hsic(_kernel(x, shared), _kernel(y, shared), shared)
    own = [
        _masked_hsic(_kernel(side, mask), _kernel(side, mask), mask)
        for side, mask in ((x, left), (y, right))
    ]
    if own[0] * own[1] <= 0:
        return math.nan
    return cross / (math.sqrt(own[0] * own[1]) + epsilon)


class _Mask(NamedTuple):
    """Entries of an `[n, n]` matrix, in ascending order: their place `i n + j` and weight."""

    place: Tensor
    weight: Tensor
    n: int


def _entries(found: Neighbours, n: int) -> _Mask:
    rows = rearrange(torch.arange(n, device=found.near.device), "n -> n 1")
    weight = found.weights().flatten()
    place, order = torch.sort((rows * n + found.near).flatten()[weight > 0])
    return _Mask(place, weight[weight > 0][order], n)


def _in_both(a: _Mask, b: _Mask) -> _Mask:
    at = torch.searchsorted(b.place, a.place).clamp(max=len(b.place) - 1)
    both = b.place[at] == a.place
    return _Mask(a.place[both], torch.minimum(a.weight, b.weight[at])[both], a.n)


def _kernel(x: Features, mask: _Mask) -> Tensor:
    """Cosines of the rows at the entries, float64."""
    rows = x.unit_rows
    pairs = zip((mask.place // x.n).split(BLOCK), (mask.place % x.n).split(BLOCK), strict=True)
    return torch.cat([(rows[i] * rows[j]).sum(dim=1) for i, j in pairs])


def _masked_hsic(k: Tensor, other: Tensor, mask: _Mask) -> float:
    """HSIC_1 of two kernels times a mask without diagonal; the mask need not be symmetric."""
    n = mask.n
    a, b = k * mask.weight, other * mask.weight
    i, j = mask.place // n, mask.place % n
    if not len(i):
        return 0.0
    mirrored = j * n + i
    at = torch.searchsorted(mask.place, mirrored).clamp(max=len(i) - 1)
    total = (a * b[at])[mask.place[at] == mirrored].sum()
    columns = a.new_zeros(n).index_add_(0, j, a)
    rows = b.new_zeros(n).index_add_(0, i, b)
    total = total + a.sum() * b.sum() / ((n - 1) * (n - 2))
    return float(total - 2 * (columns @ rows) / (n - 2)) / (n * (n - 3))


@similarity_measure(
    name="cycle_knn",
    label="Cycle k-NN",
    rung=Rung.L4,
    range=(0.0, 1.0),
    identity_value=math.nan,
    invariances=COSINE_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Share of rows that are found among the X-neighbours of their Y-neighbours. Under 1 "
    "even on identical input, where neighbourhood is not mutual.",
    reference=PLATONIC,
    estimator="depends on n and k. Compare with a null.",
    symmetric=False,
    aliases={"cycle_knn_cosine_k10": {"k": 10, "metric": "cosine"}},
    undefined_on_constant=False,
    rows_for=rows_for_neighbours,
)
def cycle_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Share of rows that lead back to themselves."""
    mine, theirs = nearest(x, k, metric), nearest(y, k, metric)
    total = 0.0
    for rows in _blocks(x.n):
        over = theirs.near[rows]
        own = torch.arange(rows.start, rows.stop, device=over.device)
        back = (mine.near[over] == rearrange(own, "b -> b 1 1")) * mine.weights()[over]
        both = torch.minimum(back.amax(dim=2), theirs.weights()[rows])
        total += float(both.amax(dim=1).sum())
    return total / x.n
