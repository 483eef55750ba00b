"""Fold the gains of norms into what reads them, so that the residual stream can be rotated.

`W (g * n(x)) = (W diag(g)) n(x)`, and `n(x) = x / rms(x)` does not care how x is oriented. A
LayerNorm first subtracts the mean; if every writer of the stream adds zero-mean vectors, there is
nothing left to subtract, and it becomes an RMSNorm. (Ashkboos et al. 2024, SliceGPT, section 3.2.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einops import einsum

from repsim.core.errors import IncompatibleModelsError
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import WeightSpaces, axes_of

if TYPE_CHECKING:
    import torch

#: A final LayerNorm whose smallest gain lies below this share of the largest cannot be divided by.
LEAST_GAIN = 1e-6


def fold_norms(weights: Weights, spaces: WeightSpaces) -> tuple[Weights, WeightSpaces]:
    """The same function with all gains of norms at one and, for LayerNorm, zero-mean writers."""
    check_rotatable(weights, spaces)
    return fold_part(weights, spaces), spaces.untied()


def fold_part(weights: Weights, spaces: WeightSpaces) -> Weights:
    """Fold a part of a model that holds, with each norm, everything that reads it."""
    folded = dict(weights)
    if spaces.tied and "embed" in folded:
        folded["head"] = folded["embed"].clone()
    for norm, readers in _readers(folded, spaces).items():
        if readers:
            _fold_one(folded, norm, readers, spaces)
    if spaces.centred:
        _centre_writers(folded, spaces)
    return folded


def check_rotatable(weights: Weights, spaces: WeightSpaces) -> None:
    """Refuse models whose residual stream cannot be rotated."""
    if "residual_rotation" not in spaces:
        raise IncompatibleModelsError(
            f"the residual stream of architecture '{spaces.family}' cannot be rotated: "
            f"{spaces.unrotatable or 'its family declares no rotation'}",
            hint="align with method 'permutation'",
        )
    if "head" not in weights and not spaces.tied:
        raise IncompatibleModelsError(
            "a model without its language-model head cannot be rotated: its output is the stream",
            hint="give the checkpoint of the whole model, or align with method 'permutation'",
        )


def _readers(weights: Weights, spaces: WeightSpaces) -> dict[str, list[str]]:
    """Norm -> the weights that read it; each weight once, although its bias is listed too."""
    readers: dict[str, list[str]] = {}
    for weight in spaces.weights:
        if weight.norm:
            known = readers.setdefault(weight.norm, [])
            known += [key for key in weight.keys if key in weights and key not in known]
    return readers


def _fold_one(weights: Weights, norm: str, readers: list[str], spaces: WeightSpaces) -> None:
    gain = weights[norm] + spaces.gain_offset
    bias = weights.get(f"{norm}_bias")
    has_bias = [f"{reader}_bias" in weights for reader in readers]
    if bias is not None and bool(bias.any()):
        if all(has_bias):
            for reader in readers:
                axes = axes_of(reader)
                written = " ".join(axis for axis in axes if axis != "resid")
                into = einsum(weights[reader], bias, f"{' '.join(axes)}, resid -> {written}")
                weights[f"{reader}_bias"] = weights[f"{reader}_bias"] + into
            weights[f"{norm}_bias"] = bias * 0
        else:
            weights[f"{norm}_bias"] = _divided(bias, gain, norm)
    for reader in readers:
        weights[reader] = weights[reader] * gain
    weights[norm] = gain * 0 + (1.0 - spaces.gain_offset)


def _divided(bias: torch.Tensor, gain: torch.Tensor, norm: str) -> torch.Tensor:
    if float(gain.abs().min()) <= LEAST_GAIN * float(gain.abs().max()):
        raise IncompatibleModelsError(
            f"norm '{norm}' has a bias and a gain of zero, and what reads it has no bias to take "
            "the bias over",
            hint="align with method 'permutation'",
        )
    return bias / gain


def _centre_writers(weights: Weights, spaces: WeightSpaces) -> None:
    for key in [key for weight in spaces.weights if weight.writes for key in weight.keys]:
        if key in weights:
            weights[key] = weights[key] - weights[key].mean(-1, keepdim=True)
