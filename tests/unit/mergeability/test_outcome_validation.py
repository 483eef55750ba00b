"""Validation on tables of others: nothing leaks, what is planted is found, scores are right."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from repsim.core.errors import InputError, UsageError
from repsim.core.outcome_table import OutcomeTable
from repsim.mergeability.outcome_design import design_of, splits_of
from repsim.mergeability.outcome_regressors import OUTCOME_REGRESSORS, by_method
from repsim.mergeability.outcome_scores import Predictions, scores_of
from repsim.mergeability.outcome_validation import validate_outcomes
from repsim.testing.outcomes import planted_outcomes

FAST = {"draws": 20, "regressor": "ridge"}


def _found(report, predictor, metric="pearson", method="all"):
    rows = report.scores.where(predictor=predictor, metric=metric, method=method)
    return float(rows["value"][0]) if len(rows) else float("nan")


@pytest.fixture(scope="module")
def design():
    return design_of(planted_outcomes(models=8))


def test_no_held_out_model_is_learnt_from(design) -> None:
    for split in splits_of(design):
        assert split.folds
        for fold in split.folds:
            assert not (fold.train & fold.test).any()
            held = design.members[fold.test].all(axis=0)
            if split.name == "leave-models-out":
                held = design.members[fold.test].any(axis=0)
            assert held.any()
            assert not design.members[fold.train][:, held].any()


def test_every_merge_is_tested_as_often_as_it_should_be(design) -> None:
    counts = {s.name: sum(f.test.astype(int) for f in s.folds) for s in splits_of(design)}
    assert (counts["leave-one-member-out"] == 2).all()
    assert (counts["leave-models-out"] == 1).all()
    assert (counts["leave-method-out"] == 2).all()


@pytest.mark.parametrize("name", list(OUTCOME_REGRESSORS))
def test_forecasts_do_not_see_what_they_are_tested_on(design, name) -> None:
    regressor = OUTCOME_REGRESSORS[name]
    y = planted_outcomes(models=8)["outcome"]
    fold = splits_of(design)[0].folds[0]
    one = regressor.forecast(design, np.where(fold.train, y, np.nan), regressor.grid[0])
    assert np.isfinite(one).all()
    shuffled = np.where(fold.train, y, y[::-1])
    two = regressor.forecast(design, np.where(fold.train, shuffled, np.nan), regressor.grid[0])
    assert np.array_equal(one, two)


def test_features_and_members_are_told_apart() -> None:
    """Outcomes that models make and no feature knows."""
    table = planted_outcomes(models=9, model_effect=0.3, noise=0.01)
    kept = [{**row, "feature:cosine": 0.1 * row["feature:chance"] ** 3} for row in table.rows()]
    blind = OutcomeTable(kept)
    one = validate_outcomes(blind, splits=["leave-one-member-out"], **FAST)
    assert _found(one, "members") > 0.6
    assert _found(one, "ridge") < 0.3
    both = validate_outcomes(blind, splits=["leave-models-out"], **FAST)
    # Nothing is known of models that were never seen: a constant forecast ranks nothing.
    assert np.isnan(_found(both, "members"))


def test_what_features_tell_holds_for_models_never_seen() -> None:
    report = validate_outcomes(planted_outcomes(models=9), splits=["leave-models-out"], **FAST)
    assert _found(report, "ridge") > 0.9
    assert _found(report, "ridge, per method") > 0.9
    again = validate_outcomes(planted_outcomes(models=9), splits=["leave-models-out"], **FAST)
    assert again.to_json() == report.to_json()


def test_the_choice_is_made_inside_the_training_rows() -> None:
    report = validate_outcomes(
        planted_outcomes(models=10, methods=("mean",)), splits=["leave-models-out"], draws=20,
        protocol=True,
    )  # fmt: skip
    chosen = report.info["chosen"]["leave-models-out"]["features"]
    assert sum(chosen.values()) == len(
        splits_of(design_of(planted_outcomes(models=10, methods=("mean",))))[1].folds
    )
    assert _found(report, "correlation") > 0.7
    assert any("one method" in said for said in report.info["warnings"])


def test_scores_agree_with_scipy_and_weights_with_repetition() -> None:
    rng = np.random.default_rng(0)
    table = planted_outcomes(models=7)
    design, y = design_of(table), table["outcome"]
    predicted = y + rng.normal(0, 0.1, len(y))
    rows = np.arange(len(y))
    fold = rows // 2 % 2
    tested = Predictions(rows, fold, predicted, ("even", "odd"))
    rated = scores_of(tested, y, design.method, design.methods, design.members)
    found = {(r["method"], r["metric"]): r["value"] for r in rated}
    mine = design.method == 0
    for metric, of in (("pearson", pearsonr), ("spearman", spearmanr)):
        within = np.mean([of(predicted[mine & (fold == f)], y[mine & (fold == f)])[0]
                          for f in (0, 1)])  # fmt: skip
        assert found["mean", metric] == pytest.approx(within)
        assert found["mean", f"{metric}_pooled"] == pytest.approx(of(predicted[mine], y[mine])[0])
    assert found["mean", "mae"] == pytest.approx(np.abs(predicted - y)[mine].mean())


def test_a_method_that_is_not_known_has_the_level_of_the_others(design) -> None:
    y = planted_outcomes(models=8)["outcome"]
    centre, _ = by_method(design, np.where(design.method == 0, y, np.nan))
    assert centre[design.method == 1] == pytest.approx(y[design.method == 0].mean())


def test_tables_that_cannot_be_parted_are_refused() -> None:
    with pytest.raises(InputError, match="too few to hold models out"):
        validate_outcomes(planted_outcomes(models=4))
    same = [{**row, "outcome": 0.5} for row in planted_outcomes(models=8).rows()]
    with pytest.raises(InputError, match="the same outcome"):
        validate_outcomes(OutcomeTable(same))
    with pytest.raises(UsageError, match="did you mean 'ridge'"):
        validate_outcomes(planted_outcomes(models=8), regressor="rigde")
    with pytest.raises(UsageError, match="did you mean 'leave-models-out'"):
        validate_outcomes(planted_outcomes(models=8), splits=["leave-model-out"])


def test_another_source_is_forecast_from_the_first() -> None:
    rows = [
        {**row, "source": source}
        for seed, source in enumerate(("small", "large"))
        for row in planted_outcomes(models=7, seed=seed).rows()
    ]
    # Levels of two sources are not compared: they would look like skill.
    shifted = [{**row, "outcome": row["outcome"] + 3 * (row["source"] == "large")} for row in rows]
    for table in (rows, shifted):
        report = validate_outcomes(OutcomeTable(table), splits=["leave-source-out"], **FAST)
        assert _found(report, "ridge") > 0.9
        assert "mean · large" in report.scores.unique("method")
    blind = [{**row, "feature:cosine": 0.1 * row["feature:chance"] ** 3} for row in shifted]
    one = validate_outcomes(OutcomeTable(blind), splits=["leave-one-member-out"], **FAST)
    assert _found(one, "ridge") < 0.4
