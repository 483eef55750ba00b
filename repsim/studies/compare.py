"""The comparison: models and a corpus in, a table of similarities and a report out.

One way through: sentences -> `activations.extract` -> `measures.sweep` -> `SimilarityTable`. Each
unit of work (a language read by a model, a pair of them compared) is kept as it is done, so that a
comparison that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core import (
    Activations,
    ModelRef,
    ParallelCorpus,
    RunFolder,
    SimilarityTable,
    UsageError,
)
from repsim.core.progress import progress
from repsim.core.provenance import environment
from repsim.studies.comparison import Comparison, plan_comparison

if TYPE_CHECKING:
    from repsim.measures import SweepRequest

#: Facts about reading that a report shows; the rest stays in the activation files.
EXTRACTION_FACTS = ("tokens", "truncated", "short", "pooling", "dtype", "policy")

Say = Callable[[str, str], None]


def _silent(label: str, text: str) -> None:
    """Say nothing: the default of the Python interface."""


def run_comparison(
    comparison: Comparison,
    out: str | Path | None = None,
    *,
    force: bool = False,
    say: Say = _silent,
) -> SimilarityTable:
    """Carry out a comparison; go on with it if the folder holds a part of it.

    Args:
        comparison: What `plan_comparison` returned.
        out: Run folder for parts, tables, figures and the report; nothing is written without it
            (activations are cached in any case).
        force: Replace another comparison in the folder.
        say: Called with a label and a text at each step.

    Raises:
        UsageError: The folder holds something else.
        InputError: Activations with NaN, too few sentences for a measure.
    """
    run = (
        RunFolder.open(out, kind="compare", config=comparison.config(), force=force)
        if out
        else None
    )
    try:
        activations = _extract_all(comparison, say)
        table = _sweep(comparison, activations, run, say)
    except BaseException as error:
        if run:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            run.stop(status, str(error) or type(error).__name__)
        raise
    if run:
        say("draw", "tables, figures and report")
        table.to_report(run.path)
        run.finish(rows=len(table), report="report.html", table="similarity.parquet")
    return table


def _extract_all(comparison: Comparison, say: Say) -> list[Activations]:
    """Activations of every model and language; models are loaded one after another."""
    from repsim.activations import extract
    from repsim.models import load_model

    everything: list[Activations] = []
    for ref in comparison.models:
        say("read", f"{ref.name}: {len(comparison.corpus.languages)} languages")
        model = load_model(ref, label=ref.name, **comparison.loading)
        everything += extract(
            model,
            comparison.corpus,
            points=(comparison.point,),
            pooling=comparison.pooling,
            batch_size=comparison.batch_size,
        )
        del model
    return everything


def _requests(comparison: Comparison, activations: Sequence[Activations]) -> list[SweepRequest]:
    """The sweep of the same text with all measures, and that of parallel text.

    Parallel text has many more pairs; measures that need a decomposition for each pair are left to
    `thorough` comparisons there.
    """
    from repsim.measures import SweepRequest, get_measure, is_dear

    quick = tuple(m for m in comparison.measures if not is_dear(get_measure(m)))
    chosen = {
        "same text": comparison.measures,
        "parallel text": comparison.measures if comparison.thorough or not quick else quick,
        "parallel text across models": comparison.measures if comparison.thorough else quick,
    }
    return [
        SweepRequest(
            activations=tuple(activations),
            measures=chosen[pairing],
            pairings=(pairing,),
            layers=comparison.layers,
            point=comparison.point,
            statistics=comparison.statistics,
        )
        for pairing in comparison.pairings
    ]


def _sweep(
    comparison: Comparison, activations: Sequence[Activations], run: RunFolder | None, say: Say
) -> SimilarityTable:
    """All units of the sweep; those that a run folder holds are read, not computed."""
    import pyarrow as pa

    from repsim.measures import run_units, sweep_info, units_of

    requests = _requests(comparison, activations)
    units = units_of(requests)
    if not units:
        raise UsageError(
            "there is nothing to compare",
            hint="give two models for the same text, or two languages for parallel text",
        )
    parts: dict[int, pa.Table] = {}
    if run:
        there = run.parts.read_all(unit.key for unit in units)
        parts = {i: there[unit.key] for i, unit in enumerate(units) if unit.key in there}
        if parts:
            say("resume", f"{len(parts)} of {len(units)} parts are there")
    wanted = [i for i in range(len(units)) if i not in parts]
    with progress("comparing", total=sum(u.comparisons for u in units), unit="cell") as bar:
        bar.update(sum(units[i].comparisons for i in parts))
        for i, table in run_units(requests, wanted, device=str(comparison.loading["device"])):
            parts[i] = table.to_arrow()
            if run:
                run.parts.write(units[i].key, parts[i])
            bar.update(units[i].comparisons)
    info = sweep_info(units) | {
        "corpus": comparison.corpus.describe(),
        "extraction": _extraction_facts(activations),
        "environment": environment(),
    }
    ordered = [parts[i] for i in range(len(units))]
    return SimilarityTable(pa.concat_tables(ordered).unify_dictionaries(), info)


def _extraction_facts(activations: Sequence[Activations]) -> dict[str, dict[str, Any]]:
    """Model -> language -> what reading it was like."""
    facts: dict[str, dict[str, Any]] = {}
    for acts in activations:
        shown = {key: acts.info[key] for key in EXTRACTION_FACTS if key in acts.info}
        facts.setdefault(acts.model.name, {})[acts.language] = shown
    return facts


def compare(
    models: Sequence[str | Path | ModelRef],
    *,
    corpus: str | Path | ParallelCorpus = "kolibri",
    out: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> SimilarityTable:
    """Compare models on a parallel corpus.

    Args:
        models: Folders, packaged models ("e5-small"), hub identifiers.
        corpus: Built-in name, path, or a `ParallelCorpus`.
        out: Folder for tables, figures and the report.
        force: Replace another comparison in the folder.
        **options: See `plan_comparison`.

    Returns:
        The table; `.plot` draws it, `.to_report(folder)` writes it up.

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
    return run_comparison(plan_comparison(models, corpus=corpus, **options), out, force=force)
