"""From the tables of a validation to the rows that its figures and tables show.

Everything that knows their columns is in this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from repsim.core.formatting import number, percent
from repsim.core.table import Table

Row = dict[str, Any]
#: The split that stands for "models never seen".
MAIN_SPLIT = "leave-models-out"
#: Stratum in the tables -> name for people.
STRATA = {"all": "all merges", "shared-init": "shared initial weights",
          "as-they-are": "not aligned"}  # fmt: skip
#: Role of what looks at a trial of the merge, which no forecast does.
ORACLE = "oracle"
#: Words in names of features that are written in another way.
_SPOKEN = {
    "cka": "CKA", "svcca": "SVCCA", "pwcca": "PWCCA", "knn": "k-NN", "kl": "KL", "k": "k",
    "procrustes": "Procrustes", "rsa": "RSA",
}  # fmt: skip


class Reported(Protocol):
    """A validation that can be read: `repsim.mergeability.ValidationReport` is one."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Settings, splits, counts."""
        ...

    @property
    def tables(self) -> Mapping[str, Table]:
        """metrics, lifts, forecasts, controls, hypotheses, goals."""
        ...


class Validation:
    """Reads the tables of a validation."""

    def __init__(self, report: Reported, labels: Mapping[str, str] | None = None) -> None:
        self.info, self.tables = report.info, report.tables
        self._labels = dict(labels or {})
        self._metrics = {
            (row["split"], row["stratum"], row["predictor"], row["metric"]): row
            for row in self.rows("metrics")
        }

    def goals(self, *, own: bool = True) -> Table:
        """Goals of the predictor itself, which are counted, or what smaller sets of tiers reach."""
        table = self.tables["goals"]
        owners = [row.get("features") or self.predictor for row in table.rows()]
        return table.take(np.array([(name == self.predictor) == own for name in owners], bool))

    def rows(self, table: str, **conditions: Any) -> list[Row]:
        """Rows of a table, all or those with some values."""
        return list(self.tables[table].where(**conditions).rows())

    @property
    def predictor(self) -> str:
        """The predictor that is judged: a set of tiers."""
        return str(self.info["predictor"])

    @property
    def outcome(self) -> str:
        """What is forecast, in words: retention, or the gain kept over the base of the parents."""
        return str(self.info.get("outcome", "retention")).replace("_", " ")

    @property
    def splits(self) -> list[str]:
        """Splits with any forecast, in the order of the table."""
        return self.tables["forecasts"].unique("split")

    @property
    def strata(self) -> list[str]:
        """Strata, in the order of the table."""
        return self.tables["metrics"].unique("stratum")

    def label(self, name: str) -> str:
        """Name of a feature or baseline for people."""
        return self._labels.get(name) or spoken(name)

    def metric(
        self, metric: str, split: str = MAIN_SPLIT, stratum: str = "all", predictor: str = ""
    ) -> Row | None:
        """Row of a metric that has a value; None if there is none."""
        found = self._metrics.get((split, stratum, predictor or self.predictor, metric))
        return dict(found) if found is not None and found["value"] is not None else None

    def value(
        self, metric: str, split: str = MAIN_SPLIT, stratum: str = "all", predictor: str = ""
    ) -> float | None:
        """Value of a metric; None if there is none."""
        row = self.metric(metric, split, stratum, predictor)
        return None if row is None else float(row["value"])

    def rivals(self, role: str, split: str = MAIN_SPLIT) -> list[str]:
        """Predictors, regressors or baselines that were tested in a split."""
        return self.tables["metrics"].where(role=role, split=split).unique("predictor")

    def said(self, metric: str, split: str, stratum: str = "all", digits: int = 2) -> str:
        """A metric with its interval in words; a dash if it has none."""
        row = self.metric(metric, split, stratum)
        return "–" if row is None else with_interval(row["value"], row, digits)


def spoken(name: str) -> str:
    """Name of a feature as words."""
    words = [_SPOKEN.get(word, word) for word in name.split("_")]
    if len(words) > 1 and words[-1] in ("early", "middle", "late"):
        return f"{' '.join(words[:-1])}, {words[-1]}"
    return " ".join(words)


def with_interval(value: float, row: Mapping[str, Any], digits: int = 2) -> str:
    """A number with the interval of its row, where it has one."""
    text = number(value, digits)
    if row.get("ci_low") is None or row.get("ci_high") is None:
        return text
    return f"{text} [{number(row['ci_low'], digits)}, {number(row['ci_high'], digits)}]"


def forecast_rows(found: Validation) -> list[Row]:
    """Rows for the figure of forecasts: those of other initial weights first."""
    names = {1: "shared initial weights", 0: "other initial weights", None: "origin not known"}
    rows = [
        {"split": row["split"], "stratum": names[row["shared_init"]],
         "refused": int(bool(row["refusal"])),
         **{name: row[name] for name in ("predicted", "low", "high", "observed")}}
        for row in found.rows("forecasts")
    ]  # fmt: skip
    splits, strata = found.splits, list(names.values())[::-1]
    return sorted(rows, key=lambda row: (splits.index(row["split"]), strata.index(row["stratum"])))


def panel_notes(found: Validation) -> dict[str, str]:
    """Numbers under the title of each panel of forecasts; of all forecasts, refused or not."""
    notes = {}
    for split in found.splits:
        rank, error = found.value("spearman", split), found.value("mae", split)
        held = found.value("coverage", split)
        pieces = [
            "" if rank is None else f"ρ {number(rank)}",
            "" if error is None else f"MAE {number(error)}",
            "" if held is None else f"coverage {percent(held)}",
        ]
        notes[split] = " · ".join(piece for piece in pieces if piece)
    return notes


