"""From a corpus to tokenizers and token shards on disk; text passes through as a stream."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from repsim.core.aside import locked
from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_files, read_json, write_json
from repsim.corpora.documents import Split, TrainingText
from repsim.corpora.duplicates import COPIES, NEAR, READ, apart, joined
from repsim.corpora.model_tokenizer import ModelTokenizer
from repsim.corpora.shards import MANIFEST, TokenShards, shard_damage, write_shards
from repsim.corpora.tokenizers import (
    Tokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from repsim.corpora.training_text import is_remote, load_training_text, streamed_bytes
from repsim.models.views import copy_tokenizer
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.config_corpus import CorpusConfig
from repsim.pretraining.data import SHARED, FamilyData, TrainingData
from repsim.pretraining.distributed import World
from repsim.pretraining.metrics import logger
from repsim.pretraining.own_tokenizer import open_tokenizer
from repsim.pretraining.parent import open_parent

SCHEMA = "repsim/training-data/2"


def prepare(
    config: FamilyConfig, out: Path, world: World, *, allow_network: bool = False
) -> FamilyData:
    """Tokenizers and shards under `out`; made once, by the main process, and then read."""
    if world.is_main:
        with locked(out / ".locks" / "data", "another process is preparing the data", wait=True):
            _make(config, out, allow_network=allow_network)
    world.barrier()
    return FamilyData(
        {
            name: TrainingData(
                _tokenizer(config, out / "tokenizers" / name),
                TokenShards.open(out / "shards" / name, verify=False),  # they were, just now
                config.architecture.context,
                {language: _shares(config.corpus, language) for language in _trained(config, name)},
            )
            for name in _names(config)
        }
    )


def _tokenizer(config: FamilyConfig, folder: Path) -> Tokenizer | ModelTokenizer:
    """The family's own tokenizer, or that of the model that it starts from."""
    if config.tokenizer.path:
        return open_tokenizer(folder)
    if config.init_from is None:
        return load_tokenizer(folder)
    from repsim.models.inspect import tokenizer_files
    from repsim.models.load import load_tokenizer as load_any

    shape = open_parent(config.init_from).config
    return ModelTokenizer(load_any(folder, shape), shape.vocab_size, tokenizer_files(folder))


def _names(config: FamilyConfig) -> tuple[str, ...]:
    return config.corpus.languages if config.tokenizer.kind == "per-language" else (SHARED,)


def _trained(config: FamilyConfig, name: str) -> tuple[str, ...]:
    """Languages of one tokenizer."""
    return config.corpus.languages if name == SHARED else (name,)


def _shares(corpus: CorpusConfig, language: str) -> dict[str, float]:
    return {stream: source.weight for stream, source in corpus.streams(language).items()}


def _make(config: FamilyConfig, out: Path, *, allow_network: bool) -> None:
    """Train tokenizers and write shards, unless that was done."""
    asked: dict[str, Any] = {
        "schema": SCHEMA,
        "corpus": config.corpus.model_dump(mode="json"),
        "tokenizer": config.tokenizer.model_dump(),
    }
    if config.init_from:
        asked["tokenizer"] = open_parent(config.init_from).ref.tokenizer_hash
    elif config.tokenizer.path:
        asked["tokenizer"] = open_tokenizer(Path(config.tokenizer.path)).hash
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
    texts = _open_texts(config.corpus, allow_network=allow_network)
    for name in _names(config):
        _make_one(config, name, out, texts)
    tokenizers = sorted((out / "tokenizers").rglob("*.json"))
    files = {path.relative_to(out).as_posix(): hash_files([path]) for path in tokenizers}
    write_json(marker, {**asked, "files": files})


class _Texts(NamedTuple):
    """The text of one language: its streams, and what is held out."""

    train: dict[str, TrainingText]
    heldout: TrainingText


