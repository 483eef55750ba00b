"""Validation: metrics are right, draws are of models, reports come back from their files."""

import numpy as np
import pytest

from repsim.core.errors import InputError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.known_answers import known_answer
from repsim.mergeability.metrics import (
    FULL,
    ForecastsWithOutcomes,
    bootstrap,
)
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.splits import standard_splits
from repsim.mergeability.validation import validate
from repsim.mergeability.validation_tables import ValidationReport
from repsim.stats import auroc, calibration_error, interval_of, partial_spearman, spearman
from repsim.testing.evidence import planted_evidence


@pytest.fixture(scope="module")
def report() -> ValidationReport:
    return validate(
        planted_evidence(models=16), regressor="saturating-by-kind",
        features=["distance:-", "quotient:-", "cosine:+"],
        splits=["leave-models-out", "leave-method-out"], blocks=6, inner_blocks=3, draws=20,
    )  # fmt: skip


def test_metrics_agree_with_those_of_others() -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=60).round(1), rng.normal(size=60).round(1)
    label = (b > 0).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert auroc(a, label) == pytest.approx(roc_auc_score(label, a))
    assert np.isnan(auroc(a, np.ones(60)))
    assert calibration_error(np.full(100, 0.3), np.repeat([1.0, 0.0], [30, 70])) < 1e-9


def test_draws_of_models_are_wider_than_draws_of_merges_would_be() -> None:
    """Errors that belong to models do not average out over the merges that share them."""
    rng = np.random.default_rng(0)
    pairs = np.array([(i, j) for i in range(12) for j in range(i)])
    effect = rng.normal(size=12)
    error = effect[pairs[:, 0]] + effect[pairs[:, 1]]
    members = np.zeros((len(pairs), 12), dtype=bool)
    members[np.arange(len(pairs))[:, None], pairs] = True
    zeros = np.zeros(len(pairs))
    judged = ForecastsWithOutcomes(
        error, zeros, zeros, zeros, error, zeros, zeros, members, members, zeros, zeros
    )
    mean = {"mean": lambda found: float(found.predicted.mean())}
    low, high = interval_of(bootstrap([judged], mean, draws=300)[0]["mean"])
    naive = 2 * 1.96 * error.std() / np.sqrt(len(error))
    assert high - low > 1.8 * naive


def test_every_metric_is_stated_with_its_interval(report) -> None:
    own = report.metrics.where(split="leave-models-out", stratum="all", role="predictor")
    found = {row["metric"]: row for row in own.rows()}
    assert set(FULL) <= set(found)
    for metric in ("spearman", "mae", "auroc", "coverage"):
        row = found[metric]
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert report.metrics.where(stratum="shared-init").unique("split")


def test_the_predictor_beats_what_says_nothing(report) -> None:
    lifts = report.lifts.where(split="leave-models-out", stratum="all", metric="mae")
    lift = {row["baseline"]: row["lift"] for row in lifts.rows()}
    assert lift["mean of outcomes"] > 0.05
    assert lift["noise_feature"] > 0.05


def test_a_predictor_is_told_apart_from_a_better_law(report) -> None:
    errors = {
        row["predictor"]: row["value"]
        for row in report.metrics.where(
            split="leave-models-out", stratum="all", metric="mae"
        ).rows()
    }
    assert errors["5 nearest known merges"] < errors["ridge on splines"] + 0.2


