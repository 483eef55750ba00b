"""The models that are to be merged, in memory, for the features that run them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef

if TYPE_CHECKING:
    from torch import nn

    from repsim.models.causal import CausalModel
    from repsim.models.load import LoadedModel

#: A folder, "zoo:NAME", a hub id, a `ModelRef`, or a causal model in memory.
ParentLike = Union[str, Path, ModelRef, "CausalModel"]


@dataclasses.dataclass(frozen=True)
class Parent:
    """One parent of a merge.

    Attributes:
        ref: Identity; names are unique among the parents.
        base: The model without its head, for activations.
        lm: The model with its head; None for an encoder.
    """

    ref: ModelRef
    base: LoadedModel
    lm: CausalModel | None

    @property
    def head(self) -> nn.Module:
        """The model with its head.

        Raises:
            UsageError: It is an encoder.
        """
        if self.lm is None:
            raise UsageError(f"model '{self.ref.name}' does not predict the next token")
        return self.lm.model

    @property
    def tokenizer(self) -> Any:
        """Its `transformers` tokenizer."""
        return self.base.tokenizer


def load_parents(models: Sequence[ParentLike], *, device: str | None = None) -> list[Parent]:
    """Load the parents of a merge; each is in memory once, with and without its head.

    Args:
        models: At least two; the same model may be given twice.
        device: Where models given by name run; a GPU if there is one.

    Raises:
        UsageError: Fewer than two models.
        InputError: A model cannot be read.
        IncompatibleModelsError: A family that is not known.

    Example:
        >>> first, second = load_parents(["zoo:eng-1", "zoo:eng-1"], device="cpu")
        >>> first.ref.name, second.ref.name, first.base.ref.layers
        ('eng-1', 'eng-1 (2)', 4)
    """
    from repsim.evaluation.held_out import best_device

    if len(models) < 2:
        raise UsageError(f"{len(models)} models cannot be merged", hint="name at least two parents")
    where = device or best_device()
    found: list[Parent] = []
    for model in models:
        parent = _load(model, where)
        taken = {other.ref.name for other in found}
        number, name = 2, parent.ref.name
        while name in taken:
            name, number = f"{parent.ref.name} ({number})", number + 1
        found.append(_renamed(parent, name))
    return found


def _load(model: ParentLike, device: str) -> Parent:
    from repsim.models.arch import spec_for
    from repsim.models.causal import CausalModel, load_causal_lm
    from repsim.models.inspect import locate, read_config
    from repsim.models.load import LoadedModel, load_model

    if not isinstance(model, CausalModel):
        _, spec = read_config(locate(model).folder, generic=True)
        if not spec.decoder:
            encoder = load_model(model, device=device)
            return Parent(encoder.ref, encoder, None)
        model = load_causal_lm(model, device=device)
    network: Any = model.model
    spec = spec_for(network.config.model_type, generic=True)
    base = LoadedModel(model.ref, network.base_model, model.tokenizer, spec)
    return Parent(model.ref, base, model)


def _renamed(parent: Parent, name: str) -> Parent:
    if name == parent.ref.name:
        return parent
    ref = dataclasses.replace(parent.ref, name=name)
    lm = None if parent.lm is None else parent.lm._replace(ref=ref)
    return Parent(ref, dataclasses.replace(parent.base, ref=ref), lm)


def why_not_comparable(parents: Sequence[Parent]) -> str:
    """Why the weights of these models cannot be averaged as language models; empty if they can.

    Example:
        >>> why_not_comparable(load_parents(["zoo:eng-1", "zoo:deu-1"], device="cpu"))
        ''
    """
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
    """SHA-256 of each parent's tokenizer, equal for equal tokenizers.

    Of its files, as models from files state it; of all tokenizers in memory if a model that was
    made in memory states none, for the two kinds cannot be held against each other.
    """
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
