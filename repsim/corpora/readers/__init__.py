"""Readers of parallel text, one file per format."""

from __future__ import annotations

from collections.abc import Callable

from repsim.core.registry import Registry
from repsim.corpora.rows import ParallelRows, Request

Reader = Callable[[Request], ParallelRows]

READERS: Registry[Reader] = Registry("corpus format", entry_point_group="repsim.corpus_formats")
READERS.add("tsv", "repsim.corpora.readers.tsv:read_tsv")
READERS.add("jsonl", "repsim.corpora.readers.jsonl:read_jsonl", aliases=("ndjson",))
READERS.add("plain", "repsim.corpora.readers.plain:read_plain")
READERS.add("moses", "repsim.corpora.readers.moses:read_moses")
READERS.add("flores", "repsim.corpora.readers.flores:read_flores")
READERS.add("hub", "repsim.corpora.readers.hub:read_hub")
