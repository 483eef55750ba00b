"""Sentences to token ids: which tokens count, how long they may be, what shares a batch.

Token policy, the same for every model: the model reads what its tokenizer makes of the sentence,
special tokens included. Left out of pooling are special tokens (BOS, CLS, EOS, SEP), the tokens of
a prefix, and whatever stands at position 0, be it a special token or text: its norm explodes in the
middle layers of most models (Sun et al. 2024, "Massive activations in large language models").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import InputError, UsageError

#: `tokenizer.model_max_length` is astronomically large where the tokenizer states no limit.
NO_LIMIT = 1_000_000
#: A sentence that is longer is a document, or a file without line ends.
MOST_CHARACTERS = 1_000_000
#: Models whose position ids start behind the padding id lose that many positions.
OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert"}


@dataclasses.dataclass(frozen=True)
class TokenPolicy:
    """How sentences are read."""

    skip_first: bool = True
    max_length: int | None = None
    prefix: str = ""

    def describe(self) -> dict[str, Any]:
        """What a file's header states of it (JSON-able)."""
        return dataclasses.asdict(self) | {"special_tokens": "read, left out of pooling"}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One sentence as a model reads it."""

    ids: list[int]  # special tokens included
    kept: np.ndarray  # [k] positions of the tokens that count, ascending
    labels: np.ndarray  # [k] their names in row ids: the position, or a byte offset
    n_text: int
    truncated: bool
    short: bool  # the policy would have left no token, so that the last one was kept
    spans: np.ndarray | None = None  # [tokens, 2] bytes of the sentence; 0, 0 if not text


def encode(
    tokenizer: Any,
    sentences: Sequence[str],
    policy: TokenPolicy,
    *,
    sentence_ids: Sequence[str] = (),
    spans: bool = False,
) -> list[Encoded]:
    """Tokenise sentences and mark the tokens that count."""
    offsets = spans or bool(policy.prefix)
    if offsets and not getattr(tokenizer, "is_fast", False):
        wanted = "byte spans of tokens" if spans else f"the prefix {policy.prefix!r}"
        raise UsageError(
            f"{wanted} cannot be used with {type(tokenizer).__name__}: it keeps no offsets",
            hint="use a model with a tokenizer.json, or sentence pooling without a prefix",
        )
    for i, sentence in enumerate(sentences):
        if len(sentence) > MOST_CHARACTERS:
            name = sentence_ids[i] if sentence_ids else str(i)
            raise InputError(
                f"sentence '{name}' has {len(sentence):,} characters",
                hint="a row of a parallel corpus is a sentence: cut documents into sentences",
            )
    texts = [policy.prefix + sentence for sentence in sentences]
    found = _tokenise(tokenizer, texts, offsets=offsets)
    too_long = [
        i
        for i, ids in enumerate(found["input_ids"])
        if policy.max_length is not None and len(ids) > policy.max_length
    ]
    if too_long:
        # Cut by the tokenizer and not by slicing, so that a closing special token stays.
        cut = _tokenise(
            tokenizer, [texts[i] for i in too_long], offsets=offsets, max_length=policy.max_length
        )
        for key, values in cut.items():
            for i, value in zip(too_long, values, strict=True):
                found[key][i] = value
    cut_rows = set(too_long)
    encoded = []
    for i, ids in enumerate(found["input_ids"]):
        name = sentence_ids[i] if sentence_ids else str(i)
        if not ids:
            raise InputError(f"sentence '{name}' has no tokens: {sentences[i][:40]!r}")
        special = np.array(found["special_tokens_mask"][i], dtype=bool)
        chars = np.array(found["offset_mapping"][i]).reshape(-1, 2) if offsets else None
        encoded.append(_mark(ids, special, chars, sentences[i], policy, i in cut_rows, spans))
    return encoded


def _tokenise(
    tokenizer: Any, texts: list[str], *, offsets: bool, max_length: int | None = None
) -> dict[str, list[Any]]:
    out = tokenizer(
        texts,
        add_special_tokens=True,
        padding=False,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_special_tokens_mask=True,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    keys = ["input_ids", "special_tokens_mask", *(["offset_mapping"] if offsets else [])]
    return {key: list(out[key]) for key in keys}


def _mark(
    ids: list[int],
    special: np.ndarray,
    chars: np.ndarray | None,
    sentence: str,
    policy: TokenPolicy,
    truncated: bool,
    spans: bool,
) -> Encoded:
    """Apply the policy to one sentence."""
    text = ~special
    if chars is not None and policy.prefix:
        # A token that reaches into the sentence belongs to it, even if it starts in the prefix.
        text &= chars[:, 1] > len(policy.prefix)
    keep = text.copy()
    keep[0] = not policy.skip_first
    short = not keep.any()
    if short:
        last = np.flatnonzero(text)[-1] if text.any() else len(ids) - 1
        keep[last] = True
    kept = np.flatnonzero(keep)
    bytes_ = None
    if spans and chars is not None:
        ends = np.cumsum([0, *(len(char.encode()) for char in sentence)])
        bytes_ = ends[np.clip(chars - len(policy.prefix), 0, len(sentence))]
        bytes_[~text] = 0
    return Encoded(
        ids=list(ids),
        kept=kept,
        labels=kept.astype(np.int32),
        n_text=int(text.sum()),
        truncated=truncated,
        short=short,
        spans=bytes_,
    )


def longest_input(config: Any, tokenizer: Any) -> int | None:
    """Longest input in tokens; None if neither config nor tokenizer states one."""
    limits = []
    stated = getattr(tokenizer, "model_max_length", None)
    if stated is not None and stated < NO_LIMIT:
        limits.append(int(stated))
    positions = getattr(config, "max_position_embeddings", None)
    if positions:
        if getattr(config, "model_type", "") in OFFSET_POSITIONS:
            positions -= (getattr(config, "pad_token_id", None) or 0) + 1
        limits.append(int(positions))
    return min(limits) if limits else None


def length_order(sentences: Sequence[str]) -> np.ndarray:
    """`[n]` row numbers from the longest sentence (UTF-8 bytes) to the shortest; ties by row."""
    # By the text alone, so that chunks mean the same to every process; longest first shows at once
    # whether memory suffices.
    lengths = np.array([len(sentence.encode()) for sentence in sentences], dtype=np.int64)
    return np.argsort(-lengths, kind="stable")


def batches(lengths: Sequence[int], *, max_tokens: int, max_sentences: int) -> Iterator[list[int]]:
    """Split sentences into batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for i in order:
        full = batch and (
            len(batch) >= max_sentences or lengths[batch[0]] * (len(batch) + 1) > max_tokens
        )
        if full:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
