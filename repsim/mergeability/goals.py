"""Goals: which were set before anything was measured, which joined later, which are reached."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from repsim.core.formatting import number
from repsim.mergeability.baselines import LATER
from repsim.mergeability.costs import Cost
from repsim.mergeability.reasons import label_of
from repsim.mergeability.validation_tables import LiftTable, MetricTable

#: Splits that were there before results had been seen; a lead in any other was wanted later.
EARLY_SPLITS = ("leave-models-out", "leave-language-out", "leave-fork-out", "leave-arm-out",
                "leave-method-out", "train A,E; test B", "train B; test A,E")  # fmt: skip
#: The split of goals that name none; level of the intervals.
MAIN_SPLIT, LEVEL = "leave-models-out", 0.9
BEFORE, LATER_ON = "before", "later"
#: Whether a goal is reached; a lead is where its whole interval lies above 0.
YES, NO, UNCERTAIN = "yes", "no", "lead not certain"


def goal_rows(
    metrics: MetricTable, lifts: LiftTable, predictor: str, costs: Sequence[Cost] = ()
) -> list[dict[str, Any]]:
    """Rows of a `GoalTable`; costs of sets of tiers up to the one that is judged are stated."""
    rows = []
    for goal, rule in _goals().items():
        for split in rule.get("splits", [MAIN_SPLIT]):
            row = _level(metrics, goal, {"tiers": predictor, **rule, "split": split})
            rows += [row] if row else []
    rows += [_beaten(lifts, split, predictor) for split in lifts.unique("split")]
    return rows + _affordable(costs, predictor)


def _level(metrics: MetricTable, goal: str, rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """Whether a metric, or coverage in the band where it is farthest off, is where it should be."""
    tested = metrics.where(
        split=rule["split"], stratum=rule.get("stratum", "all"), predictor=rule["tiers"]
    )
    named = f"coverage, {rule['bands']} " if "bands" in rule else rule["metric"]
    found = [
        row for row in tested.rows()
        if row["metric"] == named or ("bands" in rule and row["metric"].startswith(named))
    ]  # fmt: skip
    found = [row for row in found if row["value"] is not None]
    if not found:
        return None
    row = max(found, key=lambda row: abs(row["value"] - LEVEL))
    value, least, most = row["value"], rule.get("least", 0.0), rule.get("most", math.inf)
    wanted = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
    reached = least <= value <= most
    close = not reached and least <= round(value, 3) <= most
    why = f"{value:.5f} before rounding" if close else None
    return {
        "goal": f"{goal}, {rule['split']}" if "splits" in rule else goal,
        "features": rule["tiers"], "set": LATER_ON if "splits" in rule else BEFORE,
        "wanted": wanted, "found": value, "ci_low": row["ci_low"], "ci_high": row["ci_high"],
        "reached": YES if reached else NO,
        "why": row["metric"].removeprefix("coverage, ") if "bands" in rule else why,
    }  # fmt: skip


@functools.cache
def _goals() -> dict[str, dict[str, Any]]:
    """Goals of `goals.yaml`."""
    import yaml

    file = resources.files("repsim.mergeability").joinpath("goals.yaml")
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def _beaten(lifts: LiftTable, split: str, predictor: str) -> dict[str, Any]:
    """The least lift in mean absolute error over any baseline."""
    found = [
        row for row in lifts.where(split=split, stratum="all", metric="mae").rows()
        if row["lift"] is not None
    ]  # fmt: skip
    least = min(found, key=lambda row: row["lift"])
    why = f"nearest baseline: {label_of(least['baseline'])}"
    first = [row for row in found if row["baseline"] not in LATER]
    if least["baseline"] in LATER and first:
        old = min(first, key=lambda row: row["lift"])
        ends = f"{number(old['ci_low'], 3)} to {number(old['ci_high'], 3)}"
        why += (f", which joined later; of those that were there before: "
                f"{label_of(old['baseline'])}, {number(old['lift'], 3)} ({ends})")  # fmt: skip
    certain = least["ci_low"] is not None and least["ci_low"] > 0
    return {
        "goal": f"lower error than every baseline, {split}", "features": predictor,
        "set": BEFORE if split in EARLY_SPLITS else LATER_ON, "wanted": "above 0",
        "found": least["lift"], "ci_low": least["ci_low"], "ci_high": least["ci_high"],
        "reached": NO if least["lift"] <= 0 else YES if certain else UNCERTAIN, "why": why,
    }  # fmt: skip


def _affordable(costs: Sequence[Cost], predictor: str) -> list[dict[str, Any]]:
    """Cost of the set of tiers that is judged, and of those within it, by size of the models."""
    within = predictor.split("+")
    return [
        {
            "goal": f"cost of measuring {cost.features} over that of merging and scoring, about "
                    f"{cost.size / 1e6:g} million parameters",
            "features": cost.features, "set": LATER_ON, "wanted": f"under {cost.most:g}",
            "found": cost.share, "reached": YES if cost.share < cost.most else NO,
            "why": cost.words,
        }
        for cost in costs
        if cost.features.split("+") == within[: cost.features.count("+") + 1]
    ]  # fmt: skip
