"""Neighbourhoods: do the same sentences lie next to each other?

Neighbours are found once per array. A row is excluded from its own neighbours by index and ties go
to the lower index. `k` is cut to n - 2: with n - 1 neighbours every row would have all others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.base import ORTHOGONAL, PERMUTATION, SCALING, measure
from repsim.measures.features import Features, Metric

COSINE_BLIND = (SCALING, PERMUTATION, ORTHOGONAL)
#: Rows whose neighbours are compared at once.
BLOCK = 4096

SURVEY = "Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329"


def nearest(x: Features, k: int, metric: Metric = "cosine") -> Tensor:
    """The k (n - 2 if smaller) nearest rows of each row, `[n, k]`.

    Raises:
        UsageError: k is less than 1.
    """
    if k < 1:
        raise UsageError(f"k={k} is not possible", hint="use at least one neighbour")
    return x.neighbours(min(k, x.n - 2), metric)


def membership(neighbours: Tensor, n: int) -> Tensor:
    """`[b, n]` booleans: whether column j is a neighbour of row i."""
    mask = torch.zeros(len(neighbours), n, dtype=torch.bool, device=neighbours.device)
    return mask.scatter_(1, neighbours, True)


def _shared(a: Tensor, b: Tensor, n: int) -> Tensor:
    """Number of common neighbours of each row, `[n]`."""
    return membership(a, n).gather(1, b).sum(dim=1)


def _shared_grid(
    xs: Sequence[Features], ys: Sequence[Features], k: int, metric: Metric
) -> tuple[np.ndarray, int]:
    """How often each number 0..k of common neighbours occurs, `[a, b, k + 1]`, and k."""
    left = [nearest(x, k, metric) for x in xs]
    right = torch.stack([nearest(y, k, metric) for y in ys])
    n, found = left[0].shape
    counts = torch.zeros(len(xs), len(ys), found + 1, dtype=torch.int64)
    offsets = rearrange(torch.arange(len(ys)), "b -> b 1") * (found + 1)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        for i, neighbours in enumerate(left):
            mask = membership(neighbours[rows], n)
            shared = torch.stack([mask.gather(1, b).sum(dim=1) for b in right[:, rows]]).cpu()
            flat = torch.bincount((shared + offsets).flatten(), minlength=len(ys) * (found + 1))
            counts[i] += flat.reshape(len(ys), found + 1)
    return counts.numpy(), found


def _mutual_grid(
    xs: Sequence[Features], ys: Sequence[Features], *, k: int, metric: Metric
) -> np.ndarray:
    counts, found = _shared_grid(xs, ys, k, metric)
    return np.asarray(counts @ (np.arange(found + 1) / found) / xs[0].n)


def _jaccard_grid(
    xs: Sequence[Features], ys: Sequence[Features], *, k: int, metric: Metric
) -> np.ndarray:
    counts, found = _shared_grid(xs, ys, k, metric)
    shared = np.arange(found + 1)
    return np.asarray(counts @ (shared / (2 * found - shared)) / xs[0].n)


@measure(
    name="mutual_knn",
    label="Mutual k-NN",
    rung=Rung.L4,
    direction="similarity",
    range=(0.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    definition="Mean over rows of |N_X(i) & N_Y(i)| / k; N the k nearest rows by the metric.",
    reference="Huh, Cheung, Wang, Isola 2024, arXiv:2405.07987",
    estimator="k/(n-1) on independent data; depends on n, so compare at one n only.",
    aliases={"mutual_knn_cosine_k10": {"k": 10, "metric": "cosine"}},
    grid=_mutual_grid,
    undefined_on_constant=False,
)
def mutual_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Share of common nearest neighbours."""
    a, b = nearest(x, k, metric), nearest(y, k, metric)
    return float(_shared(a, b, x.n).double().mean() / a.shape[1])


@measure(
    name="jaccard_knn",
    label="Jaccard k-NN",
    rung=Rung.L4,
    direction="similarity",
    range=(0.0, 1.0),
    invariances=COSINE_BLIND,
    min_samples=3,
    definition="Mean over rows of |N_X(i) & N_Y(i)| / |N_X(i) | N_Y(i)|.",
    reference="Schumacher et al. 2021, arXiv:2010.04046; " + SURVEY,
    estimator="about k/(2n-k) on independent data; depends on n.",
    aliases={
        "knn_jaccard_cosine_k10": {"k": 10, "metric": "cosine"},
        "knn_jaccard_euclidean_k10": {"k": 10, "metric": "euclidean"},
    },
    grid=_jaccard_grid,
    undefined_on_constant=False,
)
def jaccard_knn(x: Features, y: Features, *, k: int = 10, metric: Metric = "cosine") -> float:
    """Jaccard similarity of the sets of nearest neighbours."""
    a, b = nearest(x, k, metric), nearest(y, k, metric)
    shared = _shared(a, b, x.n).double()
    return float((shared / (2 * a.shape[1] - shared)).mean())
