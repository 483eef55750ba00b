"""What a similarity table says, in words: `comparison_findings.yaml` evaluated over its cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import numpy as np

from repsim.core import SimilarityTable
from repsim.core.similarity_summary import matched_cells
from repsim.stats.statements import Statement, read_entries, statements


def findings(table: SimilarityTable) -> list[Statement]:
    """All statements that the table supports: results first, warnings last."""
    if len(table) == 0:
        empty = "The table is empty: nothing was compared."
        return [Statement("empty", empty, kind="warning")]
    entries = read_entries(resources.files("repsim.reports").joinpath("comparison_findings.yaml"))
    return statements(entries, _offered(table))


def main_measure(table: SimilarityTable) -> str:
    """The measure that the words are about: debiased CKA if it is there, else the first."""
    names = table.unique("measure")
    return "cka" if "cka" in names else str(names[0])


def label_of(table: SimilarityTable, measure: str) -> str:
    """Name of a measure in running text."""
    return str(table.info.get("measures", {}).get(measure, {}).get("label", measure))


def _offered(table: SimilarityTable) -> dict[str, Any]:
    """What the entries may name."""
    measure = main_measure(table)
    extraction = table.info.get("extraction", {})
    return {
        "same_text": list(_same_text(table, measure)), "rungs": list(_rungs(table)),
        "parallel_text": list(_parallel_text(table, measure)),
        "halves": list(_halves(table, measure)), "discoveries": _discoveries(table),
        "first_token": list(_first_token(table)),
        "covariates": list(_covariates(table, measure)), "notes": _notes(table),
        "n": int(table.column("n").min()), "mean": lambda values: float(np.mean(list(values))),
        "truncated": [
            {"model": model, "language": language, "count": facts["truncated"]}
            for model, document in extraction.items()
            for language, facts in document.items() if facts.get("truncated")
        ],
    }  # fmt: skip


def _pairs(table: SimilarityTable) -> list[tuple[str, str]]:
    pairs = zip(table.column("model_a"), table.column("model_b"), strict=True)
    return [(a, b) for a, b in dict.fromkeys(pairs) if a != b]


def _matched(rows: Sequence[dict[str, Any]], column: str) -> float:
    """Mean of a column over matched relative depth, NaN if nothing has a value."""
    valued = [row for row in rows if row[column] is not None]
    return float(np.mean([row[column] for row in matched_cells(valued)])) if valued else np.nan


def _by_language(table: SimilarityTable) -> list[tuple[str, float]]:
    """Language (pair) -> mean over matched depth, where it has one."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.rows():
        groups.setdefault((row["language_a"], row["language_b"]), []).append(row)
    values = {}
    for pair, rows in groups.items():
        name = " ↔ ".join(dict.fromkeys(language or "the rows given" for language in pair))
        values[name] = _matched(rows, "value")
    return [(name, value) for name, value in values.items() if np.isfinite(value)]


def _same_text(table: SimilarityTable, measure: str) -> Iterator[dict[str, Any]]:
    for a, b in _pairs(table):
        chosen = table.where(model_a=a, model_b=b, measure=measure, pairing="same text")
        if languages := _by_language(chosen):
            p = chosen.column("p_adjusted")
            tested, above = int(np.isfinite(p).sum()), int((p <= 0.05).sum())
            yield {"a": a, "b": b, "label": label_of(table, measure), "languages": languages,
                   "tested": tested, "above": above}  # fmt: skip


def _rungs(table: SimilarityTable) -> Iterator[dict[str, Any]]:
    """Calibrated scores of each pair on the identity rung and on the orthogonal rung."""
    declared, models = table.info.get("measures", {}), table.info.get("models", {})
    identity = next((name for name, d in declared.items() if d.get("rung") == "L0"), None)
    if identity is None or "cka" not in declared:
        return
    for a, b in _pairs(table):
        pair = table.where(model_a=a, model_b=b, pairing="same text")
        geometry, units = (
            _matched(list(pair.where(measure=name).rows()), "calibrated")
            for name in ("cka", identity)
        )
        about = [models.get(name, {}) for name in (a, b)]
        shapes = [[m.get(key) for key in ("architecture", "layers", "width")] for m in about]
        if np.isfinite(geometry):
            yield {"a": a, "b": b, "geometry": geometry,
                   "units": units if np.isfinite(units) else None,
                   "labels": [label_of(table, name) for name in ("cka", identity)],
                   "widths": [m.get("width") for m in about],
                   "averageable": shapes[0] == shapes[1]}  # fmt: skip


