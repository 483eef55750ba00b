"""Contract of declared symmetries: legal moves change nothing, illegal ones do.

A random element of every space that a family declares must leave the outputs of a model as they
are; moves that look like symmetries and are not must show. `check_symmetries` runs all of it on one
model; a test suite of another distribution can use it on its own spec.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from einops import rearrange

from repsim.merging.align.apply import AlignmentMap, apply_map, transform
from repsim.merging.align.checking import output_difference
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.orthogonal import polar_factor
from repsim.merging.align.weights import StateDict, Weights, pack, unpack
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import (
    GAINS,
    SymmetrySpace,
    WeightSpaces,
    residual_spaces,
    split_key,
)

if TYPE_CHECKING:
    import torch

#: Largest relative change of an output that a legal move may bring in float32.
LEGAL = 1e-5
#: Least relative change that an illegal move must bring in a tiny model with wide random weights.
ILLEGAL = 1e-3

IllegalMove = Callable[[Weights, WeightSpaces, "torch.Generator"], "Weights | None"]


def random_element(space: SymmetrySpace, generator: torch.Generator) -> torch.Tensor:
    """A random element of a space, far from changing nothing.

    Args:
        space: The space.
        generator: Where it is drawn from.

    Example:
        >>> import torch
        >>> from repsim.models.arch.spaces import mlp_space
        >>> random_element(mlp_space(0, 5), torch.Generator().manual_seed(0)).sort().values.tolist()
        [0, 1, 2, 3, 4]
    """
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    if space.group == "permutation":
        return _random_order(space.size, generator)
    if space.group == "grouped permutation":
        return torch.stack([_random_order(space.size, generator) for _ in range(space.copies)])
    if space.group == "rotation":
        return random_rotation(space, generator)
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
    config: Any,
    state: StateDict,
    names: Collection[str],
    *,
    seed: int = 0,
    noise: float = 0.0,
) -> tuple[dict[str, torch.Tensor], AlignmentMap]:
    """A model that computes the same with its weights re-arranged, as a test of alignment.

    Args:
        config: Config of the model.
        state: Its tensors.
        names: Names of the spaces from which a random element is applied; with
            "residual_rotation" among them norms are folded, and a tied head is untied. Bases
            without rotary positions are turned, not stretched.
        seed: Seed of elements and noise.
        noise: Standard deviation of what is added to all weights but gains of norms.

    Returns:
        Tensors of the twin, and the map that was applied.

    Example:
        >>> import torch
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("gpt2", head=True)
        >>> twin, planted = planted_twin(tiny.config, tiny.state_dict(), ["mlp_units"])
        >>> sorted(planted), output_difference(tiny.config, tiny.state_dict(), twin) < LEGAL
        (['0.mlp_units', '1.mlp_units', '2.mlp_units'], True)
    """
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


def change_by_element(config: Any, state: StateDict, key: str, *, seed: int = 0) -> float:
    """Relative change of the outputs by a random element of one space.

    Args:
        config: Config of the model.
        state: Its tensors.
        key: Key of the space; norms are folded first where it needs that.
        seed: Seed of the element and of the tokens.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("gpt2", head=True)
        >>> change_by_element(tiny.config, tiny.state_dict(), "1.kv_groups") < LEGAL
        True
    """
    import torch

    spaces = spec_for(config.model_type).spaces(config)
    space = spaces[key]
    weights = unpack(state, spaces)
    if space.needs_folding:
        weights, spaces = fold_norms(weights, spaces)
    element = random_element(space, torch.Generator().manual_seed(seed))
    order = element if space.name == "residual_permutation" else None
    return _change(config, state, transform(weights, space, element), spaces, order, seed)


def change_by_illegal_move(
    config: Any, state: StateDict, name: str, *, seed: int = 0
) -> float | None:
    """Relative change of the outputs by a move that is no symmetry; None where it cannot be made.

    Args:
        config: Config of the model.
        state: Its tensors.
        name: Key of `ILLEGAL_MOVES`.
        seed: Seed of the move and of the tokens.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("llama", head=True)
        >>> change_by_illegal_move(tiny.config, tiny.state_dict(), "queries_alone") > ILLEGAL
        True
    """
    import torch

    spaces = spec_for(config.model_type).spaces(config)
    weights = unpack(state, spaces)
    if name in _AFTER_FOLDING:
        if "residual_rotation" not in spaces:
            return None
        weights, spaces = fold_norms(weights, spaces)
    moved = ILLEGAL_MOVES[name](weights, spaces, torch.Generator().manual_seed(seed))
    return None if moved is None else _change(config, state, moved, spaces, None, seed)


def check_symmetries(config: Any, state: StateDict, *, seed: int = 0) -> None:
    """Every declared space is one of symmetries, and what is not one shows.

    Args:
        config: Config of the model.
        state: Its tensors; random ones, since trained ones may hold dead units.
        seed: Seed.

    Raises:
        AssertionError: A declared space changes outputs, or an illegal move does not.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("llama", head=True, num_hidden_layers=1)
        >>> check_symmetries(tiny.config, tiny.state_dict())
    """
    spaces = spec_for(config.model_type).spaces(config)
    for space in spaces.spaces:
        change = change_by_element(config, state, space.key, seed=seed)
        assert change <= LEGAL, f"{spaces.family}: '{space.key}' changes outputs by {change:.1e}"
    for name in ILLEGAL_MOVES:
        found = change_by_illegal_move(config, state, name, seed=seed)
        assert found is None or found >= ILLEGAL, (
            f"{spaces.family}: the illegal move '{name}' changes outputs by {found:.1e} only"
        )


def _change(
    config: Any,
    state: StateDict,
    weights: Weights,
    spaces: WeightSpaces,
    order: torch.Tensor | None,
    seed: int,
) -> float:
    after = copy.deepcopy(config)
    after.tie_word_embeddings = spaces.tied
    mapped = pack(weights, state, spaces)
    return output_difference(config, state, mapped, after_config=after, order=order, seed=seed)


def _queries_alone(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights:
    """Query rows re-ordered across heads, while the heads' outputs stay."""
    import torch

    rows = rearrange(w["0.q"], "kv q dim resid -> (kv q dim) resid")
    moved = rows[torch.randperm(len(rows), generator=g)]
    return {**w, "0.q": moved.reshape(w["0.q"].shape)}


