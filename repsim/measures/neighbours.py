"""Neighbourhoods: do the same sentences lie next to each other?

Neighbours are found once per array. A row is excluded from its own neighbours by index and ties go
to the lower index. `k` is cut to n - 2: with n - 1 neighbours every row would have all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import symmetric_product
from repsim.measures.base import ORTHOGONAL, PERMUTATION, SCALING, similarity_measure
from repsim.measures.features import Features, Metric

COSINE_BLIND = (SCALING, PERMUTATION, ORTHOGONAL)
#: Rows whose neighbours are compared at once.
BLOCK = 4096

PLATONIC = "Huh, Cheung, Wang, Isola 2024, arXiv:2405.07987"
SURVEY = "Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329"


def nearest(x: Features, k: int, metric: Metric = "cosine") -> Tensor:
    """The k (n - 2 if smaller) nearest rows of each row, `[n, k]`."""
    if k < 1:
        raise UsageError(f"k={k} is not possible", hint="use at least one neighbour")
    return x.neighbours(min(k, x.n - 2), metric)


def membership(neighbours: Tensor, n: int) -> Tensor:
    """`[b, n]` booleans: whether column j is a neighbour of row i."""
    mask = torch.zeros(len(neighbours), n, dtype=torch.bool, device=neighbours.device)
    return mask.scatter_(1, neighbours, True)


def _shared_grid(
    xs: Sequence[Features], ys: Sequence[Features], k: int, metric: Metric
) -> tuple[np.ndarray, int]:
    """How often each number 0..k of common neighbours occurs, `[a, b, k + 1]`, and k."""
    left = [nearest(x, k, metric) for x in xs]
    right = torch.stack([nearest(y, k, metric) for y in ys])
    n, found = left[0].shape
    counts = torch.zeros(len(xs), len(ys), found + 1, dtype=torch.int64)
    offsets = rearrange(torch.arange(len(ys)), "b -> b 1") * (found + 1)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        for i, neighbours in enumerate(left):
            mask = membership(neighbours[rows], n)
            shared = torch.stack([mask.gather(1, b).sum(dim=1) for b in right[:, rows]]).cpu()
            flat = torch.bincount((shared + offsets).flatten(), minlength=len(ys) * (found + 1))
            counts[i] += flat.reshape(len(ys), found + 1)
    return counts.numpy(), found


def _mutual_grid(
    xs: Sequence[Features], ys: Sequence[Features], *, k: int, metric: Metric
) -> np.ndarray:
    counts, found = _shared_grid(xs, ys, k, metric)
    return np.asarray(counts @ (np.arange(found + 1) / found) / xs[0].n)


def _jaccard_grid(
    xs: Sequence[Features], ys: Sequence[Features], *, k: int, metric: Metric
) -> np.ndarray:
    counts, found = _shared_grid(xs, ys, k, metric)
    shared = np.arange(found + 1)
    return np.asarray(counts @ (shared / (2 * found - shared)) / xs[0].n)


@similarity_measure(
    name="mutual_knn",
    label="Mutual k-NN",
    rung=Rung.L4,
    direction="similarity",
    range=(0.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    definition="Mean over rows of |N_X(i) & N_Y(i)| / k; N the k nearest rows by the metric.",
    reference=PLATONIC,
    estimator="k/(n-1) on independent data; depends on n, so compare at one n only.",
    aliases={"mutual_knn_cosine_k10": {"k": 10, "metric": "cosine"}},
    grid=_mutual_grid,
    undefined_on_constant=False,
)
def mutual_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Share of common nearest neighbours."""
    return float(_mutual_grid([x], [y], k=k, metric=metric)[0, 0])


@similarity_measure(
    name="jaccard_knn",
    label="Jaccard k-NN",
    rung=Rung.L4,
    direction="similarity",
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
    undefined_on_constant=False,
)
def jaccard_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Jaccard similarity of the sets of nearest neighbours."""
    return float(_jaccard_grid([x], [y], k=k, metric=metric)[0, 0])


# -- order, similarities, kernels and cycles ------------------------------------------------------


@similarity_measure(
    name="rank_similarity",
    label="Rank similarity",
    rung=Rung.L4,
    direction="similarity",
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
)
def rank_similarity(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Agreement of the ranks of common neighbours."""
    a, b = nearest(x, k, metric), nearest(y, k, metric)
    ranks = torch.arange(1, a.shape[1] + 1, device=a.device)
    ranks_in_x = torch.zeros(x.n, x.n, dtype=torch.int64, device=a.device)
    ranks_in_x.scatter_(1, a, ranks.expand_as(a))
    theirs = ranks_in_x.gather(1, b)
    common = theirs > 0
    terms = 2.0 / ((1 + (theirs - ranks).abs()) * (theirs + ranks)).double()
    harmonic = torch.cat([ranks.new_ones(1).double(), torch.cumsum(1.0 / ranks.double(), 0)])
    return float(((terms * common).sum(dim=1) / harmonic[common.sum(dim=1)]).mean())


def _cosines(x: Features) -> Tensor:
    return x.remember_matrix("cosines", lambda origin: symmetric_product(origin.unit_rows))


@similarity_measure(
    name="second_order_cosine",
    label="Second-order cosine",
    rung=Rung.L4,
    direction="similarity",
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
)
def second_order_cosine(
    x: Features, y: Features, *, k: int = 10, values: str = "similarity"
) -> float:
    """Cosine of the similarities to the joint neighbourhood."""
    if values not in ("similarity", "distance"):
        raise UsageError(
            f"values='{values}' is not possible", hint="use 'similarity' or 'distance'"
        )
    union = membership(nearest(x, k), x.n) | membership(nearest(y, k), y.n)
    a, b = _cosines(x).double(), _cosines(y).double()
    if values == "distance":
        a, b = 1 - a, 1 - b
    a, b = a * union, b * union
    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosines = (a * b).sum(dim=1) / lengths.clamp(min=1e-300)
    return float(torch.where(lengths > 0, cosines, 0.0).mean())


@similarity_measure(
    name="cknna",
    label="CKNNA",
    rung=Rung.L4,
    direction="similarity",
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
)
def cknna(x: Features, y: Features, *, k: int = 10, epsilon: float = 0.0) -> float:
    """CKA over mutual nearest neighbours."""
    masks = [membership(nearest(side, k), side.n) for side in (x, y)]
    kernels = [_cosines(side).double() for side in (x, y)]
    cross = _masked_hsic(kernels[0], kernels[1], masks[0] & masks[1])
    own = [_masked_hsic(kernel, kernel, mask) for kernel, mask in zip(kernels, masks, strict=True)]
    if own[0] * own[1] <= 0:
        return math.nan
    return cross / (math.sqrt(own[0] * own[1]) + epsilon)


def _masked_hsic(k: Tensor, other: Tensor, mask: Tensor) -> float:
    """HSIC_1 of two kernels times a 0/1 mask without diagonal; the mask need not be symmetric."""
    n = k.shape[0]
    a, b = k * mask, other * mask
    total = (a * b.mT).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2))
    return float(total - 2 * (a.sum(dim=0) @ b.sum(dim=1)) / (n - 2)) / (n * (n - 3))


@similarity_measure(
    name="cycle_knn",
    label="Cycle k-NN",
    rung=Rung.L4,
    direction="similarity",
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
)
def cycle_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Share of rows that lead back to themselves."""
    two_steps = nearest(x, k, metric)[nearest(y, k, metric)]
    own = torch.arange(x.n, device=two_steps.device)
    return float((two_steps == own[:, None, None]).flatten(1).any(dim=1).double().mean())
