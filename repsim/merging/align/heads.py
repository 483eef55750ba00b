"""Heads and types of models that are aligned together: all tied or none, and exact enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repsim.merging.align.weights import StateDict, has_body_prefix, stored_name
from repsim.models.arch.spaces import WeightSpaces


def holds_own_head(state: StateDict, spaces: WeightSpaces) -> bool:
    """Whether a state dict holds a head that is not the embedding."""
    import torch

    head, embedding = (_stored(role, state, spaces) for role in ("head", "embed"))
    if head is None or embedding is None:
        return False
    return not torch.equal(state[head], state[embedding])


def with_own_heads(
    states: Sequence[StateDict], tied: Sequence[bool], spaces: WeightSpaces
) -> list[StateDict]:
    """The same models, each with a head of its own: a rotated twin of a tied model has one."""
    found: list[StateDict] = []
    for state, is_tied in zip(states, tied, strict=True):
        embedding = _stored("embed", state, spaces)
        if is_tied and embedding is not None and has_body_prefix(state, spaces):
            name = _stored("head", state, spaces) or _first_head(spaces)
            state = {**state, name: state[embedding].clone()}
        found.append(state)
    return found


def in_single_precision(states: Sequence[StateDict]) -> tuple[list[StateDict], str]:
    """Weights of 16 bits in 32, and a note for the reader: rotated weights do not fit into 16."""
    import torch

    short = (torch.bfloat16, torch.float16)
    kinds = {str(t.dtype)[6:] for state in states for t in state.values() if t.dtype in short}
    if not kinds:
        return list(states), ""
    wide = [
        {name: t.float() if t.dtype in short else t for name, t in state.items()}
        for state in states
    ]
    what = " and ".join(sorted(kinds))
    return list(wide), (
        f"rotated weights are float32: rounded to {what} again, they would change the outputs"
    )


def stored_config(config: Any, *, tied: bool) -> Any:
    """A copy of a config that says whether the head is the embedding."""
    import copy

    after = copy.deepcopy(config)
    after.tie_word_embeddings = tied
    return after


def _stored(role: str, state: StateDict, spaces: WeightSpaces) -> str | None:
    """Name of the tensor of a role in a state dict; None if it is not there."""
    names = [stored_name(w, state, spaces) for w in spaces.weights if w.roles == (role,)]
    return next((name for name in names if name in state), None)


def _first_head(spaces: WeightSpaces) -> str:
    return next(weight.tensor[1:] for weight in spaces.weights if weight.roles == ("head",))
