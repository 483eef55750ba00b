"""Representational similarity analysis: do two representations find the same rows alike?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import cosine
from repsim.measures.base import measure
from repsim.measures.cka import ROTATION_BLIND, gram_inner
from repsim.measures.cosines import centred_vector, cosine_grid
from repsim.measures.features import Features, Metric

Comparison = Literal["spearman", "pearson", "cosine", "kendall_b", "whitened_pearson"]


def _vector(x: Features, metric: Metric, comparison: Comparison) -> Tensor:
    """The vector whose cosine is the comparison."""
    if comparison == "spearman":
        return centred_vector(x.rdm_ranks(metric))
    if comparison == "pearson":
        return centred_vector(x.rdm(metric))
    return x.rdm(metric)


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


def _kendall(x: Features, y: Features, metric: Metric) -> float:
    from scipy.stats import kendalltau

    ranks = (side.rdm_ranks(metric).cpu().numpy() for side in (x, y))
    return float(kendalltau(*ranks, variant="b").statistic)


def _whitened_pearson(x: Features, y: Features) -> float:
    """Pearson correlation whitened by the noise covariance of squared distances.

    That covariance, (c_ij' c_kl)^2 over pair contrasts c, turns inner products of centered RDMs
    into those of centered Gram matrices whose trace is taken out of the diagonal.
    """

    def product(a: Features, b: Features) -> float:
        return gram_inner(a, b) - a.norm**2 * b.norm**2 / (a.n - 1)

    squares = product(x, x) * product(y, y)
    return product(x, y) / squares**0.5 if squares > 0 else float("nan")


def _grid(
    xs: Sequence[Features], ys: Sequence[Features], *, metric: Metric, comparison: Comparison
) -> np.ndarray:
    _require_known(metric, comparison)
    if comparison in ("kendall_b", "whitened_pearson"):
        return np.array([[_compare(x, y, metric, comparison) for y in ys] for x in xs])
    return cosine_grid(xs, ys, lambda x: _vector(x, metric, comparison))


def _compare(x: Features, y: Features, metric: Metric, comparison: Comparison) -> float:
    if comparison == "kendall_b":
        return _kendall(x, y, metric)
    if comparison == "whitened_pearson":
        return _whitened_pearson(x, y)
    return cosine(_vector(x, metric, comparison), _vector(y, metric, comparison))


@measure(
    name="rsa",
    label="RSA",
    rung=Rung.L2,
    direction="similarity",
    range=(-1.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=3,
    definition="Spearman correlation (ties averaged) of the upper triangles of the two matrices of "
    "Euclidean distances between rows; other metrics (correlation, cosine, sqeuclidean) "
    "and comparisons (pearson, cosine, kendall_b, whitened_pearson) by parameter. Only "
    "the Euclidean ones are blind to translation, and metric 'correlation' is not blind "
    "to rotation.",
    reference="Kriegeskorte, Mur, Bandettini 2008, Frontiers in Systems Neuroscience 2",
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
        "rsa_sqeuclidean_kendall_b": {"metric": "sqeuclidean", "comparison": "kendall_b"},
        "rsa_sqeuclidean_whitened_pearson": {
            "metric": "sqeuclidean",
            "comparison": "whitened_pearson",
        },
    },
    grid=_grid,
    null_value=0.0,
)
def rsa(
    x: Features,
    y: Features,
    *,
    metric: Metric = "euclidean",
    comparison: Comparison = "spearman",
) -> float:
    """Correlation of two matrices of distances."""
    _require_known(metric, comparison)
    return _compare(x, y, metric, comparison)
