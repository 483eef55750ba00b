"""Heads and types of models that are aligned together: all tied or none, and exact enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim.merging.align.weights import has_body_prefix, stored_name
from repsim.merging.arrays import Array
from repsim.merging.checkpoint import TensorSource, View
from repsim.models.arch.spaces import WeightSpaces
from repsim.models.headers import TensorHeader

if TYPE_CHECKING:
    import torch

#: Rows of a vocabulary that are compared at a time.
ROWS = 1 << 12
#: Types of 16 bits in safetensors files -> name in torch.
SHORT = {"BF16": "bfloat16", "F16": "float16"}


def holds_own_head(source: TensorSource, spaces: WeightSpaces) -> bool:
    """Whether a model holds a head that is not the embedding."""
    import torch

    head, embedding = (_stored(role, source.headers, spaces) for role in ("head", "embed"))
    if head is None or embedding is None:
        return False
    count = source.headers[head].shape[0]
    if source.headers[embedding].shape[0] != count:
        return True
    parts = (slice(first, first + ROWS) for first in range(0, count, ROWS))
    return not all(torch.equal(source.read(head, p), source.read(embedding, p)) for p in parts)


@dataclasses.dataclass(frozen=True)
class OwnHead(View):
    """A tied model with a head of its own, which is its embedding again."""

    head: str
    embedding: str

    @property
    def headers(self) -> dict[str, TensorHeader]:
        """Type and shape of every tensor."""
        return {**self.source.headers, self.head: self.source.headers[self.embedding]}

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows."""
        return self.source.read(self.embedding if tensor == self.head else tensor, rows)


@dataclasses.dataclass(frozen=True)
class Widened(View):
    """A model whose weights are float32, so that what moves them does not round them."""

    @property
    def headers(self) -> dict[str, TensorHeader]:
        """Type and shape of every tensor."""
        return {
            name: TensorHeader("F32", header.shape) if header.dtype in SHORT else header
            for name, header in self.source.headers.items()
        }

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows."""
        found = self.source.read(tensor, rows)
        return found.float() if self.source.headers[tensor].dtype in SHORT else found

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array as it is stored: merging widens it part by part."""
        return self.source.array(tensor)


def with_own_heads(
    sources: Sequence[TensorSource], tied: Sequence[bool], spaces: WeightSpaces
) -> list[TensorSource]:
    """The same models, each with a head of its own: a rotated twin of a tied model has one."""
    found: list[TensorSource] = []
    for source, is_tied in zip(sources, tied, strict=True):
        embedding = _stored("embed", source.headers, spaces)
        if is_tied and embedding is not None and has_body_prefix(source.headers, spaces):
            heads = (weight.tensor[1:] for weight in spaces.weights if weight.roles == ("head",))
            name = _stored("head", source.headers, spaces) or next(heads)
            source = OwnHead(source, name, embedding)
        found.append(source)
    return found


def in_single_precision(sources: Sequence[TensorSource]) -> tuple[list[TensorSource], str]:
    """Weights of 16 bits in 32, and a note for the reader: rotated weights do not fit into 16."""
    kinds = {SHORT[h.dtype] for source in sources for h in source.headers.values()
             if h.dtype in SHORT}  # fmt: skip
    if not kinds:
        return list(sources), ""
    what = " and ".join(sorted(kinds))
    return [Widened(source) for source in sources], (
        f"rotated weights are float32: rounded to {what} again, they would change the outputs"
    )


def stored_config(config: Any, *, tied: bool) -> Any:
    """A copy of a config that says whether the head is the embedding."""
    import copy

    after = copy.deepcopy(config)
    after.tie_word_embeddings = tied
    return after


def _stored(role: str, headers: Mapping[str, TensorHeader], spaces: WeightSpaces) -> str | None:
    """Name of the tensor of a role in a checkpoint; None if it is not there."""
    names = [stored_name(w, headers, spaces) for w in spaces.weights if w.roles == (role,)]
    return next((name for name in names if name in headers), None)
