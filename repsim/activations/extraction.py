"""Sentences through a model: chunks to parts, parts to a file, the file to `Activations`."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from repsim.activations.checksums import MADE_FOR, is_whole, verify
from repsim.activations.distributed import Ranks, join
from repsim.activations.reader import ChunkReader, Watch
from repsim.activations.settings import (
    ExtractionSettings,
    choose_layers,
    config_hash,
    extraction_key,
    with_hashes,
)
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
from repsim.activations.tokens import Encoded, TokenPolicy, encode, length_order, longest_input
from repsim.core import Activations, InputError, ModelRef, ParallelCorpus, Pooling, UsageError
from repsim.core.files import cache_folder, hash_bytes
from repsim.core.progress import progress
from repsim.models.arch import HookPoint
from repsim.models.identity import place_of, weights_in_memory
from repsim.models.in_memory import named_models

if TYPE_CHECKING:
    from repsim.models.inspect import ModelLike
    from repsim.models.load import LoadedModel

_log = logging.getLogger("repsim.activations")
#: Sentences that are lost at most when an extraction is interrupted.
CHUNK_SENTENCES = 256

Encoder = Callable[[Sequence[str], Sequence[str]], list[Encoded]]


def extract(
    model: LoadedModel | ModelLike,
    corpus: ParallelCorpus,
    languages: Sequence[str] | None = None,
    *,
    tokenizer: Any = None,
    points: Sequence[str] = ("resid",),
    layers: Sequence[int] | None = None,
    pooling: Pooling = "mean",
    batch_size: int | str = "auto",
    max_length: int | None = None,
    skip_first: bool = True,
    dtype: str = "float32",
    precision: str = "auto",
    device: str | None = None,
    cache: str | Path | None = None,
    prefix: str = "",
    watch: Watch | None = None,
) -> list[Activations]:
    """Activations of a model on a corpus, one result per language.

    Forward hooks pool tokens into sentences while the plain model runs, and rows are streamed to
    disk: the memory needed does not grow with the number of sentences. What was extracted before,
    with the same weights, tokenizer, sentences and settings, is read from the cache; what was
    interrupted is continued. Under torchrun each process takes a share of the sentences, and all
    return the same.

    Args:
        model: A loaded model, or what `models.load_model` takes. The cache goes by the weights as
            they are in memory, so a model may be changed in place between two calls.
        corpus: Parallel sentences.
        languages: Which of its languages; None for all.
        tokenizer: Of a module that comes without one.
        points: Hook points, see `models.POINTS`.
        layers: Layers to keep, negative ones from the last; None for all.
        pooling: `mean` over tokens, `last` token, `position-weighted` mean, or `tokens` (each token
            a row `sentence#position`). What counts as a token is said in `activations.tokens`.
        batch_size: Sentences per batch, or "auto". It does not change the result.
        max_length: Longest input in tokens, special tokens included; the model's own limit if None.
            Longer sentences are cut, and counted in `info`.
        skip_first: Leave out position 0, be it BOS, CLS or text.
        dtype: Storage type, `float32` or `bfloat16`.
        precision: `float32` to compute in the type of the weights, `bfloat16` for autocast, `auto`
            for autocast over float32 weights on an accelerator.
        device: Where a model given by name runs; the accelerator if there is one. A loaded model
            stays where it is.
        cache: Folder for results; `activations` in the cache folder if None.
        prefix: Text put before every sentence, for models trained with one ("query: ").
        watch: Told of each sentence that is read: its id, its token ids, and its last hidden states
            `[tokens, width]` after the final norm; not of what comes from the cache, nor of what is
            computed in another type than the weights are.

    Returns:
        One `Activations` per language; arrays are read from disk when asked for. `info` states
        `policy` of tokens, `pooling`, `dtype`, `precision`, `tokens` in all, how many sentences
        were `truncated` or too `short` to leave anything out (with the first ids), whether the
        result was `cached` and, if not, `sentences_per_second`.

    Raises:
        UsageError: An argument has a value that is not possible.
        InputError: Model or sentences cannot be read, or activations are NaN or infinite.
        IncompatibleModelsError: The model has no spec.
        ResourceError: Memory, disk or device do not suffice.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = tempfile.mkdtemp()
        >>> corpus = ParallelCorpus("two", ("1", "2"), {"eng_Latn": ("A cat.", "Two dogs bark.")})
        >>> acts = extract(write_tiny_model("llama", folder + "/m"), corpus, cache=folder)[0]
        >>> acts.array("resid", 1).shape, acts.layers["resid"]
        ((2, 32), (0, 1, 2))
    """
    settings = ExtractionSettings(
        points=tuple(points), layers=None if layers is None else tuple(layers), pooling=pooling,
        skip_first=skip_first, max_length=max_length, prefix=prefix, dtype=dtype,
    )  # fmt: skip
    chosen = tuple(languages) if languages is not None else corpus.languages
    for language in chosen:
        corpus[language]  # refuses a language that is not there before a model is loaded
    folder = Path(cache) if cache is not None else cache_folder() / "activations"
    ranks = join()
    loaded = on_device(model, device, ranks, tokenizer)
    settings = complete(settings, loaded, precision)
    ref = with_hashes(loaded, settings.weights)
    policy = settings.policy(longest_input(loaded.model.config, loaded.tokenizer))

    def encoder(texts: Sequence[str], names: Sequence[str]) -> list[Encoded]:
        return encode(loaded.tokenizer, texts, policy, sentence_ids=names)

    jobs = [
        Job(loaded, ref, corpus, language, settings, policy, encoder, batch_size, watch)
        for language in chosen
    ]
    return [run(job, folder, ranks) for job in jobs]


def on_device(
    model: LoadedModel | ModelLike, device: str | None, ranks: Ranks, tokenizer: Any = None
) -> LoadedModel:
    """The model in memory, on the device of this process."""
    import torch

    from repsim.models.load import LoadedModel, load_model

    if isinstance(model, LoadedModel):
        here = place_of(model.model)
        if device is not None and torch.device(device).type != here.type:
            raise UsageError(
                f"model '{model.ref.name}' is on {here}, not on {device}",
                hint=f"load it there: load_model(..., device='{device}')",
            )
        return model
    if device is None:
        device = f"cuda:{ranks.local_rank}" if torch.cuda.is_available() else "cpu"
    return load_model(named_models([model], tokenizer=tokenizer)[0], device=device)


def complete(
    settings: ExtractionSettings, loaded: LoadedModel, precision: str
) -> ExtractionSettings:
    """Settings with what only the loaded model tells: its config and how it computes."""
    import torch

    first, device = next(loaded.model.parameters()), place_of(loaded.model)
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(
            f"precision is '{precision}'", hint="'auto', 'float32' or 'bfloat16' (autocast)"
        )
    autocast = precision == "bfloat16" or (
        precision == "auto" and device.type != "cpu" and first.dtype == torch.float32
    )
    weights = str(first.dtype).removeprefix("torch.")
    return dataclasses.replace(
        settings,
        precision="bfloat16 autocast" if autocast else weights,
        config_hash=config_hash(loaded.model.config),
        weights=weights_in_memory(loaded.model),
    )


# -- one model on one language ---------------------------------------------------------------------


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
    watch: Watch | None = None
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
                "weights": self.settings.weights,
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
    if ranks.all(_is_there(target, key)):
        return collect(job, target, {"cached": True})
    order = length_order(job.corpus[job.language])
    chunks = [order[i : i + CHUNK_SENTENCES] for i in range(0, len(order), CHUNK_SENTENCES)]
    if not _takes_files(folder):
        target = _scratch(folder) / target.name
    work = target.parent / f".{target.stem}-{CHUNK_SENTENCES}.parts"
    what = f"the extraction of {job.ref.name} on {job.language}"
    try:
        with ranks.together(what):
            told = _read_chunks(job, chunks, (work, key), ranks)
    except InputError:
        # By now no process writes any more. Numbers of a model that gives NaN are not kept.
        shutil.rmtree(work, ignore_errors=True)
        raise
    with ranks.together(what):
        if ranks.first:
            _finish(job, chunks, work, (target, key))
    return collect(job, target, {"cached": False, **told})


def _takes_files(folder: Path) -> bool:
    """Whether files can be written into a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            return False
        raise


