"""The unigram floor: what a model reaches that knows how often tokens occur, and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repsim.core.aside import make_folder, sweep_once, written_aside
from repsim.core.errors import InputError
from repsim.core.files import cache_folder, hash_json
from repsim.core.provenance import DISTRIBUTION, version_of
from repsim.corpora.training_text import load_training_text, text_marks
from repsim.evaluation.bits_per_byte import BitsPerByte, HeldOut

#: Documents that are tokenized at once.
_AT_ONCE = 256
#: Most training text that a floor rests on: bytes per entry of the vocabulary, and the least such
#: limit. With a vocabulary of 49,152, 16 MB gave floors within 0.0025 bits per byte of those of all
#: 21 MB of German and Japanese manuals (4 MB: 0.014). Texts of the package are smaller.
BYTES_PER_ENTRY, LEAST_BYTES = 256, 16_000_000


class TrainingCounts(NamedTuple):
    """How often each token occurs in training text, and how many bytes of that were counted."""

    counts: np.ndarray
    n_bytes: int


def training_counts(
    corpus: str, language: str, tokenizer: Any, *, limit: int = 0, allow_network: bool = False
) -> TrainingCounts:
    """Token counts of a language's training text, or of `limit` bytes drawn from it; cached."""
    limit = limit or max(LEAST_BYTES, BYTES_PER_ENTRY * len(tokenizer))
    known = _remembered(corpus, language, tokenizer, limit)
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        if known is not None:
            with known.open("rb") as file, np.load(file) as found:
                return TrainingCounts(found["counts"], int(found["n_bytes"]))
    try:
        text = load_training_text(
            corpus, [language], max_bytes=limit, allow_network=allow_network
        )[language]  # fmt: skip
    except InputError:  # one document is longer than that, or whatever is raised again here
        text = load_training_text(corpus, [language], allow_network=allow_network)[language]
    n_bytes = 0

    def counted() -> Iterator[str]:
        nonlocal n_bytes
        for document in text.texts():
            n_bytes += len(document.encode())
            yield document

    counts = count_tokens(tokenizer, counted())
    # The cache only saves time: one that cannot be written is no reason to fail.
    with contextlib.suppress(OSError, InputError):
        if known is not None:
            sweep_once(make_folder(known.parent))
            with written_aside(known) as aside, aside.open("wb") as target:
                np.savez_compressed(target, counts=counts, n_bytes=n_bytes)
    return TrainingCounts(counts, n_bytes)


def _remembered(corpus: str, language: str, tokenizer: Any, limit: int) -> Path | None:
    """Where counts are kept; None where it cannot be told that text and tokenizer are the same."""
    marks = text_marks(corpus, language)
    rules = getattr(tokenizer, "backend_tokenizer", None)
    if marks is None or rules is None:
        return None
    of_text = [corpus, language, limit, marks, version_of(DISTRIBUTION)]
    key = hash_json([*of_text, rules.to_str(), sorted(tokenizer.all_special_ids)])
    return cache_folder() / "floors" / f"{key[:32]}.npz"


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
