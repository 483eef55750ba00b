"""Parents of a group as state dicts: in one vocabulary, and in the coordinates of the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from repsim.models.causal import CausalModel

    State = Mapping[str, torch.Tensor]

NAIVE = "none"


def in_coordinates(
    models: Sequence[CausalModel],
    alignments: Iterable[Any],
    learning: Mapping[str, Any] | None = None,
    shares: torch.Tensor | None = None,
) -> Iterator[tuple[str, list[State], Any]]:
    """Parents as they are and after alignment to the first of them.

    `learning` is for "learned"; `shares` of each parent in each row of tokens for "...+counts".
    """
    from repsim.merging.align import align
    from repsim.merging.token_weights import pool_states

    naive = _one_vocabulary([dict(model.model.state_dict()) for model in models], models)
    for name in alignments:
        alignment, _, counted = name.partition("+")
        states, config = naive, models[0].model.config
        if _heads_differ(models):
            states, config = _untied(naive, config)
        if alignment != NAIVE:
            more: dict[str, Any] = {}
            if alignment == "learned":
                more = {**(learning or {}), "shares": shares if counted else None}
            found = align(states[0], states[1:], config, method=alignment, check=False, **more)
            states, config = list(found.states), found.config
        if counted:
            assert shares is not None
            states = [*pool_states(states, shares)]
        yield name, states, config


def _heads_differ(models: Sequence[CausalModel]) -> bool:
    """Whether some of the models have a head of their own, as rotated twins do."""
    configs: list[Any] = [model.model.config for model in models]
    return len({bool(config.tie_word_embeddings) for config in configs}) > 1


def _untied(states: Sequence[State], config: Any) -> tuple[list[State], Any]:
    """All heads apart from their embeddings."""
    import copy

    config = copy.deepcopy(config)
    config.tie_word_embeddings = False
    apart = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
    return list(apart), config


def _one_vocabulary(
    states: list[dict[str, torch.Tensor]], models: Sequence[CausalModel]
) -> list[State]:
    """Embeddings by the first model's tokens; a token that another lacks keeps the first's."""
    import torch

    if len({model.ref.tokenizer_hash for model in models}) == 1:
        return list(states)
    from repsim.merging.tensors import token_tensors

    ours = models[0].tokenizer.get_vocab()
    brought: list[State] = [states[0]]
    for model, state in zip(models[1:], states[1:], strict=True):
        theirs = model.tokenizer.get_vocab()
        pairs = torch.tensor(
            [(row, theirs[token]) for token, row in ours.items() if token in theirs]
        )
        moved = dict(state)
        for name in token_tensors(state):
            rows = states[0][name].clone()
            rows[pairs[:, 0]] = state[name][pairs[:, 1]]
            moved[name] = rows
        brought.append(moved)
    return brought
