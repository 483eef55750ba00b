"""The same sentences in several languages."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from repsim.core.errors import InputError, unknown_name
from repsim.core.files import hash_bytes
from repsim.core.formatting import ShownAsTable


@dataclasses.dataclass(frozen=True)
class ParallelCorpus(ShownAsTable):
    """Aligned sentences: the same ids in the same order in every language.

    Attributes:
        name: Short label.
        ids: One id per sentence, unique.
        sentences: Language code -> one sentence per id, none empty.
        documents: Document id per sentence (the sentence's own id where there is none). Sentences
            of one document are not independent; intervals can be taken over documents.
        source: Where the text comes from, with its licence.
        notes: What a reader of results must know: rows that were left out and why, a small n.

    Raises:
        InputError: Different lengths, repeated ids or an empty sentence.

    Example:
        >>> corpus = ParallelCorpus("two", ("1", "2"), {"eng_Latn": ("One.", "Two."),
        ...                                             "deu_Latn": ("Eins.", "Zwei.")})
        >>> corpus.languages, len(corpus), corpus["deu_Latn"][1]
        (('eng_Latn', 'deu_Latn'), 2, 'Zwei.')
    """

    name: str
    ids: tuple[str, ...]
    sentences: Mapping[str, tuple[str, ...]]
    documents: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        if not self.documents:
            object.__setattr__(self, "documents", self.ids)
        frozen = {language: tuple(lines) for language, lines in self.sentences.items()}
        object.__setattr__(self, "sentences", MappingProxyType(frozen))
        self._check()

    def _check(self) -> None:
        n = len(self.ids)
        if n == 0 or not self.sentences:
            raise InputError(f"corpus '{self.name}' holds no sentences")
        if len(set(self.ids)) != n:
            raise InputError(f"corpus '{self.name}' has repeated sentence ids")
        if len(self.documents) != n:
            raise InputError(
                f"corpus '{self.name}': {len(self.documents)} document ids for {n} sentences"
            )
        for language, lines in self.sentences.items():
            if len(lines) != n:
                raise InputError(
                    f"corpus '{self.name}' is misaligned: {len(lines)} sentences in {language}, "
                    f"{n} ids"
                )
            for i, line in enumerate(lines):
                if not line.strip():
                    raise InputError(
                        f"corpus '{self.name}': sentence '{self.ids[i]}' is empty in {language}"
                    )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, language: str) -> tuple[str, ...]:
        if language not in self.sentences:
            raise unknown_name(f"language in corpus '{self.name}'", language, self.sentences)
        return self.sentences[language]

    @property
    def languages(self) -> tuple[str, ...]:
        """Language codes in the corpus's own order."""
        return tuple(self.sentences)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of ids, languages and sentences."""
        parts = list(self.ids)
        for language, lines in self.sentences.items():
            parts += [language, *lines]
        return hash_bytes(*(part.encode() for part in parts))

    def language_hash(self, language: str) -> str:
        """SHA-256 of ids and sentences of one language: what its activations depend on."""
        return hash_bytes(*(part.encode() for part in (*self.ids, *self[language])))

    def covariates(self, language: str) -> dict[str, np.ndarray]:
        """Characters (`length`) and their natural logarithm (`log_length`), `[n]` float64 each."""
        length = np.array([len(line) for line in self[language]], dtype=np.float64)
        return {"length": length, "log_length": np.log(length)}

    def select(
        self, languages: Sequence[str] | None = None, rows: Sequence[int] | None = None
    ) -> ParallelCorpus:
        """A smaller corpus: some languages (in the order given), some rows."""
        chosen = tuple(languages) if languages is not None else self.languages
        picked = list(range(len(self))) if rows is None else [int(row) for row in rows]
        return ParallelCorpus(
            name=self.name,
            ids=tuple(self.ids[i] for i in picked),
            sentences={lang: tuple(self[lang][i] for i in picked) for lang in chosen},
            documents=tuple(self.documents[i] for i in picked),
            source=self.source,
            notes=self.notes,
        )

    def sample(self, n: int, seed: int = 0) -> ParallelCorpus:
        """`n` sentences drawn without replacement, in their order; all if there are fewer."""
        if n >= len(self):
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self), size=n, replace=False))
        return self.select(rows=rows.tolist())

    def describe(self) -> dict[str, Any]:
        """What a report states of it (JSON-able)."""
        return {
            "name": self.name,
            "languages": list(self.languages),
            "sentences": len(self),
            "documents": len(set(self.documents)),
            "hash": self.hash,
            "source": self.source,
            "notes": list(self.notes),
        }
