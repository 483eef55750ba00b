"""The tokenizer of an existing model, as training and scoring use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.files import hash_files


class ModelTokenizer:
    """A `transformers` tokenizer of any kind, beside the embedding of its model."""

    def __init__(self, tokenizer: Any, vocab_size: int, files: Sequence[Path]) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.files = tuple(files)
        self.hash = hash_files(files)
        known = [n for n in (tokenizer.bos_token_id, tokenizer.eos_token_id) if n is not None]
        if not known:
            raise InputError("the tokenizer has neither BOS nor EOS to start a document with")
        self.bos_id = int(known[0])
        self.eos_id = int(known[-1])

    @property
    def n_tokens(self) -> int:
        """Rows of the embedding: which of them are padding is not known."""
        return self.vocab_size

    def __len__(self) -> int:
        return self.vocab_size

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of many texts, each `[n]` int64, without special tokens around them."""
        rows = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        pieces = [np.asarray(row, dtype=np.int64) for row in rows]
        unknown = self.tokenizer.unk_token_id
        for text, ids in zip(texts, pieces, strict=True):
            if unknown not in (None, self.bos_id) and (ids == unknown).any():
                raise InputError(
                    f"the tokenizer does not know a character of '{text[:40]}...'",
                    hint="bits per byte need a tokenizer that spells every byte",
                )
            if len(ids) and int(ids.max()) >= self.vocab_size:
                raise InputError(
                    f"the tokenizer gives id {int(ids.max())}, and the model's embedding has "
                    f"{self.vocab_size} rows",
                    hint="is this tokenizer that of the model?",
                )
        return pieces

    def special_ids(self) -> list[int]:
        """Ids that stand for no text."""
        return [number for number in self.tokenizer.all_special_ids if number < self.vocab_size]
