"""The weights of parents, opened and found to fit each other."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.model_ref import ModelRef
from repsim.merging.checkpoint import FLOATS, Checkpoint, StateDict, TensorSource
from repsim.merging.tensors import head_and_embedding, is_tied, merged_names
from repsim.merging.vocabulary import read_vocabulary, token_tensors
from repsim.models.inspect import TensorHeader, locate, read_config

if TYPE_CHECKING:
    import torch

    from repsim.models.causal import CausalModel

#: A folder, "zoo:NAME", a hub id, a `ModelRef`, a causal model in memory, a state dict, or weights
#: that are open already.
WeightsLike = Union[str, Path, ModelRef, "CausalModel", Mapping[str, "torch.Tensor"], "Opened"]
_HINT = "weights are compared tensor by tensor; metadata and activations can be compared"


@dataclasses.dataclass(frozen=True)
class Opened:
    """Weights of one model, ready to be read.

    Attributes:
        name: Name of the model.
        source: Its tensors.
        config: `transformers` config.
        ids: Token -> row of the embedding; empty if it is not known.
    """

    name: str
    source: TensorSource
    config: Any
    ids: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the floating-point tensors that a merge averages, by name."""
        headers = self.source.headers
        return {
            name: tuple(headers[name].shape)
            for name in merged_names(self.config.to_dict(), dict(headers))
            if headers[name].dtype in FLOATS and not _is_mask(headers[name].shape)
        }


@dataclasses.dataclass(frozen=True)
class _WithHead:
    """A source of a model with tied embeddings, which shows the head as a tensor of its own."""

    source: TensorSource
    head: str
    embedding: str

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        return {**self.source.headers, self.head: self.source.headers[self.embedding]}

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        return self.source.read(self.embedding if tensor == self.head else tensor, rows)


def _is_mask(shape: Sequence[int]) -> bool:
    """Causal masks that old checkpoints store."""
    return len(shape) == 4 and tuple(shape[:2]) == (1, 1)


def open_weights(models: Sequence[WeightsLike], *, config: Any = None) -> list[Opened]:
    """Open the weights of models, without reading them.

    Where some models have a head of their own, those with tied embeddings show theirs twice.

    Args:
        models: Models.
        config: `transformers` config of those given as state dicts.

    Raises:
        InputError: A model is not there, or its files are damaged.
        UsageError: A state dict without a config.

    Example:
        >>> [opened.name for opened in open_weights(["zoo:eng-1", "zoo:deu-1"])]
        ['eng-1', 'deu-1']
    """
    return _with_heads([_open(model, n, config) for n, model in enumerate(models, start=1)])


def _open(model: WeightsLike, number: int, config: Any) -> Opened:
    if isinstance(model, Opened):
        return model
    if isinstance(model, Mapping):
        if config is None:
            raise UsageError(
                f"model {number} is a state dict, which does not say what its tensors are",
                hint="pass config=, the transformers config of the model",
            )
        return Opened(f"model {number}", StateDict(f"model {number}", dict(model)), config)
    if isinstance(model, tuple):
        network: Any = model.model
        source = StateDict(model.ref.name, network.state_dict())
        return Opened(model.ref.name, source, network.config, model.tokenizer.get_vocab())
    located = locate(model)
    found, _ = read_config(located.folder, generic=True)
    vocabulary = read_vocabulary(located.folder)
    return Opened(
        located.name,
        Checkpoint(located.folder, located.name),
        found,
        vocabulary.ids if vocabulary else {},
    )


def _with_heads(models: Sequence[Opened]) -> list[Opened]:
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
            source = _WithHead(model.source, own[0], embedding)
            model = dataclasses.replace(model, source=source, config=config)
        found.append(model)
    return found


def check_fit(models: Sequence[Opened]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes of the tensors that are compared, and why those of the vocabulary are left out.

    Args:
        models: Models; the first is what the others are held against.

    Returns:
        Shapes by name; a reason, "" if the rows of all models stand for the same tokens (or their
        tokens are not known, and are as many).

    Raises:
        IncompatibleModelsError: Another family, or tensors that differ in name or shape, other than
            in the size of the vocabulary.
        InputError: A model has no tensor that could be compared.

    Example:
        >>> shapes, why = check_fit(open_weights(["zoo:eng-1", "zoo:deu-1"]))
        >>> len(shapes), why
        (38, '')
    """
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