def _one_order_for_queries_and_keys(
    w: Weights, spaces: WeightSpaces, g: torch.Generator
) -> Weights | None:
    """Dimensions inside heads re-ordered alike in Q and K: rotary positions tell them apart."""
    if "0.query_key_basis" in spaces and not spaces["0.query_key_basis"].rotary:
        return None
    return {**w, "0.q": w["0.q"].roll(1, -2), "0.k": w["0.k"].roll(1, -2)}


def _query_heads_across_groups(
    w: Weights, spaces: WeightSpaces, g: torch.Generator
) -> Weights | None:
    """Query heads moved to another key-value group, their outputs with them."""
    if spaces.sizes["kv"] == 1 or spaces.sizes["q"] == 1:
        return None
    return {**w, "0.q": w["0.q"].roll(1, 0), "0.o": w["0.o"].roll(1, 0)}


def _value_basis_of_one_query_head(
    w: Weights, spaces: WeightSpaces, g: torch.Generator
) -> Weights | None:
    """The basis of a shared value turned for one of the query heads that read it only."""
    if spaces.sizes["q"] == 1:
        return None
    outputs = w["0.o"].clone()
    outputs[:, 0] = outputs[:, 0].roll(1, -2)
    return {**w, "0.v": w["0.v"].roll(1, -2), "0.o": outputs}


def _gate_without_up(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights | None:
    """Hidden units re-ordered in gate and down, not in up."""
    if "0.gate" not in w:
        return None
    return {**w, "0.gate": w["0.gate"].roll(1, 0), "0.down": w["0.down"].roll(1, 0)}


def _rotation_without_folding(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights:
    """The residual stream rotated under gains that differ."""
    space = residual_spaces(w["embed"].shape[1])[1]
    return transform(w, space, random_rotation(space, g))


def _rotation_off_the_mean(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights | None:
    """The constant direction, along which LayerNorm is blind, rotated into the others."""
    if not spaces.centred:
        return None
    space = residual_spaces(w["embed"].shape[1])[1]
    return transform(w, space, random_rotation(space, g))


def _invertible_residual(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights:
    """A diagonal map of the stream, undone by its readers: norms do not commute with it."""
    import torch

    width = w["embed"].shape[1]
    scale = (0.5 * torch.randn(width, dtype=torch.float64, generator=g)).exp()
    writers = {key for weight in spaces.weights if weight.writes for key in weight.keys}
    readers = {key for weight in spaces.weights if weight.norm for key in weight.keys}
    moved = {key: w[key] * scale for key in writers if key in w}
    moved |= {key: w[key] / scale for key in readers if key in w}
    return {**w, **moved}


#: Name -> move.
ILLEGAL_MOVES: dict[str, IllegalMove] = {
    "queries_alone": _queries_alone,
    "one_order_for_queries_and_keys": _one_order_for_queries_and_keys,
    "query_heads_across_groups": _query_heads_across_groups,
    "value_basis_of_one_query_head": _value_basis_of_one_query_head,
    "gate_without_up": _gate_without_up,
    "rotation_without_folding": _rotation_without_folding,
    "rotation_off_the_mean": _rotation_off_the_mean,
    "invertible_residual": _invertible_residual,
}
_AFTER_FOLDING = {"rotation_off_the_mean", "invertible_residual"}
