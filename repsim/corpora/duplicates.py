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

from repsim.corpora.documents import Document, TrainingText, batches
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
        new = seen.new(_hashes([document.text for document in batch]))
        dropped[READ] += len(batch)
        dropped[COPIES] += len(batch) - int(new.sum())
        yield from itertools.compress(batch, new.tolist())


def unseen(
    documents: Iterable[Document], held: Callable[[], HeldOutText], dropped: Counter[str]
) -> Iterator[Document]:
    """Training documents that are neither copies nor near copies of held-out ones."""
    known = held()
    for batch in _batches(documents):
        copies, near = known.holds([document.text for document in batch])
        dropped[COPIES] += int(copies.sum())
        dropped[NEAR] += int((near & ~copies).sum())
        yield from itertools.compress(batch, (~(copies | near)).tolist())


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
        hashes, passages = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.uint64)]
        for batch in _batches(documents):
            texts = [document.text for document in batch]
            hashes.append(_hashes(texts))
            passages.append(np.unique(_passages(texts)[0]))
        self._hashes, self._passages = (np.unique(np.concatenate(h)) for h in (hashes, passages))

    def holds(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Which of some texts stand here, and which by at least half of their passages."""
        passages, owners = _passages(texts)
        sampled = np.bincount(owners, minlength=len(texts))
        known = _contained(passages, self._passages)
        found = np.bincount(owners, weights=known, minlength=len(texts))
        return (
            _contained(_hashes(texts), self._hashes),
            (sampled >= LEAST) & (found >= SHARE * sampled),
        )


class _Seen:
    """A growing set of hashes in sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def new(self, hashes: np.ndarray) -> np.ndarray:
        """Which of some hashes are there for the first time; they are kept."""
        mask = np.zeros(len(hashes), dtype=bool)
        mask[np.unique(hashes, return_index=True)[1]] = True
        for run in self._runs:
            mask &= ~_contained(hashes, run)
        if mask.any():
            self._runs.append(np.sort(hashes[mask]))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]))]
        return mask


def _contained(numbers: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which numbers are among sorted ones."""
    if not len(ordered):
        return np.zeros(len(numbers), dtype=bool)
    at = np.minimum(np.searchsorted(ordered, numbers), len(ordered) - 1)
    return np.asarray(ordered[at] == numbers)


def _hashes(texts: Sequence[str]) -> np.ndarray:
    """A hash of each text as it is compared; `[n]` uint64."""
    plain = (normalised(text).encode(errors="surrogatepass") for text in texts)
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in plain)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _passages(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the sampled passages of some texts, and the number of the text of each."""
    plain = [normalised(text) for text in texts]
    hashes = window_hashes("".join(plain), PASSAGE)
    owners = np.repeat(np.arange(len(plain)), [len(text) for text in plain])
    # A passage lies in one text, so its first and its last character have one owner.
    whole = owners[: len(hashes)] == owners[PASSAGE - 1 :]
    sampled = np.flatnonzero((hashes < np.uint64(2**64 // ONE_IN)) & whole)
    return hashes[sampled], owners[sampled]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Some documents at a time, of no more than about a megabyte together."""
    return batches(documents, 1_000_000, most=_BATCH)
