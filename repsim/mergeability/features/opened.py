"""A group of parents, opened once for everything that is measured of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef
from repsim.mergeability.features.declared import Declared, read_declared
from repsim.mergeability.features.fit import Weights, with_heads
from repsim.mergeability.features.speaker import Speaker
from repsim.merging.checkpoint import Checkpoint, StateDict
from repsim.merging.vocabulary import Vocabulary, read_vocabulary
from repsim.models.inspect import Located, locate, read_config

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

    @functools.cached_property
    def speaker(self) -> Speaker:
        """Its logits; what they are made from is kept for as long as the model."""
        return Speaker(self.head)

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
        self, model: ModelLike, *, number: int = 1, device: str | None = None, config: Any = None,
        loading: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._given, self._number, self._device, self._config = model, number, device, config
        self._loading = loading or {}

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
                encoder = load_model(lm, device=device, **self._loading)
                return Parent(encoder.ref, encoder, None)
            lm = load_causal_lm(lm, device=device, **self._loading)
        network: Any = lm.model
        spec = spec_for(network.config.model_type, generic=True)
        return Parent(lm.ref, LoadedModel(lm.ref, network.base_model, lm.tokenizer, spec), lm)

    @property
    def held(self) -> int:
        """Bytes of the model in memory, and of what is kept of its passes; 0 if it is not."""
        if "loaded" not in self.__dict__:
            return 0
        loaded = self.loaded
        network: Any = loaded.lm.model if loaded.lm else loaded.base.model
        tensors = network.state_dict().values()
        kept = loaded.speaker.held if "speaker" in loaded.__dict__ else 0
        return kept + sum(tensor.numel() * tensor.element_size() for tensor in tensors)

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
        loading: How models given by name are loaded: `dtype`, `device_map`.

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
        self, models: Sequence[ModelLike], *, device: str | None = None, config: Any = None,
        loading: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if len(models) < 2:
            raise UsageError("a merge is of two models or more", hint="name at least two parents")
        self.models = [
            model
            if isinstance(model, OpenedModel)
            else OpenedModel(model, number=number, device=device, config=config, loading=loading)
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
        """Weights of the parents, and of others beside them."""
        return with_heads([model.weights for model in (*self.models, *others)])

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
def opened(models: OpenedParents | Sequence[ModelLike], **how: Any) -> Iterator[OpenedParents]:
    """A group that is open already, as it is; any other opened for the length of the block."""
    if isinstance(models, OpenedParents):
        yield models
    else:
        with OpenedParents(models, **how) as parents:
            yield parents


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
    """SHA-256 of each tokenizer: of its files where these agree, else as it is in memory."""
    from repsim.activations.settings import with_hashes

    stated = [parent.ref.tokenizer_hash for parent in parents]
    if all(stated) and len(set(stated)) == 1:
        return stated
    bare = [
        dataclasses.replace(
            parent.base,
            ref=dataclasses.replace(parent.ref, tokenizer_hash="", weights_hash="not asked for"),
        )
        for parent in parents
    ]
    return [with_hashes(loaded).tokenizer_hash for loaded in bare]
