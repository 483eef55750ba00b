"""A predictor with planted effects, for tests of forecasts; it was fitted on nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from repsim.core.forecast import Interval, KnownMerge, MergeForecast
from repsim.mergeability.candidate import Beside, Candidate, Prediction

#: Retention of a merge of no similarity, and of full similarity.
_LOW, _HIGH = -0.4, 1.0
#: Mean similarity of the merges that it pretends to know.
_MEAN = 0.33


@dataclasses.dataclass(frozen=True)
class PlantedPredictor:
    """Retention rises with one feature; alignment by rotation rescues what has one language."""

    feature: str = "fork_fraction"
    methods: tuple[str, ...] = ("linear", "ties")
    sizes: tuple[float, float] = (6.0, 6.3)
    farthest: float = -1.0
    outcome: str = "retention"

    @property
    def identity(self) -> str:
        """Says what it is."""
        return "planted"

    def combinations(self) -> Sequence[tuple[str, str]]:
        """Each method with each alignment; methods on differences not after a rotation."""
        return [
            (method, alignment)
            for method in self.methods
            for alignment in ("none", "permutation", "orthogonal")
            if (method, alignment) != ("ties", "orthogonal")
        ]

    def known_parameters(self, method: str) -> dict[str, tuple[float, ...]]:
        """None are stated."""
        return {}

    def known_settings(self, method: str, alignment: str) -> Sequence[dict[str, float]]:
        """Defaults alone."""
        return ({},)

    def stated(self, column: str) -> dict[str, int]:
        """None are stated."""
        return {}

    def known_values(self, feature: str) -> Sequence[float]:
        """Two sizes; none of anything else."""
        return self.sizes if feature == "parameters_log10" else ()

    def answer(self, candidate: Candidate) -> Prediction:
        """Predict from the one feature."""
        values = {
            lang: found.get(self.feature, math.nan) for lang, found in candidate.features.items()
        }
        if not values or any(math.isnan(value) for value in values.values()):
            return Prediction(refusal=f"{self.feature} was not measured")
        if min(values.values()) < self.farthest:
            return Prediction(refusal=f"{self.feature} is lower than in any known merge")
        rescued = candidate.alignment == "orthogonal" and len(values) == 1
        penalty = 0.1 if candidate.method == "ties" else 0.0
        kept = {
            lang: 0.9 if rescued else _LOW + (_HIGH - _LOW) * max(value, 0.0) - penalty
            for lang, value in values.items()
        }
        worst = min(kept.values())
        p_collapse = 1 / (1 + math.exp(12 * (worst - 0.5)))
        return Prediction(
            kept={lang: Interval(v, v - 0.15, v + 0.15) for lang, v in kept.items()},
            worst=Interval(worst, worst - 0.15, worst + 0.15),
            p_collapse=p_collapse,
            p_useful=0.0 if len(values) == 1 else 1 - p_collapse,
            effects={self.feature: (_HIGH - _LOW) * (min(values.values()) - _MEAN)},
            nearest=tuple(
                KnownMerge(f"known {place}", lang, 0.1 * place, round(v, 2))
                for place, (lang, v) in enumerate(kept.items(), 1)
            ),
        )

    def beside(self, feature: str, value: float, candidate: Candidate) -> Beside | None:
        """Where a value of its own feature lies; None of anything else."""
        if feature != self.feature:
            return None
        below = min(max(0.1 + 0.8 * (value - 0.02) / 0.98, 0.0), 1.0)
        return Beside(below, _LOW + value, 0.3)


def planted_predictor(**changes: Any) -> PlantedPredictor:
    """A predictor with planted effects."""
    return PlantedPredictor(**changes)


def planted_forecast(**changes: Any) -> MergeForecast:
    """A forecast with numbers that are made up: a pair that lives in two languages."""
    kept = Interval(0.9, 0.75, 1.0)
    values: dict[str, Any] = {
        "models": ("en", "de"), "method": "linear", "alignment": "none",
        "retention": {"eng_Latn": kept, "deu_Latn": kept}, "worst": kept, "p_collapse": 0.03,
        "p_useful": 0.9, "verdict": "merge", "refusal": "", "reasons": (),
        "nearest": (KnownMerge("known", "eng_Latn", 0.2, 0.88),), "in_domain": True,
        "tiers": ("T0", "T1"), "seconds": {"T0": 0.1, "T1": 0.4}, "predictor": "planted",
        "evidence": {}, "advice": "merge: collapse 3 % likely",
    }  # fmt: skip
    return MergeForecast(**(values | changes))
