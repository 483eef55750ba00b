"""One model on one language: chunks to parts, parts to a file, the file to `Activations`."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from repsim.activations.distributed import Ranks
from repsim.activations.reader import ChunkReader
from repsim.activations.settings import ExtractionSettings, choose_layers, extraction_key
from repsim.activations.store import (
    LABELS,
    SCHEMA,
    StoredArrays,
    array_key,
    assemble,
    part_path,
    read_header,
    split_key,
    write_part,
)
from repsim.activations.tokens import Encoded, TokenPolicy, length_order
from repsim.core import Activations, InputError, ModelRef, ParallelCorpus
from repsim.core.files import hash_bytes
from repsim.core.progress import progress
from repsim.models.arch import HookPoint

if TYPE_CHECKING:
    from repsim.models.load import LoadedModel

#: Sentences that are lost at most when an extraction is interrupted.
CHUNK_SENTENCES = 256

Encoder = Callable[[Sequence[str], Sequence[str]], list[Encoded]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One model on one language."""

    loaded: LoadedModel
    ref: ModelRef
    corpus: ParallelCorpus
    language: str
    settings: ExtractionSettings
    policy: TokenPolicy
    encoder: Encoder
    batch_size: int | str = "auto"
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def hooks(self) -> list[HookPoint]:
        """Where to read."""
        spec, model = self.loaded.spec, self.loaded.model
        return choose_layers(
            spec.hook_points(model, self.settings.points),
            self.settings.layers,
            depth=spec.n_layers(model.config),
        )

    def metadata(self) -> dict[str, Any]:
        """What the header of the file states; nothing that differs from run to run."""
        return {
            "schema": SCHEMA,
            "weights_hash": self.ref.weights_hash,
            "tokenizer_hash": self.ref.tokenizer_hash,
            "corpus_hash": self.corpus.language_hash(self.language),
            "ids_hash": hash_bytes("\n".join(self.corpus.ids).encode()),
            "language": self.language,
            "pooling": self.settings.pooling,
            "token_policy": self.policy.describe(),
            "dtype": self.settings.dtype,
            "n": len(self.corpus),
            "info": {
                "precision": self.settings.precision,
                "hooks": {
                    array_key(h.point, h.layer): f"{h.module} {h.side}" for h in self.hooks()
                },
                **self.notes,
            },
        }


def run(job: Job, folder: Path, ranks: Ranks) -> Activations:
    """Read one language from the cache, or extract it with all processes."""
    key = extraction_key(job.ref, job.corpus, job.language, job.settings)
    target = folder / f"{quote(job.language, safe='')}-{key[:32]}.safetensors"
    if ranks.all(target.exists()):
        return collect(job, target, {"cached": True})
    order = length_order(job.corpus[job.language])
    chunks = [order[i : i + CHUNK_SENTENCES] for i in range(0, len(order), CHUNK_SENTENCES)]
    work = folder / f".{target.stem}-{CHUNK_SENTENCES}.parts"
    what = f"the extraction of {job.ref.name} on {job.language}"
    try:
        with ranks.together(what):
            told = _read_chunks(job, chunks, work, ranks)
    except InputError:
        # By now no process writes any more. Numbers of a model that gives NaN are not kept.
        shutil.rmtree(work, ignore_errors=True)
        raise
    with ranks.together(what):
        if ranks.first:
            _finish(job, chunks, work, target)
    return collect(job, target, {"cached": False, **told})


def _read_chunks(
    job: Job, chunks: Sequence[np.ndarray], work: Path, ranks: Ranks
) -> dict[str, Any]:
    """Write a part for each chunk of this process that has none; tell how fast it went."""
    texts, ids = job.corpus[job.language], job.corpus.ids
    reader = ChunkReader(
        job.loaded,
        job.hooks(),
        pooling=job.settings.pooling,
        dtype=job.settings.dtype,
        batch_size=job.batch_size,
        autocast=job.settings.precision == "bfloat16 autocast",
        language=job.language,
    )
    mine = ranks.share(len(chunks))
    todo = [chunk for chunk in mine if not part_path(work, chunk).exists()]
    total = sum(len(chunks[chunk]) for chunk in todo)
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        bar = None
        if ranks.first:
            what = f"{job.ref.name} · {job.language}"
            bar = stack.enter_context(progress(what, total=total, unit="sentence"))
        for chunk in todo:
            rows = chunks[chunk].tolist()
            names = [ids[row] for row in rows]
            encoded = job.encoder([texts[row] for row in rows], names)
            write_part(work, chunk, reader.read(encoded, names))
            if bar:
                bar.update(len(rows))
    seconds = time.perf_counter() - began
    return {
        "chunks": len(mine),
        "chunks_computed": len(todo),
        "sentences_per_second": total / seconds if total else None,
    }


def _finish(job: Job, chunks: Sequence[np.ndarray], work: Path, target: Path) -> None:
    """Put the parts together and clear the work folder."""
    try:
        assemble(target, work, chunks, job.metadata(), job.corpus.ids)
    except InputError:
        # Another run of the same extraction may have finished first, and cleared the parts.
        if not target.exists():
            raise
    shutil.rmtree(work, ignore_errors=True)


def collect(job: Job, path: Path, told: dict[str, Any]) -> Activations:
    """What a finished file holds, as `Activations` that read it lazily."""
    header = read_header(path)
    source = StoredArrays(path)
    layers: dict[str, list[int]] = {point: [] for point in job.settings.points}
    for key in header["info"]["hooks"]:
        point, layer = split_key(key)
        layers[point].append(layer)
    covariates = {
        **job.corpus.covariates(job.language),
        "tokens": source.small("tokens").astype(np.float64),
    }
    ids, documents = job.corpus.ids, job.corpus.documents
    if job.settings.pooling == "tokens":
        sentence = np.repeat(np.arange(len(ids)), source.small("rows"))
        labels = source.small(LABELS)
        covariates = {name: values[sentence] for name, values in covariates.items()}
        covariates["position"] = labels.astype(np.float64)
        documents = tuple(documents[i] for i in sentence)
        ids = tuple(f"{ids[i]}#{label}" for i, label in zip(sentence, labels, strict=True))
    stated = {key: header[key] for key in ("pooling", "dtype", "n", "rows")}
    return Activations(
        model=job.ref,
        language=job.language,
        ids=ids,
        layers={point: tuple(sorted(found)) for point, found in layers.items()},
        pooling=job.settings.pooling,
        corpus_hash=header["corpus_hash"],
        source=source,
        covariates=covariates,
        documents=documents,
        info={**stated, "policy": header["token_policy"], **header["info"], **told},
    )
