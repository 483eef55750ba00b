"""The same information, in any linear code? Canonical correlations and linear predictability.

Canonical correlations are the singular values of `U_X' U_Y`, U bases of the centered arrays. All
are 1 once n <= d, and some once d_x + d_y exceeds n - 1, whatever the data.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import square_eigen
from repsim.measures.base import (
    INVERTIBLE,
    PERMUTATION,
    ROTATION_BLIND,
    SCALING,
    TRANSLATION,
    similarity_measure,
)
from repsim.measures.features import Features, Mask, Side
from repsim.measures.held import correlations_without
from repsim.measures.procrustes import nuclear_norm

RAGHU = "Raghu, Gilmer, Yosinski, Sohl-Dickstein 2017, arXiv:1706.05806"
MORCOS = "Morcos, Raghu, Bengio 2018, arXiv:1806.05759"
LINEAR_BLIND = (*ROTATION_BLIND, INVERTIBLE)

#: d/n above which canonical correlations are forced up: d_x + d_y > n - 1.
WIDEST = 0.5
#: Fewest components of SVCCA that an interval may hold: of planted data with 5 or 6 components it
#: covered 80 % instead of 95.
LEAST_HELD = 50

#: Canonical correlation, as a share of the largest, from which eigenvectors give its directions.
SMALLEST = 1e-4


def _variates(ux: Tensor, uy: Tensor) -> tuple[Tensor, Tensor]:
    """Canonical variates of both sides, `[n, min(r_x, r_y)]`."""
    left, _, right = torch.linalg.svd(ux.mT @ uy, full_matrices=False)
    return ux @ left, uy @ right.mT


def _svcca_without(xs: Side, ys: Side, mask: Mask = None, *, threshold: float) -> np.ndarray | None:
    """With few components, which of them are kept matters more than they do: then None."""
    if min(_leading(side, threshold).shape[1] for side in (*xs, *ys)) < LEAST_HELD:
        return None

    def variates(x: Features, y: Features) -> tuple[Tensor, Tensor]:
        return _variates(_leading(x, threshold), _leading(y, threshold))

    return correlations_without(xs, ys, mask, aligned=variates)


def _mean_correlation(ux: Tensor, uy: Tensor, dtype: torch.dtype) -> float:
    """Mean of the canonical correlations, whose single values are not needed."""
    cross = ux.to(dtype).mT @ uy.to(dtype)
    return min(1.0, nuclear_norm(cross) / min(cross.shape))


def _canonical_directions(x: Features, y: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical correlations, largest first, and their directions in both bases, as columns."""
    cross = x.svd[0].mT @ y.svd[0]
    wide = cross.shape[0] < cross.shape[1]
    if x.dtype == torch.float32:
        tall = cross.mT if wide else cross
        squares, right = square_eigen(tall)
        correlations, right = squares.clamp(min=0).sqrt().flip(0), right.flip(1)
        # The error of the other side's directions grows with (largest / smallest)^2.
        if correlations[-1] > SMALLEST * correlations[0]:
            left = tall @ (right / correlations)
            sides = (right, left) if wide else (left, right)
            return correlations.clamp(max=1.0), *sides
    left, correlations, right = torch.linalg.svd(cross, full_matrices=False)
    return correlations.clamp(max=1.0), left, right.mT


@similarity_measure(
    name="cca",
    label="Mean CCA",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=LINEAR_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Mean canonical correlation over the smaller rank; columns centered, rank by "
    "singular values over 1e-10 of the largest.",
    reference="Hotelling 1936, Biometrika 28; " + RAGHU,
    estimator="biased upwards, about sqrt(d/n) on independent data and 1 when n <= d.",
    aliases={"cca_mean": {}},
    held=functools.partial(
        correlations_without, aligned=lambda x, y: _variates(x.svd[0], y.svd[0])
    ),
    approximate=lambda documents: "the interval is too wide (98 to 100 % of nominal 95 %)",
    max_width_ratio=WIDEST,
)
def cca(x: Features, y: Features) -> float:
    """Mean canonical correlation."""
    return _mean_correlation(x.svd[0], y.svd[0], x.dtype)