def collapse_rows(found: Validation) -> list[Row]:
    """One row per split and merge; of rows that were tested apart, the highest probability."""
    rows: dict[tuple[str, str, str], Row] = {}
    for row in found.rows("forecasts"):
        if row["p_collapse"] is None:
            continue
        key = (row["split"], row["parents"], row["merge"])
        known = rows.get(key)
        if known is None or row["p_collapse"] > known["p_collapse"]:
            rows[key] = {name: row[name] for name in ("split", "p_collapse", "collapsed")}
    return list(rows.values())


def reliability_notes(found: Validation) -> dict[str, str]:
    """Scores under the title of each panel of reliability."""
    return {
        split: " · ".join(
            f"{name} {number(value, 3)}"
            for name, metric in (("Brier", "brier"), ("ECE", "ece"), ("AUROC", "auroc"))
            if (value := found.value(metric, split)) is not None
        )
        for split in found.splits
    }


def lift_rows(found: Validation, metric: str, *, over: str) -> list[Row]:
    """Rows for a figure of lift."""
    rows = []
    for row in found.rows("lifts", metric=metric):
        main = row["split"] == MAIN_SPLIT and over == "strata"
        whole = row["stratum"] == "all" and over == "splits"
        if row["lift"] is not None and (main or whole):
            panel = STRATA.get(row["stratum"], row["stratum"]) if main else row["split"]
            rows.append({
                "split": panel, "baseline": row["baseline"], "lift": row["lift"],
                "low": row["ci_low"], "high": row["ci_high"],
            })  # fmt: skip
    return rows


def interval_rows(found: Validation) -> list[Row]:
    """Coverage, width and refusals per split: of all merges, those answered, and each stratum."""
    rows = []
    for split in found.splits:
        for stratum in found.strata:
            for suffix in ("", "_answered") if stratum == "all" else ("",):
                coverage = found.metric(f"coverage{suffix}", split, stratum)
                if coverage is None:
                    continue
                name = STRATA.get(stratum, stratum)
                rows.append({
                    "split": split, "stratum": "not refused" if suffix else name,
                    "coverage": coverage["value"], "coverage_low": coverage["ci_low"],
                    "coverage_high": coverage["ci_high"],
                    "width": found.value(f"width{suffix}", split, stratum),
                    "refused": None if suffix else found.value("refused", split, stratum),
                })  # fmt: skip
    return rows


def candidate_rows(found: Validation, metric: str = "mae") -> list[Row]:
    """Sets of tiers, a trial of the merge, other regressors, and the mean, on models never seen."""
    regressor = str(found.info["regressor"])
    kinds = {
        "predictor": f"features by tier, {regressor}",
        ORACLE: "with a trial of the merge (no forecast)",
        "regressor": "other regressor",
    }
    rows = [
        _candidate(row, name, kind, name == found.predictor)
        for role, kind in kinds.items()
        for name in found.rivals(role)
        if (row := found.metric(metric, predictor=name))
    ]
    if row := found.metric(metric, predictor="mean of outcomes"):
        rows.append(_candidate(row, "mean of outcomes", "no feature", chosen=False))
    return rows


def _candidate(row: Row, name: str, kind: str, chosen: bool) -> Row:
    return {"candidate": name, "kind": kind, "value": row["value"], "low": row["ci_low"],
            "high": row["ci_high"], "chosen": chosen}  # fmt: skip


def control_rows(found: Validation) -> list[Row]:
    """Controls of the main split merged by one method, with the interval of the worst language."""
    rows = found.rows("controls", split=MAIN_SPLIT)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    method = "linear" if "linear" in methods else methods[0] if methods else ""
    ends = _worst_ends(found.rows("forecasts", split=MAIN_SPLIT))
    return [
        {"control": f"{row['control']}{_aligned(row['alignment'])}",
         "predicted": row["predicted"], "observed": row["observed"], "right": row["right"],
         **ends.get(row["merge"], {"low": None, "high": None})}
        for row in rows if row["method"] == method
    ]  # fmt: skip


def _aligned(alignment: str) -> str:
    way = {"orthogonal": "rotation"}.get(alignment, alignment)
    return "" if way == "none" else f", aligned by {way}"


def _worst_ends(rows: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    """Merge -> ends of the interval of the language with the least forecast."""
    least: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        known = least.get(row["merge"])
        if known is None or row["predicted"] < known["predicted"]:
            least[row["merge"]] = row
    return {name: {"low": row["low"], "high": row["high"]} for name, row in least.items()}


def hypothesis_rows(found: Validation) -> list[Row]:
    """Rows for the figure of hypotheses; counts of cases are no evidence and are left out."""
    return [
        {"hypothesis": row["hypothesis"], "statement": str(row["claim"]).rstrip("."),
         "verdict": row["verdict"], "quantity": row["quantity"], "value": row["value"],
         "low": row["ci_low"], "high": row["ci_high"]}
        for row in found.rows("hypotheses") if row["quantity"] != "cases"
    ]  # fmt: skip


def verdicts(found: Validation) -> Sequence[Row]:
    """One row per hypothesis: name, claim, verdict, sentence."""
    rows = {row["hypothesis"]: row for row in found.rows("hypotheses")}
    return [
        {name: row[name] for name in ("hypothesis", "claim", "verdict", "sentence", "n")}
        for row in rows.values()
    ]
