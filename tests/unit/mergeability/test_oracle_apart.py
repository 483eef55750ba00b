"""A trial of the merge stands apart from forecasts in a validation, and its cost beside theirs."""

import dataclasses

import numpy as np
import pytest

from repsim.core.atlas import Atlas, CostTable, FeatureTable, MergeTable, ModelTable
from repsim.mergeability.costs import costs_of
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import with_derived
from repsim.mergeability.goals import goal_rows
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.validation import TRIAL, validate
from repsim.mergeability.validation_tables import LiftTable, MetricTable, ValidationReport
from repsim.testing.evidence import planted_evidence

WITH_TRIAL = "T0+T1+T2+oracle"


def planted_with_trial() -> EvidenceTable:
    """Features of three tiers that say little, and a trial of merges as they are that says all."""
    table = planted_evidence(models=14)
    noise = np.random.default_rng(1)
    rows = len(table)
    tiers = {"token_overlap": "T0", "weight_cosine": "T1", "cka_middle": "T2",
             "oracle_retention": "oracle"}  # fmt: skip
    features = {
        "token_overlap": noise.normal(size=rows),
        "weight_cosine": table["cosine"] + noise.normal(0, 0.5, rows),
        "cka_middle": noise.normal(size=rows),
        # It is of the average as it is, so that a group has one value whatever the alignment.
        "oracle_retention": _of_linear(table) + noise.normal(0, 0.01, rows),
    }
    rows = [{name: row[name] for name in EvidenceTable.COLUMNS} for row in table.rows()]
    return EvidenceTable.from_rows(rows, features, tiers)


def _of_linear(table: EvidenceTable) -> np.ndarray:
    """Retention of the plain average of the parents of each row."""
    plain = {
        (parents, language): kept
        for parents, language, method, alignment, kept in zip(
            table["parents"], table["language"], table["method"], table["alignment"],
            table["retention"], strict=True,
        )
        if (method, alignment) == ("linear", "none")
    }  # fmt: skip
    keys = zip(table["parents"], table["language"], strict=True)
    return np.array([plain[key] for key in keys])


@pytest.fixture(scope="module")
def evidence() -> EvidenceTable:
    return planted_with_trial()


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(evidence, told) -> ValidationReport:
    return validate(
        evidence, regressor="additive", splits=["leave-models-out", "leave-method-out"], blocks=3,
        inner_blocks=3, draws=20, say=told.append,
    )  # fmt: skip


def errors(report: ValidationReport, stratum: str) -> dict[str, float]:
    rows = report.metrics.where(split="leave-models-out", stratum=stratum, metric="mae").rows()
    return {row["predictor"]: row["value"] for row in rows}


def test_a_trial_has_no_value_where_nothing_was_tried(evidence) -> None:
    table = with_derived(evidence)
    tried = np.isfinite(table["oracle_retention_as_merged"])
    assert (tried == (table["alignment"] == "none")).all()
    assert "similarity_as_merged_middle" not in table.features


def test_a_trial_is_judged_in_a_role_of_its_own(report) -> None:
    roles = {row["predictor"]: row["role"] for row in report.metrics.rows()}
    assert roles[TRIAL] == roles[WITH_TRIAL] == "oracle"
    assert roles["T0+T1+T2"] == "predictor"
    assert report.info["predictor"] == "T0+T1+T2"
    assert set(report.lifts.unique("baseline")).isdisjoint({TRIAL, WITH_TRIAL})
    others = report.metrics.where(split="leave-method-out")
    assert "oracle" not in others.unique("role")


def test_a_trial_tells_most_of_merges_as_they_are(report) -> None:
    as_they_are, every = errors(report, "as-they-are"), errors(report, "all")
    assert as_they_are[TRIAL] < 0.5 * as_they_are["T0+T1+T2"]
    assert as_they_are[WITH_TRIAL] < 0.5 * as_they_are["T0+T1+T2"]
    assert as_they_are[TRIAL] < every[TRIAL]


def test_no_predictor_is_fitted_on_a_trial(evidence) -> None:
    assert list(Predictor(blocks=3).fit(evidence).parts_) == ["T0", "T0+T1", "T0+T1+T2"]


def test_regressors_on_all_features_are_shown_beside_it(report) -> None:
    others = report.metrics.where(role="regressor").unique("predictor")
    assert "additive, all features, no selection" in others
    assert "additive" not in others


def test_progress_names_the_split_and_the_time_left(report, told) -> None:
    first, second, last = told
    assert first.startswith("leave-models-out: ")
    assert first.endswith("fits in all)")
    assert second.startswith("leave-method-out: ")
    assert "left)" in second
    assert last == "hypotheses"


