"""How good forecasts were, with intervals that know that merges share models."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import UsageError
from repsim.stats import auroc, calibration_error, model_weights, spearman
from repsim.stats.additive import LEAST, MOST


@dataclasses.dataclass(frozen=True)
class ForecastsWithOutcomes:
    """Forecasts beside what came: all that metrics need."""

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    worst: np.ndarray
    p_collapse: np.ndarray
    observed_worst: np.ndarray
    members: np.ndarray
    merge_members: np.ndarray
    p_useful: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    useful: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))


Metric = Callable[[ForecastsWithOutcomes], float]


def _collapsed(found: ForecastsWithOutcomes) -> np.ndarray:
    return (found.observed_worst < COLLAPSE).astype(float)


def _covered(found: ForecastsWithOutcomes) -> float:
    inside = (found.observed >= found.low) & (found.observed <= found.high)
    return float(inside.mean())


#: Metric -> its function of forecasts with outcomes. Those of intervals need intervals.
POINT: dict[str, Metric] = {
    "spearman": lambda f: spearman(f.predicted, f.observed),
    "mae": lambda f: float(np.abs(f.predicted - f.observed).mean()),
    "auroc": lambda f: auroc(-f.worst, _collapsed(f)),
    "spearman_worst": lambda f: spearman(f.worst, f.observed_worst),
}
FULL: dict[str, Metric] = {
    **POINT,
    "brier": lambda f: float(((f.p_collapse - _collapsed(f)) ** 2).mean()),
    "ece": lambda f: calibration_error(f.p_collapse, _collapsed(f)),
    "coverage": _covered,
    "width": lambda f: float((f.high - f.low).mean()),
    "auroc_useful": lambda f: _of_useful(f, auroc),
    "brier_useful": lambda f: _of_useful(f, lambda p, u: float(((p - u) ** 2).mean())),
}
#: Bands of retention in which coverage is stated by itself, and fewest rows of one.
BANDS, LEAST_IN_BAND = (LEAST, -0.5, 0.0, 0.5, 0.8, MOST), 12


def band_metrics() -> dict[str, Metric]:
    """Coverage among forecasts, and among outcomes, of each band."""
    pairs = list(itertools.pairwise(BANDS))
    return {
        f"coverage, {what} {low:g} to {high:g}": functools.partial(_within, what, low, high)
        for what in ("predicted", "observed")
        for low, high in pairs
    }


def _within(what: str, low: float, high: float, found: ForecastsWithOutcomes) -> float:
    values = getattr(found, what)
    mine = (values >= low) & ((values < high) | (high == MOST))
    inside = (found.observed >= found.low) & (found.observed <= found.high)
    return float(inside[mine].mean()) if mine.sum() >= LEAST_IN_BAND else float("nan")


FULL |= band_metrics()
#: Metrics of which less is better.
LESS_IS_BETTER = ("mae", "brier", "ece", "width", "brier_useful")


def _of_useful(
    found: ForecastsWithOutcomes, metric: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    known = np.isfinite(found.p_useful) & np.isfinite(found.useful)
    return metric(found.p_useful[known], found.useful[known]) if known.any() else float("nan")


def resample(
    found: ForecastsWithOutcomes, rows: np.ndarray, merges: np.ndarray
) -> ForecastsWithOutcomes:
    """Some rows and merges, by their numbers, as often as they are named."""
    by_merge = ("worst", "p_collapse", "observed_worst", "p_useful", "useful")
    by_row = ("predicted", "observed", "low", "high")
    picked = {
        name: values[index] if len(values) else values
        for names, index in ((by_row, rows), (by_merge, merges))
        for name, values in ((name, getattr(found, name)) for name in names)
    }
    # Models of the rows drawn are of no use to a metric.
    return ForecastsWithOutcomes(
        **picked, members=found.members[:0], merge_members=found.merge_members[:0]
    )


def bootstrap(
    found: Sequence[ForecastsWithOutcomes],
    metrics: Mapping[str, Metric],
    *,
    draws: int = 200,
    seed: int = 0,
) -> list[dict[str, np.ndarray]]:
    """Metrics of several forecasts of the same merges, under the same draws of models."""
    if any(len(one.members) != len(found[0].members) for one in found):
        raise UsageError("forecasts of different merges cannot be compared draw by draw")
    by_row, by_merge = (
        model_weights(members, draws=draws, seed=seed).astype(int)
        for members in (found[0].members, found[0].merge_members)
    )
    values = [{name: np.full(draws, np.nan) for name in metrics} for _ in found]
    for draw in range(draws):
        rows, merges = (np.repeat(np.arange(w.shape[1]), w[draw]) for w in (by_row, by_merge))
        if len(rows) < 3 or len(merges) < 2:
            continue
        for one, out in zip(found, values, strict=True):
            drawn = resample(one, rows, merges)
            for name, metric in metrics.items():
                out[name][draw] = metric(drawn)
    return values
