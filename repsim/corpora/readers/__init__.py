"""Readers of parallel text, one file per format.

A reader takes where the text lies and which languages are wanted, and returns `ParallelRows`.
Adding a format is one module and one line here; another distribution adds one by an entry point in
the group `repsim.corpus_formats`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from repsim.core.registry import Registry
from repsim.corpora.rows import ParallelRows


@dataclasses.dataclass(frozen=True)
class Request:
    """What a reader is asked for.

    Attributes:
        location: Path, prefix or hub name, as the user wrote it.
        languages: Codes as the user wrote them; None for all.
        split: Read only this split, if reading the others costs something; rows of other splits may
            be returned too, and are sorted out later.
        allow_network: Whether the reader may fetch anything.
    """

    location: str
    languages: Sequence[str] | None = None
    split: str | None = None
    allow_network: bool = False


Reader = Callable[[Request], ParallelRows]

READERS: Registry[Reader] = Registry("corpus format", entry_point_group="repsim.corpus_formats")
READERS.add("tsv", "repsim.corpora.readers.tsv:read_tsv")
READERS.add("jsonl", "repsim.corpora.readers.jsonl:read_jsonl", aliases=("ndjson",))
READERS.add("moses", "repsim.corpora.readers.moses:read_moses")
READERS.add("flores", "repsim.corpora.readers.flores:read_flores")
READERS.add("hub", "repsim.corpora.readers.hub:read_hub")
