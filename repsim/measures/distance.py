"""Measures of whole distance matrices: distance correlation, norm of the difference, stress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from repsim.core.measure import Rung
from repsim.measures.algebra import cosine, double_centred, u_centred
from repsim.measures.base import ORTHOGONAL, PERMUTATION, TRANSLATION, measure
from repsim.measures.cka import ROTATION_BLIND
from repsim.measures.cosines import cosine_grid, half
from repsim.measures.features import Features

SZEKELY = "Székely, Rizzo, Bakirov 2007, Annals of Statistics 35"
RIGID = (TRANSLATION, PERMUTATION, ORTHOGONAL)


def _centred(x: Features) -> Tensor:
    return x.remember_matrix(
        "distances_centred", lambda origin: double_centred(origin.distances("euclidean"))
    )


def _u_centred(x: Features) -> Tensor:
    return x.remember_matrix(
        "distances_u_centred", lambda origin: u_centred(origin.distances("euclidean"))
    )


def _grid(xs: Sequence[Features], ys: Sequence[Features]) -> np.ndarray:
    squared = cosine_grid(xs, ys, lambda x: half(_centred(x)))
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _debiased_grid(xs: Sequence[Features], ys: Sequence[Features]) -> np.ndarray:
    return cosine_grid(xs, ys, lambda x: half(_u_centred(x)))


@measure(
    name="distance_correlation",
    label="Distance correlation",
    rung=Rung.L2,
    direction="similarity",
    range=(0.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=2,
    definition="sqrt(dCov^2 / sqrt(dVar_X^2 dVar_Y^2)) of Euclidean distances, V-statistic.",
    reference=SZEKELY,
    estimator="biased upwards, towards 1 as d/n grows (0.63 on independent 200x32).",
    grid=_grid,
)
def distance_correlation(x: Features, y: Features) -> float:
    """Distance correlation, the biased statistic."""
    return math.sqrt(max(0.0, cosine(_centred(x), _centred(y))))


@measure(
    name="distance_correlation_debiased",
    label="Distance correlation² (debiased)",
    rung=Rung.L2,
    direction="similarity",
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="Bias-corrected squared distance correlation: cosine of the U-centered distances. "
    "May be negative.",
    reference="Székely and Rizzo 2014, Annals of Statistics 42",
    estimator="numerator unbiased: 0 in expectation on independent data.",
    aliases={"distance_correlation_sq_ustat": {}},
    grid=_debiased_grid,
    null_value=0.0,
)
def distance_correlation_debiased(x: Features, y: Features) -> float:
    """Squared distance correlation without its bias."""
    return cosine(_u_centred(x), _u_centred(y))


@measure(
    name="rsm_norm_difference",
    label="RSM norm difference",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=RIGID,
    min_samples=2,
    definition="||D - D'||_F of the full matrices of Euclidean distances.",
    reference="Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329",
    estimator="in the units of the activations; grows with n.",
    undefined_on_constant=False,
)
def rsm_norm_difference(x: Features, y: Features) -> float:
    """Frobenius norm of the difference of two distance matrices."""
    difference = x.rdm("euclidean").double() - y.rdm("euclidean").double()
    return math.sqrt(2) * float(torch.linalg.vector_norm(difference))


@measure(
    name="stress",
    label="Stress",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=RIGID,
    min_samples=2,
    definition="Root mean squared difference of the Euclidean distances of all pairs of rows.",
    reference="Kruskal 1964, Psychometrika 29",
    estimator="in the units of the activations.",
    undefined_on_constant=False,
)
def stress(x: Features, y: Features) -> float:
    """Root mean squared difference of distances."""
    difference = x.rdm("euclidean").double() - y.rdm("euclidean").double()
    return math.sqrt(float(difference.square().mean()))
