"""Evaluations and barriers with planted numbers, for tests of plots; none was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from repsim.evaluation.path import BarrierTable
from repsim.evaluation.table import EvaluationTable
from repsim.mergeability.diagnosis.readings import DiagnosisTable
from repsim.testing.evidence import planted_evidence


def barrier_table(
    languages: Sequence[str] = ("eng_Latn", "deu_Latn"),
    heights: dict[str, float] | None = None,
    points: int = 11,
) -> BarrierTable:
    """Paths that rise over the chord by a parabola."""
    planted = heights if heights is not None else {"none": 1.2, "permutation": 0.3}
    rows = []
    for alignment, height in planted.items():
        for place, language in enumerate(languages):
            ends = (1.5, 3.0) if place % 2 == 0 else (3.0, 1.5)
            head = {
                "model_a": "eng-1", "model_b": "deu-1", "alignment": alignment,
                "language": language, "n_documents": 20, "n_bytes": 1000,
            }  # fmt: skip
            for t in np.linspace(0, 1, points):
                value = (1 - t) * ends[0] + t * ends[1] + height * 4 * t * (1 - t)
                ci = {"ci_low": value - 0.05, "ci_high": value + 0.05}
                rows.append(head | {"metric": "bits_per_byte", "t": t, "value": value} | ci)
            rows.append(head | {"metric": "barrier", "t": 0.5, "value": height})
    return BarrierTable(rows)


def retention_table() -> EvaluationTable:
    """One merge that lives and one that collapses, in two languages."""
    planted = {"collapses": (-0.4, -0.67), "lives": (0.88, 0.85)}
    rows = [
        {
            "model": model, "role": "merged", "language": language, "metric": "retention",
            "value": value, "ci_low": value - 0.06, "ci_high": value + 0.06,
        }
        for model, values in planted.items()
        for language, value in zip(("eng_Latn", "deu_Latn"), values, strict=True)
    ]  # fmt: skip
    return EvaluationTable(rows)


def diagnosis_table(blocks: int = 2, parents: Sequence[str] = ("eng-1", "eng-2")) -> DiagnosisTable:
    """A merge whose activations halve after every block, in one language."""
    rows = [
        {"reading": "bits_per_byte", "part": "whole", "value": 3.0, "parent_value": 2.0},
        {"reading": "retention", "part": "whole", "value": 0.2, "parent_value": 1.0},
    ]
    for number, part in enumerate(["embedding", *map(str, range(blocks))]):
        half = 0.5**number
        rows += [
            {"reading": "norm", "part": part, "value": half, "parent_value": 1.0},
            {"reading": "variance", "part": part, "value": half**2, "parent_value": 1.0},
            {"reading": "restored", "part": part, "value": 1 - half, "parent_value": 1.0},
        ]
        rows += [
            {"reading": "similarity", "part": part, "value": half - 0.1 * place, "parent": parent,
             "parent_value": 0.9}
            for place, parent in enumerate(parents)
        ]  # fmt: skip
    return DiagnosisTable([row | {"language": "eng_Latn"} for row in rows])


def table_of_somebody(folder: Path) -> Path:
    """Planted evidence as a parquet file with names of columns of its own."""
    data = planted_evidence(models=16).to_arrow()
    names = {"retention": "kept", "method": "how"}
    plain = [name.removeprefix("feature:") for name in data.column_names]
    file = folder / "merges.parquet"
    pq.write_table(data.rename_columns([names.get(name, name) for name in plain]), file)
    return file
