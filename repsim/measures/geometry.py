"""Global geometry: subspaces, and (beside the ladder) single numbers of a point cloud."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from repsim.core.measure import Rung
from repsim.measures.base import (
    INVERTIBLE,
    ORTHOGONAL,
    PERMUTATION,
    SCALING,
    TRANSLATION,
    similarity_measure,
)
from repsim.measures.features import Features

SURVEY = "Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329"
#: Rows whose distances are taken at once.
BLOCK = 1024

WANG = "Wang, Isola 2020, arXiv:2005.10242"


@similarity_measure(
    name="eigenspace_overlap",
    label="Eigenspace overlap",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=(SCALING, PERMUTATION, ORTHOGONAL, INVERTIBLE),
    min_samples=1,
    cost="expensive",
    definition="||U'V||_F^2 / max(d1, d2), U and V orthonormal bases of the uncentered column "
    "spaces. Under 1 for identical spaces of rank less than d.",
    reference="May, Zhang, Dao, Ré 2019, arXiv:1909.01264",
    estimator="about d/n on independent data.",
    max_width_ratio=0.5,
    undefined_on_constant=False,
)
def eigenspace_overlap(x: Features, y: Features) -> float:
    """Overlap of the two column spaces."""
    overlap = (x.svd_uncentered[0].mT @ y.svd_uncentered[0]).square().sum()
    return float(overlap) / max(x.d, y.d)


@similarity_measure(
    name="aligned_cosine",
    label="Aligned cosine",
    rung=Rung.L2,
    range=(-1.0, 1.0),
    invariances=(SCALING, PERMUTATION, ORTHOGONAL),
    min_samples=1,
    cost="expensive",
    definition="Mean over rows of the cosine between x_i Q and y_i, Q the best rotation of the "
    "uncentered arrays; zero rows count 0.",
    reference="Hamilton, Leskovec, Jurafsky 2016, arXiv:1605.09096",
    estimator="high on any arrays that share a large mean. Compare with a null.",
    undefined_on_constant=False,
)
def aligned_cosine(x: Features, y: Features) -> float:
    """Mean cosine of rows after the best rotation."""
    a, b = x.x, y.x
    u, _, vh = torch.linalg.svd(a.mT @ b, full_matrices=False)
    dots = ((a @ u) * (b @ vh.mT)).sum(dim=1)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    return float(torch.where(lengths > 0, dots / lengths.clamp(min=1e-300), 0.0).mean())


def _gap(key: str, of: Callable[[Features], float], x: Features, y: Features) -> float:
    """Difference of one number per side, kept on each."""
    return abs(x.remember(key, of) - y.remember(key, of))


def _uniformity(x: Features) -> float:
    # In float64 whatever the sweep's precision: only the nearest of all pairs count.
    rows = x.centered64
    squares = rows.square().sum(dim=1)
    total = float(x.n)
    for start in range(0, x.n, BLOCK):
        block = rows[start : start + BLOCK]
        sums = squares[start : start + BLOCK, None] + squares
        kernel = torch.exp(-2 * (sums - 2 * (block @ rows.mT)).clamp(min=0))
        kernel[torch.arange(len(block)), torch.arange(start, start + len(block))] = 0
        total += float(kernel.sum())
    return math.log(total / x.n**2)


@similarity_measure(
    name="uniformity_difference",
    label="Uniformity difference",
    rung=None,
    direction="distance",
    range=(0.0, None),
    invariances=(TRANSLATION, PERMUTATION, ORTHOGONAL),
    min_samples=1,
    definition="|log mean exp(-2 d^2) of X minus the same of Y|, all n^2 pairs, self included. "
    "Says nothing once distances are well over 1.",
    reference=WANG + "; " + SURVEY,
    estimator="does not look at which row is which: no null by shuffling.",
    undefined_on_constant=False,
)
def uniformity_difference(x: Features, y: Features) -> float:
    """Difference of how evenly two clouds fill the space."""
    return _gap("uniformity", _uniformity, x, y)


@similarity_measure(
    name="magnitude_difference",
    label="Magnitude difference",
    rung=None,
    direction="distance",
    range=(0.0, None),
    invariances=(PERMUTATION, ORTHOGONAL),
    min_samples=1,
    definition="| ||mean row of X|| - ||mean row of Y|| |.",
    reference="Wang, Wu, He, Zhang, Deng 2022, arXiv:2203.01552; " + SURVEY,
    estimator="in the units of the activations; does not look at which row is which.",
    undefined_on_constant=False,
)
def magnitude_difference(x: Features, y: Features) -> float:
    """Difference of the lengths of the mean rows."""
    return abs(float(x.mean.norm()) - float(y.mean.norm()))


def _concentricity(x: Features) -> float:
    rows = x.x
    lengths = rows.norm(dim=1) * x.mean.norm()
    cosines = (rows @ x.mean) / lengths.clamp(min=1e-300)
    return float(torch.where(lengths > 0, cosines, 0.0).mean())


@similarity_measure(
    name="concentricity_difference",
    label="Concentricity difference",
    rung=None,
    direction="distance",
    range=(0.0, 2.0),
    invariances=(SCALING, PERMUTATION, ORTHOGONAL),
    min_samples=1,
    definition="|mean cosine of the rows of X with their mean row, minus the same of Y|.",
    reference="Wang, Wu, He, Zhang, Deng 2022, arXiv:2203.01552; " + SURVEY,
    estimator="does not look at which row is which: no null by shuffling.",
    undefined_on_constant=False,
)
def concentricity_difference(x: Features, y: Features) -> float:
    """Difference of how closely rows gather around their mean."""
    return _gap("concentricity", _concentricity, x, y)
