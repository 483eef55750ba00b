"""Clusters and scales: how points join up, how heat spreads, how many dimensions a cloud has.

Topology in dimension 1 (RTD, the geometry score) takes hours a pair and is not here.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from repsim.core.measure import Rung
from repsim.measures.base import ROTATION_BLIND, similarity_measure
from repsim.measures.features import Features, as_features
from repsim.measures.neighbours import nearest

#: Times at which heat is compared, and how much each counts.
TIMES = np.logspace(-1, 1, 256)
TIME_WEIGHTS = np.exp(-2 * (TIMES + 1 / TIMES))
#: Share of the rows with the largest ratios that the fit of a dimension leaves out.
DISCARDED = 0.1


# -- clusters at all scales -----------------------------------------------------------------------


def _scaled_distances(x: Features) -> np.ndarray:
    """Distances of all pairs of rows over their 0.9 quantile, `[n (n - 1) / 2]`."""
    # In float64 whatever the sweep's precision: a tree consists of the shortest distances.
    pairs = np.asarray(Features(x.centered64).rdm("euclidean").cpu())
    return pairs / (
        x.remember("distance_q90", lambda _: float(np.quantile(pairs, 0.9))) or math.nan
    )


def _tree_weight(pairs: np.ndarray) -> float:
    """Total weight of the minimum spanning tree: the heights at which single linkage joins."""
    from scipy.cluster.hierarchy import linkage

    return float(linkage(pairs, "single")[:, 2].sum()) if np.isfinite(pairs).all() else math.nan


def _own_tree_weight(x: Features) -> float:
    return x.remember("tree_weight", lambda origin: _tree_weight(_scaled_distances(origin)))


@similarity_measure(
    name="rtd_lite",
    label="RTD-Lite",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=ROTATION_BLIND,
    min_samples=3,
    cost="expensive",
    definition="(T(D) + T(D')) / 2 - T(min(D, D')): T the weight of the minimum spanning tree, D "
    "and D' the Euclidean distances over their 0.9 quantile, min entry by entry. How much earlier "
    "clusters join if either side may join them.",
    reference="Tulchinskii et al. 2025, arXiv:2503.11910; RTD: Barannikov et al. 2022, "
    "arXiv:2201.00058",
    estimator="grows with n: compare at one n only. Compare with a null.",
    holds_pairs=4,
)
def rtd_lite(x: Features, y: Features) -> float:
    """Topology divergence in dimension 0."""
    joint = _tree_weight(np.minimum(_scaled_distances(x), _scaled_distances(y)))
    value = (_own_tree_weight(x) + _own_tree_weight(y)) / 2 - joint
    return value if math.isnan(value) else max(0.0, value)


# -- heat on the neighbour graph ------------------------------------------------------------------


def heat_trace(x: Features, k: int) -> np.ndarray:
    """Mean heat that stays where it was on the graph of k nearest rows, at each of `TIMES`."""

    def compute(origin: Features) -> np.ndarray:
        near = nearest(origin, k, "euclidean")
        graph = torch.zeros(origin.n, origin.n, dtype=torch.float64)
        graph.scatter_(1, near.near.cpu(), near.weights().cpu())
        graph = torch.maximum(graph, graph.mT)
        scale = graph.sum(dim=1).rsqrt()
        moved = torch.linalg.eigvalsh(scale[:, None] * graph * scale).numpy()
        return np.exp(-np.outer(TIMES, 1 - moved)).mean(axis=1)

    return x.remember(f"heat_trace_{k}", compute)


@similarity_measure(
    name="imd",
    label="IMD",
    rung=None,
    direction="distance",
    range=(0.0, None),
    invariances=ROTATION_BLIND,
    min_samples=3,
    cost="expensive",
    definition="10^6 max over t of exp(-2 (t + 1/t)) |h_X(t) - h_Y(t)|, h(t) the mean of exp(-t "
    "lambda) over the spectrum of the normalised Laplacian of the graph of 5 (k) nearest rows, "
    "Euclidean, edges in either direction; all n eigenvalues, t in 256 steps from 0.1 to 10.",
    reference="Tsitsulin et al. 2020, arXiv:1905.11141",
    estimator="does not look at which row is which: no null by shuffling. O(n^3) per layer.",
    undefined_on_constant=False,
    holds_pairs=4,
)
def imd(x: Features, y: Features, *, k: int = 5) -> float:
    """Intrinsic multi-scale distance, from the whole spectrum."""
    return float(1e6 * (TIME_WEIGHTS * np.abs(heat_trace(x, k) - heat_trace(y, k))).max())


# -- dimension ------------------------------------------------------------------------------------


def intrinsic_dimension(x: object) -> float:
    """Number of dimensions that a cloud has locally, by two nearest neighbours (TwoNN).

    The ratio of the distances to the second and first neighbour of a row has the distribution
    1 - mu^-d; d is the slope of -log(1 - F) over log mu through the origin, without the tenth of
    the rows with the largest ratios. Rows that occur twice are left out.

    Args:
        x: `[n, d]`, numpy or torch or `Features`.

    Returns:
        The dimension; NaN with fewer than four rows, or if all are equal.

    Reference:
        Facco, d'Errico, Rodriguez, Laio 2017, Scientific Reports 7.

    Example:
        >>> plane = np.random.default_rng(0).uniform(size=(2000, 2)) @ np.ones((2, 5))
        >>> round(intrinsic_dimension(plane + np.eye(5)[0] * plane[:, :1] ** 2), 1)
        1.0
    """
    return as_features(x).remember("two_nn", _two_nn)


def _two_nn(x: Features) -> float:
    if x.n < 4:
        return math.nan
    rows, near = x.centered64, nearest(x, 2, "euclidean").near[:, :2]
    first, second = ((rows - rows[column]).norm(dim=1).cpu().numpy() for column in near.T)
    apart = first > 0
    ratios = np.sort(np.log(second[apart] / first[apart]))
    kept = int(len(ratios) * (1 - DISCARDED))
    rise = -np.log1p(-np.arange(1, kept + 1) / max(len(ratios), 1))
    square = float(ratios[:kept] @ ratios[:kept])
    return float(ratios[:kept] @ rise) / square if square > 0 else math.nan


@similarity_measure(
    name="dimension_difference",
    label="Dimension difference",
    rung=None,
    direction="distance",
    range=(0.0, None),
    invariances=ROTATION_BLIND,
    min_samples=10,
    definition="|d_X - d_Y|, d the intrinsic dimension by two nearest neighbours (TwoNN: slope of "
    "-log(1 - F) over the log ratio of their distances, the largest tenth left out).",
    reference="Facco, d'Errico, Rodriguez, Laio 2017, Scientific Reports 7",
    estimator="does not look at which row is which: no null by shuffling. d is too low where the "
    "dimension is high and n small.",
)
def dimension_difference(x: Features, y: Features) -> float:
    """Difference of the intrinsic dimensions."""
    return abs(intrinsic_dimension(x) - intrinsic_dimension(y))
