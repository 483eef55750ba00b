"""The comparison: models and a corpus in, a table of similarities and a report out.

Sentences -> `activations.extract` -> `measures.run_units` -> `SimilarityTable`. Each unit (a
language read by a model, a pair of them compared) is kept as it is done, so that a comparison that
was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from repsim.core import (
    Activations,
    ModelRef,
    ParallelCorpus,
    Pooling,
    RunFolder,
    SimilarityTable,
    UsageError,
)
from repsim.core.errors import unknown_name
from repsim.core.pool import available_cores
from repsim.core.progress import progress
from repsim.core.provenance import environment
from repsim.studies.first_token import diagnoses, token_means

if TYPE_CHECKING:
    import pyarrow as pa

    from repsim.corpora.parallel import Sentences
    from repsim.measures import Statistics, SweepUnit
    from repsim.models.inspect import ModelLike

#: One measure or two of each rung of the invariance ladder.
DEFAULT_MEASURES = (
    "unit_correlation", "permutation", "cka", "procrustes", "svcca", "mutual_knn",
)  # fmt: skip
DEFAULT_PAIRINGS = ("same text", "parallel text")
#: Facts about reading that a report shows; the rest stays in the activation files.
EXTRACTION_FACTS = ("tokens", "truncated", "short", "pooling", "dtype", "policy")

#: Arguments of `compare` that `load_model` takes.
LOADING = ("device", "device_map", "dtype", "generic", "allow_network")
#: Arguments of `compare` that say how it is carried out, not what is compared.
NOT_PLANNED = ("out", "force", "workers")

Say = Callable[[str, str], None]


def compare(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    *,
    names: Sequence[str] | None = None,
    tokenizer: Any = None,
    corpus: str | Path | ParallelCorpus | Sentences = "kolibri",
    languages: Sequence[str] | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    limit: int | None = None,
    pairings: Sequence[str] = DEFAULT_PAIRINGS,
    layers: Literal["auto", "all"] = "auto",
    point: str = "resid",
    pooling: Pooling = "mean",
    permutations: int = 100,
    unit: Literal["document", "sentence"] = "document",
    seed: int = 0,
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str | None = None,
    batch_size: int | str = "auto",
    thorough: bool = False,
    generic: bool = False,
    revision: str | None = None,
    allow_network: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    workers: int = 1,
) -> SimilarityTable:
    """Compare models on a parallel corpus; one model on one language with itself, layer by layer.

    Args:
        models: Folders, packaged models ("e5-small"), hub ids ("org/name@revision"), modules of
            `transformers`, alone or as `(module, tokenizer)`; in a mapping, by name.
        names: Names of the models, where they are no mapping.
        tokenizer: Of modules that come without one: one for all, or one for each model.
        corpus: Built-in name, path, list of sentences, mapping from languages to such lists, or
            a `ParallelCorpus`.
        languages: Languages to read; all of the corpus if left out.
        measures: Names of measures.
        limit: At most this many sentences, drawn with `seed`.
        pairings: Which texts are compared: "same text", "parallel text" (one model, two languages),
            "parallel text across models".
        layers: "auto" (all layer pairs on the same text, equal layers on parallel text) or "all".
        point: Hook point.
        pooling: Pooling of tokens.
        permutations: Shuffles of the null; 0 for none, and then no intervals either.
        unit: What nulls shuffle and intervals leave out: documents, where the corpus has them, or
            sentences as if all were independent.
        seed: Seed of samples, shuffles and subsamples.
        device: Where models run; a GPU if there is one. A module stays on an accelerator.
        device_map: How `accelerate` spreads large models: "auto", or part -> device.
        dtype: Type of the weights in memory; by default float32 on a CPU, as stored elsewhere.
        batch_size: Sentences per batch.
        thorough: Expensive measures on parallel text too.
        generic: Allow models without a spec: hook their block list.
        revision: Revision of hub ids that name none.
        allow_network: Fetch what is not here.
        out: Run folder for parts, tables, figures and the report; nothing is written without it
            (activations are cached in any case). A folder that holds a part is completed.
        force: Replace another comparison in the folder.
        workers: Processes; 0 for as many as there are cores.

    Returns:
        The table; `.plot` draws it, `.to_report(folder)` writes it up.

    Raises:
        UsageError: Unknown names, the same model name twice, or a folder that holds something else.
        InputError: Missing or malformed models or corpora, activations with NaN, too few sentences.
        IncompatibleModelsError: A model without a spec.

    Example:
        >>> import tempfile, repsim
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = tempfile.mkdtemp()
        >>> tiny = [write_tiny_model("llama", f"{folder}/{name}", seed=i)
        ...         for i, name in enumerate("ab")]
        >>> table = repsim.compare(tiny, languages=["eng_Latn", "deu_Latn"], limit=30,
        ...                        measures=["cka"], permutations=20)
        >>> table.unique("measure"), table.unique("pairing")
        (['cka'], ['same text', 'parallel text'])
    """
    options = {name: value for name, value in locals().items() if name not in NOT_PLANNED}
    return run_comparison(plan_comparison(**options), out, force=force, workers=workers)


# -- what a comparison will do ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is to be compared: every name looked up, nothing computed yet; see `compare`."""

    models: tuple[ModelRef, ...]
    corpus: ParallelCorpus
    measures: tuple[str, ...]
    statistics: Statistics
    pairings: tuple[str, ...]
    layers: Literal["auto", "all"]
    point: str
    pooling: Pooling
    loading: Mapping[str, Any]
    batch_size: int | str
    thorough: bool

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
            **({"dtype": dtype} if (dtype := self.loading["dtype"]) else {}),
        }

    def expensive(self) -> list[str]:
        """The measures whose every pair of layers needs a decomposition."""
        from repsim.measures import get_measure

        return [name for name in self.measures if get_measure(name).is_expensive]

    def measures_for(self, pairing: str) -> tuple[str, ...]:
        """Parallel text has many more pairs; expensive measures are left to `thorough` ones."""
        expensive = self.expensive()
        cheap = tuple(name for name in self.measures if name not in expensive)
        everything = pairing == "same text" or self.thorough
        return self.measures if everything or (pairing == "parallel text" and not cheap) else cheap

    def plan(self) -> dict[str, Any]:
        """Amount of work: counts, bytes and a rough time (JSON-able)."""
        n, languages = len(self.corpus), len(self.corpus.languages)
        layers = [ref.layers + 1 for ref in self.models]
        expensive = self.expensive()
        comparisons = costly = 0
        for pairing in self.pairings:
            chosen = self.measures_for(pairing)
            cells = self._cells(pairing, layers, languages)
            comparisons += cells * len(chosen)
            costly += cells * sum(name in expensive for name in chosen)
        sizes = (ref.width * count for ref, count in zip(self.models, layers, strict=True))
        return {
            "models": len(self.models),
            "languages": languages,
            "sentences": n,
            "corpus": self.corpus.name,
            "activations": sum(layers) * languages,
            "activation_bytes": 4 * n * languages * sum(sizes),
            "comparisons": comparisons,
            "memory_bytes": self._memory(),
            "device": str(self.loading["device"]),
            "seconds": self._seconds(comparisons, costly),
            "warnings": self._warnings(),
        }

    def _memory(self) -> int:
        """Bytes that the largest unit takes, by its shapes."""
        from repsim.measures import get_measure
        from repsim.measures.memory import unit_bytes

        widest = sorted(self.models, key=lambda ref: ref.width * (ref.layers + 1))[-2:]
        widths = [ref.width for ref in (widest * 2)[:2] for _ in range(ref.layers + 1)]
        chosen = [get_measure(name) for name in self.measures]
        documents = bool(self.corpus.documents) and self.statistics.unit == "document"
        needed = unit_bytes(len(self.corpus), widths, chosen, self.statistics, documents=documents)
        return needed[0]

    def _cells(self, pairing: str, layers: Sequence[int], languages: int) -> int:
        """Layer pairs of one pairing."""
        pairs = [(a, b) for i, a in enumerate(layers) for b in layers[i + 1 :]]
        if pairing == "same text" and len(layers) == 1:
            # One model: its own layers, where nothing else is compared.
            alone = languages == 1 or self.pairings == ("same text",)
            return languages * layers[0] ** 2 if alone else 0
        if pairing == "same text":
            return languages * sum(a * b for a, b in pairs)
        if pairing == "parallel text":
            cells = sum(a * a if self.layers == "all" else a for a in layers)
            return languages * (languages - 1) // 2 * cells
        crossings = sum(a * b if self.layers == "all" else min(a, b) for a, b in pairs)
        return languages * (languages - 1) * crossings

    def _seconds(self, comparisons: int, costly: int) -> float:
        """Rough time, with figures and page: cells by the n and d of this job."""
        characters = sum(len(s) for lang in self.corpus.languages for s in self.corpus[lang])
        body = [12 * ref.layers * ref.width**2 for ref in self.models]
        flops = sum(2 * parameters * characters / 3 for parameters in body)
        width = max(ref.width for ref in self.models)
        # One decomposition per expensive cell, and on average four more for null and interval.
        expensive = 1e-10 * width**3 * (5 if self.statistics.permutations else 1)
        cheap = 0.004 + 2e-8 * len(self.corpus) ** 2
        work = flops / 4e10 + comparisons * cheap + costly * expensive
        figures = 4 + len(self.pairings) * min(len(self.measures), 8)
        # Starting up, opening each model, and each figure were timed on one core.
        return 5 + 1.2 * len(self.models) + work / available_cores() + 0.4 * figures

    def _warnings(self) -> list[str]:
        """What the shape of the job already says about its results."""
        n, widest = len(self.corpus), max(ref.width for ref in self.models)
        found = []
        if n < 100:
            found.append(f"{n} sentences are few: intervals will be wide")
        if n <= widest:
            found.append(
                f"{n} sentences for width {widest}: measures of the CCA family and biased "
                "estimators say little at n <= d; debiased CKA and neighbours do"
            )
        for pairing in self.pairings:
            left_out = [m for m in self.measures if m not in self.measures_for(pairing)]
            if left_out:
                found.append(
                    f"{', '.join(left_out)} not on {pairing}: every pair of layers needs a "
                    "decomposition (all measures: thorough)"
                )
        return [*found, *self.corpus.notes]


