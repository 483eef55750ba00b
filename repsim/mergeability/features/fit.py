"""Weights of models as they are compared, and whether they fit each other."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.merging.align.heads import OwnHead
from repsim.merging.checkpoint import FLOATS, TensorSource
from repsim.merging.tensors import head_and_embedding, is_tied, merged_names, token_tensors

_HINT = "weights are compared tensor by tensor; metadata and activations can be compared"


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of one model ready to be read, its config, and token -> row of the embedding."""

    name: str
    source: TensorSource
    config: Any
    ids: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the floating-point tensors that a merge averages, by name."""
        headers = self.source.headers
        names = merged_names(self.config.to_dict(), dict(headers))
        shapes = {
            name: tuple(headers[name].shape) for name in names if headers[name].dtype in FLOATS
        }
        # Old checkpoints store causal masks.
        return {n: s for n, s in shapes.items() if not (len(s) == 4 and s[:2] == (1, 1))}


def with_heads(models: Sequence[Weights]) -> list[Weights]:
    """Where some models have a head of their own, those with tied embeddings show theirs twice."""
    tied = [is_tied(model.config.to_dict(), model.source.headers) for model in models]
    heads = [head_and_embedding(model.source.headers)[0] for model in models]
    own = [head for head, same in zip(heads, tied, strict=True) if head and not same]
    if not own or not any(tied):
        return list(models)
    found = []
    for model, same in zip(models, tied, strict=True):
        embedding = head_and_embedding(model.source.headers)[1]
        if same and embedding:
            config = copy.deepcopy(model.config)
            config.tie_word_embeddings = False
            source = OwnHead(model.source, own[0], embedding)
            model = dataclasses.replace(model, source=source, config=config)
        found.append(model)
    return found


def check_fit(models: Sequence[Weights]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes to compare, and why the vocabulary's are left out; unlike bodies are an error."""
    first, *others = models
    shapes = first.shapes
    if not any(math.prod(shape) for shape in shapes.values()):
        raise InputError(f"model '{first.name}' holds no floating-point tensors")
    why = ""
    for other in others:
        both = f"'{first.name}' and '{other.name}'"
        types = first.config.model_type, other.config.model_type
        if types[0] != types[1]:
            raise IncompatibleModelsError(
                f"the weights of {both} do not fit: {types[0]} and {types[1]}", hint=_HINT
            )
        sizes = _differing(shapes, other.shapes, both)
        if sizes:
            why = f"the vocabularies of {both} differ in size: {sizes}"
        elif first.ids and other.ids and dict(first.ids) != dict(other.ids):
            why = f"rows of the embeddings of {both} stand for different tokens"
    rows = token_tensors(shapes) if why else frozenset()
    return {name: shape for name, shape in shapes.items() if name not in rows}, why


def _differing(
    known: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], both: str
) -> str:
    """Sizes of vocabularies that differ; an error for anything else."""
    rows, sizes = token_tensors([*known, *found]), ""
    for name in [*known, *found]:
        mine, theirs = known.get(name), found.get(name)
        if mine == theirs:
            continue
        if name in rows and mine and theirs and mine[1:] == theirs[1:]:
            sizes = f"{mine[0]} and {theirs[0]} rows"
            continue
        raise IncompatibleModelsError(
            f"the weights of {both} do not fit: tensor '{name}' is {mine or 'missing'} and "
            f"{theirs or 'missing'}",
            hint=_HINT,
        )
    return sizes
