"""Training text: documents of one language, from the package, a folder, or a hub's data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from repsim.core.errors import InputError, UsageError
from repsim.corpora.builtin_training import bible_text
from repsim.corpora.derived import MARK, derived_text, split_language
from repsim.corpora.document_files import find_document_file, read_documents
from repsim.corpora.documents import (
    Document,
    Split,
    TrainingText,
    disjoint,
    hashed_disjoint,
    hashed_split,
    leading,
    limited,
)
from repsim.corpora.hub_text import hub_text

Content = Literal["same", "disjoint"]


def load_training_text(
    spec: str,
    languages: Sequence[str],
    *,
    split: Split = "train",
    content: Content = "same",
    max_bytes: int | None = None,
    seed: int = 0,
    allow_network: bool = False,
) -> dict[str, TrainingText]:
    """Training text of some languages.

    Args:
        spec: One of

            - "bible": the corpus that ships with the package;
            - a folder with `LANG.train.txt` and `LANG.heldout.txt` (documents separated by a blank
              line) or `LANG.jsonl` (field `text`, field `id` if there is one), plain, .gz or .xz;
            - "hub:NAME" or "hub:NAME:CONFIG": a data set by `datasets` (extra `hub`), streamed;
              NAME may be a local folder, `{language}` in CONFIG stands for the language code, and
              is the default.
        languages: FLORES-style codes; `eng_Latn~reversed` and the like are derived, see
            `corpora.derived`.
        split: "train" or "heldout". Without a held-out file one document in twenty is held out, by
            a hash of its id: the same ids in every language.
        content: "disjoint" gives no two languages a document of the same id (the control for
            parallel text). It concerns "train" only: languages are evaluated on the same documents.
        max_bytes: At most so many UTF-8 bytes of each language, whole documents, drawn by `seed` in
            an order of ids that is the same in every language. Of a data set, which is streamed,
            the first documents are taken.
        seed: Of the draws for `content="disjoint"` and `max_bytes`.
        allow_network: Whether a data set may be fetched.

    Returns:
        Language -> text, in the order of `languages`.

    Raises:
        InputError: No such folder, no text for a language, a damaged file, nothing left of a text.
        UsageError: An unknown split or content, a repeated language.

    Example:
        >>> texts = load_training_text("bible", ["eng_Latn"], split="heldout")
        >>> next(iter(texts["eng_Latn"])).id
        'GEN.35'
    """
    if split not in ("train", "heldout"):
        raise UsageError(f"unknown split '{split}'", hint="'train' or 'heldout'")
    if content not in ("same", "disjoint"):
        raise UsageError(f"unknown content '{content}'", hint="'same' or 'disjoint'")
    if len(set(languages)) != len(languages):
        raise UsageError(f"a language is named twice in {', '.join(languages)}")
    texts = {name: _open(spec, name, split, allow_network) for name in languages}
    streamed = spec.startswith("hub:")
    if content == "disjoint" and split == "train":
        texts = hashed_disjoint(texts, seed) if streamed else disjoint(texts, seed)
    if max_bytes is not None:
        texts = {
            name: leading(text, max_bytes) if streamed else limited(text, max_bytes, seed)
            for name, text in texts.items()
        }
    return texts


def _open(spec: str, language: str, split: Split, allow_network: bool) -> TrainingText:
    if MARK in language:
        base, _ = split_language(language)
        return derived_text(_open(spec, base, split, allow_network), language)
    if spec.startswith("hub:"):
        return hub_text(spec, language, split, allow_network=allow_network)
    if spec == "bible":
        return bible_text(language, split)
    return folder_text(Path(spec), language, split)


def folder_text(folder: Path, language: str, split: Split) -> TrainingText:
    """The text of one language in a folder of files."""
    if not folder.is_dir():
        raise InputError(
            f"training text '{folder}' is not a folder", hint="'bible', a folder, or hub:NAME"
        )
    train, heldout = (find_document_file(folder, language, part) for part in ("train", "heldout"))
    if train is None:
        have = sorted({path.name.split(".")[0] for path in folder.glob("*.*")})
        raise InputError(
            f"'{folder}' has no training text in {language}: no {language}.train.txt or "
            f"{language}.jsonl, plain, .gz or .xz",
            hint=f"it has: {', '.join(have[:40]) or 'nothing'}",
        )
    if heldout is None:
        return hashed_split(
            lambda: _documents(train), language, split, name=folder.name, source=train.name
        )
    chosen = train if split == "train" else heldout
    return TrainingText(
        name=folder.name,
        language=language,
        documents=lambda: _documents(chosen),
        split=split,
        source=chosen.name,
        split_rule="by file",
    )


def _documents(path: Path) -> Iterator[Document]:
    return (Document(number, text) for number, text in read_documents(path))
