"""Parallel text that ships inside the package, so that everything runs with nothing downloaded."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from repsim.core.registry import Registry

#: Where the files lie; the notices beside them hold the licences in full.
DATA_FOLDER = Path(__file__).parent / "data"


@functools.cache
def shipped() -> dict[str, Any]:
    """What `data/corpora.yaml` says of the texts in that folder."""
    import yaml

    found: dict[str, Any] = yaml.safe_load((DATA_FOLDER / "corpora.yaml").read_text("utf-8"))
    return found


@dataclasses.dataclass(frozen=True)
class BuiltinCorpus:
    """A parallel corpus inside the package, as `data/corpora.yaml` states it.

    Attributes:
        name: What to write where a corpus is asked for.
        file, title: File name in the data folder, and what it is in a few words.
        languages, sentences, documents: How many; every language has every sentence.
        licence, source: Licence and copyright, and where the text was taken from, with version.
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

for _stated in shipped()["parallel"]:
    CORPORA.add(_stated["name"], BuiltinCorpus(**_stated))


def list_corpora() -> list[BuiltinCorpus]:
    """The parallel corpora that ship with the package.

    Example:
        >>> {corpus.name: corpus.languages for corpus in list_corpora()}["udhr"]
        54
    """
    return [CORPORA[name] for name in CORPORA]
