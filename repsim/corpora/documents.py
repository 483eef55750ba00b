"""Documents of one language, as a stream, and choices among them by document id."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from repsim.core.errors import InputError

Split = Literal["train", "heldout"]
#: Share of documents held out where the source has no held-out part of its own.
HELDOUT_FRACTION = 0.05


class Document(NamedTuple):
    """One document: its id, and its text.

    Where documents are translations of each other their ids are equal in every language.
    """

    id: str
    text: str


@dataclasses.dataclass(frozen=True)
class TrainingText:
    """The documents of one language and split. Iterating reads them from the start each time.

    Attributes:
        name: Name of the source ("bible", a folder's name).
        language: Language code.
        documents: Called, gives the documents in a fixed order.
        split: "train" or "heldout".
        source: Where the text comes from.
        licence: Under which terms, as far as known.
        split_rule: How train and held-out were parted.
        choice: Which part of it was taken; empty for all.
        dropped: Counts of what was left out of the last pass, as copies for example.

    Example:
        >>> text = TrainingText("demo", "eng_Latn", lambda: iter([Document("1", "Hello.")]))
        >>> [document.text for document in text], text.n_bytes()
        (['Hello.'], 6)
    """

    name: str
    language: str
    documents: Callable[[], Iterator[Document]]
    split: Split = "train"
    source: str = ""
    licence: str = ""
    split_rule: str = ""
    choice: str = ""
    dropped: Counter[str] = dataclasses.field(default_factory=Counter, compare=False)

    def __iter__(self) -> Iterator[Document]:
        return self.documents()

    def texts(self) -> Iterator[str]:
        """The text of each document."""
        return (document.text for document in self)

    def n_bytes(self) -> int:
        """UTF-8 bytes of all documents (reads them)."""
        return sum(len(text.encode()) for text in self.texts())

    @property
    def about(self) -> dict[str, str]:
        """Facts for a manifest."""
        facts = ("name", "source", "licence", "split_rule", "choice")
        return {fact: str(getattr(self, fact)) for fact in facts}

    def keep(self, ids: frozenset[str], why: str) -> TrainingText:
        """Only the documents with these ids; `why` goes into the manifest."""
        return self.narrowed(lambda: (document for document in self if document.id in ids), why)

    def narrowed(self, documents: Callable[[], Iterator[Document]], why: str) -> TrainingText:
        """The same text with fewer documents."""
        choice = f"{self.choice}; {why}" if self.choice else why
        return dataclasses.replace(self, documents=documents, choice=choice)


def is_held_out(document_id: str) -> bool:
    """Whether the id's hash lies in the lowest 5 %; a matter of the id alone."""
    return _hash(document_id) < HELDOUT_FRACTION * 2.0**64


def _hash(*parts: object) -> int:
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _drawn(ids: Iterable[str], seed: int) -> list[str]:
    """Ids in the order of their hash with the seed: the same order in every language."""
    return sorted(ids, key=lambda name: (_hash(seed, name), name))


def disjoint(texts: Mapping[str, TrainingText], seed: int = 0) -> dict[str, TrainingText]:
    """Deal the document ids of all languages round: no two languages keep the same one."""
    ids = {name: frozenset(document.id for document in text) for name, text in texts.items()}
    order = _drawn(frozenset().union(*ids.values()), seed)
    dealt = {}
    for k, name in enumerate(sorted(texts)):
        mine = ids[name].intersection(order[k :: len(texts)])
        if not mine:
            raise InputError(f"no document is left for {name}: {len(order)} in {len(texts)} parts")
        why = f"disjoint among {len(texts)} languages, seed {seed}"
        dealt[name] = texts[name].keep(mine, why)
    return {name: dealt[name] for name in texts}


def hashed_disjoint(texts: Mapping[str, TrainingText], seed: int = 0) -> dict[str, TrainingText]:
    """As `disjoint`, without knowing all ids beforehand: each goes where its hash says."""
    number = {name: k for k, name in enumerate(sorted(texts))}

    def mine(text: TrainingText) -> Iterator[Document]:
        k = number[text.language]
        return (d for d in text if _hash("deal", seed, d.id) % len(number) == k)

    return {
        name: text.narrowed(
            functools.partial(mine, text), f"disjoint among {len(number)} languages, seed {seed}"
        )
        for name, text in texts.items()
    }


def leading(text: TrainingText, max_bytes: int) -> TrainingText:
    """The first documents, until the first that would make them more than `max_bytes` bytes."""

    def documents() -> Iterator[Document]:
        total = 0
        for document in text:
            total += len(document.text.encode())
            if total > max_bytes:
                return
            yield document

    return text.narrowed(documents, f"the first {max_bytes} bytes")


def limited(text: TrainingText, max_bytes: int, seed: int = 0) -> TrainingText:
    """Documents of at most `max_bytes` bytes in all, drawn by seed, in their original order."""
    places, sizes = array("Q"), array("Q")
    for document in text:
        places.append(_hash(seed, document.id))
        sizes.append(len(document.text.encode()))
    drawn, number = np.unique(np.array(places, dtype=np.uint64), return_inverse=True)
    totals = np.cumsum(np.bincount(number, weights=np.array(sizes, dtype=np.float64)))
    kept = int(np.searchsorted(totals, max_bytes, side="right"))
    if not kept:
        raise InputError(
            f"max_bytes={max_bytes} is less than one document of {text.language}.{text.split}",
            hint=f"allow {int(totals[0]) if len(totals) else 0} bytes or more",
        )
    last = int(drawn[kept - 1])
    return text.narrowed(
        lambda: (document for document in text if _hash(seed, document.id) <= last),
        f"at most {max_bytes} bytes, seed {seed}",
    )


def batches(
    documents: Iterable[Document], characters: int, *, most: int = 1 << 62
) -> Iterator[list[Document]]:
    """Some documents at a time: `most`, or as many as are about so many characters together."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == most or size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
