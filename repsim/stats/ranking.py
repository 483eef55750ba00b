"""Which of several methods is best, and which cannot be told from it.

Trials are crossed: each belongs to a unit (a model, or a pair of models) and to a layer; models and
layers are drawn with replacement, a pair counts as often as the product of how often its models
were drawn. Methods are judged on the same draws, so that their difference is paired.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.stats.bootstrap import DRAWS, LEAST_MODELS, SEED, interval_of, members_of, model_weights

#: Between the models of a unit that is a pair.
JOIN = " + "


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One method; ends are NaN and `tied` True where there are too few units."""

    name: str
    score: float
    low: float
    high: float
    tied: bool


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Methods, best first, how many models were drawn, and comparisons that judged each method."""

    ranked: tuple[Ranked, ...]
    models: int
    comparisons: int


def rank_rows(rows: Iterable[Mapping[str, Any]], tests: Sequence[str]) -> Ranking:
    """Rank the measures of a table of scores on some tests; one that lacks a trial is left out."""
    kept = [row for row in rows if row["test"] in tests]
    trials: dict[tuple[Any, ...], int] = {}
    weights: list[int] = []
    for row in kept:
        if _trial(row) not in trials:
            trials[_trial(row)] = len(trials)
            weights.append(row["comparisons"])
    place = {name: i for i, name in enumerate(dict.fromkeys(row["measure"] for row in kept))}
    scores = np.full((len(place), len(trials)), np.nan)
    for row in kept:
        scores[place[row["measure"]], trials[_trial(row)]] = row["correct"]
    whole = ~np.isnan(scores).any(axis=1)
    if not whole.any():
        return Ranking((), 0, 0)
    units = [tuple(f"{t[1]}/{model}" for model in t[2].split(JOIN)) for t in trials]
    ranked = rank(
        [name for name, kept in zip(place, whole, strict=True) if kept],
        scores[whole],
        groups=[trial[0] for trial in trials],
        units=units,
        layers=[trial[4] for trial in trials],
        weights=np.array(weights),
    )
    return Ranking(tuple(ranked), len({m for unit in units for m in unit}), sum(weights))


def _trial(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What identifies a trial, whichever measure is judged."""
    return tuple(row[name] for name in ("test", "source", "unit", "language", "layer"))


def rank(
    names: Sequence[str],
    scores: np.ndarray,
    *,
    groups: Sequence[str],
    units: Sequence[tuple[str, ...]],
    layers: Sequence[int],
    weights: np.ndarray,
    draws: int = DRAWS,
    seed: int = SEED,
) -> list[Ranked]:
    """Order methods by mean score, best first; models and layers drawn, tests count alike."""
    member = np.array([[group == name for group in groups] for name in dict.fromkeys(groups)])
    of_models = model_weights(members_of(units), draws=draws, seed=seed)
    of_layers = model_weights(members_of([(str(i),) for i in layers]), draws=draws, seed=seed + 1)
    drawn = of_models * of_layers * weights
    values = _means(scores, weights[None], member)[0]
    replicates = _means(scores, drawn, member)
    fewest = min(
        len({model for unit, inside in zip(units, row, strict=True) if inside for model in unit})
        for row in member
    )
    order = np.argsort(-values, kind="stable")
    best = order[0]
    found = []
    for i in order:
        low, high, gap = math.nan, math.nan, 0.0
        if fewest >= LEAST_MODELS:
            low, high = interval_of(replicates[:, i])
            gap = interval_of(replicates[:, best] - replicates[:, i])[0]
        tied = not gap > 0 or i == best
        found.append(Ranked(names[i], float(values[i]), low, high, bool(tied)))
    return found


def _means(scores: np.ndarray, weights: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Mean over groups of weighted means, `[draws, methods]`; NaN in a draw without a group."""
    parts = []
    for inside in member:
        total = weights[:, inside].sum(axis=1, keepdims=True)
        sums = weights[:, inside] @ scores[:, inside].T
        parts.append(np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0))
    return np.asarray(np.mean(parts, axis=0))