def planted_costs(size: int = 1_300_000) -> Atlas:
    """Two groups of two merges of 1 s each; the second group was dearer to measure."""
    merges = [
        {"parents": group, "merge": f"{group} | {method}", "method": method, "language": language,
         "seconds": 1.0}
        for group in ("a + b", "c + d") for method in ("linear", "ties")
        for language in ("eng_Latn", "deu_Latn")
    ]  # fmt: skip
    spent = {"a + b": {"T0": 0.01, "T1": 0.4, "T2": 1.0, "oracle": 0.2},
             "c + d": {"T0": 0.03, "T1": 0.8, "T2": 3.0, "oracle": 0.2}}  # fmt: skip
    costs = [
        {"parents": group, "tier": tier, "seconds": seconds}
        for group, tiers in spent.items() for tier, seconds in tiers.items()
    ]  # fmt: skip
    models = [{"model": "a", "parameters": size}]
    info = {"study": {"name": "planted", "evaluation": {"max_bytes": 20_000}}}
    return Atlas(ModelTable(models), MergeTable(merges), FeatureTable([]), CostTable(costs), info)


def test_costs_are_of_tiers_together_against_all_merges_of_the_group() -> None:
    costs = {cost.features: cost for cost in costs_of([planted_costs()])}
    assert costs["T0"].share == pytest.approx((0.005 + 0.015) / 2)
    assert costs["T0+T1+T2"].share == pytest.approx((1.41 + 3.83) / 2 / 2)
    assert costs["T0+T1+T2"].total == pytest.approx((1.41 + 3.83) / 4)
    assert costs["oracle"].share == pytest.approx(0.1)
    assert "T0+T1+T2+T3" not in costs
    assert "merged in 2 ways and scored in 2 s" in costs["T0"].words
    assert "1.3 million parameters, 20 kB of text" in costs["T0"].words
    assert costs["T0+T1+T2"].words.endswith("have to take 5.2 times as long")


def test_the_goal_of_cost_is_stated_tier_by_tier() -> None:
    costs = costs_of([planted_costs()])
    rows = goal_rows(MetricTable([]), LiftTable([]), "T0+T1+T2", costs)
    assert [(row["features"], row["wanted"], row["reached"]) for row in rows] == [
        ("T0", "under 0.25", "yes"), ("T0+T1", "under 0.25", "no"),
        ("T0+T1+T2", "under 0.25", "no"),
    ]  # fmt: skip
    # Larger models have a goal of their own, which the small ones do not blur.
    both = costs_of([planted_costs(), planted_costs(90_000_000)])
    assert [(cost.size, cost.most) for cost in both if cost.features == "T0+T1"] == [
        (1e6, 0.25), (135e6, 0.05),
    ]  # fmt: skip
    wanted = [row["goal"] for row in goal_rows(MetricTable([]), LiftTable([]), "T0+T1", both)]
    assert wanted[-1].endswith("about 135 million parameters")
    assert all(row["why"] for row in rows)
    assert goal_rows(MetricTable([]), LiftTable([]), "T0+T1+T2", ()) == []


@pytest.mark.parametrize(("value", "why"), [(0.89974, "0.89974 before rounding"), (0.85, None)])
def test_a_goal_that_rounding_would_reach_is_not_reached(value: float, why: str | None) -> None:
    metrics = MetricTable([{"split": "leave-models-out", "stratum": "all", "predictor": "T0",
                            "metric": "spearman", "value": value}])  # fmt: skip
    (row,) = goal_rows(metrics, LiftTable([]), "T0")
    assert (row["reached"], row["why"]) == ("no", why)


def test_merges_without_a_time_are_no_merges_for_nothing() -> None:
    atlas = planted_costs()
    timeless = MergeTable([{**row, "seconds": None} for row in atlas.merges.rows()])
    assert costs_of([dataclasses.replace(atlas, merges=timeless)]) == []


def test_goals_name_their_split_and_the_band_that_is_farthest_off() -> None:
    about = {"split": "leave-text-out", "stratum": "all", "predictor": "T0", "role": "predictor"}
    values = {
        "mae": 0.09,
        "coverage, predicted -1 to -0.5": 0.93,
        "coverage, predicted 0 to 0.5": 0.7,
    }
    metrics = MetricTable([{**about, "metric": m, "value": v} for m, v in values.items()])
    error, band = goal_rows(metrics, LiftTable([]), "T0")
    assert error["goal"] == "mean absolute error of retention, leave-text-out"
    assert (error["reached"], error["set"], error["wanted"]) == ("yes", "later", "0 to 0.1")
    assert (band["found"], band["reached"], band["why"]) == (0.7, "no", "predicted 0 to 0.5")
