"""Training text: documents of one language, from the package, files, or a hub's data set."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from repsim.core.errors import UsageError
from repsim.core.files import file_mark
from repsim.corpora.builtin_training import bible_text, builtin_file
from repsim.corpora.derived import MARK, derived_text, split_language
from repsim.corpora.document_files import read_files
from repsim.corpora.documents import (
    HELDOUT_FRACTION,
    Document,
    Split,
    TrainingText,
    disjoint,
    hashed_disjoint,
    is_held_out,
    leading,
    limited,
)
from repsim.corpora.duplicates import HeldOutText, first_copies, unseen
from repsim.corpora.find_documents import find_document_files
from repsim.corpora.hub_text import DataSetName, hub_text
from repsim.corpora.text_address import TextAddress

Content = Literal["same", "disjoint"]


def load_training_text(
    spec: str,
    languages: Sequence[str],
    *,
    split: Split = "train",
    content: Content = "same",
    max_bytes: int | None = None,
    seed: int = 0,
    stream_bytes: int | None = None,
    allow_network: bool = False,
) -> dict[str, TrainingText]:
    """Training text of some languages.

    Args:
        spec: One of

            - "bible": the corpus that ships with the package;
            - a folder with `LANG.train.txt` and `LANG.heldout.txt` (documents separated by a blank
              line), `LANG.jsonl` or `LANG.parquet` (a text in pieces has numbered files,
              `LANG.train-00000-of-00007.jsonl`), or with a folder `LANG/` for each language; text
              files plain or packed (.gz, .xz, .bz2, .zst);
            - a file, or a pattern of files ("wiki/{language}/*.jsonl.gz");
            - "hub:NAME[:CONFIG][@REVISION]": a data set by `datasets` (extra `hub`), streamed; NAME
              may be a local folder, `{language}` in CONFIG stands for the language code, and is the
              default.

            Behind it may stand which fields are read, "?text=content&id=url&language=lang".
            Documents that stand twice, and training documents that stand in held-out text, are left
            out and counted (`TrainingText.dropped`, see `corpora.duplicates`); "?duplicates=keep"
            leaves them.
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
        stream_bytes: Of a data set no more of the stream than this is read; of training text as
            much as `max_bytes` needs, if not given.
        allow_network: Whether a data set may be fetched.

    Returns:
        Language -> text, in the order of `languages`.

    Raises:
        InputError: No such text, no text for a language, a damaged file, nothing left of a text.
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
    address = TextAddress.parse(spec)
    streamed = address.is_hub
    if stream_bytes is None and max_bytes is not None and split == "train":
        stream_bytes = streamed_bytes(max_bytes)
    texts = {name: _open(address, name, split, stream_bytes, allow_network) for name in languages}
    if content == "disjoint" and split == "train":
        texts = hashed_disjoint(texts, seed) if streamed else disjoint(texts, seed)
    if max_bytes is not None:
        texts = {
            name: leading(text, max_bytes) if streamed else limited(text, max_bytes, seed)
            for name, text in texts.items()
        }
    return texts


def is_remote(spec: str) -> bool:
    """Whether a source lies on a hub, of which nobody knows how much there is."""
    address = TextAddress.parse(spec)
    return address.is_hub and not DataSetName.parse(address.location, "").is_local


def text_marks(spec: str, language: str) -> list[tuple[str | int, ...]] | None:
    """What changes with the files of a text; None of what a hub streams."""
    address = TextAddress.parse(spec)
    base = split_language(language)[0] if MARK in language else language
    if address.is_hub:
        return None
    if address.location == "bible":
        parts = [builtin_file(base, split) for split in ("train", "heldout")]
        files = [path for path in parts if path.is_file()]
    else:
        files = [path for part in find_document_files(address.location, base) for path in part]
    return [(str(path.resolve()), *file_mark(path)) for path in files]


def streamed_bytes(max_bytes: int) -> int:
    """How much of a stream gives `max_bytes` of training text beside what is held out."""
    return math.ceil(max_bytes / (1 - HELDOUT_FRACTION))


class _Opened(NamedTuple):
    """The documents of a source in one language, and those that it holds out itself."""

    train: Iterable[Document]
    heldout: Iterable[Document] | None
    name: str
    train_source: str
    heldout_source: str = ""
    rule: str = "by file"


def _open(
    address: TextAddress, language: str, split: Split, limit: int | None, allow_network: bool
) -> TrainingText:
    if MARK in language:
        base, _ = split_language(language)
        return derived_text(_open(address, base, split, limit, allow_network), language)
    if address.location == "bible":
        return bible_text(language, split)
    if address.is_hub:
        hub = hub_text(address, language, limit=limit, allow_network=allow_network)
        name = Path(hub.train.name.name).name
        held = hub.heldout.source if hub.heldout else ""
        rule = f"the data set's own: train, {hub.heldout.part}" if hub.heldout else ""
        return _screened(
            _Opened(hub.train, hub.heldout, name, hub.train.source, held, rule),
            address,
            language,
            split,
        )
    train, heldout = find_document_files(address.location, language)
    opened = _Opened(
        _Files(train, address, language),
        _Files(heldout, address, language) if heldout else None,
        Path(address.location).name,
        _listed(train),
        _listed(heldout),
    )
    return _screened(opened, address, language, split)


@dataclasses.dataclass(frozen=True)
class _Files:
    """The documents of some files, which can be read again and again."""

    paths: Sequence[Path]
    address: TextAddress
    language: str

    def __iter__(self) -> Iterator[Document]:
        found = read_files(self.paths, self.address, self.language)
        return (Document(number, text) for number, text in found)


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0].name}{more}" if paths else ""


def _screened(opened: _Opened, address: TextAddress, language: str, split: Split) -> TrainingText:
    """One part of a source, without copies and without what stands in the other part."""
    dropped: Counter[str] = Counter()
    own, keep = opened.heldout, address.duplicates == "keep"

    def every(documents: Iterable[Document], counts: Counter[str]) -> Iterable[Document]:
        return documents if keep else first_copies(documents, counts)

    def part(which: Split, counts: Counter[str]) -> Iterator[Document]:
        if own is not None:
            yield from every(opened.train if which == "train" else own, counts)
            return
        for document in every(opened.train, counts):
            if is_held_out(document.id) == (which == "heldout"):
                yield document

    held = functools.cache(lambda: HeldOutText(part("heldout", Counter())))

    def documents() -> Iterator[Document]:
        found = part(split, dropped)
        return found if keep or split == "heldout" else unseen(found, held, dropped)

    rule = f"held out: documents whose id's SHA-256 is in the lowest {HELDOUT_FRACTION}"
    return TrainingText(
        name=opened.name,
        language=language,
        documents=documents,
        split=split,
        source=opened.heldout_source if own and split == "heldout" else opened.train_source,
        split_rule=opened.rule if own is not None else rule,
        dropped=dropped,
    )