def _parallel_text(table: SimilarityTable, measure: str) -> Iterator[dict[str, Any]]:
    parallel = table.where(pairing="parallel text", measure=measure)
    distance = table.info.get("measures", {}).get(measure, {}).get("direction") == "distance"
    for model in parallel.unique("model_a"):
        chosen = parallel.where(model_a=model, model_b=model)
        if pairs := _by_language(chosen):
            layers: dict[int, list[float]] = {}
            for row in chosen.rows():
                if row["value"] is not None and row["layer_a"] == row["layer_b"]:
                    layers.setdefault(row["layer_a"], []).append(row["value"])
            means = {layer: float(np.mean(values)) for layer, values in layers.items()}
            best = (min if distance else max)(means, key=lambda layer: means[layer])
            yield {"model": model, "label": label_of(table, measure), "pairs": pairs,
                   "layer": best, "best": means[best]}  # fmt: skip


def _covariates(table: SimilarityTable, measure: str) -> Iterator[dict[str, Any]]:
    """Value with and without covariates such as sentence length, by pair and pairing."""
    names = table.info.get("statistics", {}).get("covariates") or []
    what = " and ".join(str(name).replace("_", " ") for name in names) or "the covariates"
    for pairing in table.unique("pairing"):
        chosen = table.where(pairing=pairing, measure=measure)
        models = zip(chosen.column("model_a"), chosen.column("model_b"), strict=True)
        for a, b in dict.fromkeys(models):
            rows = [row for row in chosen.where(model_a=a, model_b=b).rows()
                    if row["value"] is not None and row["partial"] is not None]  # fmt: skip
            if rows:
                value, partial, null = (
                    _matched(rows, column) for column in ("value", "partial", "null_mean")
                )
                yield {"who": a if a == b else f"{a} and {b}", "pairing": pairing, "what": what,
                       "label": label_of(table, measure), "value": value, "partial": partial,
                       "null": null}  # fmt: skip


def _halves(table: SimilarityTable, measure: str) -> Iterator[dict[str, Any]]:
    """Value across halves of documents beside its ceiling, mean over languages and depth."""
    for a, b in _pairs(table):
        rows = list(table.where(model_a=a, model_b=b, measure=measure, pairing="same text").rows())
        across, top = (
            [row[name] for row in rows if row["ceiling"] is not None]
            for name in ("across_halves", "ceiling")
        )
        if top:
            yield {"a": a, "b": b, "label": label_of(table, measure),
                   "across": float(np.mean(across)), "ceiling": float(np.mean(top))}  # fmt: skip


def _discoveries(table: SimilarityTable) -> list[dict[str, Any]]:
    """Measure -> cells tested in the whole table, and those at a false discovery rate of 5 %."""
    found = []
    for measure in table.unique("measure"):
        q = table.where(measure=measure).column("q_value")
        if np.isfinite(q).any():
            found.append({"label": label_of(table, measure), "tested": int(np.isfinite(q).sum()),
                          "found": int((q <= 0.05).sum())})  # fmt: skip
    return found


#: Numbers of a note that differ from cell to cell: shares, and rows.
_VARIES = re.compile(r"(?<![\d.])\d+(?= % | of \d+ rows)")


def _first_token(table: SimilarityTable) -> Iterator[dict[str, Any]]:
    """For each pair of models, the layer at which position 0 changes most."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in table.info.get("first_token", ()):
        if np.isfinite(cell["with_first"]) and np.isfinite(cell["without"]):
            pairs.setdefault((cell["model_a"], cell["model_b"]), []).append(cell)
    for cells in pairs.values():
        yield max(cells, key=lambda cell: abs(cell["with_first"] - cell["without"]))


def _notes(table: SimilarityTable) -> dict[str, list[tuple[str, int]]]:
    """Warnings of measures -> number of cells; those that differ in numbers are one."""
    counts: dict[tuple[str, str], int] = {}
    ranges: dict[str, list[set[int]]] = {}
    for row in table.rows():
        for note in filter(None, (row["note"] or "").split("; ")):
            note = re.sub(r" \(the first is \d+\)", "", note)
            key, numbers = _VARIES.sub("{}", note), map(int, _VARIES.findall(note))
            counts[key, row["measure"]] = counts.get((key, row["measure"]), 0) + 1
            seen = ranges.setdefault(key, [set() for _ in _VARIES.findall(note)])
            for known, number in zip(seen, numbers, strict=True):
                known.add(number)
    found: dict[str, list[tuple[str, int]]] = {}
    for (key, measure), count in counts.items():
        most = [f"up to {max(known)}" if len(known) > 1 else max(known) for known in ranges[key]]
        note = key.format(*most) if most else key
        found.setdefault(note, []).append((label_of(table, measure), count))
    return found