@functools.cache
def _scratch(folder: Path) -> Path:
    """A folder for this process alone, in place of a cache that cannot be written."""
    found = Path(tempfile.mkdtemp(prefix="repsim-activations-"))
    atexit.register(shutil.rmtree, found, ignore_errors=True)
    _log.warning("'%s' cannot be written: activations are not kept for a later run", folder)
    return found


def _is_there(path: Path, made_for: str) -> bool:
    """Whether a file is there and whole; says so if it is there and is not."""
    if not path.exists():
        return False
    try:
        verify(path, made_for)
    except InputError as error:
        _log.warning("%s; it is made anew", error.what)
        return False
    return True


def _read_chunks(
    job: Job, chunks: Sequence[np.ndarray], place: tuple[Path, str], ranks: Ranks
) -> dict[str, Any]:
    """Write a part for each chunk of this process that has none; tell how fast it went."""
    (work, key), texts, ids = place, job.corpus[job.language], job.corpus.ids
    reader = ChunkReader(
        job.loaded, job.hooks(), pooling=job.settings.pooling, dtype=job.settings.dtype,
        batch_size=job.batch_size, autocast=job.settings.precision == "bfloat16 autocast",
        language=job.language, watch=job.watch,
    )  # fmt: skip
    mine = ranks.share(len(chunks))
    todo = [chunk for chunk in mine if not _is_there(part_path(work, chunk), f"{key}/{chunk}")]
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
            write_part(work, chunk, reader.read(encoded, names), f"{key}/{chunk}")
            if bar:
                bar.update(len(rows))
    seconds = time.perf_counter() - began
    return {
        "chunks": len(mine),
        "chunks_computed": len(todo),
        "sentences_per_second": total / seconds if total else None,
    }


def _finish(job: Job, chunks: Sequence[np.ndarray], work: Path, place: tuple[Path, str]) -> None:
    """Put the parts together and clear the work folder."""
    target, key = place
    try:
        assemble(target, work, chunks, {**job.metadata(), MADE_FOR: key}, job.corpus.ids)
    except InputError:
        # Another run of the same extraction may have finished first, and cleared the parts.
        if not is_whole(target):
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