def _open_texts(corpus: CorpusConfig, *, allow_network: bool) -> dict[str, _Texts]:
    """The text of every language; no training text stands in held-out text of its language."""
    sources = {code: corpus.streams(code) for code in corpus.languages}
    loaded: dict[str, dict[Split, dict[str, TrainingText]]] = {}
    for spec in dict.fromkeys(s.source for mine in sources.values() for s in mine.values()):
        users = [c for c, mine in sources.items() if spec in {s.source for s in mine.values()}]
        loaded[spec] = _load(corpus, spec, users, allow_network=allow_network)
    texts = {}
    for code, streams in sources.items():
        train = {name: loaded[s.source]["train"][code] for name, s in streams.items()}
        held = [loaded[s.source]["heldout"][code] for s in streams.values()]
        if len(held) > 1:
            whole = joined(held)
            texts[code] = _Texts({n: apart(text, whole) for n, text in train.items()}, whole)
        else:
            texts[code] = _Texts(train, held[0])
    return texts


def _load(
    corpus: CorpusConfig, spec: str, languages: list[str], *, allow_network: bool
) -> dict[Split, dict[str, TrainingText]]:
    """Training and held-out text of one source."""
    size = corpus.max_bytes
    if size is None and is_remote(spec):
        raise UsageError(
            f"'{spec}' is streamed: how much of it?",
            hint="corpus.max_bytes: bytes of each language",
        )
    stream = streamed_bytes(size) if size is not None else None
    train = load_training_text(
        spec, languages, content=corpus.content, max_bytes=size, stream_bytes=stream,
        allow_network=allow_network,
    )  # fmt: skip
    held = load_training_text(
        spec, languages, split="heldout", stream_bytes=stream, allow_network=allow_network
    )
    return {"train": train, "heldout": held}


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


def _make_one(config: FamilyConfig, name: str, out: Path, texts: Mapping[str, _Texts]) -> None:
    """One tokenizer and the shards that it makes. Held-out text is kept for every language."""
    languages = _trained(config, name)
    logger.info("packing tokens: %s", _listed(languages))
    tokenizer = _make_tokenizer(config, out / "tokenizers" / name, languages, texts)
    folder, left_out = out / "shards" / name, {}
    for language in languages:
        for stream, text in texts[language].train.items():
            entry = write_shards(folder, stream, "train", text, tokenizer)
            counts = entry.get("dropped", {})
            if counts.get(COPIES) or counts.get(NEAR):
                left_out[stream] = counts
    for language, both in texts.items():
        write_shards(folder, language, "heldout", both.heldout, tokenizer)
    for stream, counts in left_out.items():
        logger.warning(
            "%s: of %s documents %s are left out as copies, %s as near copies of held-out ones",
            stream, *(f"{counts.get(kind, 0):,}" for kind in (READ, COPIES, NEAR)),
        )  # fmt: skip


def _make_tokenizer(
    config: FamilyConfig, folder: Path, languages: Sequence[str], texts: Mapping[str, _Texts]
) -> Tokenizer | ModelTokenizer:
    """That of a model or a folder, copied, or one that is trained on the training text."""
    asked = config.tokenizer
    if config.init_from:
        open_parent(config.init_from).copy_tokenizer(folder)
    elif asked.path:
        copy_tokenizer(Path(asked.path), folder)
    else:
        read = {
            code: chain.from_iterable(text.texts() for text in texts[code].train.values())
            for code in languages
        }
        kind: Literal["bytes", "joint"] = "bytes" if asked.kind == "bytes" else "joint"
        trained = train_tokenizer(
            read, vocab_size=asked.vocab_size, kind=kind, algorithm=asked.algorithm
        )
        save_tokenizer(trained, folder)
    return _tokenizer(config, folder)


def _listed(languages: Sequence[str]) -> str:
    few = ", ".join(languages[:12])
    return few if len(languages) <= 12 else f"{few} and {len(languages) - 12} more languages"
