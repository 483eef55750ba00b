"""Similarity tables with planted structure, for tests of plots and reports only.

No number in them was measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from repsim.core.model_ref import ModelRef
from repsim.core.similarity_table import SimilarityTable

SIX_LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn", "fin_Latn", "ell_Grek", "rus_Cyrl")

ENDS = ("model_a", "language_a", "model_b", "language_b")


@dataclasses.dataclass(frozen=True)
class PlantedMeasure:
    """Declaration of a measure in a synthetic table, and where its values lie."""

    label: str
    rung: str | None
    direction: str
    high: float
    calibrated: float
    null: float


MEASURES: dict[str, PlantedMeasure] = {
    "unit_correlation": PlantedMeasure("unit-wise correlation", "L0", "similarity", 1, 0.04, 0.03),
    "permutation": PlantedMeasure("permutation Procrustes", "L1", "distance", 1.5708, 0.21, 1.32),
    "cka": PlantedMeasure("CKA (debiased)", "L2", "similarity", 1, 0.74, 0.01),
    "procrustes": PlantedMeasure("angular Procrustes", "L2", "distance", math.pi / 2, 0.58, 1.18),
    "svcca": PlantedMeasure("SVCCA", "L3", "similarity", 1, 0.69, 0.34),
    "mutual_knn": PlantedMeasure("mutual k-NN", "L4", "similarity", 1, 0.47, 0.02),
}  # fmt: skip


def synthetic_table(
    models: Mapping[str, int] | None = None,
    *,
    languages: Sequence[str] = SIX_LANGUAGES,
    measures: Sequence[str] = tuple(MEASURES),
    roles: Mapping[str, str] | None = None,
    intervals: bool = True,
    nulls: bool = True,
    partial: bool = True,
    offset: float = 0.0,
    cross_language: bool = False,
    n: int = 686,
    seed: int = 0,
) -> SimilarityTable:
    """A table shaped like that of a real comparison."""
    models = dict(models or {"multilingual-e5-small": 12, "minilm-l6": 6})
    rng = np.random.default_rng(seed)
    traits = {language: rng.normal(size=3) * 0.6 for language in languages}
    levels = dict(zip(models, rng.permutation(np.linspace(0.65, 1.1, len(models))), strict=True))
    sides = _sides(models, languages, cross_language=cross_language)
    rows = []
    for name in measures:
        for side in sides:
            rows += _grid(side, models, traits, levels, name, offset, rng)
    for row in rows:
        row |= {"n": n, "seed": seed}
        if not intervals:
            row |= {"ci_low": None, "ci_high": None}
        if not nulls:
            row |= {"null_mean": None, "null_q95": None, "calibrated": None, "p_value": None}
        if not partial:
            row |= {"partial": None}
    info = _info(models, roles or {}, measures, intervals, nulls, languages, n)
    return SimilarityTable(rows, info)


def _sides(
    models: Mapping[str, int], languages: Sequence[str], *, cross_language: bool
) -> list[tuple[str, str, str, str]]:
    """(model_a, language_a, model_b, language_b) of every comparison."""
    same = [(a, lang, b, lang) for a, b in combinations(models, 2) for lang in languages]
    parallel = [(m, a, m, b) for m in models for a, b in combinations(languages, 2)]
    crossed = [
        (a, lang_a, b, lang_b)
        for a, b in combinations(models, 2)
        for lang_a in languages
        for lang_b in languages
        if cross_language and lang_a != lang_b
    ]
    return same + parallel + crossed


def _grid(
    side: tuple[str, str, str, str],
    models: Mapping[str, int],
    traits: Mapping[str, np.ndarray],
    levels: Mapping[str, float],
    name: str,
    offset: float,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    model_a, language_a, model_b, language_b = side
    deep_a, deep_b = models[model_a], models[model_b]
    away = float(np.linalg.norm(traits[language_a] - traits[language_b]))
    tilt = float(traits[language_a][0]) * 0.06
    same_text = language_a == language_b
    rows = []
    for layer_a in range(deep_a + 1):
        for layer_b in range(deep_b + 1):
            if model_a == model_b and layer_a != layer_b:
                continue
            at, gap = layer_a / deep_a, abs(layer_a / deep_a - layer_b / deep_b)
            shape = (0.72 + 0.5 * at - 0.62 * at * at) * math.exp(-2.6 * gap * gap - 0.5 * gap)
            score = MEASURES[name].calibrated * shape * math.exp(-0.45 * away) + tilt * shape
            score *= levels[model_a] * levels[model_b] / 0.8
            score += 0.012 * float(rng.normal()) + offset
            row: dict[str, Any] = dict(zip(ENDS, side, strict=True))
            row |= {"layer_a": layer_a, "layer_b": layer_b, "point": "resid", "measure": name}
            row |= {"pairing": "same text" if same_text else "parallel text", "params": "{}"}
            rows.append(row | _numbers(MEASURES[name], score))
    return rows


def _numbers(planted: PlantedMeasure, score: float) -> dict[str, Any]:
    """All numbers of one cell from its calibrated score."""
    similar = planted.direction == "similarity"
    best = 1.0 if similar else 0.0
    span = best - planted.null

    def value(calibrated: float) -> float:
        return planted.null + span * calibrated

    ends = sorted((value(score - 0.035), value(score + 0.03)))
    return {
        "value": value(score),
        "ci_low": ends[0],
        "ci_high": ends[1],
        "null_mean": value(-0.03),
        "null_q95": planted.null,
        "calibrated": score,
        "p_value": 1 / 101 if score > 0 else 0.4,
        "p_adjusted": 1 / 101 if score > 0 else 0.9,
        "partial": value(score * 0.86),
        "note": "",
    }


def _info(
    models: Mapping[str, int],
    roles: Mapping[str, str],
    measures: Sequence[str],
    intervals: bool,
    nulls: bool,
    languages: Sequence[str],
    n: int,
) -> dict[str, Any]:
    declared: dict[str, dict[str, Any]] = {}
    for name in measures:
        planted = MEASURES[name]
        similar = planted.direction == "similarity"
        declared[name] = {
            "name": name,
            "label": planted.label,
            "rung": planted.rung,
            "direction": planted.direction,
            "range": [None if name == "cka" else 0.0, planted.high],
            "identity_value": 1.0 if similar else 0.0,
            "symmetric": True,
            "blind_to": None,
            "invariances": [],
            "min_samples": 4,
            "params": {},
            "definition": "planted",
            "estimator": "",
            "reference": "synthetic",
        }
    return {
        "models": {
            model: ModelRef(name=model, path=model, layers=layers, width=384).to_dict()
            | {"role": roles.get(model, "other")}
            for model, layers in models.items()
        },
        "measures": declared,
        "statistics": {
            "interval": "jackknife" if intervals else None,
            "level": 0.95,
            "shuffles": 100 if nulls else None,
            "covariates": ["log_length"],
        },
        "corpus": {
            "name": "synthetic",
            "languages": list(languages),
            "sentences": n,
            "documents": n,
            "hash": "0" * 64,
            "source": "planted numbers, no text",
            "notes": [],
        },
    }