def test_forecasts_are_out_of_fold_and_complete(report) -> None:
    rows = report.forecasts.where(split="leave-models-out")
    pairs = list(zip(rows.column("merge"), rows.column("language"), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert (rows.column("low") <= rows.column("high")).all()
    assert all(rows.column("fold"))


def test_a_report_comes_back_from_its_files(report, tmp_path) -> None:
    report.save(tmp_path)
    again = ValidationReport.load(tmp_path)
    assert again.to_json() == report.to_json()
    assert {path.name for path in tmp_path.iterdir()} == {"validation.json", "forecasts.parquet"}


def test_families_texts_and_sizes_are_held_out_as_wholes() -> None:
    """Of sizes, those above are tested on what the smaller ones tell; what is not stated is not."""
    of = {
        "a": ("llama", "bible", 6.0), "b": ("llama", "mono", 6.1), "c": ("gpt2", "mono", 6.5),
        "d": ("", "", np.nan),
    }  # fmt: skip
    tables = []
    for seed, (name, (family, text, size)) in enumerate(of.items()):
        table = planted_evidence(
            models=11, seed=seed, before=f"{name}:", source=name, family=family, text=text
        )
        sizes = {"parameters_log10": np.full(len(table), size)}
        tables.append(table.with_features(sizes, {"parameters_log10": "T0"}))
    table = EvidenceTable.concat(tables)
    splits = {split.name: split for split in standard_splits(table)}
    sources = table["source"]
    found = {
        (name, fold.name): (set(sources[fold.train]), set(sources[fold.test]))
        for name in ("leave-family-out", "leave-text-out", "leave-size-out", "atlas-to-atlas")
        for fold in splits[name].folds
    }
    assert found == {
        ("leave-family-out", "gpt2"): ({"a", "b"}, {"c"}),
        ("leave-family-out", "llama"): ({"c"}, {"a", "b"}),
        ("leave-text-out", "bible"): ({"b", "c"}, {"a"}),
        ("leave-text-out", "mono"): ({"a"}, {"b", "c"}),
        ("leave-size-out", "3.16M parameters"): ({"a", "b"}, {"c"}),
        **{("atlas-to-atlas", name): (set(of) - {name}, {name}) for name in of},
    }
    # Copies of one base are one origin, of which none can be held out.
    copies = dict.fromkeys({name for row in table.parents for name in row}, "base")
    alike = standard_splits(table.with_columns({}, {"origins": copies}))
    assert "leave-origins-out" not in {split.name for split in alike}
    gained = np.where(sources == "b", np.nan, table["retention"])  # of b there is no base
    report = validate(
        table.with_columns({"gain_kept": gained}), outcome="gain_kept",
        regressor="additive", features=["distance:-", "quotient:-"],
        splits=["leave-size-out", "leave-family-out"], inner_blocks=3, draws=20,
    )  # fmt: skip
    for split in ("leave-size-out", "leave-family-out"):
        assert report.info["splits"][split].endswith("?")
        row = report.metrics.where(split=split, stratum="all", metric="spearman", role="predictor")
        assert row.column("value")[0] > 0.8
    assert set(report.forecasts.where(split="leave-family-out").unique("fold")) == {"gpt2", "llama"}
    assert not any(":b:" in f":{name}" for name in report.forecasts.unique("parents"))
    assert (report.info["outcome"], len(report.goals), len(report.hypotheses)) == (
        "gain_kept", 0, 0,
    )  # fmt: skip


def test_known_answers() -> None:
    assert known_answer("self", "none") == "lives"
    assert known_answer("permuted", "none") == "collapses"
    assert known_answer("permuted", "permutation") == "lives"
    assert known_answer("rotated", "permutation") == "collapses"
    assert known_answer("noise", "none") == "open"


def test_what_a_third_variable_explains_is_taken_away() -> None:
    rng = np.random.default_rng(0)
    cause = rng.normal(size=400)
    a, b = cause + rng.normal(0, 0.3, 400), cause + rng.normal(0, 0.3, 400)
    assert spearman(a, b) > 0.8
    assert abs(partial_spearman(a, b, cause)) < 0.15


def test_a_stored_predictor_is_judged_as_it_is_on_what_it_does_not_know() -> None:
    named = {"regressor": "saturating-by-kind", "features": ["distance:-", "quotient:-"]}
    stored = Predictor(**named, blocks=3).fit(planted_evidence(models=16))
    alike, other = (
        planted_evidence(models=9, seed=seed, before=f"{source}:", source=source)
        for seed, source in ((1, "alike"), (2, "other"))
    )
    lower = other.with_columns({"retention": other["retention"] - 0.5})
    report = validate(
        EvidenceTable.concat([alike, lower]), stored=stored, draws=20, regressor="mean"
    )
    assert report.forecasts.unique("split") == ["all that is new", "alike", "other"]
    found = {
        row["split"]: row["value"]
        for row in report.metrics.where(metric="mae", stratum="all", predictor="table").rows()
    }
    wanted = np.abs(np.clip(lower["retention"], -1, 1.2) - stored.predict(lower)).mean()
    assert found["other"] == pytest.approx(wanted)
    assert found["alike"] < 0.15 < found["other"]
    assert "mean of outcomes" in report.lifts.unique("baseline")
    with pytest.raises(InputError, match="knows merges of 'planted'"):
        validate(planted_evidence(models=9), stored=stored)