@similarity_measure(
    name="cca_squared",
    label="Mean squared CCA",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=LINEAR_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Mean squared canonical correlation over the smaller rank (Yanai's coefficient).",
    reference="Yanai 1974; Ramsay, ten Berge, Styan 1984, Psychometrika 49",
    estimator="biased upwards, about d/n on independent data and 1 when n <= d.",
    aliases={"cca_mean_squared": {}},
    max_width_ratio=WIDEST,
)
def cca_squared(x: Features, y: Features) -> float:
    """Mean squared canonical correlation."""
    correlations = torch.linalg.svdvals(x.svd[0].mT @ y.svd[0]).clamp(max=1.0)
    return float(correlations.square().mean())


@similarity_measure(
    name="svcca",
    label="SVCCA",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Mean canonical correlation of the fewest principal components that hold 99 % "
    "(threshold) of the variance of each side, over the smaller number of components.",
    reference=RAGHU,
    estimator="biased upwards, about sqrt(k/n) on independent data, k components.",
    aliases={"svcca_099": {"threshold": 0.99}},
    held=_svcca_without,
    max_width_ratio=WIDEST,
)
def svcca(x: Features, y: Features, *, threshold: float = 0.99) -> float:
    """Mean canonical correlation of the leading principal components."""
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold={threshold} is not possible", hint="a share of variance, 0..1")
    return _mean_correlation(_leading(x, threshold), _leading(y, threshold), x.dtype)


def _leading(x: Features, threshold: float) -> Tensor:
    """Left singular vectors of the fewest components with that share of the variance, `[n, k]`."""
    u, s, _ = x.leading_svd
    share = torch.cumsum(s.square(), 0) / x.gram_diagonal.sum()
    if share[-1] < threshold:
        u, s, _ = x.svd
        share = torch.cumsum(s.square(), 0) / s.square().sum()
    kept = int((share < threshold * (1 - 1e-12)).sum()) + 1
    return u[:, :kept]


@similarity_measure(
    name="pwcca",
    label="PWCCA",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION),
    min_samples=3,
    cost="expensive",
    definition="Canonical correlations weighted by how much of X they carry: w_i = sum_j |<h_i, "
    "x_j>|, h_i the canonical variates of X, x_j its centered columns, weights summing to "
    "1; mean of both directions (weights 'symmetric') or X's only ('x'). Arbitrary where "
    "correlations tie.",
    reference=MORCOS,
    estimator="biased upwards like mean CCA, and 1 when n <= d.",
    aliases={"pwcca_symmetric": {"weights": "symmetric"}, "pwcca_x": {"weights": "x"}},
    max_width_ratio=WIDEST,
)
def pwcca(x: Features, y: Features, *, weights: str = "symmetric") -> float:
    """Projection-weighted CCA."""
    if weights not in ("symmetric", "x"):
        raise UsageError(f"weights='{weights}' is not possible", hint="use 'symmetric' or 'x'")
    correlations, left, right = _canonical_directions(x, y)
    forward = _weighted(correlations, left, x)
    if weights == "x":
        return forward
    return (forward + _weighted(correlations, right, y)) / 2


def _weighted(correlations: Tensor, directions: Tensor, x: Features) -> float:
    """Mean of the correlations, weighted by the projections of x's columns on its variates."""
    _, s, vh = x.svd
    weights = (directions.mT @ (s.unsqueeze(1) * vh)).abs().sum(dim=1)
    total = float(weights.sum())
    return float(weights @ correlations) / total if total > 0 else math.nan


@similarity_measure(
    name="r2",
    label="Linear R²",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Share of the variance of X (first argument) that linear regression on Y explains: "
    "||Q_Y' X||_F^2 / ||X||_F^2, Q_Y an orthonormal basis of Y's columns; centered, "
    "in-sample. Blind to every invertible map of Y, to rotations of X.",
    reference="Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 4",
    estimator="biased upwards: rank(Y)/(n-1) on independent data, and 1 when n <= d.",
    symmetric=False,
    aliases={"linreg_r2_x_from_y": {}},
    max_width_ratio=0.5,
)
def r2(x: Features, y: Features) -> float:
    """In-sample R² of X regressed on Y."""
    u, s, _ = x.svd
    explained = (y.svd[0].mT @ u) * s
    return float(explained.square().sum() / s.square().sum())


@similarity_measure(
    name="gulp",
    label="GULP",
    rung=Rung.L3,
    direction="distance",
    range=(0.0, None),
    invariances=ROTATION_BLIND,
    min_samples=3,
    cost="expensive",
    definition="Squared GULP distance: largest gap between ridge predictions from X and from Y "
    "over all targets; tr over covariances with the inverse (S + ridge I)^-1, arrays "
    "centered and scaled to ||X||_F = sqrt(n). ridge=0 uses the pseudo-inverse on the "
    "rank.",
    reference="Boix-Adserà, Lawrence, Stepaniants, Rigollet 2022, arXiv:2210.06545",
    estimator="grows with the rank at ridge 0; the paper's distance is its square root.",
    aliases={"gulp_sq_lambda0": {"ridge": 0.0}, "gulp_sq_lambda0.01": {"ridge": 0.01}},
)
def gulp(x: Features, y: Features, *, ridge: float = 0.01) -> float:
    """Squared GULP distance."""
    if ridge < 0:
        raise UsageError(f"ridge={ridge} is not possible", hint="use 0 or more")
    sides = []
    for side in (x, y):
        u, s, _ = side.svd
        variance = s.square() / s.square().sum()
        sides.append((u, variance / (variance + ridge)))
    (ux, wx), (uy, wy) = sides
    cross = wx @ (ux.mT @ uy).square() @ wy
    return max(0.0, float(wx @ wx + wy @ wy - 2 * cross))
