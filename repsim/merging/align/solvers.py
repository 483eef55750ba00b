"""Closed-form solutions: the order or the rotation of B that brings its weights nearest to A's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einops import rearrange

from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, axes_of

if TYPE_CHECKING:
    import torch


def distance(a: Weights, b: Weights) -> float:
    """Euclidean distance of all weights."""
    return float(sum(float((a[key] - b[key]).square().sum()) for key in a)) ** 0.5


def best_assignment(similarity: torch.Tensor) -> torch.Tensor:
    """Column for each row such that the sum over the pairs is largest (Hungarian algorithm)."""
    import torch
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    return torch.as_tensor(columns, dtype=torch.long)


def polar_factor(matrix: torch.Tensor) -> torch.Tensor:
    """The orthogonal matrix nearest to a square one, `[..., n, n]`: `U V^T` of its SVD."""
    import torch

    u, _, vh = torch.linalg.svd(matrix)
    found: torch.Tensor = u @ vh
    return found


def inner_products(a: Weights, b: Weights, space: SymmetrySpace) -> torch.Tensor:
    """Inner products of the slices of A and B along the axis of a space, summed over weights."""
    total = a[next(iter(a))].new_zeros(space.size, space.size)
    for key in a:
        axes = axes_of(key)
        mine = [axis for axis in axes if axis in space.axes]
        # A weight that has the axis twice (the square map of a masked-language-model head) is left
        # out: its product depends on the very order that is being sought.
        if len(mine) != 1 or not space.acts_on(key):
            continue
        pattern = f"{' '.join(axes)} -> {mine[0]} ({' '.join(x for x in axes if x != mine[0])})"
        total.addmm_(rearrange(a[key], pattern), rearrange(b[key], pattern).T)
    return total


def best_permutation(a: Weights, b: Weights, space: SymmetrySpace) -> torch.Tensor:
    """The order of B's units that maximises the summed inner products with A's, `[size]`."""
    return best_assignment(inner_products(a, b, space))


def best_element(cross: torch.Tensor, space: SymmetrySpace) -> torch.Tensor:
    """The element of a space of the stream that maximises its product with summed products."""
    return rotation_from(cross, space) if space.group == "rotation" else best_assignment(cross)


def rotation_from(cross: torch.Tensor, space: SymmetrySpace) -> torch.Tensor:
    """The legal rotation that maximises `<Q, cross>` (Schoenemann 1966)."""
    if not space.fixes_mean:
        return polar_factor(cross)
    # LayerNorm is blind along the constant direction: rotate only what is orthogonal to it.
    cross = cross - cross.mean(0, keepdim=True)
    cross = cross - cross.mean(1, keepdim=True)
    # A large entry there makes the constant direction its own image instead of an arbitrary one.
    return polar_factor(cross + cross.norm().clamp_min(1.0) / space.size)
