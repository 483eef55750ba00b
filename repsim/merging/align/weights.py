"""State dicts taken apart into weights with named axes, and put together again."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from einops import EinopsError, rearrange

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.models.arch.spaces import ROLE_AXES, StoredWeight, WeightSpaces, axes_of, split_key

if TYPE_CHECKING:
    import torch

#: Key ("layer.role") -> weight, axes as in `ROLE_AXES`.
Weights = dict[str, "torch.Tensor"]
StateDict = Mapping[str, "torch.Tensor"]
#: What tensors are called; what stands beside a name is not looked at.
Names = Mapping[str, object]


def unpack(state: StateDict, spaces: WeightSpaces) -> Weights:
    """Weights by role, in float64, out of a state dict."""
    import torch

    check_known(state, spaces)
    weights: Weights = {}
    for weight in spaces.weights:
        name = stored_name(weight, state, spaces)
        found = _fetched(weight, state, spaces)
        if found is None:
            continue
        tensor = found.detach().to(torch.float64)
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
        parts = _part_names(weight, state, spaces)
        if name not in state and not parts and not (new_head and "head" in weights):
            continue
        joined = _put_together(weight, [weights[key] for key in keys], spaces)
        if parts:
            for part, tensor in zip(parts, _apart(joined, weight), strict=True):
                packed[part] = tensor.to(state[part].dtype).contiguous()
            continue
        like = state[stored_name(spaces.weights[0], state, spaces)] if new_head else state[name]
        packed[name] = joined.to(like.dtype).contiguous()
    return packed


def names_in(weight: StoredWeight, state: Names, spaces: WeightSpaces) -> list[str]:
    """Names of the tensors of a state dict that hold a weight; none if it is not there."""
    name = stored_name(weight, state, spaces)
    return [name] if name in state else _part_names(weight, state, spaces)


def as_built(state: StateDict, spaces: WeightSpaces) -> dict[str, torch.Tensor]:
    """A state dict by the names of the model that `transformers` builds: experts in one tensor."""
    built = dict(state)
    for weight in spaces.weights:
        if parts := _part_names(weight, state, spaces):
            found = _fetched(weight, state, spaces)
            assert found is not None
            # Norms of single heads are modules of their own in the model too.
            if weight.roles[0] not in ("q_norm", "k_norm"):
                built = {name: tensor for name, tensor in built.items() if name not in parts}
                built[stored_name(weight, state, spaces)] = found
    return built


def _part_names(weight: StoredWeight, state: Names, spaces: WeightSpaces) -> list[str]:
    """Names of a weight stored in parts, by role; "*" counts its first axis; or none."""
    if not weight.parts or stored_name(weight, state, spaces) in state:
        return []
    prefix = f"{spaces.body}." if has_body_prefix(state, spaces) else ""
    count = math.prod(spaces.sizes[axis] for axis in _axes(_top(weight.stored)[0]))
    names = [
        (prefix + part).replace("*", str(number))
        for part in weight.parts
        for number in range(count if "*" in part else 1)
    ]
    return names if all(name in state for name in names) else []


def _fetched(weight: StoredWeight, state: StateDict, spaces: WeightSpaces) -> torch.Tensor | None:
    """The tensor that holds a weight, put together from its parts where need be."""
    import torch

    name = stored_name(weight, state, spaces)
    if name in state:
        return state[name]
    tensors = [state[part] for part in _part_names(weight, state, spaces)]
    if not tensors or "*" not in weight.parts[0]:
        return tensors[0] if tensors else None
    count = len(tensors) // len(weight.parts)
    stacks = [torch.stack(tensors[i : i + count]) for i in range(0, len(tensors), count)]
    return torch.cat(stacks, dim=1) if len(stacks) > 1 else stacks[0]


def _apart(joined: torch.Tensor, weight: StoredWeight) -> list[torch.Tensor]:
    """The inverse of `_fetched`: one tensor for each name."""
    if "*" not in weight.parts[0]:
        return [joined]
    stacks = joined.chunk(len(weight.parts), dim=1) if len(weight.parts) > 1 else [joined]
    return [tensor for stack in stacks for tensor in stack]


def _has_head(state: Names, spaces: WeightSpaces) -> bool:
    heads = [weight for weight in spaces.weights if "head" in weight.roles]
    return any(stored_name(weight, state, spaces) in state for weight in heads)


def has_body_prefix(state: Names, spaces: WeightSpaces) -> bool:
    """Whether the state dict is that of a model with a head, whose body has a name."""
    return any(name.startswith(f"{spaces.body}.") for name in state)


def stored_name(weight: StoredWeight, state: Names, spaces: WeightSpaces) -> str:
    """Name of a tensor in this state dict."""
    if weight.tensor.startswith("/"):
        return weight.tensor[1:]
    return f"{spaces.body}.{weight.tensor}" if has_body_prefix(state, spaces) else weight.tensor


def check_known(state: Names, spaces: WeightSpaces) -> None:
    """Refuse a state dict whose tensors are not those that the family declares."""
    declared = {stored_name(weight, state, spaces): weight for weight in spaces.weights}
    missing = [
        name
        for name, weight in declared.items()
        if not weight.optional and not names_in(weight, state, spaces)
    ]
    if missing:
        raise IncompatibleModelsError(
            f"the checkpoint lacks {len(missing)} tensor(s) of architecture '{spaces.family}', "
            f"first '{missing[0]}'"
        )
    held = {name for weight in spaces.weights for name in names_in(weight, state, spaces)}
    prefix = f"{spaces.body}." if has_body_prefix(state, spaces) else ""
    patterns = [
        pattern[1:] if pattern.startswith("/") else re.escape(prefix) + pattern
        for pattern in spaces.untouched
    ]
    unknown = [
        name
        for name in state
        if name not in held and not any(re.fullmatch(p, name) for p in patterns)
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
        pieces = _pieces(weight.stored, tensor, spaces, len(weight.roles))
        single: Weights = {}
        for key, (pattern, piece) in zip(weight.keys, pieces, strict=True):
            here, order = _fit(pattern, key), ROLE_AXES[split_key(key)[1]]
            working = rearrange(piece, f"{here} -> {order}", **_sizes(here, spaces))
            single[key] = _paired(working, key, spaces)
        return {key: piece.clone().contiguous() for key, piece in single.items()}
    except (EinopsError, RuntimeError, ValueError):
        raise IncompatibleModelsError(
            f"tensor '{name}' has shape {tuple(tensor.shape)}, which is not '{weight.stored}' "
            f"with {dict(spaces.sizes)}",
            hint="do the weights belong to this config?",
        ) from None


def _pieces(
    stored: str, tensor: torch.Tensor, spaces: WeightSpaces, roles: int
) -> list[tuple[str, torch.Tensor]]:
    """Pattern and part of each weight in a tensor."""
    if "part" in _axes(stored):
        rest = _without_part(stored)
        sizes = {**_sizes(stored, spaces), "part": roles}
        stacked = rearrange(tensor, f"{stored} -> part {rest}", **sizes)
        return [(rest, piece) for piece in stacked]
    patterns, axis = _joint(stored)
    if len(patterns) == 1:
        return [(stored, tensor)]
    if " + " in stored:
        tensor = tensor.reshape(spaces.sizes["kv"], -1, *tensor.shape[1:])
    pieces = tensor.split([_length(pattern, axis, spaces) for pattern in patterns], dim=axis)
    return list(zip(patterns, pieces, strict=True))


def _put_together(
    weight: StoredWeight, parts: list[torch.Tensor], spaces: WeightSpaces
) -> torch.Tensor:
    import torch

    fused = "part" in _axes(weight.stored)
    patterns, axis = _joint(weight.stored)
    if fused:
        patterns = [_without_part(weight.stored)] * len(parts)
    single = []
    for key, part, pattern in zip(weight.keys, parts, patterns, strict=True):
        here, order = _fit(pattern, key), ROLE_AXES[split_key(key)[1]]
        stored = _paired(part, key, spaces, back=True)
        single.append(rearrange(stored, f"{order} -> {here}", **_sizes(here, spaces)))
    if fused:
        return rearrange(torch.stack(single), f"part {patterns[0]} -> {weight.stored}")
    joined = torch.cat(single, dim=axis) if len(single) > 1 else single[0]
    return joined.flatten(0, 1) if " + " in weight.stored else joined


def _joint(stored: str) -> tuple[list[str], int]:
    """Patterns of the weights in a tensor, and the axis on which one lies behind the other."""
    if " + " in stored:  # inside each head
        return stored.split(" + "), 1
    # On the axis that they give: that comes second in `[in, out]`, and in tensors of many experts.
    second = stored.startswith(("resid ", "(group expert) "))
    return stored.split(" | "), int(second)


def _length(pattern: str, axis: int, spaces: WeightSpaces) -> int:
    """Length of one axis of a weight as it is stored."""
    return math.prod(spaces.sizes[name] for name in _axes(_top(pattern)[axis]))


def _top(stored: str) -> list[str]:
    """Axes of a tensor, those that lie in one axis together in brackets."""
    return re.findall(r"\([^)]*\)|\S+", stored)


def _paired(
    weight: torch.Tensor, key: str, spaces: WeightSpaces, *, back: bool = False
) -> torch.Tensor:
    """Rotary pairs of neighbours brought to (i, i + n/2), or back to how they are stored."""
    import torch

    role = split_key(key)[1]
    if not spaces.neighbours or role not in ("q", "k", "q_bias", "k_bias"):
        return weight
    order = torch.arange(spaces.sizes["dim"], device=weight.device)
    n = spaces.neighbours
    order[:n] = rearrange(order[:n], "(pair two) -> (two pair)", two=2)
    return weight.index_select(axes_of(key).index("dim"), order.argsort() if back else order)


def _axes(stored: str) -> tuple[str, ...]:
    return tuple(stored.replace("(", "").replace(")", "").split())


def _without_part(stored: str) -> str:
    return " ".join(axis for axis in _axes(stored) if axis != "part")


def _fit(stored: str, key: str) -> str:
    """Write the axis of query heads as 1 where a fused tensor has it and the weight does not."""
    known = axes_of(key)
    return " ".join("1" if axis == "q" and "q" not in known else axis for axis in stored.split())


def _sizes(stored: str, spaces: WeightSpaces) -> dict[str, int]:
    return {axis: size for axis, size in spaces.sizes.items() if axis in _axes(stored)}
