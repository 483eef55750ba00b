"""Validation: how good forecasts are for models, languages, forks, arms and methods never seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.core.pool import Pool
from repsim.core.progress import progress
from repsim.mergeability.baselines import (
    LOOKUP,
    MEAN,
    RIVALS,
    baseline_uses,
    run_baseline,
    run_lookup,
    run_regressor,
    with_provenance,
)
from repsim.mergeability.candidate import RETENTION
from repsim.mergeability.costs import Cost
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import (
    DEFAULT_SET,
    FeatureUse,
    at_hand,
    direction_of,
    feature_uses,
    tier_sets_of,
    with_derived,
)
from repsim.mergeability.features.tiers import ORACLE
from repsim.mergeability.goals import goal_rows
from repsim.mergeability.hypotheses import examine_hypotheses
from repsim.mergeability.known_answers import control_rows
from repsim.mergeability.made_alike import spread_of_alike
from repsim.mergeability.metrics import FULL, LESS_IS_BETTER, POINT, Metric, bootstrap
from repsim.mergeability.out_of_fold import OutOfFold, carry_out
from repsim.mergeability.part import BLOCKS
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.regressors import CHOSEN, REGRESSORS
from repsim.mergeability.splits import Split, incidence, new_sources, standard_splits
from repsim.mergeability.validation_tables import (
    ControlTable,
    GoalTable,
    HypothesisTable,
    LiftTable,
    MetricTable,
    OutOfFoldTable,
    ValidationReport,
)
from repsim.stats import interval_of
from repsim.stats.additive import LEAST

#: Metrics of which lifts are stated.
LIFTED = ("spearman", "mae", "auroc")
#: Fewest rows of a stratum that is judged by itself.
LEAST_ROWS = 12
#: The split that stands for "models never seen".
MAIN_SPLIT = "leave-models-out"
#: What a trial of the average tells without anything else, and the feature that holds it.
TRIAL, TRIAL_FEATURE = "trial of the average alone", "oracle_retention_as_merged"
Say = Callable[[str], None]


def validate(
    evidence: EvidenceTable,
    *,
    outcome: str = RETENTION,
    regressor: str = CHOSEN,
    features: Sequence[str] = (),
    splits: Sequence[str] = (),
    blocks: int = 6,
    inner_blocks: int = BLOCKS,
    draws: int = 200,
    seed: int = 0,
    costs: Sequence[Cost] = (),
    workers: int = 1,
    stored: Predictor | None = None,
    say: Say | None = None,
) -> ValidationReport:
    """Validate a predictor on evidence: every split, stratum and baseline.

    Other sets of tiers and other regressors are compared on models never seen alone. A
    trial of the average on a few sentences stands beside them with a role of its own ("oracle"),
    where the evidence has it: it looks at the merge, which no forecast does.

    Args:
        evidence: Known merges.
        outcome: "retention", or "gain_kept" of merges whose base is known; goals and hypotheses are
            about retention, and "collapse" is less than half of either.
        regressor: Name of the regressor of the predictor.
        features: Features instead of the chosen ones; "name:+" states a direction.
        splits: Names of splits; all that the evidence allows if empty.
        blocks: Blocks of models of leave-models-out.
        inner_blocks: Blocks by which each predictor learns its errors.
        draws: Draws of models for intervals.
        seed: Of dealing and draws.
        costs: What measuring features costs, if known; see `repsim.mergeability.costs.costs_of`.
        workers: Processes that share the fits; their number changes nothing but the time.
        stored: A predictor that knows nothing of the evidence: it forecasts as it is, baselines
            learn from what it knows, and each source of the evidence is a split.
        say: Told which split comes next, and how much time is left.

    Returns:
        The report.

    Raises:
        InputError: There are too few models or merges, the outcome is known of none, or `stored`
            knows some of them.
        UsageError: There is no such regressor, feature or split.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> report = validate(planted_evidence(models=14), splits=["leave-models-out"], blocks=3,
        ...                   draws=20, inner_blocks=3)
        >>> report.metrics.where(metric="coverage", stratum="all").column("value")[0] > 0.7
        np.True_
    """
    if stored is not None and stored.outcome != outcome:
        raise UsageError(f"{stored.identity} is of {stored.outcome}, not of {outcome}")
    told = evidence.of_outcome(outcome)
    every = told if stored is None else _beside(stored, told)
    table = with_provenance(with_derived(every))
    tell = say or (lambda text: None)
    sets = _sets(table, features) if stored is None else _stored_sets(stored, told)
    main = DEFAULT_SET if DEFAULT_SET in sets else next(reversed(sets))
    if stored is None:
        possible = standard_splits(table, blocks=blocks, seed=seed)
    else:
        possible = new_sources(table, len(stored.evidence_))
    names = [split.name for split in possible]
    for name in splits:
        if possible and name not in names:
            raise unknown_name("split of this evidence", name, names)
    made = [split for split in possible if not splits or split.name in splits]
    if not made:
        raise InputError(
            "the evidence cannot be parted so that models are held out and enough is left",
            hint="add merges of other models",
        )
    metrics: list[dict[str, Any]] = []
    lifts: list[dict[str, Any]] = []
    forecasts: list[dict[str, Any]] = []
    controls: list[dict[str, Any]] = []
    skipped: dict[str, list[str]] = {}
    chosen: dict[str, list[str]] = {}
    # On models and origins never seen every set of tiers is tested, elsewhere the fullest forecast.
    whole = (MAIN_SPLIT, "leave-origins-out", *(names if stored else ()))
    wanted = {split.name: sets if split.name in whole else {main: sets[main]} for split in made}
    how: dict[str, Any] = {"features": features, "blocks": inner_blocks, "seed": seed}
    with _Pace(made, wanted) as pace, Pool(workers) as pool:
        for split in made:
            tell(f"{split.name}: {len(split.folds)} folds{pace.left()}")
            own: dict[str, OutOfFold] = {}
            for name, tiers in _fits(wanted[split.name]).items():
                found, picks = carry_out(
                    table,
                    split,
                    stored or Predictor(regressor, tiers=tiers, **how),
                    advance=pace.advance,
                    each=pool.map,
                    stored=stored is not None,
                )
                own |= found if tiers is None else dict(zip([name], found.values(), strict=True))
                chosen.setdefault(split.name, []).extend(picks)
            if main not in own:
                continue
            skipped[split.name] = list(own[main].skipped)
            if not len(own[main].rows):
                continue
            others = _others(table, split, regressor, sets[main], features)
            roles = {name: ORACLE if ORACLE in sets[name] else "predictor" for name in own}
            for stratum, those in _strata(table, split).items():
                judged = _judge(own, roles, others, those, draws, seed)
                about = {"split": split.name, "stratum": stratum}
                metrics += [{**about, **row} for row in _metric_rows(judged)]
                lifts += [{**about, **row} for row in _lift_rows(judged, main)]
                metrics += [{**about, **row} for row in _refusal_rows(own, roles, those)]
                metrics += [{**about, **row} for row in _denial_rows(own, roles, main, those)]
            forecasts += list(own[main].to_rows(split.name, main))
            controls += list(control_rows(own[main], split.name))
    table_of_metrics, table_of_lifts = MetricTable(metrics), LiftTable(lifts)
    info = {
        "outcome": outcome, "regressor": regressor, "predictor": main,
        "sets": {k: list(v) for k, v in sets.items()},
        "stored": stored.identity if stored else None,
        "features": [use.name for use in feature_uses(table, sets[main], features)],
        "splits": {split.name: split.question for split in made},
        "folds": {split.name: len(split.folds) for split in made},
        "skipped": skipped, "chosen": {name: dict(Counter(v)) for name, v in chosen.items()},
        "histories": len(set(table.histories)),
        "origins": len(incidence(table, histories=True)[1]),
        "clipped": float((evidence["retention"] <= LEAST).mean()), "rows": len(evidence),
        "alike": list(spread_of_alike(table)),
        "merges": len(evidence.merges()[1]),
        "groups": len(set(evidence["parents"])), "models": len(incidence(evidence)[1]),
        "blocks": blocks, "draws": draws, "seed": seed,
        "costs": {cost.features: cost.share for cost in reversed(costs)},  # of the smallest
    }  # fmt: skip
    of_theory: list[dict[str, Any]] = []
    goals: list[dict[str, Any]] = []
    if outcome == RETENTION:
        if stored is None:
            tell("hypotheses")
            of_theory = examine_hypotheses(table, draws=draws, seed=seed)
        goals = goal_rows(table_of_metrics, table_of_lifts, main, costs)
    return ValidationReport(
        table_of_metrics,
        table_of_lifts,
        OutOfFoldTable(forecasts),
        ControlTable(controls),
        HypothesisTable(of_theory),
        GoalTable(goals),
        info,
    )


def _beside(stored: Predictor, evidence: EvidenceTable) -> EvidenceTable:
    """What a predictor knows, then evidence of which it knows nothing."""
    known = stored.evidence_
    if again := {*known["source"]} & {*evidence["source"]} - {""}:
        raise InputError(
            f"the predictor knows merges of '{again.pop()}'",
            hint="its skill on them is told by splits: leave out the predictor",
        )
    shared = set(known.columns) & set(evidence.columns)
    arrow = known.to_arrow().select([name for name in known.columns if name in shared])
    return EvidenceTable.concat(
        [EvidenceTable(arrow, {**known.info, "tiers": evidence.tiers}), evidence]
    )


def _stored_sets(stored: Predictor, evidence: EvidenceTable) -> dict[str, tuple[str, ...]]:
    """The sets of tiers that a predictor knows and the evidence has."""
    known = at_hand(evidence)
    sets = {name: p.tiers for name, p in stored.parts_.items() if {*p.tiers} <= known}
    if not sets:
        raise InputError(
            "the evidence lacks features that the predictor needs", hint="repsim predictor show"
        )
    return sets


class _Pace:
    """A bar over all fits of a validation, and what is left in words."""

    def __init__(self, splits: Sequence[Split], sets: Mapping[str, Mapping[str, Any]]) -> None:
        self._total = sum(len(split.folds) * len(_fits(sets[split.name])) for split in splits)
        self._done = 0
        self._started = time.monotonic()
        self._stack = ExitStack()

    def __enter__(self) -> _Pace:
        self._bar = self._stack.enter_context(progress("fits", self._total, "fit"))
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()

    def advance(self) -> None:
        """One fold of one set of tiers is done."""
        self._done += 1
        self._bar.update()

    def left(self) -> str:
        """Share of the fits that is done and the time that the others take, once it is known."""
        if not self._done:
            return f" ({self._total} fits in all)"
        spent = time.monotonic() - self._started
        minutes = spent / self._done * (self._total - self._done) / 60
        rest = f"about {minutes:.0f} min" if minutes >= 1 else "under a minute"
        return f" ({self._done} of {self._total} fits done, {rest} left)"


def _fits(sets: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...] | None]:
    """What predictors are fitted on: all nested sets at once (None), a trial by itself."""
    if len(sets) == 1:
        return dict(sets)
    return {"": None, **{name: tiers for name, tiers in sets.items() if ORACLE in tiers}}


def _sets(table: EvidenceTable, features: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if features:
        return {"table": tuple(dict.fromkeys(table.tiers.values()))}
    return tier_sets_of(table)


def _others(
    table: EvidenceTable, split: Split, regressor: str, tiers: Sequence[str],
    features: Sequence[str],
) -> dict[str, tuple[str, OutOfFold]]:  # fmt: skip
    """Other regressors on the same features, and baselines: name -> (role, forecasts)."""
    uses = feature_uses(table, tiers, features)
    found: dict[str, tuple[str, OutOfFold]] = {}
    if split.name == MAIN_SPLIT:
        for name in REGRESSORS:
            if name != "mean" and name not in RIVALS.values():
                shown = f"{name}, all features, no selection"
                found[shown] = ("regressor", run_regressor(table, split, name, uses))
        if TRIAL_FEATURE in table.features:
            trial = FeatureUse(TRIAL_FEATURE, direction_of(TRIAL_FEATURE))
            found[TRIAL] = (ORACLE, run_baseline(table, split, trial))
    for shown, name in RIVALS.items():
        found[shown] = ("baseline", run_regressor(table, split, name, uses))
    found[LOOKUP] = ("baseline", run_lookup(table, split))
    found[MEAN] = ("baseline", run_baseline(table, split, None))
    for name, use in baseline_uses(table).items():
        found[name] = ("baseline", run_baseline(table, split, use))
    return found


def _strata(table: EvidenceTable, split: Split) -> dict[str, np.ndarray]:
    """Rows that are judged by themselves; merges as they are on models never seen alone."""
    parts = {"shared-init": table["shared_init"] == 1}
    if split.name == MAIN_SPLIT:
        parts["as-they-are"] = table["alignment"] == "none"
    sizes = {name: int(rows.sum()) for name, rows in parts.items()}
    found = {"all": np.ones(len(table), dtype=bool)}
    return found | {n: r for n, r in parts.items() if LEAST_ROWS <= sizes[n] < len(table)}


#: Name -> (role, value by metric, draws by metric, rows, merges).
_Found = dict[str, tuple[str, dict[str, float], dict[str, np.ndarray], int, int]]


def _judge(
    own: Mapping[str, OutOfFold],
    roles: Mapping[str, str],
    others: Mapping[str, tuple[str, OutOfFold]],
    chosen: np.ndarray,
    draws: int,
    seed: int,
) -> _Found:
    """Metrics and their draws; the draws are the same for all, so that lifts can be told."""
    # Measured on the rows that the predictors tested: a baseline needs less and might test more.
    tested = chosen & np.all([np.isfinite(t.predicted) for t in own.values()], axis=0)
    if tested.sum() < LEAST_ROWS:
        return {}
    found: _Found = {}
    for part, metrics in (
        ({name: (roles[name], t) for name, t in own.items()}, FULL),
        (others, POINT),
    ):
        judged = {name: t.with_outcomes(tested) for name, (_, t) in part.items()}
        if not judged:
            continue
        drawn = bootstrap(list(judged.values()), metrics, draws=draws, seed=seed)
        for (name, one), values in zip(judged.items(), drawn, strict=True):
            now = {metric: function(one) for metric, function in metrics.items()}
            size = (len(one.predicted), len(one.worst))
            found[name] = (part[name][0], now, values, *size)
    return found


def _metric_rows(found: _Found) -> list[dict[str, Any]]:
    rows = []
    for name, (role, now, drawn, count, merges) in found.items():
        for metric, value in now.items():
            low, high = interval_of(drawn[metric])
            rows.append({
                "predictor": name, "role": role, "metric": metric, "value": value,
                "ci_low": low, "ci_high": high, "rows": count, "merges": merges,
            })  # fmt: skip
    return rows


def _lift_rows(found: _Found, main: str) -> list[dict[str, Any]]:
    if main not in found:
        return []
    _, now, drawn, _, _ = found[main]
    rows = []
    for name, (role, theirs, their_draws, _, _) in found.items():
        if role != "baseline":
            continue
        for metric in LIFTED:
            sign = -1.0 if metric in LESS_IS_BETTER else 1.0
            low, high = interval_of(sign * (drawn[metric] - their_draws[metric]))
            rows.append({
                "predictor": main, "baseline": name, "metric": metric,
                "lift": sign * (now[metric] - theirs[metric]), "ci_low": low, "ci_high": high,
            })  # fmt: skip
    return rows


def _refusal_rows(
    own: Mapping[str, OutOfFold], roles: Mapping[str, str], chosen: np.ndarray
) -> list[dict[str, Any]]:
    """Share of refusals, and the coverage and error of what was not refused."""
    rows = []
    for name, tested in own.items():
        kept = chosen & np.isfinite(tested.predicted)
        if kept.sum() < LEAST_ROWS:
            continue
        values = {"refused": float(tested.refused[kept].mean())}
        answered = kept & ~tested.refused
        if answered.sum() >= LEAST_ROWS:
            judged = tested.with_outcomes(answered)
            picked: dict[str, Metric] = {
                f"{m}_answered": FULL[m] for m in ("spearman", "mae", "auroc", "coverage", "width")
            }
            values |= {metric: function(judged) for metric, function in picked.items()}
        rows += [
            {"predictor": name, "role": roles[name], "metric": metric, "value": value,
             "rows": int(kept.sum())}
            for metric, value in values.items()
        ]  # fmt: skip
    return rows


def _denial_rows(
    own: Mapping[str, OutOfFold], roles: Mapping[str, str], main: str, chosen: np.ndarray
) -> list[dict[str, Any]]:
    """Share of merges whose fate is left open, and of which the main set says the opposite."""
    rows = []
    _, first = own[main].table.merges()
    for name, tested in own.items():
        mine, theirs = (found.fates[first] for found in (tested, own[main]))
        kept = chosen[first] & (mine != "") & (theirs != "")
        if kept.sum() < LEAST_ROWS:
            continue
        said = (mine != "open") & (theirs != "open") & (mine != theirs)
        values = {"open": float((mine[kept] == "open").mean())}
        if name != main and roles[name] != ORACLE:
            values["denied by more tiers"] = float(said[kept].mean())
        rows += [
            {"predictor": name, "role": roles[name], "metric": metric, "value": value,
             "merges": int(kept.sum())}
            for metric, value in values.items()
        ]  # fmt: skip
    return rows
