"""From a corpus to what the loop reads: tokenizers, token shards, held-out documents, floors."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repsim.core.aside import locked
from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_files, hash_json, read_json, write_json
from repsim.corpora.data_order import DataOrder
from repsim.corpora.documents import TrainingText
from repsim.corpora.model_tokenizer import ModelTokenizer
from repsim.corpora.reading import Reading
from repsim.corpora.shards import MANIFEST, TokenShards, WindowSource, shard_damage, write_shards
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
from repsim.pretraining.planning import RunPlan

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

    def reading(self, plan: RunPlan) -> Reading:
        """Which windows a run reads, given what its history has read."""
        lengths, parts = self.windows.lengths, list[tuple[int, DataOrder]]()
        for phase in plan.history:
            last = (parts[-1][1], phase.first_sample) if parts and plan.data_order == 2 else None
            order = DataOrder(
                lengths, phase.ratios(lengths), phase.data_seed,
                same_blocks=plan.data_order == 1, after=last,
            )  # fmt: skip
            parts.append((phase.first_sample, order))
        return Reading(tuple(parts), plan.first_sample, plan.sample_at(plan.last_step))

    def read_again(self, plan: RunPlan) -> str:
        """How much of a run's text was read before, in words; empty if nothing was."""
        counts = self.reading(plan).windows()
        again = {name: f"{m / n:.0%} of {name}" for name, (n, m) in counts.items() if m}
        total, repeated = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
        if not again:
            return ""
        most = sorted(again, key=lambda name: -counts[name][1])[:5]
        more = ", ..." if len(again) > len(most) else ""
        return (
            f"reads {total:,} windows, {repeated:,} of them for a second time or more "
            f"({', '.join(again[name] for name in most)}{more})"
        )

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
        with locked(out / ".locks" / "data", "another process is preparing the data", wait=True):
            _make(config, out)
    world.barrier()
    return FamilyData(
        {
            name: TrainingData(
                _tokenizer(config, out / "tokenizers" / name),
                TokenShards.open(out / "shards" / name, verify=False),  # they were, just now
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
    known = _read_marker(marker)
    if known is not None and {**known, "files": None} != {**asked, "files": None}:
        raise UsageError(
            f"'{out}' holds training data of another corpus or tokenizer",
            hint="choose another folder",
        )
    whole = not _dropped(config, out, (known or {}).get("files", {}))
    if known is not None and whole:
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
    tokenizers = sorted((out / "tokenizers").rglob("*.json"))
    files = {path.relative_to(out).as_posix(): hash_files([path]) for path in tokenizers}
    write_json(marker, {**asked, "files": files})


def _read_marker(path: Path) -> dict[str, Any] | None:
    """What was prepared; None if nothing, or if the file is damaged."""
    try:
        known = read_json(path) if path.exists() else None
    except InputError as error:
        logger.warning("%s; it is made anew", error.what)
        return None
    return known if isinstance(known, dict) and known.get("schema") == SCHEMA else None


def _dropped(config: FamilyConfig, out: Path, files: Mapping[str, str]) -> bool:
    """Remove tokenizers and shards that are damaged, each with a note; whether any was."""
    found = False
    for name in _names(config):
        tokenizer, shards = out / "tokenizers" / name, out / "shards" / name
        mine = {file: digest for file, digest in files.items() if f"/{name}/" in file}
        wrong = [file for file, digest in mine.items() if not _is(out / file, digest)]
        if tokenizer.is_dir() and wrong:
            logger.warning("'%s' is missing or damaged and is made anew", out / wrong[0])
            shutil.rmtree(tokenizer)
            found = True
        if (shards / MANIFEST).exists() and (damage := shard_damage(shards)):
            logger.warning("%s; it is made anew", damage)
            shutil.rmtree(shards)
            found = True
        found = found or not tokenizer.is_dir() or not (shards / MANIFEST).exists()
    return found


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hash_files([path]) == digest


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