def plan_comparison(
    models: Sequence[ModelLike] | Mapping[str, ModelLike], **options: Any
) -> Comparison:
    """Look up every name of `compare`, whose options these are. Reads configs, loads no weights."""
    asked = inspect.signature(compare).bind(models, **options)
    asked.apply_defaults()
    chosen = SimpleNamespace(**asked.arguments)
    from repsim.corpora import load_corpus
    from repsim.evaluation.held_out import best_device
    from repsim.measures import Statistics, get_measure
    from repsim.measures.plan import require_sentences
    from repsim.models import inspect_model, named_models
    from repsim.models.arch import POINTS

    measures = [get_measure(name) for name in chosen.measures]
    if chosen.point not in POINTS:
        raise unknown_name("hook point", chosen.point, POINTS, see="repsim compare --help")
    network = {"allow_network": chosen.allow_network}
    given = named_models(models, chosen.names, tokenizer=chosen.tokenizer)
    finding = {"generic": chosen.generic, "revision": chosen.revision, **network}
    refs = [inspect_model(model, **finding) for model in given]
    names = [ref.name for ref in refs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UsageError(
            f"two models are called '{repeated}'",
            hint="name them: other=PATH, or names=[...]; or pass it once",
        )
    text = load_corpus(
        chosen.corpus, languages=chosen.languages, limit=chosen.limit, seed=chosen.seed, **network
    )
    require_sentences(len(text), measures)
    statistics = (
        Statistics(permutations=chosen.permutations, unit=chosen.unit, seed=chosen.seed)
        if chosen.permutations
        else Statistics.off()
    )
    chosen.models, chosen.corpus, chosen.statistics = tuple(refs), text, statistics
    chosen.measures = tuple(dict.fromkeys(chosen.measures))
    chosen.pairings = tuple(chosen.pairings)
    chosen.device = chosen.device or best_device()
    chosen.loading = {name: getattr(chosen, name) for name in LOADING}
    return Comparison(**{f.name: getattr(chosen, f.name) for f in dataclasses.fields(Comparison)})


# -- carrying it out -------------------------------------------------------------------------------


def run_comparison(
    comparison: Comparison,
    out: str | Path | None = None,
    *,
    force: bool = False,
    workers: int = 1,
    say: Say = lambda label, text: None,
) -> SimilarityTable:
    """Carry out a comparison, telling each step; go on with it if the folder holds a part of it."""
    config = comparison.config()
    run = RunFolder.open(out, kind="compare", config=config, force=force) if out else None
    with run.going() if run else contextlib.nullcontext():
        activations, means = _extract_all(comparison, say)
        table = _sweep(comparison, activations, run, workers, say)
        table = SimilarityTable(table.to_arrow(), {**table.info, "first_token": diagnoses(means)})
    return written_up(table, run, say)


def written_up(table: SimilarityTable, run: RunFolder | None, say: Say) -> SimilarityTable:
    """The table of a comparison, with its report in the folder of the run."""
    if run:
        say("draw", "tables, figures and report")
        table.to_report(run.path)
        run.finish(rows=len(table), report="report.html", table="similarity.parquet")
    return table


def _extract_all(comparison: Comparison, say: Say) -> tuple[list[Activations], dict[str, Any]]:
    """Activations of every model and language, models loaded one after another; token means."""
    from repsim.activations import extract
    from repsim.models import load_model

    everything: list[Activations] = []
    means: dict[str, Any] = {}
    # Of parallel text, where the first token does most, one pair of languages shows it.
    shown = 2 if "parallel text" in comparison.pairings else 1
    for ref in comparison.models:
        say("read", f"{ref.name}: {len(comparison.corpus.languages)} languages")
        model = load_model(ref, label=ref.name, **comparison.loading)
        asked = {"pooling": comparison.pooling, "batch_size": comparison.batch_size}
        everything += extract(model, comparison.corpus, points=(comparison.point,), **asked)
        if comparison.statistics.permutations and comparison.pooling == "mean":
            means[ref.name] = {
                language: token_means(model, comparison.corpus, comparison.point, language)
                for language in comparison.corpus.languages[:shown]
            }
        del model
    return everything, means


def _units(comparison: Comparison, activations: Sequence[Activations]) -> list[SweepUnit]:
    """The sweep of each pairing, with the measures that it gets."""
    from repsim.measures import plan_sweep

    shared = {"point": comparison.point, "statistics": comparison.statistics}
    plan = functools.partial(plan_sweep, activations, **shared)
    units: list[SweepUnit] = []
    for pairing in comparison.pairings:
        if measures := comparison.measures_for(pairing):
            units += plan(measures, pairings=(pairing,), layers=comparison.layers)
    if not units and "same text" in comparison.pairings:
        # One model on one text: its own layers against each other.
        units = plan(comparison.measures, pairings=("same text",), layers="all", self_pairs=True)
    if not units:
        raise UsageError(
            "there is nothing to compare",
            hint="give two models for the same text, or two languages for parallel text",
        )
    return units


def _sweep(
    comparison: Comparison,
    activations: Sequence[Activations],
    run: RunFolder | None,
    workers: int,
    say: Say,
) -> SimilarityTable:
    """All units of the sweep; those that a run folder holds are read, not computed."""
    import pyarrow as pa

    from repsim.measures import run_units, sweep_info, with_q_values

    units = _units(comparison, activations)
    parts: dict[str, pa.Table] = {}
    if run:
        parts = dict(run.parts.read_all(unit.key for unit in units))
        if parts:
            say("resume", f"{len(parts)} of {len(units)} parts are there")
    wanted = [unit for unit in units if unit.key not in parts]
    with progress("comparing", total=sum(u.comparisons for u in units), unit="cell") as bar:
        bar.update(sum(unit.comparisons for unit in units if unit.key in parts))
        device = str(comparison.loading["device"])
        for unit, table in run_units(wanted, device=device, workers=workers):
            parts[unit.key] = table.to_arrow()
            if run:
                run.parts.write(unit.key, parts[unit.key])
            bar.update(unit.comparisons)
    info = sweep_info(units) | {
        "corpus": comparison.corpus.describe(),
        "extraction": extraction_facts(activations),
        "environment": environment(),
    }
    ordered = [parts[unit.key] for unit in units]
    return with_q_values(SimilarityTable(pa.concat_tables(ordered).unify_dictionaries(), info))


def extraction_facts(activations: Sequence[Activations]) -> dict[str, dict[str, Any]]:
    """Model -> language -> what reading it was like."""
    facts: dict[str, dict[str, Any]] = {}
    for acts in activations:
        shown = {key: acts.info[key] for key in EXTRACTION_FACTS if key in acts.info}
        facts.setdefault(acts.model.name, {})[acts.language] = shown
    return facts
