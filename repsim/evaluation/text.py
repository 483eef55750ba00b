"""Held-out text to evaluate on: read once, tokenized once per tokenizer, scored many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import InputError
from repsim.corpora.training_text import load_training_text
from repsim.evaluation.bits_per_byte import BitsPerByte, HeldOut, score_held_out, tokenized
from repsim.evaluation.floor import training_counts, unigram_bits

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class EvaluationText:
    """Held-out documents of some languages.

    Attributes:
        corpus: Where they and the training text come from; see `load_training_text`.
        documents: Language -> document ids; equal ids are translations of each other.
        texts: Language -> the documents.
        about: Facts for a manifest.
        allow_network: Whether the training text may be fetched.
    """

    corpus: str
    documents: dict[str, tuple[str, ...]]
    texts: dict[str, tuple[str, ...]]
    about: dict[str, Any]
    allow_network: bool = False

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages in the order asked for."""
        return tuple(self.texts)

    def prepare(
        self, tokenizer: Any, context: int, *, overlap: int = 0, floors: bool = True
    ) -> PreparedText:
        """Tokenize for the models of one tokenizer.

        Args:
            tokenizer: Their `transformers` tokenizer.
            context: Tokens per window.
            overlap: Tokens of a window that are context only.
            floors: Whether to fit unigram models on the training text, which is read for it.
        """
        held_out, bos = {}, 0
        for language, texts in self.texts.items():
            held_out[language], bos = tokenized(tokenizer, texts)
        counted = {
            language: training_counts(
                self.corpus, language, tokenizer, allow_network=self.allow_network
            )
            for language in (self.languages if floors else ())
        }
        return PreparedText(
            self, held_out, bos, context, overlap,
            floors={key: unigram_bits(own.counts, held_out[key]) for key, own in counted.items()},
            floor_bytes={key: own.n_bytes for key, own in counted.items()},
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PreparedText:
    """Held-out documents as the token ids of one tokenizer.

    Attributes:
        text: The documents.
        held_out: Language -> token ids.
        bos: Id before each document.
        context, overlap: Tokens per window, and those of them that are context only.
        floors: Language -> bits under the unigram model; empty if not asked for.
        floor_bytes: Language -> bytes of training text that the unigram model was fitted on.
    """

    text: EvaluationText
    held_out: dict[str, HeldOut]
    bos: int
    context: int
    overlap: int
    floors: dict[str, BitsPerByte]
    floor_bytes: dict[str, int] = dataclasses.field(default_factory=dict)

    def score(self, model: nn.Module) -> dict[str, BitsPerByte]:
        """Bits and bytes per document of each language under a causal language model."""
        return {
            language: score_held_out(
                model, held_out, self.bos, self.context, overlap=self.overlap
            )
            for language, held_out in self.held_out.items()
        }  # fmt: skip


def load_evaluation_text(
    corpus: str,
    languages: Sequence[str],
    *,
    max_bytes: int | None = None,
    seed: int = 0,
    allow_network: bool = False,
) -> EvaluationText:
    """Read the held-out part of a training corpus.

    Args:
        corpus: "bible", a folder or "hub:NAME"; see `repsim.corpora.load_training_text`.
        languages: FLORES-style codes.
        max_bytes: At most so many UTF-8 bytes of each language, whole documents drawn by `seed`,
            the same ones in every language as far as they fit.
        seed: Of that draw.
        allow_network: Whether a data set may be fetched.

    Raises:
        InputError: No such corpus or language, or no held-out document.
        UsageError: A language that is not known or named twice.

    Example:
        >>> text = load_evaluation_text("bible", ["eng_Latn"], max_bytes=20_000)
        >>> text.languages, len(text.documents["eng_Latn"]) > 1
        (('eng_Latn',), True)
    """
    sources = load_training_text(
        corpus, languages, split="heldout", max_bytes=max_bytes, seed=seed,
        allow_network=allow_network,
    )  # fmt: skip
    documents, texts = {}, {}
    for language, source in sources.items():
        read = [document for document in source if document.text]
        if not read:
            raise InputError(f"'{corpus}' has no held-out document in {language}")
        documents[language] = tuple(document.id for document in read)
        texts[language] = tuple(document.text for document in read)
    about = {
        "corpus": corpus,
        "split": "heldout",
        "max_bytes": max_bytes,
        "seed": seed,
        "languages": {language: source.about for language, source in sources.items()},
    }
    return EvaluationText(corpus, documents, texts, about, allow_network)
