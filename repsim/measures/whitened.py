"""Rows compared in the metric of the data itself: whitened distances, Riemannian distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import centred_vector, cosine
from repsim.measures.base import ROTATION_BLIND, similarity_measure
from repsim.measures.features import Features
from repsim.measures.linear import LINEAR_BLIND, WIDEST


def _mahalanobis_ranks(x: Features) -> Tensor:
    """Centered ranks of the Mahalanobis distances on both sides of a zero diagonal, `[n, n]`."""

    def compute(origin: Features) -> Tensor:
        white, n = Features(origin.svd[0], device=origin.device), origin.n
        matrix = torch.zeros(n, n, dtype=torch.float64, device=origin.device)
        # A basis of all n - 1 dimensions puts every row at the same distance from every other.
        if origin.rank < n - 1:
            above = torch.ones_like(matrix, dtype=torch.bool).triu(1)
            matrix[above] = centred_vector(white.rdm_ranks("euclidean"))
        return matrix + matrix.mT

    return x.remember_matrix("mahalanobis_ranks", compute)


@similarity_measure(
    name="rsa_mahalanobis",
    label="RSA (Mahalanobis)",
    rung=Rung.L3,
    range=(-1.0, 1.0),
    invariances=LINEAR_BLIND,
    min_samples=4,
    definition="Spearman correlation of the Mahalanobis distances between rows, each side under "
    "its own covariance (pseudo-inverse on the rank). NaN if a side has rank n - 1: all distances "
    "are then equal.",
    reference="Walther et al. 2016, NeuroImage 137; Kriegeskorte, Mur, Bandettini 2008",
    estimator="0 in expectation on independent data; small directions count as much as large ones.",
    pair_matrix=_mahalanobis_ranks,
    max_width_ratio=WIDEST,
    null_value=0.0,
    holds_pairs=4,
)
def rsa_mahalanobis(x: Features, y: Features) -> float:
    """Correlation of two matrices of whitened distances."""
    return cosine(_mahalanobis_ranks(x), _mahalanobis_ranks(y))


@similarity_measure(
    name="riemannian",
    label="Riemannian distance",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=ROTATION_BLIND,
    min_samples=3,
    cost="expensive",
    definition="sqrt(sum of log^2 of the generalised eigenvalues of K_X and K_Y), K = (1 - s) n G "
    "/ tr G + s I, G the Gram matrix of the centered rows, s = shrinkage = 0.1. The "
    "affine-invariant distance of positive definite matrices.",
    reference="Shahbazi, Shirali, Aghajan, Nili 2021, NeuroImage 239; Pennec, Fillard, Ayache "
    "2006, International Journal of Computer Vision 66",
    estimator="grows with the rank and depends on n and the shrinkage. Compare with a null.",
    holds_pairs=4,
)
def riemannian(x: Features, y: Features, *, shrinkage: float = 0.1) -> float:
    """Geodesic distance of two shrunken Gram matrices."""
    from scipy.linalg import eigvalsh

    if not 0 < shrinkage < 1:
        raise UsageError(f"shrinkage={shrinkage} is not possible", hint="between 0 and 1")
    # Outside the span of both sides the two matrices are the same multiple of the identity.
    basis = torch.linalg.qr(torch.cat([x.svd[0], y.svd[0]], dim=1)).Q
    grams = []
    for u, s, _ in (x.svd, y.svd):
        part = basis.mT @ (u * s)
        scaled = (1 - shrinkage) * x.n / float(s.square().sum()) * (part @ part.mT)
        grams.append(
            (scaled + shrinkage * torch.eye(len(scaled), dtype=scaled.dtype)).cpu().numpy()
        )
    return math.sqrt(float((torch.tensor(eigvalsh(*grams)).clamp(min=1e-300).log() ** 2).sum()))
