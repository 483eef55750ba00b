"""Twins: models that compute the same with their weights re-arranged."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from einops import rearrange

from repsim.merging.align.apply import AlignmentMap, apply_map
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.solvers import polar_factor
from repsim.merging.align.weights import StateDict, pack, unpack
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import GAINS, SymmetrySpace, split_key

if TYPE_CHECKING:
    import torch


def random_element(space: SymmetrySpace, generator: torch.Generator) -> torch.Tensor:
    """A random element of a space, far from changing nothing."""
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    if space.group == "permutation":
        return _random_order(space.size, generator)
    if space.group == "grouped permutation":
        return torch.stack([_random_order(space.size, generator) for _ in range(space.copies)])
    if space.group == "rotation":
        return random_rotation(space, generator)
    if space.group == "scale":
        return (0.3 * normal(space.size)).exp()
    # Invertible and not orthogonal, but well conditioned: rounding must not hide in it.
    basis = polar_factor(normal(space.copies, space.size, space.size))
    basis = basis * (0.3 * normal(space.copies, 1, space.size)).exp()
    if space.rotary:
        n = space.rotary
        basis[:, :n, :] = basis[:, :, :n] = 0
        basis[:, :n, :n] = _per_frequency(normal(2, space.copies, n // 2))
        basis[:, n:, n:] = torch.linalg.qr(normal(space.copies, space.size - n, space.size - n))[0]
    return basis


def _random_order(size: int, generator: torch.Generator) -> torch.Tensor:
    """A permutation, of several units never the one that leaves all of them in place."""
    import torch

    order = torch.randperm(size, generator=generator)
    return order.roll(1) if torch.equal(order, torch.arange(size)) else order


def random_rotation(space: SymmetrySpace, generator: torch.Generator) -> torch.Tensor:
    """A random rotation of the residual stream; it keeps the constant direction where it must."""
    import torch

    noise = torch.randn(space.size, space.size, dtype=torch.float64, generator=generator)
    if not space.fixes_mean:
        return polar_factor(noise)
    centred = noise - noise.mean(0, keepdim=True)
    return polar_factor(centred - centred.mean(1, keepdim=True) + 1.0)


def _per_frequency(noise: torch.Tensor) -> torch.Tensor:
    import torch

    scale, angle = (0.3 * noise[0]).exp(), 3 * noise[1]
    real, imaginary = scale * angle.cos(), scale * angle.sin()
    blocks = torch.stack([torch.stack([real, -imaginary]), torch.stack([imaginary, real])])
    return rearrange(blocks.unsqueeze(-1) * torch.eye(noise.shape[-1], dtype=noise.dtype),
                     "row column copies i j -> copies (row i) (column j)")  # fmt: skip


def planted_twin(
    config: Any, state: StateDict, names: Collection[str], *, seed: int = 0, noise: float = 0.0
) -> tuple[dict[str, torch.Tensor], AlignmentMap]:
    """A model that computes the same with its weights re-arranged, as a test of alignment."""
    import torch

    spaces = spec_for(config.model_type).spaces(config)
    weights = unpack(state, spaces)
    if "residual_rotation" in names:
        weights, spaces = fold_norms(weights, spaces)
    generator = torch.Generator().manual_seed(seed)
    planted: AlignmentMap = {}
    for space in spaces.spaces:
        if space.name in names:
            element = random_element(space, generator)
            planted[space.key] = polar_factor(element) if space.group == "linear" else element
    moved = apply_map(weights, spaces, planted)
    for key, weight in moved.items():
        if split_key(key)[1] not in GAINS:
            drawn = torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
            moved[key] = weight + noise * drawn
    return pack(moved, state, spaces), planted
