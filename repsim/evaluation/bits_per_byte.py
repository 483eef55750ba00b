"""Bits per byte: what a model needs to write down held-out documents.

Bits per byte of a language: `-sum log2 p(token) / UTF-8 bytes of the scored text`, documents apart,
`<bos>` before each, so that every byte of a document is scored. Windows follow each other with a
stated overlap (0 unless told). Comparable within a language, whatever the tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from repsim.core.errors import InputError, UsageError
from repsim.core.progress import track
from repsim.models.bounds import check_ids, embedding_rows

#: Tokens that go through the model at once.
TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 65536}
#: Logits that are held at once; a large vocabulary makes batches smaller.
LOGITS_AT_ONCE = {"cpu": 1 << 27, "cuda": 1 << 31}


class Workers(Protocol):
    """Processes that score together."""

    @property
    def rank(self) -> int:
        """Number of this process."""

    @property
    def size(self) -> int:
        """Number of processes."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over processes, for each of them."""


@dataclasses.dataclass(frozen=True)
class _Alone:
    """The one process of a plain run."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Held-out documents of one language, as token ids."""

    documents: tuple[np.ndarray, ...]
    sizes: np.ndarray

    def first_bytes(self, limit: int) -> HeldOut:
        """The first documents, up to `limit` bytes but at least one; all of them for 0."""
        if limit == 0:
            return self
        kept = max(1, int(np.searchsorted(np.cumsum(self.sizes), limit, side="right")))
        return HeldOut(self.documents[:kept], self.sizes[:kept])


@dataclasses.dataclass(frozen=True)
class BitsPerByte:
    """What a model needs to write down some documents: bits and UTF-8 bytes of each.

    Example:
        >>> score = BitsPerByte(np.array([16.0, 8.0]), np.array([8, 4]))
        >>> float(score)
        2.0
    """

    bits: np.ndarray
    sizes: np.ndarray

    def __float__(self) -> float:
        return float(self.bits.sum() / self.sizes.sum())


