"""Contract of declared symmetries: legal moves change nothing, illegal ones do."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from einops import rearrange

from repsim.merging.align.apply import transform
from repsim.merging.align.checking import (
    build_model,
    model_output,
    random_tokens,
    relative_change,
)
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.twins import random_element, random_rotation
from repsim.merging.align.weights import StateDict, Weights, pack, unpack
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces
from repsim.models.arch.symmetries import residual_spaces

if TYPE_CHECKING:
    import torch

#: Largest relative change of an output that a legal move may bring in float32.
LEGAL = 1e-5
#: Least relative change that an illegal move must bring in a tiny model with wide random weights.
ILLEGAL = 1e-3

IllegalMove = Callable[[Weights, WeightSpaces, "torch.Generator"], "Weights | None"]


class _Subject:
    """A model under test: its weights, as they are and folded, and what it gives on some tokens."""

    def __init__(self, config: Any, state: StateDict, seed: int) -> None:
        self.config, self.state, self.seed = config, state, seed
        self.spaces = spec_for(config.model_type).spaces(config)
        self.weights = unpack(state, self.spaces)
        self.tokens = random_tokens(config, seed=seed)
        model: Any = build_model(config, state)
        self.headless = model.get_output_embeddings() is None
        self.expected = model_output(model, self.tokens)

    @functools.cached_property
    def folded(self) -> tuple[Weights, WeightSpaces]:
        return fold_norms(self.weights, self.spaces)

    @property
    def generator(self) -> torch.Generator:
        import torch

        return torch.Generator().manual_seed(self.seed)

    def change(
        self, weights: Weights, spaces: WeightSpaces, order: torch.Tensor | None = None
    ) -> float:
        """Relative change of the outputs; those of a model without a head follow `order`."""
        after = copy.deepcopy(self.config)
        after.tie_word_embeddings = spaces.tied
        model = build_model(after, pack(weights, self.state, spaces))
        expected = self.expected
        if order is not None and self.headless:
            expected = expected[..., order]
        return relative_change(expected, model_output(model, self.tokens))

    def change_by(self, moved: Iterable[SymmetrySpace]) -> float:
        """Relative change of the outputs by one random element of each of some spaces."""
        order, generator = None, self.generator
        weights, spaces = self.weights, self.spaces
        for space in moved:
            if space.needs_folding:
                weights, spaces = fold_norms(weights, spaces)
            element = random_element(space, generator)
            weights = transform(weights, space, element)
            order = element if space.name == "residual_permutation" else order
        return self.change(weights, spaces, order)


def check_symmetries(config: Any, state: StateDict, *, seed: int = 0) -> None:
    """Every declared space is one of symmetries, and what is not one shows; else AssertionError.

    Args:
        config: Config of the model; its family must be registered.
        state: Its tensors; random ones, since trained ones may hold dead units.
        seed: Seed.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("llama", head=True, num_hidden_layers=1)
        >>> check_symmetries(tiny.config, tiny.state_dict())
    """
    subject = _Subject(config, state, seed)
    family, declared = subject.spaces.family, subject.spaces.spaces
    # All at once, and one by one only to name the space that is none.
    if subject.change_by(declared) > LEGAL:
        for space in declared:
            change = subject.change_by([space])
            assert change <= LEGAL, f"{family}: '{space.key}' changes outputs by {change:.1e}"
    for name, change in _illegal_changes(subject).items():
        assert change >= ILLEGAL, (
            f"{family}: the illegal move '{name}' changes outputs by {change:.1e} only"
        )


def illegal_changes(config: Any, state: StateDict, *, seed: int = 0) -> dict[str, float]:
    """Relative change of the outputs by each illegal move that can be made on a model."""
    return _illegal_changes(_Subject(config, state, seed))


def _illegal_changes(subject: _Subject) -> dict[str, float]:
    found = {}
    for name, move in ILLEGAL_MOVES.items():
        if name in _OF_QUERIES and "0.q" not in subject.weights:
            continue
        weights, spaces = subject.weights, subject.spaces
        if name in _AFTER_FOLDING:
            if "residual_rotation" not in spaces:
                continue
            weights, spaces = subject.folded
        moved = move(weights, spaces, subject.generator)
        if moved is not None:
            found[name] = subject.change(moved, spaces)
    return found


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


def _experts_without_router(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights | None:
    """Experts re-ordered, while the router's rows stay."""
    key = next((key for key in w if key.endswith(".expert_up")), "")
    if not key:
        return None
    block = key.removesuffix("expert_up")
    names = [f"{block}{role}" for role in ("expert_gate", "expert_up", "expert_down")]
    return {**w, **{name: w[name].roll(1, 1) for name in names if name in w}}


def _channels_without_skips(w: Weights, spaces: WeightSpaces, g: torch.Generator) -> Weights | None:
    """Channels of a mixer re-ordered, but not in what skips the states."""
    if "0.channels" not in spaces:
        return None
    moved = transform(w, spaces["0.channels"], random_element(spaces["0.channels"], g))
    return {**moved, "0.skip": w["0.skip"]}


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
    "experts_without_router": _experts_without_router,
    "channels_without_skips": _channels_without_skips,
    "rotation_without_folding": _rotation_without_folding,
    "rotation_off_the_mean": _rotation_off_the_mean,
    "invertible_residual": _invertible_residual,
}
_OF_QUERIES = {
    "queries_alone", "one_order_for_queries_and_keys", "query_heads_across_groups",
    "value_basis_of_one_query_head", "gate_without_up",
}  # fmt: skip
_AFTER_FOLDING = {"rotation_off_the_mean", "invertible_residual"}
