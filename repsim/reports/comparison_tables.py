"""The summary of a comparison as a table."""

from __future__ import annotations

from repsim.core import SimilarityTable
from repsim.reports.table import ReportTable

#: Column -> heading, in the order of the page.
SUMMARY_HEADINGS = {
    "pair": "models",
    "languages": "languages",
    "pairing": "pairing",
    "label": "measure",
    "middle": "middle layer",
    "interval": "interval",
    "null": "null 95 %",
    "middle_partial": "covariates removed",
    "matched_mean": "mean, matched depth",
    "best": "best",
    "best_layers": "at layers",
    "best_p_adjusted": "p, corrected",
    "n": "n",
}


def summary_table(table: SimilarityTable) -> ReportTable:
    """One row per pair and measure; the CSV has the name of the measure beside its label."""
    declared = table.info.get("measures", {})
    rows = []
    for row in table.summary():
        spec = declared.get(row["measure"], {})
        arrow = {"similarity": "↑", "distance": "↓"}.get(spec.get("direction", ""), "")
        a, b = row["model_a"], row["model_b"]
        spoken = (row["language_a"], row["language_b"])
        rows.append(
            {
                "pair": a if a == b else f"{a} ↔ {b}",
                "languages": spoken[0] if spoken[0] == spoken[1] else " ↔ ".join(spoken),
                "pairing": row["pairing"],
                "measure": row["measure"],
                "label": f"{spec.get('label', row['measure'])} {arrow}".strip(),
                "middle": row["middle"],
                "interval": _interval(row["middle_ci_low"], row["middle_ci_high"]),
                "null": row["middle_null_q95"],
                "middle_partial": row["middle_partial"],
                "matched_mean": row["matched_mean"],
                "best": row["best"],
                "best_layers": _layers(row["best_layer_a"], row["best_layer_b"]),
                "best_p_adjusted": row["best_p_adjusted"],
                "n": row["n"],
            }
        )
    return ReportTable("summary", "Summary", SUMMARY_HEADINGS, tuple(rows))


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _layers(a: int | None, b: int | None) -> str | None:
    return None if a is None or b is None else f"{a}, {b}"
