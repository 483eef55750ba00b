"""What a comparison will do: every name looked up, nothing computed, the amount of work known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core import ModelRef, ParallelCorpus, Pooling, UsageError

if TYPE_CHECKING:
    from repsim.measures import Statistics

#: One measure or two of each rung of the invariance ladder.
DEFAULT_MEASURES = (
    "unit_correlation",
    "permutation",
    "cka",
    "procrustes",
    "svcca",
    "mutual_knn",
)
DEFAULT_PAIRINGS = ("same text", "parallel text")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is to be compared: every name looked up, nothing computed yet.

    Attributes:
        models: Identity of each model, in the order given.
        corpus: The sentences that all of them read.
        measures: Names of the measures.
        statistics: Nulls, intervals and covariates.
        pairings: "same text", "parallel text", "parallel text across models".
        layers: "auto" or "all", see `measures.plan_sweep`.
        point: Hook point that is compared.
        pooling: How tokens become sentences.
        loading: How models are loaded: device, generic, allow_network.
        batch_size: Sentences per batch, or "auto".
        thorough: Whether parallel text gets every measure, also those that need a decomposition for
            each pair of layers.
        warnings: What the user should know before it starts.
    """

    models: tuple[ModelRef, ...]
    corpus: ParallelCorpus
    measures: tuple[str, ...]
    statistics: Statistics
    pairings: tuple[str, ...] = DEFAULT_PAIRINGS
    layers: str = "auto"
    point: str = "resid"
    pooling: Pooling = "mean"
    loading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int | str = "auto"
    thorough: bool = False
    warnings: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """Everything that the numbers depend on (JSON-able): the identity of a run."""
        return {
            "models": {ref.name: ref.weights_hash for ref in self.models},
            "corpus": self.corpus.hash,
            "languages": list(self.corpus.languages),
            "measures": list(self.measures),
            "statistics": dataclasses.asdict(self.statistics),
            "pairings": list(self.pairings),
            "layers": self.layers,
            "point": self.point,
            "pooling": self.pooling,
            "thorough": self.thorough,
        }

    def plan(self) -> dict[str, Any]:
        """Amount of work: counts, bytes and a rough time (JSON-able)."""
        n, languages = len(self.corpus), len(self.corpus.languages)
        layers = [ref.layers + 1 for ref in self.models]
        same, parallel = self._cells(layers, languages)
        quick, dear = self._quick_and_dear()
        comparisons = same * len(self.measures) + parallel * (
            len(self.measures) if self.thorough or not quick else quick
        )
        activations = sum(layers) * languages
        return {
            "models": len(self.models),
            "languages": languages,
            "sentences": n,
            "corpus": self.corpus.name,
            "activations": activations,
            "activation_bytes": 4
            * n
            * languages
            * sum(ref.width * count for ref, count in zip(self.models, layers, strict=True)),
            "comparisons": comparisons,
            "device": str(self.loading.get("device", "cpu")),
            "seconds": self._seconds(comparisons, dear * (same + parallel * self.thorough)),
            "warnings": list(self.warnings),
        }

    def _cells(self, layers: Sequence[int], languages: int) -> tuple[int, int]:
        """Layer pairs of the two pairings."""
        pairs = [(a, b) for i, a in enumerate(layers) for b in layers[i + 1 :]]
        same = languages * sum(a * b for a, b in pairs) if "same text" in self.pairings else 0
        crossed = languages * (languages - 1) // 2
        grid = [a * a if self.layers == "all" else a for a in layers]
        parallel = crossed * sum(grid) if "parallel text" in self.pairings else 0
        if "parallel text across models" in self.pairings:
            crossings = [a * b if self.layers == "all" else min(a, b) for a, b in pairs]
            parallel += languages * (languages - 1) * sum(crossings)
        return same, parallel

    def _quick_and_dear(self) -> tuple[int, int]:
        """Number of measures whose pairs are cheap, and of the others."""
        from repsim.measures import get_measure, is_dear

        dear = sum(is_dear(get_measure(name)) for name in self.measures)
        return len(self.measures) - dear, dear

    def _seconds(self, comparisons: int, dear_comparisons: int) -> float:
        """Rough time: forward passes at 20 GFLOP/s a core, cells by the n and d of this job."""
        from repsim.core.pool import available_cores

        cores = available_cores()
        characters = sum(len(s) for lang in self.corpus.languages for s in self.corpus[lang])
        body = [12 * ref.layers * ref.width**2 for ref in self.models]
        flops = sum(2 * parameters * characters / 3 for parameters in body)
        width = max(ref.width for ref in self.models)
        # One decomposition per dear cell, and on average four more for its null and interval.
        dear = 5 * 2e-10 * width**3 if self.statistics.permutations else 2e-10 * width**3
        cheap = 0.004 + 2e-8 * len(self.corpus) ** 2
        return 5 + (flops / 2e10 + comparisons * cheap + dear_comparisons * dear) / cores


