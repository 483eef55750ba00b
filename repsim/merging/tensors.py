"""What a tensor is, told from its name: kind, layer, and whether it doubles another one.

The names are those of `transformers`; a family that writes others needs a line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from repsim.merging.base import Kind
from repsim.models.inspect import TensorHeader

_LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers|layer|h|blocks|block))\.(\d+)\.(.*)$")
_EMBEDDING = re.compile(
    r"(embed_tokens|embed_positions|embed_in|wte|wpe|word_embeddings|position_embeddings"
    r"|token_type_embeddings|(^|\.)shared|relative_attention_bias)\.weight$"
)
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|cls|score|classifier|qa_outputs|vocab_projector)\.")
_NORM = re.compile(r"(norm|ln_\d|ln_f|layernorm)", re.IGNORECASE)
_HEAD_WEIGHT = re.compile(
    r"(^|\.)(lm_head|embed_out|lm_head\.decoder|cls\.predictions\.decoder)\.weight$"
)
_TOKEN_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_in|wte|word_embeddings|shared)\.weight$")


class LayerName(NamedTuple):
    """Name of a tensor of a numbered layer: `stack.number.rest`.

    Example:
        >>> LayerName("model.layers", 3, "mlp.up_proj.weight").at(0)
        'model.layers.0.mlp.up_proj.weight'
    """

    stack: str
    number: int
    rest: str

    def at(self, number: int) -> str:
        """The same tensor of another layer."""
        return f"{self.stack}.{number}.{self.rest}"


def layer_of(tensor: str) -> LayerName | None:
    """The layer that a tensor belongs to; None for embeddings, heads and final norms.

    Example:
        >>> layer_of("model.layers.11.mlp.up_proj.weight")
        LayerName(stack='model.layers', number=11, rest='mlp.up_proj.weight')
        >>> layer_of("model.norm.weight") is None
        True
    """
    match = _LAYER.match(tensor)
    return LayerName(match[1], int(match[2]), match[3]) if match else None


def count_layers(tensors: Iterable[str]) -> dict[str, int]:
    """Number of layers of each stack, by its name.

    Example:
        >>> count_layers(["h.0.ln_1.weight", "h.1.ln_1.weight", "wte.weight"])
        {'h': 2}
    """
    counts: dict[str, int] = {}
    for tensor in tensors:
        if layer := layer_of(tensor):
            counts[layer.stack] = max(counts.get(layer.stack, 0), layer.number + 1)
    return counts


def kind_of(tensor: str, dimensions: int) -> Kind:
    """What a tensor is; spectral methods leave embeddings and heads alone.

    Example:
        >>> kind_of("wte.weight", 2), kind_of("lm_head.weight", 2), kind_of("h.0.ln_1.weight", 1)
        ('embedding', 'head', 'norm')
        >>> kind_of("h.0.mlp.c_fc.weight", 2), kind_of("h.0.mlp.c_fc.bias", 1)
        ('matrix', 'vector')
    """
    if _EMBEDDING.search(tensor):
        return "embedding"
    if _HEAD.search(tensor):
        return "head"
    if _NORM.search(tensor) and dimensions < 2:
        return "norm"
    return "matrix" if dimensions >= 2 else "vector"


def head_and_embedding(tensors: Iterable[str]) -> tuple[str | None, str | None]:
    """Names of the stored head and of the token embedding, None where there is none.

    Example:
        >>> head_and_embedding(["model.embed_tokens.weight", "model.norm.weight"])
        (None, 'model.embed_tokens.weight')
    """
    names = sorted(tensors)
    head = next((name for name in names if _HEAD_WEIGHT.search(name)), None)
    return head, next((name for name in names if _TOKEN_EMBEDDING.search(name)), None)


def is_tied(config: Mapping[str, Any], tensors: Iterable[str]) -> bool:
    """Whether the head is the embedding: by the config, else by whether a head is stored.

    Example:
        >>> is_tied({"tie_word_embeddings": False}, ["wte.weight"]), is_tied({}, ["wte.weight"])
        (False, True)
    """
    stated = config.get("tie_word_embeddings")
    if isinstance(stated, bool):
        return stated
    return head_and_embedding(tensors)[0] is None


def merged_names(config: Mapping[str, Any], headers: Mapping[str, TensorHeader]) -> list[str]:
    """Names of the tensors that are merged: all but a head that doubles its embedding.

    Example:
        >>> header = TensorHeader("F32", (4, 2))
        >>> stored = {"lm_head.weight": header, "model.embed_tokens.weight": header}
        >>> merged_names({"tie_word_embeddings": True}, stored)
        ['model.embed_tokens.weight']
    """
    head, embedding = head_and_embedding(headers)
    doubled = head if head and embedding and is_tied(config, headers) else None
    return [name for name in headers if name != doubled]
