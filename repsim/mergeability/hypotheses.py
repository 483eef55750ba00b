"""Hypotheses on merging, stated in `hypotheses.yaml`: cases from evidence, numbers, verdicts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import number
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse, direction_of
from repsim.mergeability.part import least_by_merge
from repsim.mergeability.regressors import cross_fit, outcome
from repsim.mergeability.splits import incidence, leave_models_out
from repsim.stats import auroc, bootstrap, interval_of, partial_spearman, spearman
from repsim.stats.statements import Scope, read_entries, verdict_of

#: Fewest merges, or rows, that a hypothesis is tested on.
LEAST = 20
#: Fewest models out of which some can be held out.
LEAST_MODELS = 8


class Cases(NamedTuple):
    """What a hypothesis is tested on: `[cases, models]`, and name -> `[cases]`."""

    members: np.ndarray
    values: Mapping[str, np.ndarray]


class Number(NamedTuple):
    """A number with the ends of its 95 % interval; NaN where they are not known."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> str:
        """The interval in words."""
        return f"{number(self.low)} to {number(self.high)}"


def examine_hypotheses(
    table: EvidenceTable, *, draws: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """Test every hypothesis for which a table has the features.

    Args:
        table: Evidence, with features as merged.
        draws: Draws of models for intervals.
        seed: Of the draws, and of the dealing of models.

    Returns:
        Rows of a `HypothesisTable`.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> examine_hypotheses(planted_evidence(models=6))  # it has none of the features
        []
    """
    kept = table.take(table["control"] == "")
    rows: list[dict[str, Any]] = []
    for entry in hypotheses():
        if set(entry["needs"]) <= set(table.features) and len(kept):
            rows += _examine(entry, kept, draws, seed)
    return rows


@functools.cache
def hypotheses() -> tuple[dict[str, Any], ...]:
    """Entries of `hypotheses.yaml`."""
    file = resources.files("repsim.mergeability").joinpath("hypotheses.yaml")
    return tuple(read_entries(file))


def conclude(entry: Mapping[str, Any], numbers: Mapping[str, Number]) -> tuple[str, str]:
    """Verdict and sentence of a hypothesis, from the numbers of its quantities."""
    scope = Scope(numbers, entry.get("let", {}))
    return verdict_of(entry, scope), scope.text(entry["sentence"])


def _examine(
    entry: Mapping[str, Any], table: EvidenceTable, draws: int, seed: int
) -> list[dict[str, Any]]:
    cases = Scope(_selections(table, seed)).value(entry["cases"])
    count = len(cases.members)
    if count < LEAST:
        labels = {"cases": "cases"}
        numbers = {"cases": Number(count, float("nan"), float("nan"))}
        verdict, sentence = "open", f"{count} cases are too few to tell."
    else:
        labels = {key: quantity["label"] for key, quantity in entry["quantities"].items()}
        numbers = _with_intervals(entry, cases, draws, seed)
        verdict, sentence = conclude(entry, numbers)
    return [
        {"hypothesis": entry["name"], "claim": entry["claim"], "n": count, "verdict": verdict,
         "sentence": sentence, "quantity": labels[key], "value": found.value,
         "ci_low": found.low, "ci_high": found.high}
        for key, found in numbers.items()
    ]  # fmt: skip


def _with_intervals(
    entry: Mapping[str, Any], cases: Cases, draws: int, seed: int
) -> dict[str, Number]:
    """Quantities of all cases, with intervals by drawing models; what `let` fixes stays fixed."""
    names = set(entry["quantities"])
    whole = Scope({**_ESTIMATORS, **cases.values}, entry.get("let", {}))
    fixed = {name: whole.value(rule) for name, rule in entry.get("let", {}).items()
             if not Scope.names(rule) & names}  # fmt: skip

    def values_of(rows: np.ndarray) -> dict[str, float]:
        drawn = {name: array[rows] for name, array in cases.values.items()}
        scope = Scope({**_ESTIMATORS, **drawn, **fixed})
        return {key: scope.value(one["value"]) for key, one in entry["quantities"].items()}

    found = bootstrap(values_of, cases.members, draws=draws, seed=seed, least=LEAST // 2)
    everything = values_of(np.arange(len(cases.members)))
    return {key: Number(value, *interval_of(found[key])) for key, value in everything.items()}


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray | None = None) -> float:
    """Rank correlation of two values, a third held fixed if there is one."""
    return spearman(a, b) if given is None else partial_spearman(a, b, given)


#: What the quantities of `hypotheses.yaml` may name beside the values of their cases.
_ESTIMATORS: dict[str, Any] = {
    "share": _share,
    "auroc": auroc,
    "spearman": _correlation,
    "quantile": lambda values, at: float(np.quantile(values, at)),
    "mean_distance": lambda a, b: float(np.abs(a - b).mean()),
    "finite": np.isfinite,
    "COLLAPSE": COLLAPSE,
}


def _selections(table: EvidenceTable, seed: int) -> dict[str, Any]:
    """What `cases` may name: which merges, and which values of them."""

    def naive(*features: str) -> np.ndarray:
        finite = [np.isfinite(table[name].astype(float)) for name in features]
        return (table["alignment"] == "none") & np.all(finite, axis=0)

    def inside(*features: str) -> np.ndarray:
        return naive(*features) & (table["shared_init"] == 1)

    return {
        "naive": naive, "inside": inside,
        "merges": functools.partial(_merges, table),
        "forecasts": lambda *features: _forecasts(table.take(inside()), features, seed),
        "gains": lambda **gaps: _gains(table, gaps),
    }  # fmt: skip


def _merges(table: EvidenceTable, mask: np.ndarray, **features: str) -> Cases:
    """Merges, each with the least value over its languages; `worst` is the least retention."""
    picked = table.take(mask)
    merge, first = picked.merges()
    members = incidence(picked)[0][first] if len(picked) else np.zeros((0, 0), dtype=bool)
    columns = {name: picked[feature].astype(float) for name, feature in features.items()}
    columns["worst"] = outcome(picked)
    least = {name: least_by_merge(v, merge, len(first)) for name, v in columns.items()}
    return Cases(members, least)


def _forecasts(picked: EvidenceTable, features: tuple[str, ...], seed: int) -> Cases:
    """Merges predicted from some features by regressors that know none of their models."""
    predicted = np.full(len(picked), np.nan)
    if len(picked.merges()[1]) >= LEAST and len(incidence(picked)[1]) >= LEAST_MODELS:
        folds = leave_models_out(picked, blocks=6, seed=seed, least=LEAST_MODELS).folds
        uses = [FeatureUse(name, direction_of(name)) for name in features]
        if folds:
            predicted = cross_fit("additive", picked, uses, folds).predicted
    known = picked.with_features({"predicted": predicted}, {})
    return _merges(known, np.isfinite(predicted), predicted="predicted")


def _gains(table: EvidenceTable, gaps: Mapping[str, str]) -> Cases:
    """Gap between rungs and gain in retention, for each merge that was made with and without."""
    retention = outcome(table)
    keys = list(zip(table["source"], table["parents"], table["method"], table["language"],
                    strict=True))  # fmt: skip
    naive = {key: row for row, key in enumerate(keys) if table["alignment"][row] == "none"}
    gap, gain, rows = [], [], []
    for row, key in enumerate(keys):
        name = gaps.get(str(table["alignment"][row]))
        if name is not None and key in naive and np.isfinite(table[name][row]):
            gap.append(table[name][row])
            gain.append(retention[row] - retention[naive[key]])
            rows.append(row)
    members = incidence(table)[0][np.array(rows, dtype=int)]
    return Cases(members, {"gap": np.array(gap), "gain": np.array(gain)})
