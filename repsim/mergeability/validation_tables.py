"""What a validation found, as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from repsim.core.errors import InputError
from repsim.core.files import read_json, write_json
from repsim.core.table import Table

SCHEMA = "repsim/validation/3"
_EARLIER = "repsim/validation/2"

#: Ends of the interval of a number.
_INTERVAL = {
    "ci_low": ("float", "lower end of the 95 % interval by the bootstrap over models", "95 % low"),
    "ci_high": ("float", "upper end", "95 % high"),
}


class MetricTable(Table):
    """One row per split, stratum, predictor and metric."""

    SCHEMA = "repsim/validation-metrics/1"
    STEM = "metrics"
    COLUMNS: ClassVar = {
        "split": ("string", "how evidence was parted"),
        "stratum": (
            "string",
            "all; shared-init: merges of one set of initial weights; as-they-are: not aligned",
        ),
        "predictor": ("string", "name of the predictor, regressor or baseline"),
        "role": (
            "string",
            "predictor, oracle (looks at a trial of the merge: no forecast), regressor (another "
            "one on the same features), or baseline",
        ),
        "metric": ("string", "spearman, mae, auroc, brier, ece, coverage, width, refused, ..."),
        "value": ("float", "value"),
        **_INTERVAL,
        "rows": ("int", "rows (merges times languages) that were tested"),
        "merges": ("int", "merges that were tested"),
    }


class LiftTable(Table):
    """One row per split, stratum, baseline and metric: how much better the predictor is."""

    SCHEMA = "repsim/validation-lifts/1"
    STEM = "lifts"
    COLUMNS: ClassVar = {
        "split": ("string", "how evidence was parted"),
        "stratum": ("string", "all, shared-init or as-they-are"),
        "predictor": ("string", "the predictor"),
        "baseline": ("string", "what it is compared with"),
        "metric": ("string", "spearman, mae or auroc"),
        "lift": ("float", "by how much the predictor is better; negative: the baseline is better"),
        **_INTERVAL,
    }


class OutOfFoldTable(Table):
    """One row per split, merge and language: forecast and outcome."""

    SCHEMA = "repsim/validation-forecasts/1"
    STEM = "forecasts"
    COLUMNS: ClassVar = {
        "split": ("string", "how evidence was parted"),
        "predictor": ("string", "the predictor"),
        "fold": ("string", "what was held out"),
        "merge": ("string", "name of the merge"),
        "parents": ("string", "names joined by ' + '"),
        "method": ("string", "merge method"),
        "alignment": ("string", "none, permutation or orthogonal"),
        "language": ("string", "language"),
        "arm": ("string", "arm of the study"),
        "control": ("string", "kind of control with a known answer; empty for none"),
        "shared_init": ("int", "1 if all parents descend from one set of initial weights"),
        "fork_fraction": ("float", "share of training in common"),
        "predicted": ("float", "predicted retention"),
        "low": ("float", "lower end of the 90 % interval"),
        "high": ("float", "upper end"),
        "observed": ("float", "observed retention, brought into the range -1 to 1.2"),
        "refusal": ("string", "why the predictor would not have said it; empty if it would"),
        "worst": ("float", "least predicted retention of the merge"),
        "observed_worst": ("float", "least observed retention of the merge"),
        "p_collapse": ("float", "predicted probability of collapse"),
        "collapsed": ("int", "1 if the merge collapsed"),
        "p_useful": ("float", "probability that it beats every single parent"),
        "useful": ("int", "1 if it did"),
    }


class ControlTable(Table):
    """One row per split and control merge: whether the known answer was found."""

    SCHEMA = "repsim/validation-controls/2"
    STEM = "controls"
    COLUMNS: ClassVar = {
        "split": ("string", "how evidence was parted"),
        "control": ("string", "kind of control"),
        "merge": ("string", "name of the merge"),
        "method": ("string", "merge method"),
        "alignment": ("string", "none, permutation or orthogonal"),
        "answer": ("string", "lives or collapses, as theory says; open: theory does not say"),
        "came": ("string", "lives or collapses, as it came"),
        "predicted_outcome": ("string", "lives, collapses, or refused"),
        "p_collapse": ("float", "predicted probability of collapse"),
        "predicted": ("float", "least predicted retention"),
        "observed": ("float", "least observed retention"),
        "right": ("int", "1 if the forecast came true; empty if refused"),
    }
    UPGRADES: ClassVar = {
        "repsim/validation-controls/1": lambda table: table.rename_columns([
            "predicted_outcome" if name == "foretold" else name for name in table.column_names
        ])
    }  # fmt: skip


class HypothesisTable(Table):
    """One row per hypothesis and number that speaks for or against it."""

    SCHEMA = "repsim/validation-hypotheses/1"
    STEM = "hypotheses"
    COLUMNS: ClassVar = {
        "hypothesis": ("string", "H1 to H5", "hypothesis"),
        "claim": ("string", "what is claimed"),
        "quantity": ("string", "what was computed", "quantity"),
        "value": ("float", "value"),
        **_INTERVAL,
        "n": ("int", "merges or rows behind it", "n"),
        "verdict": ("string", "supported, refuted or open", "verdict"),
        "sentence": ("string", "the verdict in words"),
    }


class GoalTable(Table):
    """One row per goal: when it was set, and whether it is reached."""

    SCHEMA = "repsim/validation-goals/2"
    STEM = "goals"
    COLUMNS: ClassVar = {
        "goal": ("string", "what was aimed at", "goal"),
        "features": ("string", "set of tiers that it is about"),
        "set": ("string", "before anything was measured, or later: results had been seen", "set"),
        "wanted": ("string", "the bar", "wanted"),
        "found": ("float", "value", "observed"),
        **_INTERVAL,
        "reached": ("string", "yes, no, or lead not certain: its interval reaches 0", "reached"),
        "why": ("string", "what the value is made of, where that needs words", "why"),
    }


@dataclasses.dataclass(frozen=True)
class ValidationReport:
    """How good a predictor is on models that it has never seen, and what theory is worth.

    Attributes:
        metrics: Skill of the predictor, of other regressors and of baselines.
        lifts: Skill over baselines.
        forecasts: Out-of-fold forecasts by the predictor.
        controls: Merges with known answers.
        hypotheses: Tests of theory; empty if the evidence lacks the features.
        goals: Goals: when they were set, and whether they are reached.
        info: Settings, splits and their questions, number of merges and models.
    """

    metrics: MetricTable
    lifts: LiftTable
    forecasts: OutOfFoldTable
    controls: ControlTable
    hypotheses: HypothesisTable
    goals: GoalTable
    info: Mapping[str, Any]

    @property
    def tables(self) -> dict[str, Table]:
        """Tables by name."""
        parts = (self.metrics, self.lifts, self.forecasts, self.controls, self.hypotheses,
                 self.goals)  # fmt: skip
        return {table.STEM: table for table in parts}

    def to_json(self) -> dict[str, Any]:
        """JSON-able: the info, and the rows of each table."""
        tables = {name: list(table.rows()) for name, table in self.tables.items()}
        return {"schema": SCHEMA, "info": dict(self.info), **tables}

    def save(self, folder: str | Path) -> Path:
        """Write `validation.json`, and `forecasts.parquet` for what would be long in it."""
        target = Path(folder)
        self.forecasts.save(target)
        document = self.to_json()
        del document[self.forecasts.STEM]
        write_json(target / "validation.json", document, indent=None)
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: Missing, damaged, or no validation.
        """
        source = Path(folder)
        document = read_json(source / "validation.json")
        if document.get("schema") == _EARLIER:
            document = _upgraded(document)
        elif document.get("schema") != SCHEMA:
            raise InputError(f"'{folder}' holds no validation of the kind {SCHEMA}")
        try:
            return cls(
                MetricTable(document["metrics"]),
                LiftTable(document["lifts"]),
                OutOfFoldTable.load(source / "forecasts.parquet"),
                ControlTable(document["controls"]),
                HypothesisTable(document["hypotheses"]),
                GoalTable(document["goals"]),
                document["info"],
            )
        except KeyError as missing:
            raise InputError(f"the validation in '{folder}' lacks its {missing}") from None


def _upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the version before as one of today's."""
    goals = [dict(row) for row in document["goals"]]
    for row in goals:
        certain = row["wanted"] != "above 0" or (row["ci_low"] or 0) > 0
        row["reached"] = "no" if not row["reached"] else "yes" if certain else "lead not certain"
    return {**document, "goals": goals}
