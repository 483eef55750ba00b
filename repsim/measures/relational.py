"""Do two representations find the same rows alike? One matrix over pairs of rows per side.

RSA, CKA with a Gaussian kernel, distance correlation, difference of distance matrices. Where
documents are known, pairs of rows of one document are left out, as in debiased CKA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Cost, Rung
from repsim.measures.algebra import (
    average_ranks,
    centred_vector,
    cosine,
    double_centred,
    order_statistics,
    triangle,
    u_centred,
)
from repsim.measures.base import (
    ORTHOGONAL,
    PERMUTATION,
    ROTATION_BLIND,
    TRANSLATION,
    similarity_measure,
)
from repsim.measures.cka import KORNBLITH, gram_inner
from repsim.measures.distance_grids import distance_grid, gaussian_grid, rank_grid
from repsim.measures.documents import centred_apart
from repsim.measures.features import Features, Mask, Side
from repsim.measures.nearest import Metric
from repsim.measures.pair_matrices import cosine_grid
from repsim.measures.rsa_jackknife import correlations_of_pairs_without

SZEKELY = "Székely, Rizzo, Bakirov 2007, Annals of Statistics 35"
RIGID = (TRANSLATION, PERMUTATION, ORTHOGONAL)

Bandwidth = Literal["median_offdiag", "median_all"] | float
Comparison = Literal[
    "spearman", "pearson", "cosine", "kendall_b", "whitened_pearson", "rho_a", "tau_a"
]

# -- distances compared: RSA ----------------------------------------------------------------------


def _apart(x: Features) -> Tensor | slice:
    """Which pairs of rows are of different documents, upper triangle row by row."""
    if x.documents is None:
        return slice(None)
    return triangle(rearrange(x.documents, "i -> i 1") != x.documents)


def _ranks(x: Features, metric: Metric, apart: Tensor | slice) -> Tensor:
    """Ranks of the distances of some pairs, float64."""
    whole = isinstance(apart, slice)
    return x.rdm_ranks(metric) if whole else average_ranks(x.rdm(metric)[apart])


def _vector(x: Features, metric: Metric, comparison: Comparison) -> Tensor:
    """The vector whose cosine is the comparison; 0 for pairs within a document."""
    apart = _apart(x)
    if comparison == "spearman":
        values = centred_vector(_ranks(x, metric, apart))
    else:
        values = x.rdm(metric)[apart]
        values = centred_vector(values) if comparison == "pearson" else values
    if isinstance(apart, slice):
        return values
    return values.new_zeros(len(apart)).masked_scatter_(apart, values)


def _rsa_matrix(x: Features, *, metric: Metric, comparison: Comparison) -> Tensor:
    """The vector of `_vector` on both sides of a zero diagonal."""
    vector = _vector(x, metric, comparison).to(x.dtype)
    matrix = vector.new_zeros(x.n, x.n)
    for i, row in enumerate(vector.split(list(range(x.n - 1, 0, -1)))):
        matrix[i, i + 1 :] = matrix[i + 1 :, i] = row
    return matrix


def _rsa_cost(*, metric: Metric, comparison: Comparison) -> Cost:
    """Only these comparisons are the cosine of two matrices."""
    return "cheap" if comparison in ("spearman", "pearson", "cosine") else "expensive"


def _require_known(metric: Metric, comparison: Comparison) -> None:
    if comparison not in get_args(Comparison):
        raise UsageError(
            f"unknown comparison '{comparison}'",
            hint=f"use one of: {', '.join(get_args(Comparison))}",
        )
    if comparison == "whitened_pearson" and metric != "sqeuclidean":
        raise UsageError(
            f"whitened_pearson is defined for sqeuclidean, not {metric}",
            hint="add metric=sqeuclidean",
        )


def _kendall(x: Features, y: Features, metric: Metric, comparison: Comparison) -> float:
    """tau-b; tau-a counts tied pairs as neither concordant nor discordant."""
    from scipy.stats import kendalltau

    apart = _apart(x)
    ranks = [_ranks(side, metric, apart).cpu().numpy() for side in (x, y)]
    tau = float(kendalltau(*ranks, variant="b").statistic)
    if comparison == "kendall_b":
        return tau
    every = len(ranks[0]) * (len(ranks[0]) - 1) / 2
    ties = [np.unique(side, return_counts=True)[1] for side in ranks]
    untied = [1 - float((count * (count - 1) / 2).sum()) / every for count in ties]
    return tau * math.sqrt(untied[0] * untied[1])


def _rho_a(x: Features, y: Features, metric: Metric) -> float:
    """Spearman correlation in expectation over random orders of the tied pairs."""
    apart = _apart(x)
    a, b = (centred_vector(_ranks(side, metric, apart)).double() for side in (x, y))
    return 12 * float(a @ b) / (len(a) ** 3 - len(a))


def _whitened_pearson(x: Features, y: Features) -> float:
    """Pearson correlation whitened by the noise covariance of squared distances."""

    def product(a: Features, b: Features) -> float:
        return gram_inner(a, b) - a.norm**2 * b.norm**2 / (a.n - 1)

    squares = product(x, x) * product(y, y)
    return product(x, y) / squares**0.5 if squares > 0 else float("nan")


def _compare(x: Features, y: Features, metric: Metric, comparison: Comparison) -> float:
    if comparison in ("kendall_b", "tau_a"):
        return _kendall(x, y, metric, comparison)
    if comparison == "rho_a":
        return _rho_a(x, y, metric)
    if comparison == "whitened_pearson":
        return _whitened_pearson(x, y)
    return cosine(_vector(x, metric, comparison), _vector(y, metric, comparison))


def _rsa_grid(xs: Side, ys: Side, *, metric: Metric, comparison: Comparison) -> np.ndarray:
    """All pairs by tiles; in float64, where ties must be seen, ranks by sorting."""
    _require_known(metric, comparison)
    if comparison in ("pearson", "cosine"):
        kind = "pearson" if comparison == "pearson" else "plain"
        return distance_grid(xs, ys, metric, kind)
    if comparison == "spearman" and xs[0].dtype == torch.float32:
        return rank_grid(xs, ys, metric)
    if comparison == "spearman":
        return cosine_grid(xs, ys, lambda x: _vector(x, metric, comparison))
    return np.array([[_compare(x, y, metric, comparison) for y in ys] for x in xs])


def _rsa_without(
    xs: Side, ys: Side, mask: Mask = None, *, metric: Metric, comparison: Comparison
) -> np.ndarray | None:
    """None of comparisons that are no cosine of two vectors."""
    if comparison not in ("spearman", "pearson", "cosine"):
        return None
    return correlations_of_pairs_without(
        xs, ys, mask, lambda x: _vector(x, metric, comparison),
        centred=comparison != "cosine", ranks=comparison == "spearman",
    )  # fmt: skip


@similarity_measure(
    name="rsa",
    label="RSA",
    rung=Rung.L2,
    range=(-1.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=3,
    definition="Spearman correlation (ties averaged) of the upper triangles of the two matrices of "
    "Euclidean distances between rows; other metrics (correlation, cosine, sqeuclidean) "
    "and comparisons (pearson, cosine, kendall_b, whitened_pearson; rho_a and tau_a, under which "
    "ties earn nothing) by parameter. Where documents are known, of pairs of rows of different "
    "documents only (but for whitened_pearson). Only the Euclidean ones are blind to translation, "
    "and metric 'correlation' is not blind to rotation.",
    reference="Kriegeskorte, Mur, Bandettini 2008, Frontiers in Systems Neuroscience 2; rho-a: "
    "Schütt et al. 2023, eLife 12; tau-a: Nili et al. 2014, PLoS Computational Biology 10",
    estimator="0 in expectation on independent data; pairs share rows, so intervals come from "
    "rows.",
    aliases={
        "rsa_correlation_spearman": {"metric": "correlation", "comparison": "spearman"},
        "rsa_correlation_pearson": {"metric": "correlation", "comparison": "pearson"},
        "rsa_cosine_spearman": {"metric": "cosine", "comparison": "spearman"},
        "rsa_euclidean_pearson": {"metric": "euclidean", "comparison": "pearson"},
        "rsa_euclidean_spearman": {"metric": "euclidean", "comparison": "spearman"},
        "rsa_sqeuclidean_pearson": {"metric": "sqeuclidean", "comparison": "pearson"},
        "rsa_sqeuclidean_cosine": {"metric": "sqeuclidean", "comparison": "cosine"},
        "rsa_euclidean_rho_a": {"metric": "euclidean", "comparison": "rho_a"},
        "rsa_euclidean_tau_a": {"metric": "euclidean", "comparison": "tau_a"},
        "rsa_sqeuclidean_kendall_b": {"metric": "sqeuclidean", "comparison": "kendall_b"},
        "rsa_sqeuclidean_whitened_pearson": {
            "metric": "sqeuclidean",
            "comparison": "whitened_pearson",
        },
    },
    cost=_rsa_cost,
    held=_rsa_without,
    pair_matrix=_rsa_matrix,
    grid=_rsa_grid,
    documents_apart=lambda *, metric, comparison: comparison != "whitened_pearson",
    null_value=0.0,
)
def rsa(
    x: Features, y: Features, *, metric: Metric = "euclidean", comparison: Comparison = "spearman"
) -> float:
    """Correlation of two matrices of distances."""
    _require_known(metric, comparison)
    return _compare(x, y, metric, comparison)


# -- Gaussian kernels -----------------------------------------------------------------------------


def squared_bandwidth(squared_distances: Tensor, bandwidth: Bandwidth) -> float:
    """`s^2` of `exp(-d^2 / (2 s^2))`."""
    given, positions, of = _bandwidth_rule(bandwidth, len(squared_distances))
    return of(order_statistics(triangle(squared_distances), positions)) if given is None else given


def _bandwidth_rule(
    bandwidth: Bandwidth, n: int
) -> tuple[float | None, list[int], Callable[[list[float]], float]]:
    """`s^2` if it is given, else the places of squared distances in order, and `s^2` of those."""
    pairs = n * (n - 1) // 2
    if isinstance(bandwidth, (int, float)) and bandwidth > 0:
        return float(bandwidth) ** 2, [], lambda found: float("nan")
    if bandwidth == "median_offdiag":
        middle = [(pairs - 1) // 2, pairs // 2]
        return None, middle, lambda found: ((found[0] ** 0.5 + found[1] ** 0.5) / 2) ** 2
    if bandwidth == "median_all":
        # Sorted, the n^2 entries are n zeros and then every pair twice.
        middle = [i for i in (((n * n - 1) // 2 - n) // 2, (n * n // 2 - n) // 2) if i >= 0]
        return None, middle, lambda found: sum(found) / 2
    raise UsageError(
        f"bandwidth '{bandwidth}' is not possible",
        hint="use 'median_offdiag', 'median_all' or a positive number",
    )


def _gaussian_grid(xs: Side, ys: Side, *, bandwidth: Bandwidth, debiased: bool) -> np.ndarray:
    rule = _bandwidth_rule(bandwidth, xs[0].n)
    return gaussian_grid(xs, ys, *rule, debiased=debiased)


def centred_kernel(x: Features, *, bandwidth: Bandwidth, debiased: bool) -> Tensor:
    """Centered Gaussian kernel matrix, `[n, n]`; zero if more than half of the distances are."""

    def compute(origin: Features) -> Tensor:
        squared = origin.distances("sqeuclidean")
        scale = squared_bandwidth(squared, bandwidth)
        if scale == 0:
            return torch.zeros_like(squared)
        kernel = torch.exp(squared / (-2 * scale))
        return _u_centred(origin, kernel) if debiased else double_centred(kernel)

    return x.remember_matrix(f"rbf_{bandwidth}_{debiased}", compute)


@similarity_measure(
    name="cka_rbf",
    label="CKA (RBF)",
    rung=Rung.L2,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="CKA of Gaussian kernels exp(-d^2 / (2 s^2)), s the median distance between rows "
    "(bandwidth 'median_offdiag'); debiased by U-centering (over pairs of different documents "
    "where they are known), or biased.",
    reference=KORNBLITH,
    estimator="debiased: near 0 on independent data. A fixed bandwidth is not blind to scale.",
    aliases={
        "cka_rbf_median_offdiag": {"bandwidth": "median_offdiag", "debiased": False},
        "cka_rbf_median_all": {"bandwidth": "median_all", "debiased": False},
        "cka_rbf_sigma1": {"bandwidth": 1.0, "debiased": False},
        "cka_rbf_median_offdiag_debiased": {"bandwidth": "median_offdiag", "debiased": True},
    },
    pair_matrix=centred_kernel,
    grid=_gaussian_grid,
    documents_apart=lambda *, bandwidth, debiased: debiased,
    null_value=0.0,
    max_width_ratio=lambda *, bandwidth, debiased: None if debiased else 1.0,
)
def cka_rbf(
    x: Features, y: Features, *, bandwidth: Bandwidth = "median_offdiag", debiased: bool = True
) -> float:
    """CKA with a Gaussian kernel."""
    kernels = (centred_kernel(s, bandwidth=bandwidth, debiased=debiased) for s in (x, y))
    return cosine(*kernels)


# -- distance matrices ----------------------------------------------------------------------------


def _centred(x: Features) -> Tensor:
    return x.remember_matrix(
        "distances_centred", lambda origin: double_centred(origin.distances("euclidean"))
    )


def _u_centred(x: Features, kernel: Tensor) -> Tensor:
    return u_centred(kernel) if x.documents is None else centred_apart(kernel, x.documents)


def _distances_u_centred(x: Features) -> Tensor:
    return x.remember_matrix(
        "distances_u_centred", lambda origin: _u_centred(origin, origin.distances("euclidean"))
    )


def _biased_grid(xs: Side, ys: Side) -> np.ndarray:
    squared = distance_grid(xs, ys, "euclidean", "biased")
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


@similarity_measure(
    name="distance_correlation",
    label="Distance correlation",
    rung=Rung.L2,
    range=(0.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=2,
    cost="expensive",
    definition="sqrt(dCov^2 / sqrt(dVar_X^2 dVar_Y^2)) of Euclidean distances, V-statistic.",
    reference=SZEKELY,
    estimator="biased upwards, towards 1 as d/n grows (0.63 on independent 200x32).",
    grid=_biased_grid,
    max_width_ratio=1.0,
)
def distance_correlation(x: Features, y: Features) -> float:
    """Distance correlation, the biased statistic."""
    return math.sqrt(max(0.0, cosine(_centred(x), _centred(y))))


@similarity_measure(
    name="distance_correlation_debiased",
    label="Distance correlation² (debiased)",
    rung=Rung.L2,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="Bias-corrected squared distance correlation: cosine of the U-centered distances "
    "(over pairs of different documents where they are known). May be negative.",
    reference="Székely and Rizzo 2014, Annals of Statistics 42",
    estimator="numerator unbiased: 0 in expectation on independent data.",
    aliases={"distance_correlation_sq_ustat": {}},
    pair_matrix=_distances_u_centred,
    grid=lambda xs, ys: distance_grid(xs, ys, "euclidean", "debiased"),
    documents_apart=True,
    null_value=0.0,
)
def distance_correlation_debiased(x: Features, y: Features) -> float:
    """Squared distance correlation without its bias."""
    return cosine(_distances_u_centred(x), _distances_u_centred(y))


@similarity_measure(
    name="rsm_norm_difference",
    label="RSM norm difference",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=RIGID,
    min_samples=2,
    cost="expensive",
    definition="||D - D'||_F of the full matrices of Euclidean distances.",
    reference="Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329",
    estimator="in the units of the activations; grows with n.",
    undefined_on_constant=False,
    holds_pairs=4,
)
def rsm_norm_difference(x: Features, y: Features) -> float:
    """Frobenius norm of the difference of two distance matrices."""
    difference = x.rdm("euclidean").double() - y.rdm("euclidean").double()
    return math.sqrt(2) * float(torch.linalg.vector_norm(difference))


@similarity_measure(
    name="stress",
    label="Stress",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=RIGID,
    min_samples=2,
    cost="expensive",
    definition="Root mean squared difference of the Euclidean distances of all pairs of rows.",
    reference="Kruskal 1964, Psychometrika 29",
    estimator="in the units of the activations.",
    undefined_on_constant=False,
    holds_pairs=4,
)
def stress(x: Features, y: Features) -> float:
    """Root mean squared difference of distances."""
    difference = x.rdm("euclidean").double() - y.rdm("euclidean").double()
    return math.sqrt(float(difference.square().mean()))
