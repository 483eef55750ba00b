"""CKA with a Gaussian kernel. The value means nothing without its bandwidth rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import (
    cosine,
    double_centred,
    order_statistics,
    triangle,
    u_centred,
)
from repsim.measures.base import measure
from repsim.measures.cka import KORNBLITH, ROTATION_BLIND
from repsim.measures.cosines import cosine_grid, half
from repsim.measures.features import Features

Bandwidth = Literal["median_offdiag", "median_all"] | float


def squared_bandwidth(squared_distances: Tensor, bandwidth: Bandwidth) -> float:
    """`s^2` of `exp(-d^2 / (2 s^2))`.

    Args:
        squared_distances: `[n, n]`.
        bandwidth: "median_offdiag": s is the median of the n (n - 1) / 2 distances. "median_all":
            s^2 is the median of all n^2 squared distances, zero diagonal included. A number: s.

    Raises:
        UsageError: Another rule, or a bandwidth that is not positive.
    """
    if isinstance(bandwidth, (int, float)) and bandwidth > 0:
        return float(bandwidth) ** 2
    n, pairs = len(squared_distances), triangle(squared_distances)
    if bandwidth == "median_offdiag":
        middle = [(len(pairs) - 1) // 2, len(pairs) // 2]
        low, high = (value**0.5 for value in order_statistics(pairs, middle))
        return ((low + high) / 2) ** 2
    if bandwidth == "median_all":
        # Sorted, the n^2 entries are n zeros and then every pair twice.
        middle = [((n * n - 1) // 2 - n) // 2, (n * n // 2 - n) // 2]
        return sum(order_statistics(pairs, [i for i in middle if i >= 0])) / 2
    raise UsageError(
        f"bandwidth '{bandwidth}' is not possible",
        hint="use 'median_offdiag', 'median_all' or a positive number",
    )


def centred_kernel(x: Features, bandwidth: Bandwidth, debiased: bool) -> Tensor:
    """Centered Gaussian kernel matrix, `[n, n]`; zero if more than half of the distances are."""

    def compute(origin: Features) -> Tensor:
        squared = origin.distances("sqeuclidean")
        scale = squared_bandwidth(squared, bandwidth)
        if scale == 0:
            return torch.zeros_like(squared)
        kernel = torch.exp(squared / (-2 * scale))
        return u_centred(kernel) if debiased else double_centred(kernel)

    return x.remember_matrix(f"rbf_{bandwidth}_{debiased}", compute)


def _grid(
    xs: Sequence[Features], ys: Sequence[Features], *, bandwidth: Bandwidth, debiased: bool
) -> np.ndarray:
    return cosine_grid(xs, ys, lambda x: half(centred_kernel(x, bandwidth, debiased)))


@measure(
    name="cka_rbf",
    label="CKA (RBF)",
    rung=Rung.L2,
    direction="similarity",
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="CKA of Gaussian kernels exp(-d^2 / (2 s^2)), s the median distance between rows "
    "(bandwidth 'median_offdiag'); debiased by U-centering, or biased.",
    reference=KORNBLITH,
    estimator="debiased: near 0 on independent data. A fixed bandwidth is not blind to scale.",
    aliases={
        "cka_rbf_median_offdiag": {"bandwidth": "median_offdiag", "debiased": False},
        "cka_rbf_median_all": {"bandwidth": "median_all", "debiased": False},
        "cka_rbf_sigma1": {"bandwidth": 1.0, "debiased": False},
        "cka_rbf_median_offdiag_debiased": {"bandwidth": "median_offdiag", "debiased": True},
    },
    grid=_grid,
    null_value=0.0,
)
def cka_rbf(
    x: Features, y: Features, *, bandwidth: Bandwidth = "median_offdiag", debiased: bool = True
) -> float:
    """CKA with a Gaussian kernel."""
    kernels = (centred_kernel(side, bandwidth, debiased) for side in (x, y))
    return cosine(*kernels)
