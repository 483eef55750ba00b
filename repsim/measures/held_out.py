"""Held-out rows: does what was fitted on some sentences hold on others?

In-sample R² and canonical correlations rise with d/n whatever the data; here each is fitted on four
fifths of the rows and read on a block of neighbouring ones, which keeps documents mostly together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.base import (
    PERMUTATION,
    ROTATION_BLIND,
    SCALING,
    TRANSLATION,
    similarity_measure,
)
from repsim.measures.correlation import best_assignment
from repsim.measures.features import RANK_TOLERANCE, Features

Array = np.ndarray
#: Fits a map on `source [n, d1]` and `target [n, d2]`, both centered; gives its matrix `[d1, d2]`.
Fit = Callable[[Array, Array], Array]

STITCHING = (
    "Lenc, Vedaldi 2015, arXiv:1411.5908; Bansal, Nakkiran, Barak 2021, arXiv:2106.07682; by "
    "group: Csiszárik et al. 2021, arXiv:2110.14633"
)
#: Ridge penalties offered, in units of the mean squared singular value.
PENALTIES = (1e-12, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)


def splits(x: Features, y: Features, folds: int) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Training and held-out rows of both sides, less the training means, in float64."""
    if not 2 <= folds <= x.n // 4:
        raise UsageError(f"folds={folds} of {x.n} rows", hint=f"use 2 to {x.n // 4}")
    sides = [np.asarray(side.centered.double().cpu()) for side in (x, y)]
    for block in np.array_split(np.arange(x.n), folds):
        parts = []
        for side in sides:
            training = np.delete(side, block, axis=0)
            mean = training.mean(axis=0)
            parts += [training - mean, side[block] - mean]
        yield parts[0], parts[2], parts[1], parts[3]


def held_out_r2(x: Features, y: Features, fit: Fit, folds: int) -> float:
    """Share of the variance of held-out rows of X that the fitted map of Y explains."""
    missed = total = 0.0
    for x_training, y_training, x_rest, y_rest in splits(x, y, folds):
        predicted = y_rest @ fit(y_training, x_training)
        missed += float(np.square(x_rest - predicted).sum())
        total += float(np.square(x_rest).sum())
    return 1 - missed / total if total > 0 else math.nan


def _scaled(source: Array, target: Array, matrix: Array) -> Array:
    """The matrix with the factor that brings `source @ matrix` nearest to the target."""
    image = source @ matrix
    square = float(np.square(image).sum())
    return matrix * (float((image * target).sum()) / square if square > 0 else 0.0)


def _fit_permutation(source: Array, target: Array) -> Array:
    """Units re-ordered one to one (Hungarian), and one factor."""
    rows, columns = best_assignment(torch.from_numpy(source.T @ target))
    matrix = np.zeros((source.shape[1], target.shape[1]))
    matrix[rows, columns] = 1.0
    return _scaled(source, target, matrix)


def _fit_rotation(source: Array, target: Array) -> Array:
    """Orthogonal Procrustes on the directions that the rows have, and one factor."""
    u, s, vh = np.linalg.svd(source.T @ target, full_matrices=False)
    # With fewer rows than units the rest of a rotation would be arbitrary.
    kept = s > RANK_TOLERANCE * s[0]
    return _scaled(source, target, u[:, kept] @ vh[kept])


def _fit_linear(source: Array, target: Array) -> Array:
    """Ridge regression, the penalty chosen within the training rows by leave-one-out error."""
    from sklearn.linear_model import RidgeCV

    unit = float(np.square(source).sum()) / min(source.shape) or 1.0
    # The means are out; without its intercept the leave-one-out error of n <= d rows is rounding.
    model = RidgeCV(alphas=np.array(PENALTIES) * unit, fit_intercept=True)
    return np.asarray(model.fit(source, target).coef_).reshape(target.shape[1], -1).T


