"""Parallel text in: one function for everything that can be read."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from repsim.core.corpus import ParallelCorpus
from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.corpora.builtin import CORPORA
from repsim.corpora.derived import MARK, derived_corpus, natural_languages
from repsim.corpora.languages import choose_languages
from repsim.corpora.readers import READERS
from repsim.corpora.readers.flores import flores_files
from repsim.corpora.readers.moses import moses_files
from repsim.corpora.readers.plain import rows_in_memory, rows_of_frame
from repsim.corpora.rows import Empty, Request, build_corpus
from repsim.corpora.text_files import read_lines, stem

_SUFFIXES = {".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_FORMATS = "a .tsv, .jsonl or .txt file (also .gz, .xz), moses:PREFIX, flores:FOLDER or hub:NAME"

#: Sentences of one language, or language -> as many sentences in each.
Sentences = Mapping[str, Sequence[str]] | list[str] | tuple[str, ...]


def load_corpus(
    spec: str | os.PathLike[str] | ParallelCorpus | Sentences,
    *,
    languages: Sequence[str] | str | None = None,
    limit: int | None = None,
    seed: int = 0,
    split: str | None = None,
    format: str | None = None,  # noqa: A002  (the command line's word)
    empty: Empty | None = None,
    deduplicate: bool = True,
    allow_network: bool = False,
) -> ParallelCorpus:
    """Load, check and choose from parallel text.

    Args:
        spec: A built-in corpus (`kolibri`, `udhr`), a file or folder whose format is recognised, or
            FORMAT:LOCATION: `tsv:`, `jsonl:`, `moses:PREFIX`, `flores:FOLDER`,
            `hub:NAME[#CONFIG][@REVISION]`; `plain:` and .txt are one sentence a line. Also a list
            of sentences, a mapping from languages to such lists, or a data frame (pandas, polars,
            Arrow) with a column per language; a `ParallelCorpus` is only chosen from.
        languages: Codes in this order (`eng_Latn`, `eng`, `en`; also one string, `en,de`); None for
            all; `eng_Latn~reversed` is derived, see `corpora.derived`. Only rows that have text in each of them stay; the corpus's `notes` count the rest.
        limit: Draw at most so many of the sentences, without replacement.
        seed: Seed of that draw.
        split: Keep this split (`dev`, `heldout`); None keeps all.
        format: Name of the format, if `spec` does not show it.
        empty: What to do with a row that lacks a chosen language: `drop` (default for tsv, jsonl, hub
            and FLORES+) or `refuse` (default for line-aligned files).
        deduplicate: Leave out rows whose text repeats an earlier row in a chosen language.
        allow_network: Whether a Hugging Face data set may be fetched.

    Returns:
        The corpus, labelled by FLORES codes, with its source and licence and with notes on what was
        left out.

    Raises:
        InputError: A missing, misaligned, empty, ambiguous or wrongly encoded input, named by file
            and line.
        UsageError: An unknown corpus, format, language or split.
        ResourceError: A data set that is not on this machine, and nothing may be fetched.

    Example:
        >>> corpus = load_corpus("udhr", languages=["en", "de"])
        >>> corpus.languages, len(corpus), corpus["eng_Latn"][1]
        (('eng_Latn', 'deu_Latn'), 48, 'Everyone has the right to life, liberty and the security of person.')
    """  # noqa: E501
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit} leaves no sentence", hint="1 or more")
    if isinstance(languages, str):
        languages = [code.strip() for code in languages.split(",")]
    if languages is not None and any(MARK in code for code in languages):
        natural = load_corpus(
            spec, languages=natural_languages(languages), limit=limit, seed=seed, split=split,
            format=format, empty=empty, deduplicate=deduplicate, allow_network=allow_network,
        )  # fmt: skip
        return derived_corpus(natural, languages)
    if isinstance(spec, ParallelCorpus):
        corpus = _select(spec, languages)
    elif isinstance(spec, Mapping | list | tuple):
        rows = rows_in_memory(spec, languages)
        corpus = build_corpus(rows, "sentences", split=split, empty=empty, deduplicate=deduplicate)
    elif hasattr(spec, "__arrow_c_stream__"):
        rows = rows_of_frame(spec, languages)
        corpus = build_corpus(rows, "sentences", split=split, empty=empty, deduplicate=deduplicate)
    elif format is None and str(spec) in CORPORA:
        corpus = _load_builtin(str(spec), languages, split)
    else:
        where = os.fspath(spec)
        name, location = (format, where) if format else _recognise(where)
        rows = READERS[name](Request(location, languages, split, allow_network))
        corpus = build_corpus(
            rows, _name(name, location), split=split, empty=empty, deduplicate=deduplicate
        )
    return _limit(corpus, limit, seed)


def _select(corpus: ParallelCorpus, languages: Sequence[str] | None) -> ParallelCorpus:
    if languages is None:
        return corpus
    chosen = choose_languages(languages, corpus.languages, where=f"corpus '{corpus.name}'")
    return corpus.select(languages=list(chosen.values()))


def _load_builtin(name: str, languages: Sequence[str] | None, split: str | None) -> ParallelCorpus:
    known = CORPORA[name]
    rows = READERS["tsv"](Request(str(known.path), languages))
    rows.source = known.credit
    if known.caution:
        rows.notes.append(known.caution)
    return build_corpus(rows, name, split=known.split if split is None else split)


def _limit(corpus: ParallelCorpus, limit: int | None, seed: int) -> ParallelCorpus:
    if limit is None or limit >= len(corpus):
        return corpus
    note = f"{limit} of {len(corpus)} sentences drawn with seed {seed}"
    return dataclasses.replace(corpus.sample(limit, seed), notes=(*corpus.notes, note))


def _name(format_name: str, location: str) -> str:
    """A short label: the last part of the location, without suffixes of the format."""
    if format_name == "hub":
        return re.split("[#@]", location)[0].rstrip("/").rpartition("/")[2]
    path = Path(location).resolve()
    name = stem(path)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _recognise(spec: str) -> tuple[str, str]:
    """Format and location of what the user wrote."""
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in READERS:
        return prefix, rest
    path = Path(spec)
    if path.is_dir():
        return _recognise_folder(path), spec
    if path.is_file():
        return _recognise_file(path), spec
    if moses_files(path):
        return "moses", spec
    if re.fullmatch(r"[\w-]+", spec):
        raise unknown_name("corpus", spec, CORPORA, see="repsim corpora")
    raise InputError(
        f"corpus '{spec}' does not exist", hint=f"a built-in name (repsim corpora), {_FORMATS}"
    )


def _recognise_file(path: Path) -> str:
    suffix = Path(stem(path)).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    lines = read_lines(path)
    first = lines[0] if lines else ""
    if first.lstrip().startswith("{"):
        return "jsonl"
    if "\t" in first:
        return "tsv"
    if suffix == ".txt":
        return "plain"
    raise InputError(
        f"the format of '{path}' does not show: its name is not .tsv or .jsonl, and its first line "
        "is neither JSON nor tab-separated",
        hint=f"{_FORMATS}; one sentence a line is plain:{path.name}; "
        "for files such as train.en and train.de write moses:train",
    )


def _recognise_folder(folder: Path) -> str:
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return "hub"
    if flores_files(folder):
        return "flores"
    raise InputError(
        f"folder '{folder}' is neither FLORES (dev/eng_Latn.dev) nor a saved data set",
        hint=f"name what lies in it: {_FORMATS}",
    )
