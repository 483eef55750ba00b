"""Sentences through a model, and what it makes of them to disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repsim.activations.distributed import Ranks, join
from repsim.activations.job import Job, run
from repsim.activations.settings import ExtractionSettings, config_hash, with_hashes
from repsim.activations.tokens import Encoded, encode, longest_input
from repsim.core import Activations, ModelRef, ParallelCorpus, Pooling, UsageError
from repsim.core.files import cache_folder

if TYPE_CHECKING:
    from repsim.models.load import LoadedModel


def extract(
    model: LoadedModel | ModelRef | str | Path,
    corpus: ParallelCorpus,
    languages: Sequence[str] | None = None,
    *,
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
) -> list[Activations]:
    """Activations of a model on a corpus, one result per language.

    Forward hooks on the plain model pool tokens into sentences while it runs, and rows are streamed
    to
    disk: the memory needed does not grow with the number of sentences. What was extracted before,
    with the same weights, tokenizer, sentences and settings, is read from the cache; what was
    interrupted is continued. Under torchrun each process takes a share of the sentences, and all
    return the same.

    Args:
        model: A loaded model, or what `models.load_model` takes. Whoever changes the weights of a
            loaded model in place must clear `ref.weights_hash`, or the cache answers for the old
            ones.
        corpus: Parallel sentences.
        languages: Which of its languages; None for all.
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
        points=tuple(points),
        layers=None if layers is None else tuple(layers),
        pooling=pooling,
        skip_first=skip_first,
        max_length=max_length,
        prefix=prefix,
        dtype=dtype,
    )
    chosen = tuple(languages) if languages is not None else corpus.languages
    for language in chosen:
        corpus[language]  # refuses a language that is not there before a model is loaded
    folder = Path(cache) if cache is not None else cache_folder() / "activations"
    ranks = join()
    loaded = on_device(model, device, ranks)
    settings = complete(settings, loaded, precision)
    ref = with_hashes(loaded)
    policy = settings.policy(longest_input(loaded.model.config, loaded.tokenizer))

    def encoder(texts: Sequence[str], names: Sequence[str]) -> list[Encoded]:
        return encode(loaded.tokenizer, texts, policy, sentence_ids=names)

    return [
        run(
            Job(loaded, ref, corpus, language, settings, policy, encoder, batch_size),
            folder,
            ranks,
        )
        for language in chosen
    ]


def on_device(
    model: LoadedModel | ModelRef | str | Path, device: str | None, ranks: Ranks
) -> LoadedModel:
    """The model in memory, on the device of this process."""
    import torch

    from repsim.models.load import LoadedModel, load_model

    if isinstance(model, LoadedModel):
        here = next(model.model.parameters()).device
        if device is not None and torch.device(device).type != here.type:
            raise UsageError(
                f"model '{model.ref.name}' is on {here}, not on {device}",
                hint=f"load it there: load_model(..., device='{device}')",
            )
        return model
    if device is None:
        device = f"cuda:{ranks.local_rank}" if torch.cuda.is_available() else "cpu"
    return load_model(model, device=device)


def complete(
    settings: ExtractionSettings, loaded: LoadedModel, precision: str
) -> ExtractionSettings:
    """Settings with what only the loaded model tells: its config and how it computes."""
    import torch

    first = next(loaded.model.parameters())
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(
            f"precision is '{precision}'", hint="'auto', 'float32' or 'bfloat16' (autocast)"
        )
    autocast = precision == "bfloat16" or (
        precision == "auto" and first.device.type != "cpu" and first.dtype == torch.float32
    )
    weights = str(first.dtype).removeprefix("torch.")
    return dataclasses.replace(
        settings,
        precision="bfloat16 autocast" if autocast else weights,
        config_hash=config_hash(loaded.model.config),
    )
