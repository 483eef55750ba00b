"""From a corpus to what the loop reads: tokenizers, token shards, held-out documents, floors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.files import hash_json, read_json, write_json
from repsim.corpora.data_order import DataOrder
from repsim.corpora.documents import TrainingText
from repsim.corpora.model_tokenizer import ModelTokenizer
from repsim.corpora.shards import TokenShards, WindowSource, write_shards
from repsim.corpora.tokenizers import (
    Tokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from repsim.corpora.training_text import load_training_text
from repsim.evaluation.bits_per_byte import HeldOut
from repsim.evaluation.floor import unigram_floor
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.distributed import World
from repsim.pretraining.metrics import logger
from repsim.pretraining.parent import open_parent

SCHEMA = "repsim/training-data/2"
#: Name of the tokenizer that all languages share.
SHARED = "shared"


class TrainingData:
    """Everything that runs with one tokenizer read."""

    def __init__(
        self, tokenizer: Tokenizer | ModelTokenizer, shards: TokenShards, context: int
    ) -> None:
        self.tokenizer = tokenizer
        self.shards = shards
        self.context = context
        self.windows = WindowSource(shards, "train", context)

    @property
    def hash(self) -> str:
        """SHA-256 over the token files' own hashes and the tokenizer's."""
        entries = self.shards.manifest["shards"]
        return hash_json(
            [self.tokenizer.hash, {key: entry["sha256"] for key, entry in entries.items()}]
        )

    def order(self, ratios: Mapping[str, float], data_seed: int) -> DataOrder:
        """The order of samples for a mixture."""
        return DataOrder(self.windows.lengths, ratios, data_seed)

    @functools.cached_property
    def held_out(self) -> dict[str, HeldOut]:
        """Held-out documents by language."""
        return {name: self._held_out(name) for name in self.shards.languages("heldout")}

    def _held_out(self, language: str) -> HeldOut:
        tokens = self.shards.tokens(language, "heldout")
        starts = self.shards.documents(language, "heldout")
        # Each document stands after its <bos>.
        pieces = [piece[1:].astype(np.int64) for piece in np.split(tokens, starts[1:])]
        kept = np.array([len(piece) > 0 for piece in pieces])
        sizes = self.shards.sizes(language, "heldout")[kept]
        return HeldOut(tuple(piece for piece in pieces if len(piece)), sizes)

    @functools.cached_property
    def floors(self) -> dict[str, float]:
        """Unigram floor of each language that has training text, in bits per byte."""
        return {
            language: unigram_floor(self._counts(language), self.held_out[language])
            for language in self.shards.languages("train")
            if language in self.held_out
        }

    def _counts(self, language: str) -> np.ndarray:
        counts = np.bincount(
            self.shards.tokens(language, "train"), minlength=self.tokenizer.n_tokens
        )
        counts[self.tokenizer.special_ids()] = 0
        return counts


@dataclasses.dataclass(frozen=True)
class FamilyData:
    """Training data of a family: one for all languages, or one per language's own tokenizer."""

    parts: Mapping[str, TrainingData]

    def of(self, languages: tuple[str, ...]) -> TrainingData:
        """The data that a run over these languages reads."""
        return self.parts[SHARED] if SHARED in self.parts else self.parts[languages[0]]


def prepare(config: FamilyConfig, out: Path, world: World) -> FamilyData:
    """Tokenizers and shards under `out`; made once, by the main process, and then read."""
    if world.is_main:
        with locked(out / ".locks" / "data"):
            _make(config, out)
    world.barrier()
    return FamilyData(
        {
            name: TrainingData(
                _tokenizer(config, out / "tokenizers" / name),
                TokenShards.open(out / "shards" / name),
                config.architecture.context,
            )
            for name in _names(config)
        }
    )


def _tokenizer(config: FamilyConfig, folder: Path) -> Tokenizer | ModelTokenizer:
    """The family's own tokenizer, or that of the model that it starts from."""
    if config.init_from is None:
        return load_tokenizer(folder)
    from repsim.models.inspect import tokenizer_files
    from repsim.models.load import load_tokenizer as load_any

    shape = open_parent(config.init_from).config
    return ModelTokenizer(load_any(folder, shape), shape.vocab_size, tokenizer_files(folder))


def _names(config: FamilyConfig) -> tuple[str, ...]:
    return config.corpus.languages if config.tokenizer.kind == "per-language" else (SHARED,)


def _make(config: FamilyConfig, out: Path) -> None:
    """Train tokenizers and write shards, unless that was done."""
    asked: dict[str, Any] = {
        "schema": SCHEMA,
        "corpus": config.corpus.model_dump(mode="json"),
        "tokenizer": config.tokenizer.model_dump(),
    }
    if config.init_from:
        asked["tokenizer"] = open_parent(config.init_from).ref.tokenizer_hash
    marker = out / "data.json"
    known = read_json(marker) if marker.exists() else {}
    if known.get("schema") == SCHEMA:
        if known != asked:
            raise UsageError(
                f"'{out}' holds training data of another corpus or tokenizer",
                hint="choose another folder",
            )
        return
    corpus = config.corpus
    texts: dict[str, dict[str, TrainingText]] = {
        split: load_training_text(
            corpus.source,
            corpus.languages,
            split=split,
            content=corpus.content if split == "train" else "same",
            max_bytes=corpus.max_bytes if split == "train" else None,
        )
        for split in ("train", "heldout")
    }
    for name in _names(config):
        _make_one(config, name, out, texts)
    write_json(marker, asked)


def _make_one(
    config: FamilyConfig, name: str, out: Path, texts: Mapping[str, Mapping[str, TrainingText]]
) -> None:
    """One tokenizer and the shards that it makes. Held-out text is kept for every language."""
    languages = config.corpus.languages if name == SHARED else (name,)
    folder = out / "tokenizers" / name
    logger.info("packing tokens: %s", ", ".join(languages))
    if config.init_from:
        open_parent(config.init_from).copy_tokenizer(folder)
        tokenizer = _tokenizer(config, folder)
    else:
        read = {code: [document.text for document in texts["train"][code]] for code in languages}
        kind: Literal["bytes", "joint"] = "bytes" if config.tokenizer.kind == "bytes" else "joint"
        size = config.tokenizer.vocab_size
        save_tokenizer(train_tokenizer(read, vocab_size=size, kind=kind), folder)
        tokenizer = load_tokenizer(folder)
    for language in languages:
        write_shards(out / "shards" / name, language, "train", texts["train"][language], tokenizer)
    for language, text in texts["heldout"].items():
        write_shards(out / "shards" / name, language, "heldout", text, tokenizer)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, what: str = "this folder") -> Iterator[None]:
    """Hold an exclusive lock on a file while the block runs."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UsageError(
                f"another process is training {what}", hint="wait for it, or end it"
            ) from None
        yield
