"""A group of parents, opened once for everything that is measured of it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.model_ref import ModelRef
from repsim.mergeability.features.declared import Declared, read_declared
from repsim.merging.checkpoint import FLOATS, Checkpoint, StateDict, TensorSource
from repsim.merging.tensors import head_and_embedding, is_tied, merged_names, token_tensors
from repsim.merging.vocabulary import Vocabulary, read_vocabulary
from repsim.models.inspect import Located, TensorHeader, locate, read_config

if TYPE_CHECKING:
    import torch
    from torch import nn

    from repsim.models.causal import CausalModel
    from repsim.models.load import LoadedModel

#: A folder, "zoo:NAME", a hub id, a `ModelRef`, a causal model in memory, a state dict, weights
#: that are open, or a model that was opened for another group.
ModelLike = Union[
    str, Path, ModelRef, "CausalModel", Mapping[str, "torch.Tensor"], "Weights", "OpenedModel"
]
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
        return {
            name: tuple(headers[name].shape)
            for name in merged_names(self.config.to_dict(), dict(headers))
            if headers[name].dtype in FLOATS and not _is_mask(headers[name].shape)
        }


@dataclasses.dataclass(frozen=True)
class Parent:
    """A model in memory once, without its head and with it (None for an encoder)."""

    ref: ModelRef
    base: LoadedModel
    lm: CausalModel | None

    @property
    def head(self) -> nn.Module:
        """The model with its head; a `UsageError` for an encoder."""
        if self.lm is None:
            raise UsageError(f"model '{self.ref.name}' does not predict the next token")
        return self.lm.model

    @property
    def tokenizer(self) -> Any:
        """Its `transformers` tokenizer."""
        return self.base.tokenizer

    def renamed(self, name: str) -> Parent:
        """The same model under another name."""
        ref = dataclasses.replace(self.ref, name=name)
        lm = None if self.lm is None else self.lm._replace(ref=ref)
        return Parent(ref, dataclasses.replace(self.base, ref=ref), lm)


class OpenedModel:
    """One model: what it states, its weights as a stream, and itself in memory, each read once."""

    def __init__(
        self, model: ModelLike, *, number: int = 1, device: str | None = None, config: Any = None
    ) -> None:
        self._given, self._number, self._device, self._config = model, number, device, config

    @functools.cached_property
    def located(self) -> Located:
        """Its folder."""
        if isinstance(self._given, str | Path | ModelRef):
            return locate(self._given)
        raise UsageError(
            f"model {self._number} is in memory, which does not say where it comes from",
            hint="name its folder",
        )

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary | None:
        return read_vocabulary(self.located.folder, self.located.name)

    @functools.cached_property
    def declared(self) -> Declared:
        """What it states: config, shapes, tokens, history."""
        return read_declared(self.located, self._vocabulary)

    @functools.cached_property
    def weights(self) -> Weights:
        """Its weights, not read yet: of a folder, memory maps."""
        given = self._given
        if isinstance(given, Weights):
            return given
        if isinstance(given, Mapping):
            if self._config is None:
                raise UsageError(
                    f"model {self._number} is a state dict, which does not say what its tensors "
                    "are",
                    hint="pass config=, the transformers config of the model",
                )
            name = f"model {self._number}"
            return Weights(name, StateDict(name, dict(given)), self._config)
        if isinstance(given, tuple):
            network: Any = given.model
            source = StateDict(given.ref.name, network.state_dict())
            return Weights(given.ref.name, source, network.config, given.tokenizer.get_vocab())
        name, folder = self.located.name, self.located.folder
        config, _ = read_config(folder, generic=True)
        ids = self._vocabulary.ids if self._vocabulary else {}
        return Weights(name, Checkpoint(folder, name), config, ids)

    @functools.cached_property
    def loaded(self) -> Parent:
        """The model in memory."""
        from repsim.evaluation.held_out import best_device
        from repsim.models.arch import spec_for
        from repsim.models.causal import CausalModel, load_causal_lm
        from repsim.models.load import LoadedModel, load_model

        lm, device = self._given, self._device or best_device()
        if not isinstance(lm, CausalModel):
            if not isinstance(lm, str | Path | ModelRef):
                raise UsageError(f"model {self._number} has weights only and cannot be run")
            _, spec = read_config(self.located.folder, generic=True)
            if not spec.decoder:
                encoder = load_model(lm, device=device)
                return Parent(encoder.ref, encoder, None)
            lm = load_causal_lm(lm, device=device)
        network: Any = lm.model
        spec = spec_for(network.config.model_type, generic=True)
        return Parent(lm.ref, LoadedModel(lm.ref, network.base_model, lm.tokenizer, spec), lm)

    @property
    def held(self) -> int:
        """Bytes of the model in memory; 0 if it is not."""
        if "loaded" not in self.__dict__:
            return 0
        loaded = self.loaded
        network: Any = loaded.lm.model if loaded.lm else loaded.base.model
        tensors = network.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def close(self) -> None:
        """Let go of maps and memory; what is asked for again is opened again."""
        for name in ("weights", "loaded"):
            self.__dict__.pop(name, None)


class OpenedParents:
    """A group of parents that metadata, weights, activations, gradients and a trial share.

    Nothing is read before it is asked for, and nothing twice: weights are streamed through memory
    maps, and each model is in memory at most once, from the first tier that runs it until `close`.

    Args:
        models: Two models or more, in the order of merging: folders, "zoo:NAME", hub ids in the
            local cache, `ModelRef`, causal models in memory, or state dicts (weights only).
        device: Where models given by name run; a GPU if there is one.
        config: `transformers` config of models given as state dicts.

    Raises:
        UsageError: Fewer than two models.

    Example:
        >>> from repsim.mergeability.features import metadata_features, weight_features
        >>> with OpenedParents(["zoo:eng-1", "zoo:eng-1"], device="cpu") as parents:
        ...     weights = weight_features(parents, quotient=False).as_dict()
        ...     names = [parent.ref.name for parent in parents.loaded]
        >>> weights["weight_distance"], names
        (0.0, ['eng-1', 'eng-1 (2)'])
    """

    def __init__(
        self, models: Sequence[ModelLike], *, device: str | None = None, config: Any = None
    ) -> None:
        if len(models) < 2:
            raise UsageError("a merge is of two models or more", hint="name at least two parents")
        self.models = [
            model
            if isinstance(model, OpenedModel)
            else OpenedModel(model, number=number, device=device, config=config)
            for number, model in enumerate(models, start=1)
        ]

    def __enter__(self) -> OpenedParents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory maps and of the models in memory."""
        self.__dict__.pop("loaded", None)
        for model in self.models:
            model.close()

    @property
    def declared(self) -> list[Declared]:
        """What each parent states of itself."""
        return [model.declared for model in self.models]

    def weights(self, *others: OpenedModel) -> list[Weights]:
        """Weights of the parents, and of others beside them; see `_with_heads`."""
        return _with_heads([model.weights for model in (*self.models, *others)])

    @functools.cached_property
    def loaded(self) -> list[Parent]:
        """The parents in memory, each under a name of its own."""
        found: list[Parent] = []
        for model in self.models:
            parent = model.loaded
            taken = {other.ref.name for other in found}
            number, name = 2, parent.ref.name
            while name in taken:
                name, number = f"{parent.ref.name} ({number})", number + 1
            found.append(parent if name == parent.ref.name else parent.renamed(name))
        return found

    def context(self, most: int) -> int:
        """Tokens that every parent takes at once, at most so many."""
        limits = [getattr(p.head.config, "max_position_embeddings", None) for p in self.loaded]
        return min([most, *(int(limit) for limit in limits if limit)])


