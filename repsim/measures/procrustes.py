"""Procrustes: how far apart are two point clouds after the best rotation (or re-ordering of units)?

Everything rests on the nuclear norm of the cross-covariance. Near zero distance `a + b - 2 nuc`
loses half the digits; there the distance is taken from the residual of the aligned arrays instead.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import inner, square_eigenvalues
from repsim.measures.base import (
    ORTHOGONAL,
    PERMUTATION,
    ROTATION_BLIND,
    TRANSLATION,
    similarity_measure,
)
from repsim.measures.features import Features, Side
from repsim.measures.held import cosines_without

WILLIAMS = "Williams, Kunz, Kornblith, Linderman 2021, arXiv:2110.14739"

#: 1 - similarity under which the distance comes from the aligned residual, by precision.
NEAR = {torch.float64: 1e-4, torch.float32: 1e-3}


def nuclear_norm(matrix: Tensor) -> float:
    """Sum of singular values, from the float64 eigenvalues of the smaller of C'C and CC'."""
    c = matrix.double()
    squares = square_eigenvalues(c if c.shape[0] >= c.shape[1] else c.mT)
    singular = squares.clamp(min=0).sqrt()
    blur = 2 * torch.finfo(torch.float64).eps ** 0.5 * singular[-1]
    doubt = float((blur**2 / (singular + blur + 1e-300)).sum())
    # Final layers are normalised: one direction has no variance, and is all of the doubt.
    allowed = 1e-8 if matrix.dtype == torch.float64 else 1e-6
    total = float(singular.sum())
    return total if doubt <= allowed * total else exact_nuclear_norm(matrix)


def exact_nuclear_norm(matrix: Tensor) -> float:
    """Sum of singular values in the matrix's own precision or better."""
    return float(torch.linalg.svdvals(matrix.double()).sum())


def aligned_residual(a: Tensor, b: Tensor) -> float:
    """`min_Q ||a Q - b||_F` over rotations, the narrower side padded with zeros."""
    if a.shape[1] > b.shape[1]:
        a, b = b, a
    a, b = a.double(), b.double()
    u, _, vh = torch.linalg.svd(a.mT @ b, full_matrices=False)
    return float(torch.linalg.matrix_norm(a @ (u @ vh) - b))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a.double().mT @ b.double()


def _similarity(x: Features, y: Features) -> float:
    return min(1.0, exact_nuclear_norm(_cross(x.compact, y.compact)) / (x.norm * y.norm))


def _angle(similarity: float, x: Features, y: Features) -> float:
    """arccos, from the residual where the cosine no longer resolves it."""
    if 1 - similarity > NEAR[x.dtype]:
        return math.acos(max(-1.0, similarity))
    residual = aligned_residual(x.compact.double() / x.norm, y.compact.double() / y.norm)
    return 2 * math.asin(min(1.0, residual / 2))


def _similarity_grid(xs: Side, ys: Side) -> np.ndarray:
    """Procrustes similarity of all pairs, `[a, b]`; each unordered pair once."""
    values: dict[tuple[int, int], float] = {}
    grid = np.empty((len(xs), len(ys)))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            key = (min(id(x), id(y)), max(id(x), id(y)))
            if key not in values:
                norms = x.norm * y.norm or math.nan
                exact = x.has_long_rows or y.has_long_rows
                cross = _cross(x.compact, y.compact) if exact else x.compact.mT @ y.compact
                values[key] = min(1.0, nuclear_norm(cross) / norms)
            grid[i, j] = values[key]
    return grid


def _angle_grid(xs: Side, ys: Side) -> np.ndarray:
    similarities = _similarity_grid(xs, ys)
    return np.array(
        [[_angle(similarities[i, j], x, y) for j, y in enumerate(ys)] for i, x in enumerate(xs)]
    )


def _rotated(x: Features, y: Features) -> tuple[Tensor, Tensor]:
    """Both sides after the best rotation, `[n, narrower width]`."""
    u, _, vh = torch.linalg.svd(_cross(x.compact, y.compact), full_matrices=False)
    return x.compact.double() @ u, y.compact.double() @ vh.mT


_similarities_without = functools.partial(cosines_without, aligned=_rotated)


@similarity_measure(
    name="procrustes",
    label="Procrustes (angular)",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, math.pi / 2),
    invariances=ROTATION_BLIND,
    min_samples=2,
    cost="expensive",
    definition="arccos(||X'Y||_* / (||X||_F ||Y||_F)) in radians, columns centered: the angle left "
    "after the best rotation. A metric.",
    reference=WILLIAMS,
    estimator="biased downwards when n is not much larger than d. Compare with a null.",
    aliases={"procrustes_angular": {}},
    grid=_angle_grid,
    held=lambda xs, ys, mask=None: np.arccos(np.clip(_similarities_without(xs, ys, mask), -1, 1)),
    max_width_ratio=1.0,
)
def procrustes(x: Features, y: Features) -> float:
    """Angular Procrustes distance in radians."""
    return _angle(_similarity(x, y), x, y)


