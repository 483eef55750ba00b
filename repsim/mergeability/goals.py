"""Goals that were set before anything was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from repsim.core.atlas import Atlas
from repsim.mergeability.validation_tables import LiftTable, MetricTable

#: Goal -> stratum, metric, least and largest value that reach it. All on models never seen.
GOALS = {
    "rank correlation of retention": ("all", "spearman", 0.9, math.inf),
    "rank correlation of retention inside shared initialisation": (
        "shared-init", "spearman", 0.8, math.inf,
    ),
    "AUROC of collapse": ("all", "auroc", 0.97, math.inf),
    "coverage of the 90 % interval": ("all", "coverage", 0.88, 0.93),
}  # fmt: skip
#: Most that measuring may cost, as a share of merging and evaluating.
COST = 0.05


def goal_rows(
    metrics: MetricTable, lifts: LiftTable, predictor: str, cost_share: float | None
) -> list[dict[str, Any]]:
    """Rows of a `GoalTable`."""
    rows = []
    for goal, (stratum, metric, least, most) in GOALS.items():
        found = list(
            metrics.where(split="leave-models-out", stratum=stratum, predictor=predictor,
                          metric=metric).rows()
        )  # fmt: skip
        if not found or found[0]["value"] is None:
            continue
        value = found[0]["value"]
        wanted = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
        rows.append({
            "goal": goal, "wanted": wanted, "found": value, "ci_low": found[0]["ci_low"],
            "ci_high": found[0]["ci_high"], "reached": int(least <= value <= most),
        })  # fmt: skip
    rows += [_beaten(lifts, split) for split in lifts.unique("split")]
    if cost_share is not None:
        rows.append({
            "goal": "cost of measuring over that of merging and evaluating",
            "wanted": f"under {COST:g}", "found": cost_share, "reached": int(cost_share < COST),
        })  # fmt: skip
    return rows


def _beaten(lifts: LiftTable, split: str) -> dict[str, Any]:
    """The least lift in mean absolute error over any baseline."""
    found = [
        row for row in lifts.where(split=split, stratum="all", metric="mae").rows()
        if row["lift"] is not None
    ]  # fmt: skip
    least = min(found, key=lambda row: row["lift"])
    return {
        "goal": f"lower error than every baseline, {split} (nearest: {least['baseline']})",
        "wanted": "above 0", "found": least["lift"], "ci_low": least["ci_low"],
        "ci_high": least["ci_high"], "reached": int(least["lift"] > 0),
    }  # fmt: skip


def cost_share(atlases: Sequence[Atlas]) -> float | None:
    """What measuring parents costs, as a share of merging them in every way and evaluating that.

    Args:
        atlases: What studies found, with costs of the tiers up to T2.

    Returns:
        Median over groups of parents; None if costs were not kept.
    """
    shares = []
    for atlas in atlases:
        measuring: dict[str, float] = {}
        for row in atlas.costs.rows():
            if row["tier"] in ("T0", "T1", "T2"):
                measuring[row["parents"]] = measuring.get(row["parents"], 0.0) + row["seconds"]
        merging: dict[str, dict[str, float]] = {}
        for row in atlas.merges.rows():
            merging.setdefault(row["parents"], {})[row["merge"]] = row["seconds"] or 0.0
        shares += [
            seconds / sum(merging[parents].values())
            for parents, seconds in measuring.items()
            if sum(merging.get(parents, {}).values()) > 0
        ]
    return statistics.median(shares) if shares else None