@contextlib.contextmanager
def opened(
    models: OpenedParents | Sequence[ModelLike], *, device: str | None = None, config: Any = None
) -> Iterator[OpenedParents]:
    """A group that is open already, as it is; any other opened for the length of the block."""
    if isinstance(models, OpenedParents):
        yield models
    else:
        with OpenedParents(models, device=device, config=config) as parents:
            yield parents


# -- whether weights fit each other ---------------------------------------------------------------


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


def _with_heads(models: Sequence[Weights]) -> list[Weights]:
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
            source = _WithHead(model.source, own[0], embedding)
            model = dataclasses.replace(model, source=source, config=config)
        found.append(model)
    return found


def check_fit(models: Sequence[Weights]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes of the tensors to compare, and why those of the vocabulary are left out, if they are.

    Bodies that differ in family, name or shape are an `IncompatibleModelsError`.
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


def why_not_averaged(parents: Sequence[Parent]) -> str:
    """Why these models cannot be averaged as language models; empty if they can."""
    encoders = [parent.ref.name for parent in parents if parent.lm is None]
    if encoders:
        return f"'{encoders[0]}' does not predict the next token (an encoder)"
    if len(set(tokenizer_hashes(parents))) > 1:
        return "the models have different tokenizers"
    # Parameters, of which a head that is the embedding is none: both must have one, or neither.
    first, *others = (
        {name: tuple(tensor.shape) for name, tensor in parent.head.named_parameters()}
        for parent in parents
    )
    for parent, shapes in zip(parents[1:], others, strict=True):
        different = [name for name in first | shapes if first.get(name) != shapes.get(name)]
        if different:
            return (
                f"tensor '{different[0]}' is {first.get(different[0], 'missing')} in "
                f"'{parents[0].ref.name}' and {shapes.get(different[0], 'missing')} in "
                f"'{parent.ref.name}'"
            )
    return ""


def tokenizer_hashes(parents: Sequence[Parent]) -> list[str]:
    """SHA-256 of each tokenizer: of its files, or of all in memory if one model states none."""
    from repsim.activations.settings import with_hashes

    stated = [parent.ref.tokenizer_hash for parent in parents]
    if all(stated):
        return stated
    bare = [
        dataclasses.replace(
            parent.base,
            ref=dataclasses.replace(parent.ref, tokenizer_hash="", weights_hash="not asked for"),
        )
        for parent in parents
    ]
    return [with_hashes(loaded).tokenizer_hash for loaded in bare]
