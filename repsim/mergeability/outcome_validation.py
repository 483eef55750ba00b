"""Validation on anybody's table: what features tell of models, methods and sources never seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.core.files import write_json
from repsim.core.formatting import number
from repsim.core.outcome_table import OutcomeTable
from repsim.core.pool import Pool
from repsim.mergeability.outcome_design import Design, design_of, inner_folds, splits_of
from repsim.mergeability.outcome_regressors import OUTCOME_REGRESSORS, per_method
from repsim.mergeability.outcome_scores import (
    DRAWS,
    OutcomeForecasts,
    OutcomeScores,
    Predictions,
    scores_of,
)
from repsim.mergeability.splits import Fold, Split
from repsim.stats.ranks import pearson

#: Name of a forecast -> regressors among which each fold chooses by folds inside its training
#: rows, and whether every method has a fit of its own.
NESTED: dict[str, tuple[tuple[str, ...], bool]] = {
    "features": (("ridge", "additive", "boosting"), False),
    "features, per method": (("ridge", "additive"), True),
    "features + members": (("members", "ridge", "ridge-members", "additive", "boosting"), False),
}
#: Regressors that stand beside them as they are: name -> its role, whether fitted per method.
ALONE: dict[str, tuple[str, bool]] = {
    "ridge": ("regressor", False), "additive": ("regressor", False),
    "boosting": ("regressor", False), "members": ("baseline", False), "mean": ("baseline", False),
}  # fmt: skip
#: What `protocol=True` adds: the protocol of Mergeability-Bench.
PROTOCOL = ("correlation", "protocol", True)
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class OutcomeReport:
    """What a validation on somebody's table found.

    Attributes:
        scores: Metrics.
        forecasts: Every forecast of the nested regressors.
        info: Splits with their questions, notes, what was chosen how often.
    """

    scores: OutcomeScores
    forecasts: OutcomeForecasts
    info: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """JSON-able; without the forecasts, of which there are thousands."""
        return {"schema": "repsim/outcome-validation/1", "info": dict(self.info),
                "metrics": list(self.scores.rows())}  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Write `outcome_validation.json`, `outcome_scores` and `outcome_forecasts` as tables."""
        target = Path(folder)
        for table in (self.scores, self.forecasts):
            table.save(target / f"{table.STEM}.csv")
            table.save(target)
        return write_json(target / "outcome_validation.json", self.to_json())


