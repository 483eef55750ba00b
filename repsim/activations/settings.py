"""What an extraction depends on, and the key under which its result is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repsim.activations.pooling import check_pooling
from repsim.activations.store import SCHEMA, check_storage
from repsim.activations.tokens import TokenPolicy
from repsim.core import ModelRef, ParallelCorpus, Pooling, UsageError
from repsim.core.files import hash_json
from repsim.models.identity import tokenizer_in_memory, weight_versions, weights_in_memory

if TYPE_CHECKING:
    from repsim.models.arch import HookPoint
    from repsim.models.load import LoadedModel

#: Entries of a config that do not change what the model computes.
_INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


@dataclasses.dataclass(frozen=True)
class ExtractionSettings:
    """Everything beside model and sentences that the extracted numbers depend on.

    Attributes:
        points: Hook points.
        layers: Layers asked for, negative ones counted from the last; None for all.
        pooling: How tokens become rows.
        skip_first: Leave out position 0.
        max_length: Longest input in tokens; None for as long as the model takes.
        prefix: Text put before every sentence.
        dtype: Storage type, `float32` or `bfloat16`.
        precision: Type in which the model computes ("float32", "bfloat16 autocast", ...).
        config_hash: Hash of the model's config.
        weights: Hash of the model's weights as they are in memory.
        boundaries: Byte boundaries that rows stand for, in the byte-aligned mode: the kind, and the
            hash of all tokenizers that had a say.

    Raises:
        UsageError: A value that is not possible.

    Example:
        >>> ExtractionSettings(dtype="float16")
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: activations cannot be stored as float16: ...
    """

    points: tuple[str, ...] = ("resid",)
    layers: tuple[int, ...] | None = None
    pooling: Pooling = "mean"
    skip_first: bool = True
    max_length: int | None = None
    prefix: str = ""
    dtype: str = "float32"
    precision: str = "float32"
    config_hash: str = ""
    weights: str = ""
    boundaries: str = ""

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        check_storage(self.dtype)
        if not self.points:
            raise UsageError("no hook point was asked for", hint="points=('resid',)")
        if self.layers is not None and not self.layers:
            raise UsageError("an empty list of layers was asked for", hint="layers=None for all")
        if self.max_length is not None and self.max_length < 2:
            raise UsageError(f"max_length is {self.max_length}; at least 2 tokens are needed")

    def policy(self, limit: int | None) -> TokenPolicy:
        """The token policy for a model that takes inputs of up to `limit` tokens."""
        if self.max_length is not None and limit is not None and self.max_length > limit:
            raise UsageError(
                f"max_length is {self.max_length}, but the model takes at most {limit} tokens"
            )
        return TokenPolicy(self.skip_first, self.max_length or limit, self.prefix)


def extraction_key(
    ref: ModelRef, corpus: ParallelCorpus, language: str, settings: ExtractionSettings
) -> str:
    """Key of the activations of one model and language: equal keys, equal numbers.

    Args:
        ref: The model, with the hashes of weights and tokenizer.
        corpus: The sentences.
        language: Which of them.
        settings: All else.

    Returns:
        SHA-256 over weights, tokenizer, config, sentences, settings and the version of the format.
        The model's name and the batch size play no part.

    Example:
        >>> corpus = ParallelCorpus("one", ("1",), {"eng_Latn": ("One.",)})
        >>> a, b = (ModelRef(name, "m", weights_hash="w", tokenizer_hash="t") for name in "ab")
        >>> keys = [extraction_key(m, corpus, "eng_Latn", ExtractionSettings()) for m in (a, b)]
        >>> keys[0] == keys[1]
        True
    """
    return hash_json(
        {
            "schema": SCHEMA,
            "weights": None if settings.weights else ref.weights_hash,
            "tokenizer": ref.tokenizer_hash,
            "sentences": corpus.language_hash(language),
            "settings": dataclasses.asdict(settings),
        }
    )


def config_hash(config: Any) -> str:
    """Hash of what a `transformers` config says of the computation."""
    document = json.loads(config.to_json_string(use_diff=False))
    return hash_json({key: value for key, value in document.items() if key not in _INCIDENTAL})


def with_hashes(loaded: LoadedModel, weights: str = "") -> ModelRef:
    """The model's identity; `weights` instead of the hash of files that it does not stem from."""
    ref = loaded.ref
    if not ref.weights_hash or loaded.versions != weight_versions(loaded.model):
        weights = weights or weights_in_memory(loaded.model)
        ref = dataclasses.replace(ref, weights_hash=weights)
    if not ref.tokenizer_hash:
        ref = dataclasses.replace(ref, tokenizer_hash=tokenizer_in_memory(loaded.tokenizer))
    return ref


def choose_layers(
    hooks: Sequence[HookPoint], layers: Sequence[int] | None, *, depth: int
) -> list[HookPoint]:
    """The hook points at some layers."""
    if layers is None:
        return list(hooks)
    wanted = {layer: layer if layer >= 0 else depth + 1 + layer for layer in layers}
    there = {hook.layer for hook in hooks}
    for asked, layer in wanted.items():
        if layer not in there:
            raise UsageError(f"there is no layer {asked}", hint=f"layers: 0 to {depth}")
    chosen = [hook for hook in hooks if hook.layer in wanted.values()]
    for point in dict.fromkeys(hook.point for hook in hooks):
        if not any(hook.point == point for hook in chosen):
            raise UsageError(
                f"hook point '{point}' has none of the layers {sorted(wanted)}",
                hint=f"it has: {[hook.layer for hook in hooks if hook.point == point]}",
            )
    return chosen
