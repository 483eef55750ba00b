"""State dicts taken apart into weights with named axes, and put together again."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from einops import EinopsError, rearrange

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.models.arch.spaces import (
    ROLE_AXES,
    StoredWeight,
    WeightSpaces,
    axes_of,
    split_key,
)

if TYPE_CHECKING:
    import torch

#: Key ("layer.role") -> weight, axes as in `ROLE_AXES`.
Weights = dict[str, "torch.Tensor"]
StateDict = Mapping[str, "torch.Tensor"]


def unpack(state: StateDict, spaces: WeightSpaces) -> Weights:
    """Weights by role, in float64, out of a state dict."""
    import torch

    check_known(state, spaces)
    weights: Weights = {}
    for weight in spaces.weights:
        name = stored_name(weight, state, spaces)
        if name not in state:
            continue
        tensor = state[name].detach().to(torch.float64)
        if not bool(tensor.isfinite().all()):
            raise InputError(f"tensor '{name}' holds values that are NaN or infinite")
        weights.update(_take_apart(weight, tensor, name, spaces))
    if spaces.tied and "head" in weights:
        if not torch.equal(weights["head"], weights["embed"]):
            raise IncompatibleModelsError(
                "the config ties the head to the embedding, but the checkpoint holds another head",
                hint="set tie_word_embeddings: false if the head is meant",
            )
        del weights["head"]
    return weights


def pack(weights: Weights, state: StateDict, spaces: WeightSpaces) -> dict[str, torch.Tensor]:
    """The inverse of `unpack`: a state dict with the types and layout of `state`."""
    packed = dict(state)
    for weight in spaces.weights:
        name = stored_name(weight, state, spaces)
        source = {"head": "embed"} if spaces.tied else {}
        keys = [source.get(key, key) for key in weight.keys]
        new_head = name not in state and keys == ["head"] and not _has_head(packed, spaces)
        if name not in state and not (new_head and "head" in weights):
            continue
        like = state[stored_name(spaces.weights[0], state, spaces)] if new_head else state[name]
        joined = _put_together(weight, [weights[key] for key in keys], spaces)
        packed[name] = joined.to(like.dtype).contiguous()
    return packed


def _has_head(state: StateDict, spaces: WeightSpaces) -> bool:
    heads = [weight for weight in spaces.weights if "head" in weight.roles]
    return any(stored_name(weight, state, spaces) in state for weight in heads)


def has_body_prefix(state: StateDict, spaces: WeightSpaces) -> bool:
    """Whether the state dict is that of a model with a head, whose body has a name."""
    return any(name.startswith(f"{spaces.body}.") for name in state)


def stored_name(weight: StoredWeight, state: StateDict, spaces: WeightSpaces) -> str:
    """Name of a tensor in this state dict."""
    if weight.tensor.startswith("/"):
        return weight.tensor[1:]
    return f"{spaces.body}.{weight.tensor}" if has_body_prefix(state, spaces) else weight.tensor


def check_known(state: StateDict, spaces: WeightSpaces) -> None:
    """Refuse a state dict whose tensors are not those that the family declares."""
    declared = {stored_name(weight, state, spaces): weight for weight in spaces.weights}
    missing = [
        name for name, weight in declared.items() if not weight.optional and name not in state
    ]
    if missing:
        raise IncompatibleModelsError(
            f"the checkpoint lacks {len(missing)} tensor(s) of architecture '{spaces.family}', "
            f"first '{missing[0]}'"
        )
    prefix = f"{spaces.body}." if has_body_prefix(state, spaces) else ""
    patterns = [
        pattern[1:] if pattern.startswith("/") else re.escape(prefix) + pattern
        for pattern in spaces.untouched
    ]
    unknown = [
        name
        for name in state
        if name not in declared and not any(re.fullmatch(p, name) for p in patterns)
    ]
    if unknown:
        raise IncompatibleModelsError(
            f"the symmetries of architecture '{spaces.family}' say nothing of {len(unknown)} "
            f"tensor(s), first '{unknown[0]}'",
            hint="moving the other weights around them would change what the model computes",
        )
    has_head = prefix and not spaces.tied and any(w.roles == ("head",) for w in spaces.weights)
    if has_head and not _has_head(state, spaces):
        raise IncompatibleModelsError(
            "the config does not tie the head to the embedding, but the checkpoint has no head"
        )


def _take_apart(
    weight: StoredWeight, tensor: torch.Tensor, name: str, spaces: WeightSpaces
) -> Weights:
    try:
        pieces = _pieces(weight.stored, tensor, spaces)
        single: Weights = {}
        for key, (pattern, piece) in zip(weight.keys, pieces, strict=True):
            here = _fit(pattern, key)
            order = _order(key, here)
            single[key] = rearrange(piece, f"{here} -> {order}", **_sizes(here, spaces))
        return {key: piece.clone().contiguous() for key, piece in single.items()}
    except (EinopsError, RuntimeError, ValueError):
        raise IncompatibleModelsError(
            f"tensor '{name}' has shape {tuple(tensor.shape)}, which is not '{weight.stored}' "
            f"with {dict(spaces.sizes)}",
            hint="do the weights belong to this config?",
        ) from None


def _pieces(
    stored: str, tensor: torch.Tensor, spaces: WeightSpaces
) -> list[tuple[str, torch.Tensor]]:
    """Pattern and part of each weight in a tensor."""
    if "part" in _axes(stored):
        rest = _without_part(stored)
        stacked = rearrange(tensor, f"{stored} -> part {rest}", **_sizes(stored, spaces))
        return [(rest, piece) for piece in stacked]
    patterns = stored.split(" | ")
    if len(patterns) == 1:
        return [(stored, tensor)]
    lengths = [math.prod(spaces.sizes[axis] for axis in _axes(p) if axis != "resid")
               for p in patterns]  # fmt: skip
    pieces = tensor.split(lengths, dim=_joint_axis(patterns[0]))
    return list(zip(patterns, pieces, strict=True))


def _put_together(
    weight: StoredWeight, parts: list[torch.Tensor], spaces: WeightSpaces
) -> torch.Tensor:
    import torch

    fused = "part" in _axes(weight.stored)
    patterns = [_without_part(weight.stored)] * len(parts) if fused else weight.stored.split(" | ")
    single = []
    for key, part, pattern in zip(weight.keys, parts, patterns, strict=True):
        here = _fit(pattern, key)
        order = _order(key, here)
        single.append(rearrange(part, f"{order} -> {here}", **_sizes(here, spaces)))
    if fused:
        return rearrange(torch.stack(single), f"part {patterns[0]} -> {weight.stored}")
    return torch.cat(single, dim=_joint_axis(patterns[0])) if len(single) > 1 else single[0]


def _axes(stored: str) -> tuple[str, ...]:
    return tuple(stored.replace("(", "").replace(")", "").split())


def _without_part(stored: str) -> str:
    return " ".join(axis for axis in _axes(stored) if axis != "part")


def _joint_axis(pattern: str) -> int:
    """Where weights that lie one behind the other are joined: on the axis that they give."""
    return 1 if pattern.startswith("resid ") else 0


def _order(key: str, stored: str) -> str:
    """Working order of a weight, rotary pairs (i, i + n/2) where neighbours are stored."""
    order = ROLE_AXES[split_key(key)[1]]
    return order.replace("dim", "(two pair)") if "two" in _axes(stored) else order


def _fit(stored: str, key: str) -> str:
    """Write the axis of query heads as 1 where a fused tensor has it and the weight does not."""
    known = axes_of(key)
    return " ".join("1" if axis == "q" and "q" not in known else axis for axis in stored.split())


def _sizes(stored: str, spaces: WeightSpaces) -> dict[str, int]:
    return {axis: size for axis, size in spaces.sizes.items() if axis in _axes(stored)}
