"""The unigram floor: what a model reaches that knows how often tokens occur, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.evaluation.bits_per_byte import BitsPerByte, HeldOut

#: Documents that are tokenized at once.
_AT_ONCE = 256


def unigram_bits(counts: np.ndarray, held_out: HeldOut) -> BitsPerByte:
    """Bits of each document under a unigram token model with add-one smoothing."""
    smoothed = counts.astype(np.float64) + 1.0
    cost = -np.log2(smoothed / smoothed.sum())
    bits = [float(cost[document].sum()) for document in held_out.documents]
    return BitsPerByte(np.array(bits), held_out.sizes)


def unigram_floor(counts: np.ndarray, held_out: HeldOut) -> float:
    """Bits per byte of all documents under that model; arguments as for `unigram_bits`.

    Example:
        >>> held_out = HeldOut((np.array([0, 1]),), np.array([2]))
        >>> unigram_floor(np.array([3, 3]), held_out)
        1.0
    """
    return float(unigram_bits(counts, held_out))


def count_tokens(tokenizer: Any, texts: Iterable[str]) -> np.ndarray:
    """How often each token occurs in some texts, without special tokens."""
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    stream = iter(texts)
    while batch := list(itertools.islice(stream, _AT_ONCE)):
        ids = tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        flat = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64)
        counts += np.bincount(flat, minlength=len(counts))
    specials = [number for number in tokenizer.all_special_ids if number < len(counts)]
    counts[specials] = 0
    if not counts.any():
        raise InputError("there is no training text to count tokens in")
    return counts
