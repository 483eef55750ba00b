"""Documents that stand in a text twice, or in training text and held-out text alike.

Two rules, both with memory for hashes only (8 bytes a document, and about half a byte for each
character of held-out text):

- a *copy* has the letters of an earlier document, after Unicode NFKC, case folding, and without
  white space. The first one stays;
- a *near copy* is a training document of which at least half of the sampled passages (32 characters
  without white space; one in 16, chosen by their hash; at least 4) stand in held-out documents.

Passages sampled by hash are the sketch of Broder (1997), "On the resemblance and containment of
documents"; what is estimated is containment.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from repsim.corpora.documents import Document, TrainingText
from repsim.corpora.overlap import window_hashes

PASSAGE = 32
ONE_IN = 16
LEAST = 4
SHARE = 0.5
#: Names of the counts.
READ, COPIES, NEAR = "documents read", "copies", "near copies of held-out documents"
_BATCH = 512


def normalised(text: str) -> str:
    """The text as it is compared: NFKC, case folded, without white space."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def first_copies(documents: Iterable[Document], dropped: Counter[str]) -> Iterator[Document]:
    """The documents without later copies of earlier ones, which `dropped` counts."""
    seen = _Seen()
    dropped.clear()
    for batch in _batches(documents):
        new = seen.new(np.array([_hash(document.text) for document in batch], dtype=np.uint64))
        dropped[READ] += len(batch)
        dropped[COPIES] += len(batch) - int(new.sum())
        yield from itertools.compress(batch, new.tolist())


def unseen(
    documents: Iterable[Document], held: Callable[[], HeldOutText], dropped: Counter[str]
) -> Iterator[Document]:
    """Training documents that are neither copies nor near copies of held-out ones."""
    known = held()
    for document in documents:
        if _hash(document.text) in known.hashes:
            dropped[COPIES] += 1
        elif known.holds_most_of(document.text):
            dropped[NEAR] += 1
        else:
            yield document


def joined(texts: Sequence[TrainingText]) -> TrainingText:
    """Several texts of one language as one, one after the other, without copies."""
    dropped: Counter[str] = Counter()

    def documents() -> Iterator[Document]:
        for number, text in enumerate(texts):
            yield from (Document(f"{number}/{d.id}", d.text) for d in text)

    source = "; ".join(text.source for text in texts)
    return dataclasses.replace(
        texts[0], documents=lambda: first_copies(documents(), dropped), source=source,
        dropped=dropped,
    )  # fmt: skip


def apart(train: TrainingText, heldout: TrainingText) -> TrainingText:
    """Training text without what stands in held-out text of another source."""
    held = functools.cache(lambda: HeldOutText(heldout))
    return train.narrowed(
        lambda: unseen(train, held, train.dropped), "not in the held-out text of other sources"
    )


class HeldOutText:
    """Hashes of held-out documents and of their sampled passages."""

    def __init__(self, documents: Iterable[Document]) -> None:
        texts = [(_hash(d.text), _sketch(d.text)) for d in documents]
        self.hashes = frozenset(number for number, _ in texts)
        empty = np.empty(0, dtype=np.uint64)
        self._passages = np.unique(np.concatenate([empty, *(sketch for _, sketch in texts)]))

    def holds_most_of(self, text: str) -> bool:
        """Whether at least half of a text's sampled passages stand here."""
        sketch = _sketch(text)
        if len(sketch) < LEAST or not len(self._passages):
            return False
        at = np.searchsorted(self._passages, sketch)
        known = self._passages[np.minimum(at, len(self._passages) - 1)] == sketch
        return bool(known.mean() >= SHARE)


class _Seen:
    """A growing set of hashes in sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def new(self, hashes: np.ndarray) -> np.ndarray:
        """Which of some hashes are there for the first time; they are kept."""
        mask = np.zeros(len(hashes), dtype=bool)
        mask[np.unique(hashes, return_index=True)[1]] = True
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            mask &= run[at] != hashes
        if mask.any():
            self._runs.append(np.sort(hashes[mask]))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]))]
        return mask


def _hash(text: str) -> int:
    digest = hashlib.blake2b(normalised(text).encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _sketch(text: str) -> np.ndarray:
    """Hashes of the sampled passages of a text, each once; `[n]` uint64."""
    hashes = window_hashes(normalised(text), PASSAGE)
    return np.unique(hashes[hashes < np.uint64(2**64 // ONE_IN)])


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Some documents at a time, of no more than about a megabyte together."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == _BATCH or size > 1_000_000:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
