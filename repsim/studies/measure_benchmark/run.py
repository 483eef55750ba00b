"""Planning the benchmark, carrying it out, and going on where it was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core import Measure, ModelRef, ParallelCorpus, RunFolder, UsageError
from repsim.core.files import hash_json
from repsim.core.progress import progress
from repsim.core.provenance import environment
from repsim.measures import get_measure, list_measures
from repsim.studies.measure_benchmark.comparisons import Comparison, Known, Level, comparisons
from repsim.studies.measure_benchmark.table import MeasureScores
from repsim.studies.measure_benchmark.trials import (
    NOISE,
    Advance,
    Rows,
    model_cells,
    model_rows,
    text_cells,
    text_rows,
)

if TYPE_CHECKING:
    from repsim.mergeability.features.declared import Declared

#: Part of every part's key: raise it when the numbers change.
VERSION = "repsim/measure-benchmark/1"
#: Rough CPU seconds: of one value at 300 rows of width 128, and of reading 300 sentences.
SECONDS_PER_VALUE, SECONDS_PER_READING = 0.005, 1.5

Say = Callable[[str, str], None]


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of work that is kept as it is done: a model, a text, or an atlas."""

    kind: str
    name: str
    language: str = ""
    wanted: tuple[Comparison, ...] = ()


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is to be done: every name looked up, nothing computed; see `plan_benchmark`."""

    models: tuple[ModelRef, ...]
    measures: tuple[Measure, ...]
    corpus: ParallelCorpus
    source: str
    parts: tuple[Part, ...]

    def config(self) -> dict[str, Any]:
        """Everything that the numbers depend on (JSON-able)."""
        return {
            "version": VERSION,
            "models": {ref.name: ref.weights_hash for ref in self.models},
            "measures": {m.name: m.describe()["params"] for m in self.measures},
            "corpus": self.corpus.hash,
            "noise": list(NOISE),
            "source": self.source,
            "parts": [[part.kind, part.name, part.language] for part in self.parts],
        }

    def key(self, part: Part) -> str:
        """SHA-256 of what one part depends on."""
        return hash_json([self.config(), part.kind, part.name, part.language])

    def values(self, part: Part) -> int:
        """How many values of a measure a part takes."""
        if part.kind == "atlas":
            return 1
        layers = 1 + max(ref.layers for ref in self.models)
        return model_cells(layers) if part.kind == "model" else text_cells(part.wanted, layers)

    def plan(self) -> dict[str, Any]:
        """Amount of work (JSON-able)."""
        values = len(self.measures) * sum(map(self.values, self.parts))
        readings = sum(
            1 + len(NOISE) if part.kind == "model" else len(self.models)
            for part in self.parts
            if part.kind != "atlas"
        )
        return {
            "models": len(self.models),
            "measures": len(self.measures),
            "sentences": len(self.corpus),
            "corpus": self.corpus.name,
            "parts": len(self.parts),
            "readings": readings,
            "values": values,
            "seconds": values * SECONDS_PER_VALUE + readings * SECONDS_PER_READING,
        }


def plan_benchmark(
    models: Sequence[str | Path] | None = None,
    *,
    measures: Sequence[str] = (),
    corpus: str | Path | ParallelCorpus = "bible-heldout",
    limit: int | None = 300,
    atlases: Sequence[str] = ("cpu_atlas",),
    source: str = "",
    seed: int = 0,
) -> Benchmark:
    """Lay out the benchmark. Reads configs and headers, loads no weights.

    Args:
        models: Folders of models that state their history, all of one depth; the zoo if left out.
        measures: Names; all measures of activations if left out.
        corpus: Parallel text in the languages of the models.
        limit: At most this many sentences, drawn with `seed`.
        atlases: Atlases whose tables are judged too.
        source: What the table calls these models; "zoo" for the zoo, else "models", if left out.
        seed: Seed of the sentences.
    """
    from repsim.corpora import load_corpus
    from repsim.mergeability.features.declared import read_declared
    from repsim.models import inspect_model, list_zoo
    from repsim.models.inspect import locate

    chosen = list(models) if models else [model.name for model in list_zoo()]
    refs = tuple(inspect_model(model) for model in chosen)
    declared = [read_declared(locate(model), None) for model in chosen]
    _require_comparable(refs)
    known = [_known(ref, one) for ref, one in zip(refs, declared, strict=True)]
    everything = load_corpus(corpus)
    wanted = sorted({lang for one in known for lang in one.history} & set(everything.languages))
    if not wanted:
        raise UsageError(
            f"no model states a language of corpus '{everything.name}'",
            hint="models trained by `repsim pretrain` state their history",
        )
    text = load_corpus(corpus, languages=wanted, limit=limit, seed=seed)
    named = list(measures) or [m.name for m in list_measures() if m.reads == "activations"]
    return Benchmark(
        models=refs,
        measures=tuple(map(get_measure, named)),
        corpus=text,
        source=source or ("models" if models else "zoo"),
        parts=tuple(_parts(refs, known, declared, text, atlases)),
    )


def _require_comparable(refs: Sequence[ModelRef]) -> None:
    names = [ref.name for ref in refs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UsageError(f"two models are called '{repeated}'", hint="rename one of the folders")
    depths = {ref.layers: ref.name for ref in refs}
    if len(depths) > 1:
        found = ", ".join(f"{name} has {layers}" for layers, name in depths.items())
        raise UsageError(
            f"the models differ in their number of layers: {found}",
            hint="run the benchmark once for each depth",
        )


def _known(ref: ModelRef, declared: Declared) -> Known:
    read = {language for phase in declared.phases for language in phase.mix}
    return Known(ref.name, frozenset(ref.languages), frozenset(read or ref.languages))


def _parts(
    refs: Sequence[ModelRef],
    known: Sequence[Known],
    declared: Sequence[Declared],
    corpus: ParallelCorpus,
    atlases: Sequence[str],
) -> list[Part]:
    """One part per model, per text that a comparison needs, and per atlas."""
    from repsim.mergeability.features.declared import fork_fraction, shared_init

    by_name = {ref.name: one for ref, one in zip(refs, declared, strict=True)}

    def level(a: str, b: str) -> Level | None:
        found = (shared_init(by_name[a], by_name[b]), fork_fraction(by_name[a], by_name[b]))
        return None if any(number != number for number in found) else found

    parts = []
    for ref in refs:
        own = [language for language in ref.languages if language in corpus.languages]
        parts.append(Part("model", ref.name, (own or list(corpus.languages))[0]))
    every = list(comparisons(known, level, corpus.languages))
    for language in corpus.languages:
        wanted = tuple(c for c in every if c.language == language)
        if wanted:
            parts.append(Part("text", "models", language, wanted))
    return parts + [Part("atlas", name) for name in atlases]


def run_benchmark(
    benchmark: Benchmark,
    out: str | Path,
    *,
    force: bool = False,
    say: Say = lambda label, text: None,
) -> MeasureScores:
    """Carry the benchmark out in a folder, or go on with it; `force` replaces another one."""
    import pyarrow as pa

    run = RunFolder.open(out, kind="measures", config=benchmark.config(), force=force)
    done = dict(run.parts.read_all(benchmark.key(part) for part in benchmark.parts))
    if done:
        say("resume", f"{len(done)} of {len(benchmark.parts)} parts are there")
    with run.going():
        total = len(benchmark.measures) * sum(map(benchmark.values, benchmark.parts))
        with progress("judging", total=total, unit="value") as bar:
            for part in benchmark.parts:
                key = benchmark.key(part)
                if key in done:
                    bar.update(len(benchmark.measures) * benchmark.values(part))
                    continue
                say("judge", f"{part.kind} {part.name} {part.language}".rstrip())
                rows = _rows(benchmark, part, bar.update)
                done[key] = MeasureScores(rows).to_arrow()
                run.parts.write(key, done[key])
    info = {
        benchmark.source: benchmark.config(),
        "corpus": benchmark.corpus.describe(),
        "environment": environment(),
    }
    ordered = [done[benchmark.key(part)] for part in benchmark.parts]
    table = MeasureScores(pa.concat_tables(ordered).unify_dictionaries(), info)
    table.save(run.path)
    run.finish(rows=len(table), table="measure_scores.parquet")
    return table


def _rows(benchmark: Benchmark, part: Part, advance: Advance) -> Rows:
    """The work of one part."""
    measures, source = benchmark.measures, benchmark.source
    if part.kind == "atlas":
        from repsim.studies.atlases import load_atlas
        from repsim.studies.measure_benchmark.atlas import atlas_rows

        rows = atlas_rows(load_atlas(part.name), part.name)
        names = {measure.name for measure in measures}
        advance(len(measures))
        return [row for row in rows if row["measure"] in names]
    if part.kind == "model":
        ref = next(ref for ref in benchmark.models if ref.name == part.name)
        judged = model_rows(ref, benchmark.corpus, part.language, measures, advance)
    else:
        judged = text_rows(
            benchmark.models, benchmark.corpus, part.language, part.wanted, measures, advance
        )
    return [{**row, "source": source} for row in judged]
