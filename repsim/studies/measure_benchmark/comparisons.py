"""Which pair of models must be the more alike, by what is known of their training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from repsim.core.measure import Measure

#: What two models have in common: initial weights (0 or 1), share of their training.
Level = tuple[float, float]
Pair = tuple[str, str]


class Known(NamedTuple):
    """A model: languages of its last phase, and of its whole history."""

    name: str
    languages: frozenset[str]
    history: frozenset[str]


class Comparison(NamedTuple):
    """On a text in `language` the pair `near` must be more alike than `far`."""

    test: str
    unit: str
    language: str
    near: Pair
    far: Pair


def comparisons(
    models: Sequence[Known],
    level: Callable[[str, str], Level | None],
    languages: Iterable[str],
) -> Iterator[Comparison]:
    """Comparisons that share one model, their unit."""
    texts = list(languages)
    for own in models:
        others = [(m, at) for m in models if m is not own and (at := level(own.name, m.name))]
        for near, near_at in others:
            for far, far_at in others:
                read: frozenset[str] = frozenset()
                test = ""
                if near.languages == own.languages and near_at == (0.0, 0.0):
                    if not far.history & own.languages:
                        test, read = "seeds", own.languages
                elif near.languages == far.languages and near_at > far_at:
                    extra = near.history - far.history
                    if far.history <= near.history and extra <= own.history:
                        test, read = "forks", own.history | near.history
                for text in texts:
                    if text in read:
                        pairs = (own.name, near.name), (own.name, far.name)
                        yield Comparison(test, own.name, text, *pairs)


def outcome(near: float, far: float, measure: Measure) -> float:
    """1 if the near value is the more similar one, 0.5 if they tie or one is undefined, else 0."""
    sign = 1.0 if measure.direction == "similarity" else -1.0
    gap = sign * (near - far)
    if math.isnan(gap) or abs(gap) <= 1e-12 * max(abs(near), abs(far)):
        return 0.5
    return 1.0 if gap > 0 else 0.0


def describe(measure: Measure) -> dict[str, Any]:
    """The columns that say which measure a row is of."""
    return {
        "measure": measure.name,
        "label": measure.label,
        "rung": measure.rung.name if measure.rung else "",
        "cost": "expensive" if measure.is_expensive else "cheap",
    }


def rows_of(
    found: Mapping[tuple[str, str, str, int], Sequence[float]], measure: Measure
) -> list[dict[str, Any]]:
    """Rows of a table of scores from outcomes by test, unit, language and layer."""
    return [
        {
            **describe(measure), "test": test, "unit": unit, "language": language,
            "layer": layer, "correct": sum(hits) / len(hits), "comparisons": len(hits),
        }
        for (test, unit, language, layer), hits in found.items()
    ]  # fmt: skip
