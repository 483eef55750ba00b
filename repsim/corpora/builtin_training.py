"""The training corpus that ships with the package: ten old Bibles, verse by verse parallel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from repsim.core.corpus import ParallelCorpus
from repsim.core.errors import InputError, unknown_name
from repsim.corpora.builtin import shipped
from repsim.corpora.document_files import read_documents, read_records
from repsim.corpora.documents import Document, Split, TrainingText
from repsim.corpora.languages import unknown_language

FOLDER = Path(__file__).parent / "data" / "bible"
SPLIT_RULE = "by chapter, the same 55 of 1189 held out in every language"


@dataclasses.dataclass(frozen=True)
class Edition:
    """The edition of one language."""

    title: str
    year: int
    public_domain: str


EDITIONS = {language: Edition(*stated) for language, stated in shipped()["bible"].items()}
#: Languages with both testaments, which the parallel corpus takes by default.
WHOLE = tuple(language for language in EDITIONS if language != "hbo_Hebr")


def bible_text(language: str, split: Split = "train") -> TrainingText:
    """Training or held-out chapters of one language: 2.7 to 6 MB of text."""
    if language not in EDITIONS:
        raise unknown_language(language, EDITIONS, "the built-in training corpus")
    edition, path = EDITIONS[language], builtin_file(language, split)
    return TrainingText(
        name="bible",
        language=language,
        documents=lambda: (Document(name, text) for name, text in read_documents(path)),
        split=split,
        source=f"{edition.title} ({edition.year})",
        licence=f"public domain: {edition.public_domain}",
        split_rule=SPLIT_RULE,
    )


def builtin_parallel(name: str = "bible", languages: Sequence[str] | None = None) -> ParallelCorpus:
    """The held-out verses side by side: text that no model trained on the built-in corpus has read.

    Args:
        name: "bible", the only one.
        languages: Which; without it the nine with both testaments. With `hbo_Hebr` only verses of
            the Hebrew Bible remain, without the chapters that it counts otherwise.

    Returns:
        The corpus "bible-heldout", ids like "GEN.35.2", documents = chapters.

    Example:
        >>> corpus = builtin_parallel("bible", ["eng_Latn", "hbo_Hebr"])
        >>> corpus.ids[0], corpus.documents[0]
        ('GEN.35.1', 'GEN.35')
    """
    if name != "bible":
        raise unknown_name("built-in training corpus", name, ["bible"])
    chosen = tuple(languages) if languages is not None else WHOLE
    verses = {language: _heldout_verses(language) for language in chosen}
    common = [
        key
        for key in next(iter(verses.values()), {})
        if all(key in others for others in verses.values())
    ]
    return ParallelCorpus(
        name="bible-heldout",
        ids=tuple(f"{chapter}.{verse}" for chapter, verse in common),
        sentences={lang: tuple(found[key] for key in common) for lang, found in verses.items()},
        documents=tuple(chapter for chapter, _ in common),
        source="public-domain Bibles: "
        + "; ".join(f"{EDITIONS[lang].title} ({EDITIONS[lang].year})" for lang in chosen),
    )


def builtin_file(language: str, split: str) -> Path:
    """Where a part of the text of a language lies."""
    return FOLDER / f"{language}.{split}.jsonl.xz"


def _heldout_verses(language: str) -> dict[tuple[str, int], str]:
    """(Chapter, verse number) -> verse; chapters without verse numbers are passed over."""
    if language not in EDITIONS:
        raise unknown_language(language, EDITIONS, "the built-in training corpus")
    verses: dict[tuple[str, int], str] = {}
    path = builtin_file(language, "heldout")
    for _, record in read_records(path):
        numbers, lines = record.get("verses"), str(record["text"]).split("\n")
        if not isinstance(numbers, list):
            continue
        if len(numbers) != len(lines):
            raise InputError(f"'{path.name}': {record['id']} has not one line per verse")
        verses |= {
            (str(record["id"]), int(n)): line for n, line in zip(numbers, lines, strict=True)
        }
    return verses
