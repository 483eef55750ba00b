"""Tokens to rows, inside the hooks: how the tokens of a sentence become one vector, or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
from einops import einsum, rearrange

from repsim.activations.tokens import Encoded
from repsim.core.activations import Pooling
from repsim.core.errors import unknown_name

if TYPE_CHECKING:
    import torch

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def check_pooling(name: str) -> None:
    """Refuse a pooling that does not exist."""
    if name not in POOLINGS:
        raise unknown_name("pooling", name, POOLINGS)


@dataclasses.dataclass(frozen=True)
class WeightedRows:
    """One row per sentence: a weighted mean of its tokens."""

    weights: torch.Tensor

    def apply(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[sentences, tokens, width]` -> `[sentences, width]` float32."""
        # Zeroed and not just weighted by 0: an overflow at a token that is left out stays out.
        out = rearrange(self.weights == 0, "b t -> b t 1")
        kept = hidden.float().masked_fill(out, 0.0)
        return einsum(kept, self.weights, "b t d, b t -> b d")


@dataclasses.dataclass(frozen=True)
class SelectedRows:
    """Single tokens taken as they are."""

    sentence: torch.Tensor
    token: torch.Tensor

    def apply(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[sentences, tokens, width]` -> `[rows, width]` float32."""
        return hidden[self.sentence, self.token].float()


Rows = WeightedRows | SelectedRows


def token_weights(k: int, pooling: Pooling) -> np.ndarray:
    """`[k]` float64 weights of the kept tokens of one sentence; they sum to 1."""
    # Later tokens of a decoder have read more (Muennighoff 2022, "SGPT", equation 2).
    raw = np.arange(1, k + 1) if pooling == "position-weighted" else np.ones(k)
    return raw / raw.sum()


def plan_rows(
    sentences: Sequence[Encoded], pooling: Pooling, *, device: torch.device | str = "cpu"
) -> Rows:
    """How a batch of right-padded sentences is pooled."""
    import torch

    if pooling in ("last", "tokens"):
        kept = [s.kept[-1:] if pooling == "last" else s.kept for s in sentences]
        counts = [len(positions) for positions in kept]
        sentence = np.repeat(np.arange(len(sentences)), counts).astype(np.int64)
        token = np.concatenate(kept).astype(np.int64)
        return SelectedRows(
            torch.from_numpy(sentence).to(device), torch.from_numpy(token).to(device)
        )
    weights = np.zeros((len(sentences), max(len(s.ids) for s in sentences)), dtype=np.float32)
    for row, one in zip(weights, sentences, strict=True):
        row[one.kept] = token_weights(len(one.kept), pooling)
    return WeightedRows(torch.from_numpy(weights).to(device))