def plan_comparison(
    models: Sequence[str | Path | ModelRef],
    *,
    corpus: str | Path | ParallelCorpus = "kolibri",
    languages: Sequence[str] | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    limit: int | None = None,
    pairings: Sequence[str] = DEFAULT_PAIRINGS,
    layers: str = "auto",
    point: str = "resid",
    pooling: Pooling = "mean",
    permutations: int = 100,
    interval_unit: str = "sentence",
    seed: int = 0,
    device: str | None = None,
    batch_size: int | str = "auto",
    thorough: bool = False,
    generic: bool = False,
    allow_network: bool = False,
) -> Comparison:
    """Look up every name and say what there is to do. Reads configs and headers, loads no weights.

    Args:
        models: Folders, packaged models, hub identifiers.
        corpus: Built-in name, path, or a corpus.
        languages: Languages to read; all of the corpus if left out.
        measures: Names of measures.
        limit: At most this many sentences, drawn with `seed`.
        pairings: Which texts are compared.
        layers: "auto" or "all".
        point: Hook point.
        pooling: Pooling of tokens.
        permutations: Shuffles of the null; 0 for none, and then no intervals either.
        interval_unit: "sentence" or "document".
        seed: Seed of samples, shuffles and subsamples.
        device: Where models run; a GPU if there is one.
        batch_size: Sentences per batch.
        thorough: Every measure on parallel text too.
        generic: Allow models without a spec.
        allow_network: Fetch what is not here.

    Raises:
        UsageError: Unknown names, or the same model name twice.
        InputError: Missing or malformed models or corpora.
        IncompatibleModelsError: A model without a spec.
    """
    from repsim.corpora import load_corpus
    from repsim.measures import Statistics, get_measure
    from repsim.models import inspect_model

    for name in measures:
        get_measure(name)
    refs = [inspect_model(model, generic=generic, allow_network=allow_network) for model in models]
    names = [ref.name for ref in refs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UsageError(
            f"two models are called '{repeated}'", hint="rename one of the folders, or pass it once"
        )
    text = load_corpus(
        corpus, languages=languages, limit=limit, seed=seed, allow_network=allow_network
    )
    statistics = (
        Statistics(permutations=permutations, unit=interval_unit, seed=seed)
        if permutations
        else Statistics.off()
    )
    return Comparison(
        models=tuple(refs),
        corpus=text,
        measures=tuple(dict.fromkeys(measures)),
        statistics=statistics,
        pairings=tuple(pairings),
        layers=layers,
        point=point,
        pooling=pooling,
        loading={
            "device": device or _best_device(),
            "generic": generic,
            "allow_network": allow_network,
        },
        batch_size=batch_size,
        thorough=thorough,
        warnings=(*_warnings(refs, text), *text.notes),
    )


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _warnings(refs: Sequence[ModelRef], corpus: ParallelCorpus) -> list[str]:
    """What the shape of the job already says about its results."""
    found = []
    if len(corpus) < 100:
        found.append(f"{len(corpus)} sentences are few: intervals will be wide")
    widest = max(ref.width for ref in refs)
    if len(corpus) <= widest:
        found.append(
            f"{len(corpus)} sentences for width {widest}: measures of the CCA family and biased "
            "estimators say little at n <= d; debiased CKA and neighbours do"
        )
    return found
