"""What a similarity table says, in words.

Every sentence is computed from the table and states the numbers that it rests on. A finding that
the table cannot support (no null, too few sentences, no such measure) is not made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from repsim.core import SimilarityTable
from repsim.core.similarity_summary import matched_cells

#: Below this calibrated score two representations share next to nothing beyond the null.
NEGLIGIBLE = 0.05
#: A covariate matters if removing it takes away this share of the value above the null.
COVARIATE_SHARE = 0.25
#: Fewer sentences than this give wide intervals and coarse nulls.
FEW_SENTENCES = 100


@dataclasses.dataclass(frozen=True)
class Finding:
    """One statement.

    Attributes:
        kind: "result" for what was found, "warning" for what limits it.
        text: The statement, with its numbers.
    """

    kind: Literal["result", "warning"]
    text: str


def findings(table: SimilarityTable) -> list[Finding]:
    """All statements that the table supports: results first, warnings last.

    Example:
        >>> findings(SimilarityTable([]))
        [Finding(kind='warning', text='The table is empty: nothing was compared.')]
    """
    if len(table) == 0:
        return [Finding("warning", "The table is empty: nothing was compared.")]
    measure = main_measure(table)
    results = [
        *_same_text(table, measure),
        *_ladder_gap(table),
        *_parallel_text(table, measure),
    ]
    return [*results, *_covariates(table, measure), *_small_n(table), *_notes(table)]


def main_measure(table: SimilarityTable) -> str:
    """The measure that the words are about: debiased CKA if it is there, else the first."""
    names = table.unique("measure")
    return "cka" if "cka" in names else str(names[0])


def label_of(table: SimilarityTable, measure: str) -> str:
    """Name of a measure in running text."""
    declared = table.info.get("measures", {}).get(measure, {})
    return str(declared.get("label", measure))


def _pairs(table: SimilarityTable) -> list[tuple[str, str]]:
    pairs = dict.fromkeys(
        (row["model_a"], row["model_b"]) for row in table.rows() if row["model_a"] != row["model_b"]
    )
    return list(pairs)


def _matched(rows: Sequence[dict[str, Any]], column: str) -> float:
    """Mean of a column over matched relative depth, NaN if nothing has a value."""
    valued = [row for row in rows if row[column] is not None]
    return float(np.mean([row[column] for row in matched_cells(valued)])) if valued else np.nan


def _by_language(table: SimilarityTable) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.rows():
        groups.setdefault((row["language_a"], row["language_b"]), []).append(row)
    return groups


def _range_over_languages(values: dict[str, float]) -> str:
    low, high = min(values, key=lambda k: values[k]), max(values, key=lambda k: values[k])
    if len(values) == 1:
        return f"{values[low]:.2f} in {low}"
    mean = float(np.mean(list(values.values())))
    return (
        f"{mean:.2f} on average over {len(values)} languages "
        f"(lowest {values[low]:.2f} in {low}, highest {values[high]:.2f} in {high})"
    )


def _above_null(rows: Sequence[dict[str, Any]]) -> str:
    """How many cells lie above the null after correction for the choice among layers."""
    tested = [row for row in rows if row["p_adjusted"] is not None]
    if not tested:
        return "No null was computed."
    above = sum(row["p_adjusted"] <= 0.05 for row in tested)
    return (
        f"{above} of {len(tested)} layer pairs lie beyond what shuffled sentences give "
        "(p ≤ 0.05, corrected for the choice among layers)."
    )


def _same_text(table: SimilarityTable, measure: str) -> list[Finding]:
    made = []
    for a, b in _pairs(table):
        chosen = table.where(model_a=a, model_b=b, measure=measure, pairing="same text")
        groups = _by_language(chosen)
        values = {pair[0]: _matched(rows, "value") for pair, rows in groups.items()}
        values = {language: v for language, v in values.items() if np.isfinite(v)}
        if not values:
            continue
        text = (
            f"{a} and {b}, reading the same sentences: {label_of(table, measure)} at matched depth "
            f"is {_range_over_languages(values)}. {_above_null(list(chosen.rows()))}"
        )
        made.append(Finding("result", text))
    return made


def _calibrated(table: SimilarityTable, measure: str) -> float:
    return _matched(list(table.where(measure=measure).rows()), "calibrated")


def _ladder_gap(table: SimilarityTable) -> list[Finding]:
    """Read the gap between the identity rung and the orthogonal rung of each pair."""
    declared = table.info.get("measures", {})
    rungs = {name: d.get("rung") for name, d in declared.items()}
    identity = next((m for m, rung in rungs.items() if rung == "L0"), None)
    if identity is None or "cka" not in declared:
        return []
    made = []
    for a, b in _pairs(table):
        pair = table.where(model_a=a, model_b=b, pairing="same text")
        geometry, units = _calibrated(pair, "cka"), _calibrated(pair, identity)
        if not np.isfinite(geometry):
            continue
        if not np.isfinite(units):
            made.append(Finding("result", _no_common_units(table, a, b)))
            continue
        numbers = (
            f"(calibrated, 0 = shuffled, 1 = identical: {label_of(table, 'cka')} {geometry:.2f}, "
            f"{label_of(table, identity)} {round(units, 2) + 0.0:.2f})"
        )
        words = _gap_in_words(geometry, units, averageable=_same_shape(table, a, b))
        made.append(Finding("result", f"{a} and {b} {words} {numbers}."))
    return made


def _same_shape(table: SimilarityTable, a: str, b: str) -> bool:
    """Whether two models are of one architecture and size, so that weights could be averaged."""
    models = table.info.get("models", {})
    shapes = [
        tuple(models.get(m, {}).get(key) for key in ("architecture", "layers", "width"))
        for m in (a, b)
    ]
    return shapes[0] == shapes[1]


def _gap_in_words(geometry: float, units: float, *, averageable: bool) -> str:
    if geometry <= NEGLIGIBLE:
        return "share little geometry beyond chance: no change of coordinates can make up for it"
    if units <= NEGLIGIBLE:
        apart = (
            "share geometry but not coordinates: unit i of one has nothing to do with unit i of "
            "the other"
        )
        if averageable:
            return f"{apart}, so averaging their weights as they are would mix unrelated units"
        return f"{apart}; their weights could not be averaged anyway, for their shapes differ"
    if units < 0.5 * geometry:
        return "share part of their coordinates, and more of their geometry"
    return "agree unit by unit about as much as in geometry: they share their coordinates"


def _no_common_units(table: SimilarityTable, a: str, b: str) -> str:
    widths = [table.info.get("models", {}).get(m, {}).get("width") for m in (a, b)]
    return (
        f"{a} and {b} cannot be compared unit by unit (widths {widths[0]} and {widths[1]}): "
        "their weights cannot be averaged."
    )


def _parallel_text(table: SimilarityTable, measure: str) -> list[Finding]:
    made = []
    parallel = table.where(pairing="parallel text", measure=measure)
    for model in parallel.unique("model_a"):
        chosen = parallel.where(model_a=model, model_b=model)
        groups = _by_language(chosen)
        values = {" ↔ ".join(pair): _matched(rows, "value") for pair, rows in groups.items()}
        values = {pair: v for pair, v in values.items() if np.isfinite(v)}
        if not values:
            continue
        means: dict[int, list[float]] = {}
        for row in chosen.rows():
            if row["value"] is not None and row["layer_a"] == row["layer_b"]:
                means.setdefault(row["layer_a"], []).append(row["value"])
        distance = table.info.get("measures", {}).get(measure, {}).get("direction") == "distance"
        pick = min if distance else max
        best = pick(means, key=lambda layer: float(np.mean(means[layer])))
        low = min(values, key=lambda k: values[k])
        high = max(values, key=lambda k: values[k])
        spread = f" (from {values[low]:.2f} for {low} to {values[high]:.2f} for {high})"
        made.append(
            Finding(
                "result",
                f"{model}, reading translations: {label_of(table, measure)} between languages is "
                f"{np.mean(list(values.values())):.2f} on average over layers and {len(values)} "
                f"language pair{'s' + spread if len(values) > 1 else ''}; languages are "
                f"most alike after layer {best} ({np.mean(means[best]):.2f}).",
            )
        )
    return made


def _covariates(table: SimilarityTable, measure: str) -> list[Finding]:
    """Warn where a covariate such as sentence length carries much of the similarity."""
    names = table.info.get("statistics", {}).get("covariates") or []
    what = " and ".join(str(name).replace("_", " ") for name in names) or "the covariates"
    made = []
    for pairing in table.unique("pairing"):
        chosen = table.where(pairing=pairing, measure=measure)
        for models in dict.fromkeys((r["model_a"], r["model_b"]) for r in chosen.rows()):
            rows = list(chosen.where(model_a=models[0], model_b=models[1]).rows())
            rows = [r for r in rows if r["value"] is not None and r["partial"] is not None]
            if not rows:
                continue
            value, partial, null = (_matched(rows, c) for c in ("value", "partial", "null_mean"))
            excess = value - (null if np.isfinite(null) else 0.0)
            if excess > NEGLIGIBLE and (value - partial) > COVARIATE_SHARE * excess:
                who = models[0] if models[0] == models[1] else f"{models[0]} and {models[1]}"
                made.append(
                    Finding(
                        "warning",
                        f"{who}, {pairing}: {what} carries a good part of the similarity; without "
                        f"it {label_of(table, measure)} falls from {value:.2f} to {partial:.2f}.",
                    )
                )
    return made


def _small_n(table: SimilarityTable) -> list[Finding]:
    n = int(table.column("n").min())
    if n >= FEW_SENTENCES:
        return []
    return [
        Finding(
            "warning",
            f"Only {n} sentences: intervals are wide and nulls are coarse. Use a larger corpus "
            "before drawing conclusions.",
        )
    ]


def _notes(table: SimilarityTable) -> list[Finding]:
    """Warnings that measures attached to their cells, counted."""
    counts: dict[tuple[str, str], int] = {}
    for row in table.rows():
        for note in filter(None, (row["note"] or "").split("; ")):
            counts[note, row["measure"]] = counts.get((note, row["measure"]), 0) + 1
    by_note: dict[str, list[str]] = {}
    for (note, measure), count in counts.items():
        by_note.setdefault(note, []).append(f"{label_of(table, measure)}, {count} cells")
    made = [Finding("warning", f"{note} ({'; '.join(who)}).") for note, who in by_note.items()]
    for model, document in table.info.get("extraction", {}).items():
        for language, facts in document.items():
            if truncated := facts.get("truncated", 0):
                text = f"{model} read only the beginning of {truncated} sentences in {language}."
                made.append(Finding("warning", text))
    return made