@similarity_measure(
    name="bures",
    label="Bures similarity",
    rung=Rung.L2,
    range=(0.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=2,
    cost="expensive",
    definition="||X'Y||_* / (||X||_F ||Y||_F), columns centered: normalised Bures similarity, the "
    "cosine of the Procrustes angle.",
    reference="Tang, Maddox, Dickens, Diethe, Damianou 2020, arXiv:2003.11370",
    estimator="biased upwards when n is not much larger than d. Compare with a null.",
    aliases={"procrustes_similarity": {}},
    grid=_similarity_grid,
    held=_similarities_without,
    max_width_ratio=1.0,
)
def bures(x: Features, y: Features) -> float:
    """Normalised Bures similarity, also called Procrustes similarity."""
    return _similarity(x, y)


def _size_and_shape(a: Tensor, b: Tensor) -> float:
    squares = inner(a, a) + inner(b, b)
    similarity = 2 * exact_nuclear_norm(_cross(a, b))
    if squares - similarity > NEAR[torch.float64] * squares:
        return math.sqrt(squares - similarity)
    return aligned_residual(a, b)


@similarity_measure(
    name="procrustes_size_and_shape",
    label="Procrustes (size and shape)",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=(TRANSLATION, PERMUTATION, ORTHOGONAL),
    min_samples=2,
    cost="expensive",
    definition="min over rotations Q of ||X Q - Y||_F, columns centered, not normalised.",
    reference=WILLIAMS,
    estimator="in the units of the activations; grows with sqrt(n).",
    undefined_on_constant=False,
)
def procrustes_size_and_shape(x: Features, y: Features) -> float:
    """Procrustes distance of centered arrays with their size."""
    return _size_and_shape(x.compact, y.compact)


@similarity_measure(
    name="procrustes_uncentered",
    label="Procrustes (uncentered)",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, None),
    invariances=(PERMUTATION, ORTHOGONAL),
    min_samples=1,
    cost="expensive",
    definition="min over rotations Q of ||X Q - Y||_F on the arrays as they are.",
    reference="Schönemann 1966, Psychometrika 31",
    estimator="in the units of the activations; grows with sqrt(n).",
    undefined_on_constant=False,
)
def procrustes_uncentered(x: Features, y: Features) -> float:
    """Procrustes distance of the arrays as they came."""
    return _size_and_shape(x.x, y.x)


@similarity_measure(
    name="shape",
    label="Shape metric",
    rung=Rung.L2,
    direction="distance",
    range=(0.0, math.pi / 2),
    invariances=(TRANSLATION, PERMUTATION, ORTHOGONAL),
    min_samples=2,
    cost="expensive",
    definition="Procrustes angle after partial whitening Z = alpha I + (1 - alpha) S^-1/2; S = X'X "
    "(scatter) or X'X/n (covariance), which depends on the units of X for 0 < alpha < 1.",
    reference=WILLIAMS,
    estimator="alpha=1 is procrustes, alpha=0 compares fully whitened arrays.",
    aliases={
        "shape_alpha0.5_netrep": {"alpha": 0.5, "whiten": "scatter"},
        "shape_alpha0.5_cov": {"alpha": 0.5, "whiten": "covariance"},
    },
    max_width_ratio=1.0,
)
def shape(
    x: Features,
    y: Features,
    *,
    alpha: float = 0.5,
    whiten: Literal["scatter", "covariance"] = "covariance",
) -> float:
    """Angular shape metric between Procrustes (alpha 1) and CCA (alpha 0)."""
    if not 0 <= alpha <= 1 or whiten not in ("scatter", "covariance"):
        raise UsageError(
            f"alpha={alpha}, whiten='{whiten}' is not possible",
            hint="alpha from 0 to 1; whiten 'scatter' or 'covariance'",
        )
    a, b = (_partly_whitened(side, alpha, whiten) for side in (x, y))
    similarity = min(1.0, exact_nuclear_norm(a.mT @ b))
    if 1 - similarity > NEAR[x.dtype]:
        return math.acos(similarity)
    return 2 * math.asin(min(1.0, aligned_residual(a, b) / 2))


def _partly_whitened(x: Features, alpha: float, whiten: str) -> Tensor:
    """The whitened rows in principal coordinates, of Frobenius norm 1, `[n, r]`."""
    u, s, _ = x.svd
    scale = math.sqrt(x.n) if whiten == "covariance" else 1.0
    columns = u * (alpha * s + (1 - alpha) * scale)
    return columns / torch.linalg.matrix_norm(columns)