@similarity_measure(
    name="stitch_permutation",
    label="Stitching, permutation",
    rung=Rung.L1,
    range=(None, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION),
    min_samples=20,
    cost="expensive",
    definition="1 - sum ||x - s P y||^2 / sum ||x||^2 over held-out rows of X (first argument): P "
    "the re-ordering of Y's units and s the factor that are best on the other rows, 5 blocks of "
    "rows held out in turn, means of the other rows taken out.",
    reference=STITCHING,
    estimator="about 0 or less on independent data; 0 is what the mean predicts.",
    symmetric=False,
)
def stitch_permutation(x: Features, y: Features, *, folds: int = 5) -> float:
    """Held-out R² of X from the re-ordered units of Y."""
    return held_out_r2(x, y, _fit_permutation, folds)


@similarity_measure(
    name="stitch_orthogonal",
    label="Stitching, orthogonal",
    rung=Rung.L2,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=20,
    cost="expensive",
    definition="1 - sum ||x - s Q y||^2 / sum ||x||^2 over held-out rows of X (first argument): Q "
    "the rotation of Y and s the factor that are best on the other rows; folds as in "
    "stitch_permutation.",
    reference=STITCHING,
    estimator="about 0 or less on independent data; 0 is what the mean predicts.",
    symmetric=False,
)
def stitch_orthogonal(x: Features, y: Features, *, folds: int = 5) -> float:
    """Held-out R² of X from the rotated Y."""
    return held_out_r2(x, y, _fit_rotation, folds)


@similarity_measure(
    name="stitch_linear",
    label="Stitching, linear (held-out R²)",
    rung=Rung.L3,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=20,
    cost="expensive",
    definition="Cross-validated R² of X (first argument) from Y: ridge regression on the other "
    "rows, its penalty by their leave-one-out error, read on held-out rows; folds as in "
    "stitch_permutation. 1 on identical input while n > d.",
    reference=STITCHING + "; Kornblith et al. 2019, arXiv:1905.00414",
    estimator="about 0 or less on independent data, at any d/n; 0 is what the mean predicts.",
    symmetric=False,
    aliases={"r2_cv": {}},
)
def stitch_linear(x: Features, y: Features, *, folds: int = 5) -> float:
    """Held-out R² of X from Y by ridge regression."""
    return held_out_r2(x, y, _fit_linear, folds)


# -- canonical correlations -----------------------------------------------------------------------


def _whitening(training: Array, threshold: float) -> Array:
    """Principal directions with that share of the variance, scaled to unit length: `[d, k]`."""
    _, s, vh = np.linalg.svd(training, full_matrices=False)
    share = np.cumsum(s**2) / max(float((s**2).sum()), 1e-300)
    kept = min(int((share < threshold * (1 - 1e-12)).sum()) + 1, int((s > 1e-10 * s[0]).sum()))
    return np.asarray(vh[:kept].T / s[:kept])


@similarity_measure(
    name="cca_cv",
    label="Held-out CCA",
    rung=Rung.L3,
    range=(-1.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=20,
    cost="expensive",
    definition="Canonical variates of the principal components with 99 % (threshold) of the "
    "variance of the training rows, correlated over held-out rows; mean over the smaller number "
    "of components and over 5 blocks of rows held out in turn.",
    reference="Hotelling 1936, Biometrika 28; held out as in Bilenko, Gallant 2016, Frontiers in "
    "Neuroinformatics 10",
    estimator="0 in expectation on independent data, at any d/n; arbitrary where the components of "
    "both sides are more than the training rows.",
    null_value=0.0,
)
def cca_cv(x: Features, y: Features, *, threshold: float = 0.99, folds: int = 5) -> float:
    """Mean canonical correlation on held-out rows."""
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold={threshold} is not possible", hint="a share of variance, 0..1")
    found = []
    for x_training, y_training, x_rest, y_rest in splits(x, y, folds):
        x_map, y_map = (_whitening(side, threshold) for side in (x_training, y_training))
        u, _, vh = np.linalg.svd((x_training @ x_map).T @ (y_training @ y_map), full_matrices=False)
        found.append(_correlations(x_rest @ x_map @ u, y_rest @ y_map @ vh.T).mean())
    return float(np.mean(found))


def _correlations(a: Array, b: Array) -> Array:
    """Correlation of column i with column i; 0 where one is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    lengths = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), lengths, out=np.zeros_like(lengths), where=lengths > 0)