def leave_one_out(
    score: BitsPerByte, documents: Sequence[str], everyone: Sequence[str]
) -> np.ndarray:
    """Bits per byte of all documents, then without each document in turn, `[1 + everyone]`."""
    # A ratio: bits and bytes of a document leave together. One that is not there changes nothing.
    place = {name: i for i, name in enumerate(documents)}
    bits, sizes = float(score.bits.sum()), float(score.sizes.sum())
    known = np.array([place.get(name, -1) for name in everyone], dtype=np.int64)
    gone_bits = np.where(known >= 0, score.bits[known], 0.0)
    gone_sizes = np.where(known >= 0, score.sizes[known], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (bits - gone_bits) / (sizes - gone_sizes)
    return np.concatenate([[bits / sizes], without])


def evaluate_bits_per_byte(
    model: nn.Module,
    tokenizer: Any,
    documents: Sequence[str],
    context: int,
    *,
    overlap: int = 0,
    rows: int | None = None,
) -> BitsPerByte:
    """Bits per byte of texts under a causal language model.

    Args:
        model: A `transformers` causal model, in any precision, on any device.
        tokenizer: One of `repsim.corpora.tokenizers`, or a `transformers` tokenizer with a BOS (or
            else EOS) token.
        documents: Texts, none empty.
        context: Tokens per window.
        overlap: Tokens of a window that are context only, scored in the one before.
        rows: Windows that go through the model at once.

    Raises:
        InputError: No documents, an empty one, or a document with a character that the tokenizer
            does not know: its bytes would be counted and not paid for.
        UsageError: An overlap not below the context, or a tokenizer without BOS and EOS.
    """
    held_out, bos = tokenized(tokenizer, documents)
    return score_held_out(model, held_out, bos, context, overlap=overlap, rows=rows)


def score_held_out(
    model: nn.Module,
    held_out: HeldOut,
    bos: int,
    context: int,
    *,
    overlap: int = 0,
    rows: int | None = None,
) -> BitsPerByte:
    """As `evaluate_bits_per_byte`, for documents that are tokenized already."""

    def losses(windows: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        targets = windows[:, 1:]
        # Rows of the vocabulary stay contiguous: three times as fast as classes on axis 1.
        nats = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
        )
        return nats.view_as(targets)

    highest = max((int(row.max()) for row in held_out.documents if len(row)), default=0)
    check_ids(highest, embedding_rows(model), getattr(model, "name_or_path", "") or "scored")
    device = next(model.parameters()).device
    if rows is None:
        kind = "cuda" if device.type == "cuda" else "cpu"
        vocabulary = max(1, int(getattr(getattr(model, "config", None), "vocab_size", 1)))
        tokens = min(TOKENS_AT_ONCE[kind], LOGITS_AT_ONCE[kind] // vocabulary)
        rows = max(1, tokens // context)
    was_training = model.training
    model.eval()
    try:
        return score(
            losses, held_out, context, bos, world=_Alone(device), overlap=overlap, rows=rows
        )
    finally:
        model.train(was_training)


def tokenized(tokenizer: Any, documents: Sequence[str]) -> tuple[HeldOut, int]:
    """Token ids and sizes of texts, and the id that stands before each."""
    if not documents:
        raise InputError("there are no documents to score")
    if hasattr(tokenizer, "bos_id"):
        ids, bos = list(tokenizer.encode_batch(documents)), tokenizer.bos_id
    else:
        first = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        bos = next((number for number in first if number is not None), None)
        if bos is None:
            raise UsageError("the tokenizer has neither BOS nor EOS to start a document with")
        encoded = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
        ids = [np.asarray(row, dtype=np.int64) for row in encoded]
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown != bos:
            for i, row in enumerate(ids):
                if (row == unknown).any():
                    raise InputError(
                        f"document {i} holds characters that the tokenizer does not know",
                        hint="bits per byte need a tokenizer that spells every byte",
                    )
    for i, row in enumerate(ids):
        if len(row) == 0:
            raise InputError(f"document {i} is empty")
    sizes = np.array([len(text.encode()) for text in documents], dtype=np.int64)
    return HeldOut(tuple(ids), sizes), int(bos)


@dataclasses.dataclass(frozen=True)
class Windows:
    """Documents cut into windows for scoring."""

    tokens: np.ndarray
    scored: np.ndarray
    owner: np.ndarray


def cut(documents: Sequence[np.ndarray], context: int, bos: int, overlap: int = 0) -> Windows:
    """Cut documents, `<bos>` before each, into windows in which every token is scored once."""
    if not 0 <= overlap < context:
        raise UsageError(f"an overlap of {overlap} does not fit a context of {context}")
    rows, scored, owner = [], [], []
    for number, document in enumerate(documents):
        sequence = np.concatenate([[bos], document])
        done, start = 0, 0
        while done < len(document):
            piece = sequence[start : start + context + 1]
            row = np.zeros(context + 1, dtype=np.int64)
            row[: len(piece)] = piece
            counts = np.zeros(context, dtype=bool)
            counts[done - start : len(piece) - 1] = True
            done = start + len(piece) - 1
            start = done - overlap
            rows.append(row)
            scored.append(counts)
            owner.append(number)
    return Windows(np.stack(rows), np.stack(scored), np.array(owner))


@torch.no_grad()
def score(
    losses: Callable[[torch.Tensor], torch.Tensor],
    held_out: HeldOut,
    context: int,
    bos: int,
    *,
    world: Workers,
    overlap: int = 0,
    rows: int | None = None,
    fixed_shape: bool = False,
) -> BitsPerByte:
    """Bits per byte under a function that gives the loss of each token."""
    windows = cut(held_out.documents, context, bos, overlap)
    kind = "cuda" if world.device.type == "cuda" else "cpu"
    rows = rows or max(1, TOKENS_AT_ONCE[kind] // context)
    order = np.argsort(-windows.scored.cumsum(axis=1).argmax(axis=1), kind="stable")
    starts = list(range(0, len(order), rows * world.size))
    bits = torch.zeros(len(held_out.documents), dtype=torch.float64, device=world.device)
    for start in track(starts, "scoring"):
        first = start + world.rank * rows
        batch = order[first : first + rows]
        tokens, scored = windows.tokens[batch], windows.scored[batch]
        # Every process runs every round: sharded models exchange parameters in it.
        if fixed_shape or len(batch) == 0:
            empty = rows - len(batch) if fixed_shape else 1
            tokens = np.pad(tokens, ((0, empty), (0, 0)))
            scored = np.pad(scored, ((0, empty), (0, 0)))
        else:
            longest = int(np.flatnonzero(scored.any(axis=0))[-1]) + 1
            tokens, scored = tokens[:, : longest + 1], scored[:, :longest]
        nats = losses(torch.from_numpy(tokens).to(world.device)).double()
        kept = (nats * torch.from_numpy(scored).to(world.device)).sum(dim=1)[: len(batch)]
        owners = torch.from_numpy(windows.owner[batch]).to(world.device)
        bits.index_add_(0, owners, kept / np.log(2.0))
    return BitsPerByte(world.sum(bits).cpu().numpy(), held_out.sizes)
