"""Training text: documents of one language, from the package, a folder, or a data set on a hub.

Nothing is held in memory that need not be: documents are read anew each time they are asked for,
and a choice among them (held-out, disjoint, a byte limit) is made by document id.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from repsim.core.errors import InputError, UsageError
from repsim.corpora.document_files import find_document_file, read_documents

Split = Literal["train", "heldout"]
Content = Literal["same", "disjoint"]
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
    if "~" in language:
        from repsim.corpora.derived import derived_text, split_language

        base, _ = split_language(language)
        return derived_text(_open(spec, base, split, allow_network), language)
    if spec.startswith("hub:"):
        from repsim.corpora.hub_text import hub_text

        return hub_text(spec, language, split, allow_network=allow_network)
    if spec == "bible":
        from repsim.corpora.builtin_training import bible_text

        return bible_text(language, split)
    return folder_text(Path(spec), language, split)


def folder_text(folder: Path, language: str, split: Split) -> TrainingText:
    """The text of one language in a folder of files.

    Raises:
        InputError: No such folder or file; files are read, and their errors raised, later.
    """
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


def hashed_split(
    every: Callable[[], Iterator[Document]], language: str, split: Split, *, name: str, source: str
) -> TrainingText:
    """One part of a source that has no held-out part of its own."""
    heldout = split == "heldout"
    return TrainingText(
        name=name,
        language=language,
        documents=lambda: (d for d in every() if is_held_out(d.id) == heldout),
        split=split,
        source=source,
        split_rule=f"held out: documents whose id's SHA-256 is in the lowest {HELDOUT_FRACTION}",
    )


def is_held_out(document_id: str) -> bool:
    """Whether the id's hash lies in the lowest 5 %; a matter of the id alone.

    Example:
        >>> sum(is_held_out(str(i)) for i in range(1000))
        52
    """
    return _hash(document_id) < HELDOUT_FRACTION * 2.0**64


def _hash(*parts: object) -> int:
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _drawn(ids: Iterable[str], seed: int) -> list[str]:
    """Ids in the order of their hash with the seed: the same order in every language."""
    return sorted(ids, key=lambda name: (_hash(seed, name), name))


def disjoint(texts: Mapping[str, TrainingText], seed: int = 0) -> dict[str, TrainingText]:
    """Deal the document ids of all languages round: no two languages keep the same one.

    The deal depends on the seed, the set of ids and the set of languages only.

    Raises:
        InputError: A language is left without a document.
    """
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
    """As `disjoint`, without knowing all ids beforehand: each goes where its hash says.

    Shares are equal on average only.
    """
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
    """Documents of at most `max_bytes` bytes in all, drawn by seed, in their original order.

    Documents are drawn until the first that does not fit.

    Raises:
        InputError: Not even one document fits.
    """
    sizes: dict[str, int] = {}
    for document in text:
        sizes[document.id] = sizes.get(document.id, 0) + len(document.text.encode())
    kept, total = [], 0
    for name in _drawn(sizes, seed):
        total += sizes[name]
        if total > max_bytes:
            break
        kept.append(name)
    if not kept:
        raise InputError(
            f"max_bytes={max_bytes} is less than one document of {text.language}.{text.split}"
        )
    return text.keep(frozenset(kept), f"at most {max_bytes} bytes, seed {seed}")
