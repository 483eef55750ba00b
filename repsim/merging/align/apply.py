"""Apply elements of symmetry spaces to weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from einops import einsum

from repsim.core.errors import UsageError
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces, axes_of, split_key

if TYPE_CHECKING:
    import torch

#: Key of a space -> its element; what is not there is left as it is.
AlignmentMap = dict[str, "torch.Tensor"]


def transform(weights: Weights, space: SymmetrySpace, element: torch.Tensor) -> Weights:
    """Weights after one element of one space acted on them."""
    _check_shape(space, element)
    dual = 1.0 / element if space.group == "scale" else None
    if dual is None and space.dual_roles:
        import torch

        # The inverse of a permutation or an orthogonal matrix is its transpose, without rounding.
        orthogonal = torch.equal(element @ element.mT, torch.eye(space.size).to(element))
        dual = element if orthogonal else torch.linalg.inv(element).mT
    changed = dict(weights)
    for key, weight in weights.items():
        if space.acts_on(key):
            uses_dual = split_key(key)[1] in space.dual_roles
            act = dual if uses_dual and dual is not None else element
            changed[key] = _act(weight, axes_of(key), space, act)
    return changed


def apply_map(weights: Weights, spaces: WeightSpaces, maps: Mapping[str, torch.Tensor]) -> Weights:
    """Weights after a map, space by space in the order that the family declares."""
    unknown = [key for key in maps if key not in spaces]
    if unknown:
        raise UsageError(f"architecture '{spaces.family}' has no symmetry '{unknown[0]}'")
    for space in spaces.spaces:
        if space.key in maps:
            weights = transform(weights, space, maps[space.key])
    return weights


def identity_element(space: SymmetrySpace) -> torch.Tensor:
    """The element that changes nothing."""
    import torch

    if space.group == "permutation":
        return torch.arange(space.size)
    if space.group == "grouped permutation":
        return torch.arange(space.size).repeat(space.copies, 1)
    if space.group == "scale":
        return torch.ones(space.size, dtype=torch.float64)
    eye = torch.eye(space.size, dtype=torch.float64)
    return eye if space.group == "rotation" else eye.repeat(space.copies, 1, 1)


def _check_shape(space: SymmetrySpace, element: torch.Tensor) -> None:
    expected = tuple(identity_element(space).shape)
    if tuple(element.shape) != expected:
        raise UsageError(
            f"an element of '{space.key}' has shape {expected}, not {tuple(element.shape)}"
        )


def _act(
    weight: torch.Tensor, axes: tuple[str, ...], space: SymmetrySpace, element: torch.Tensor
) -> torch.Tensor:
    for number, axis in enumerate(axes):
        if axis not in space.axes:
            continue
        if space.group == "permutation":
            weight = weight.index_select(number, element)
        elif space.group == "grouped permutation":
            # Each group that the axes before it count has an order of its own.
            groups = element.new_tensor(range(space.copies))[:, None]
            by_group = weight.reshape(space.copies, space.size, *weight.shape[number + 1 :])
            weight = by_group[groups, element].reshape(weight.shape)
        elif space.group == "scale":
            ones = (1,) * (weight.ndim - number - 1)
            weight = weight * element.to(weight).reshape(-1, *ones)
        else:
            names = " ".join(axes)
            after = " ".join("new" if name == axis else name for name in axes)
            one = space.group == "rotation" or "kv" not in axes
            matrix = element if element.ndim == 2 or not one else element[0]
            taken = f"new {axis}" if one else f"kv new {axis}"
            weight = einsum(matrix.to(weight), weight, f"{taken}, {names} -> {after}")
    return weight