def validate_outcomes(
    table: OutcomeTable,
    *,
    directions: Mapping[str, int] | None = None,
    regressor: str | None = None,
    protocol: bool = False,
    splits: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = 0,
    workers: int = 1,
    say: Say | None = None,
) -> OutcomeReport:
    """Validate forecasts on a table of outcomes.

    Each fold chooses a regressor and its regularisation strength by folds of the same kind inside
    its training rows (nested selection); nothing of the tested rows is seen. Beside it stand the
    mean of each method, and who the parents are ("members"): a forecast that knows no feature but
    knows how other merges of the same models came out.

    Args:
        table: Merges with features and outcomes.
        directions: Feature -> +1 or -1, where the outcome may only rise or fall with it. Others
            have the sign of their rank correlation in the training rows.
        regressor: One of `OUTCOME_REGRESSORS` instead of the choice among several.
        protocol: Whether to add the protocol of Mergeability-Bench: a linear model per method,
            fitted on its correlation.
        splits: Names of splits; all that the table allows if empty.
        draws: Draws of models for intervals.
        seed: Of dealing and draws.
        workers: Processes.
        say: Told which split comes next.

    Raises:
        InputError: There are too few models or merges, or they cannot be parted.
        UsageError: No such split or regressor.

    Example:
        >>> from repsim.testing.outcomes import planted_outcomes
        >>> report = validate_outcomes(planted_outcomes(models=8), draws=20, regressor="ridge",
        ...                            splits=["leave-one-member-out"])
        >>> found = report.scores.where(predictor="ridge", method="all", metric="pearson")
        >>> float(found["value"][0]) > 0.5
        True
    """
    design = design_of(table, dict(directions or {}))
    y = table["outcome"]
    if np.ptp(y) == 0:
        raise InputError("every merge of the table has the same outcome: nothing to forecast")
    plan = _plan(regressor, protocol, several=len(design.methods) > 1)
    made = _chosen_splits(design, splits, seed)
    scores: list[dict[str, Any]] = []
    forecasts: list[dict[str, Any]] = []
    info: dict[str, Any] = {**_about(table, design), "splits": {s.name: s.question for s in made},
                            "chosen": {}, "draws": draws, "seed": seed}  # fmt: skip
    for split in made:
        if say:
            say(f"{split.name}: {len(split.folds)} folds")
        jobs = [
            (design, y, split.name, fold, number, plan) for number, fold in enumerate(split.folds)
        ]
        with Pool(workers) as pool:
            results = list(pool.map(_of_fold, jobs))
        info["chosen"][split.name] = _counted(results)
        for name, role in plan.roles.items():
            tested = _put_together(split, results, name)
            about = {"split": split.name, "predictor": name, "role": role}
            scores += [
                {**about, **row}
                for row in scores_of(tested, y, design.cell, design.cells, design.members,
                                     draws=draws, seed=seed)
            ]  # fmt: skip
            if role in ("predictor", "protocol"):
                forecasts += _forecast_rows(table, tested, about)
    info["warnings"] = _warnings(OutcomeScores(scores), design)
    return OutcomeReport(OutcomeScores(scores), OutcomeForecasts(forecasts), info)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Forecasts to make: nested ones, and regressors as they are with (role, per method)."""

    nested: Mapping[str, tuple[tuple[str, ...], bool]]
    alone: Mapping[str, tuple[str, bool]]

    @property
    def roles(self) -> dict[str, str]:
        return {**dict.fromkeys(self.nested, "predictor"),
                **{name: role for name, (role, _) in self.alone.items()}}  # fmt: skip


def _plan(regressor: str | None, protocol: bool, *, several: bool) -> _Plan:
    if regressor is not None and regressor not in OUTCOME_REGRESSORS:
        raise unknown_name("regressor of a table of outcomes", regressor, OUTCOME_REGRESSORS)
    if regressor == "mean":
        raise UsageError("the mean of each method is the baseline, no forecast")
    nested, alone = dict(NESTED), dict(ALONE)
    if regressor:
        nested = {regressor: ((regressor,), False),
                  f"{regressor}, per method": ((regressor,), True)}  # fmt: skip
        alone = {n: how for n, how in ALONE.items() if how[0] == "baseline" and n != regressor}
    if protocol:
        alone[PROTOCOL[0]] = PROTOCOL[1:]
    if not several:
        nested = {name: how for name, how in nested.items() if not how[1]}
    return _Plan(nested, alone)


def _chosen_splits(design: Design, wanted: Sequence[str], seed: int) -> list[Split]:
    possible = splits_of(design, seed)
    names = [split.name for split in possible]
    for name in wanted:
        if names and name not in names:
            raise unknown_name("split of this table", name, names)
    if not possible:
        raise InputError("the table cannot be parted so that models are held out and enough is "
                         "left", hint="add merges of other models")  # fmt: skip
    return [split for split in possible if not wanted or split.name in wanted]


def _of_fold(
    job: tuple[Design, np.ndarray, str, Fold, int, _Plan],
) -> dict[str, tuple[np.ndarray, str]]:
    """Forecasts of the test rows of a fold, by name, with what was chosen."""
    design, y, split, fold, seed, plan = job
    outcomes = np.where(fold.train, y, np.nan)
    trained = design.take(fold.train)
    inner = inner_folds(split, trained, seed)
    trials: dict[tuple[str, int, bool], np.ndarray] = {}
    found = {}
    for name, (regressors, alone) in plan.nested.items():
        best, setting = _best(regressors, alone, trained, y[fold.train], inner, trials)
        values = _forecast(best, setting, alone, design, outcomes)[fold.test]
        found[name] = (values, best + "".join(f" {k}={v:g}" for k, v in setting.items()))
    for name, (_, alone) in plan.alone.items():
        _, setting = _best((name,), alone, trained, y[fold.train], inner, trials)
        found[name] = (_forecast(name, setting, alone, design, outcomes)[fold.test], "")
    return found


def _best(
    regressors: Sequence[str], alone: bool, design: Design, y: np.ndarray,
    inner: Sequence[Fold], trials: dict[tuple[str, int, bool], np.ndarray],
) -> tuple[str, Mapping[str, float]]:  # fmt: skip
    """The simplest within one standard error of the best, by inner folds (Breiman et al. 1984)."""
    options = [(r, n) for r in regressors for n in range(len(OUTCOME_REGRESSORS[r].grid))]
    if len(options) > 1:
        for name, place in options:
            if (name, place, alone) not in trials:
                setting = OUTCOME_REGRESSORS[name].grid[place]
                trials[name, place, alone] = _trial(name, setting, alone, design, y, inner)
        found = [trials[*option, alone] for option in options]
        best = max(found, key=lambda values: float(values.mean()))
        behind = [best - values for values in found]
        options = [
            option for option, gap in zip(options, behind, strict=True)
            if gap.mean() <= gap.std() / np.sqrt(len(gap))
        ]  # fmt: skip
    name, place = options[0]
    return name, OUTCOME_REGRESSORS[name].grid[place]


def _trial(
    name: str, setting: Mapping[str, float], alone: bool, design: Design, y: np.ndarray,
    inner: Sequence[Fold],
) -> np.ndarray:  # fmt: skip
    """Correlation of predicted and observed outcomes in each inner fold, the mean over cells."""
    found = []
    for fold in inner:
        predicted = _forecast(name, setting, alone, design, np.where(fold.train, y, np.nan))
        rows = [fold.test & (design.cell == code) for code in np.unique(design.cell)]
        values = [pearson(predicted[those], y[those]) for those in rows]
        known = [value for value in values if np.isfinite(value)]
        # A forecast that ranks nothing is worth what chance is.
        found.append(float(np.mean(known)) if known else 0.0)
    return np.array(found or [0.0])


def _forecast(
    name: str, setting: Mapping[str, float], alone: bool, design: Design, y: np.ndarray
) -> np.ndarray:
    forecast = OUTCOME_REGRESSORS[name].forecast
    return per_method(forecast, design, y, setting) if alone else forecast(design, y, setting)


def _put_together(
    split: Split, results: Sequence[Mapping[str, tuple[np.ndarray, str]]], name: str
) -> Predictions:
    rows = [np.flatnonzero(fold.test) for fold in split.folds]
    folds = [np.full(len(those), number) for number, those in enumerate(rows)]
    predicted = [result[name][0] for result in results]
    return Predictions(np.concatenate(rows), np.concatenate(folds), np.concatenate(predicted),
                  tuple(fold.name for fold in split.folds))  # fmt: skip


def _counted(results: Sequence[Mapping[str, tuple[np.ndarray, str]]]) -> dict[str, dict[str, int]]:
    """How often each regressor was chosen."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        for name, (_, chosen) in result.items():
            if chosen:
                mine = counts.setdefault(name, {})
                mine[chosen] = mine.get(chosen, 0) + 1
    return counts


