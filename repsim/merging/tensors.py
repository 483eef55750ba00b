"""What a tensor is, told from its `transformers` name: kind, layer, whether it doubles another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from repsim.merging.base import Kind
from repsim.models.headers import TensorHeader

_LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers|layer|h|blocks|block))\.(\d+)\.(.*)$")
_TOKENS = r"embed_tokens|embed_in|wte|word_embeddings|tok_embeddings|embeddings|shared"
_OUT = r"lm_head|embed_out|lm_head\.decoder|cls\.predictions\.decoder"


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(^|\.)({pattern})$")


_TOKEN_EMBEDDING = _named(rf"({_TOKENS})\.weight")
_HEAD_WEIGHT = _named(rf"({_OUT})\.weight")
#: Tensors with one row per token.
_ROWS_ARE_TOKENS = _named(
    rf"({_TOKENS})\.weight|({_OUT})\.(weight|bias)|cls\.predictions\.bias|final_logits_bias"
)
_EMBEDDING = _named(
    rf"({_TOKENS}|embed_positions|wpe|position_embeddings|token_type_embeddings"
    r"|relative_attention_bias)\.weight"
)
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|cls|score|classifier|qa_outputs|vocab_projector)\.")
_NORM = re.compile(r"(norm|ln_\d|ln_f|layernorm)", re.IGNORECASE)


class LayerName(NamedTuple):
    """Name of a tensor of a numbered layer: `stack.number.rest`."""

    stack: str
    number: int
    rest: str

    def at(self, number: int) -> str:
        """The same tensor of another layer."""
        return f"{self.stack}.{number}.{self.rest}"


def layer_of(tensor: str) -> LayerName | None:
    """The layer that a tensor belongs to; None for embeddings, heads and final norms."""
    match = _LAYER.match(tensor)
    return LayerName(match[1], int(match[2]), match[3]) if match else None


def count_layers(tensors: Iterable[str]) -> dict[str, int]:
    """Number of layers of each stack, by its name."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        if layer := layer_of(tensor):
            counts[layer.stack] = max(counts.get(layer.stack, 0), layer.number + 1)
    return counts


def kind_of(tensor: str, dimensions: int) -> Kind:
    """What a tensor is; spectral methods leave embeddings and heads alone."""
    if _EMBEDDING.search(tensor):
        return "embedding"
    if _HEAD.search(tensor):
        return "head"
    if _NORM.search(tensor) and dimensions < 2:
        return "norm"
    return "matrix" if dimensions >= 2 else "vector"


def head_and_embedding(tensors: Iterable[str]) -> tuple[str | None, str | None]:
    """Names of the stored head and of the token embedding, None where there is none."""
    names = sorted(tensors)
    head = next((name for name in names if _HEAD_WEIGHT.search(name)), None)
    return head, next((name for name in names if _TOKEN_EMBEDDING.search(name)), None)


def is_tied(config: Mapping[str, Any], tensors: Iterable[str]) -> bool:
    """Whether the head is the embedding: by the config, else by whether a head is stored."""
    stated = config.get("tie_word_embeddings")
    if isinstance(stated, bool):
        return stated
    return head_and_embedding(tensors)[0] is None


def merged_names(config: Mapping[str, Any], headers: Mapping[str, TensorHeader]) -> list[str]:
    """Names of the tensors that are merged: all but a head that doubles its embedding."""
    head, embedding = head_and_embedding(headers)
    doubled = head if head and embedding and is_tied(config, headers) else None
    return [name for name in headers if name != doubled]


def token_tensors(tensors: Iterable[str]) -> frozenset[str]:
    """Those tensors that have one row per token."""
    return frozenset(tensor for tensor in tensors if _ROWS_ARE_TOKENS.search(tensor))