def _forecast_rows(
    table: OutcomeTable, tested: Predictions, about: Mapping[str, str]
) -> list[dict[str, Any]]:
    parents, method, source, y = (table[n] for n in ("parents", "method", "source", "outcome"))
    return [
        {"split": about["split"], "predictor": about["predictor"], "fold": tested.names[fold],
         "parents": parents[row], "method": method[row], "source": source[row],
         "predicted": value, "observed": y[row]}
        for row, fold, value in zip(tested.rows, tested.fold, tested.predicted, strict=True)
    ]  # fmt: skip


def _about(table: OutcomeTable, design: Design) -> dict[str, Any]:
    return {**table.info, "features": table.features, "rows": len(table),
            "models": len(design.names), "groups": len(set(table["parents"])),
            "methods": list(design.methods), "sources": list(design.sources)}  # fmt: skip


def _warnings(scores: OutcomeScores, design: Design) -> list[str]:
    """What the numbers cannot be used for, as far as they show it themselves."""
    found = []
    alone = {(r["split"], r["predictor"], r["metric"]): r["value"]
             for r in scores.where(method="all").rows()}  # fmt: skip
    for (split, name, metric), value in alone.items():
        pooled = alone.get((split, name, f"{metric}_pooled"))
        if metric == "pearson" and pooled is not None and name in NESTED and value - pooled > 0.15:
            found.append(
                f"{split}, {name}: pooled r {number(pooled)} is far below r within folds "
                f"{number(value)}: forecasts rank the merges of a fold, their level from fold to "
                "fold is not known"
            )
    members = alone.get(("leave-one-member-out", "members", "pearson"))
    features = alone.get(("leave-one-member-out", "features", "pearson"))
    if members is not None and features is not None and members > features:
        found.append(
            f"leave-one-member-out: who the partner is ranks the merges of a new model better (r "
            f"{number(members)}) than features do ({number(features)}), since each partner is "
            "known from other merges; for what features tell alone see leave-models-out"
        )
    if len(design.methods) == 1:
        found.append("the table holds one method: forecasts for others are not tested")
    return found
