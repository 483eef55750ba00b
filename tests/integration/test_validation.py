"""Validation from end to end: of planted evidence, in several processes, from the command line."""

import json

import numpy as np
import pytest

from repsim.mergeability.validation import validate
from repsim.testing.evidence import planted_evidence
from tests.planted.commands import exit_code
from tests.planted.evaluation_tables import table_of_somebody


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Somebody's table, with names of columns of their own."""
    return table_of_somebody(tmp_path_factory.mktemp("table"))


def test_forecasts_of_unseen_models_are_good_and_their_intervals_hold() -> None:
    report = validate(
        planted_evidence(models=24), splits=["leave-models-out"], blocks=4, inner_blocks=4,
        draws=20,
    )  # fmt: skip
    own = report.metrics.where(role="predictor", stratum="all")
    value = {row["metric"]: row["value"] for row in own.rows()}
    assert value["spearman"] > 0.7
    assert 0.8 <= value["coverage"] <= 1.0
    base = report.metrics.where(predictor="mean of outcomes", metric="mae", stratum="all")
    assert value["mae"] < base.column("value")[0]


def test_features_in_the_wrong_rows_are_worth_less() -> None:
    table = planted_evidence(models=24)
    noise = np.random.default_rng(0)
    shuffled = {name: noise.permutation(values) for name, values in table.features.items()}
    error = {}
    for name, evidence in {"true": table, "shuffled": table.with_features(shuffled, {})}.items():
        report = validate(
            evidence, splits=["leave-models-out"], blocks=4, inner_blocks=4, draws=20
        )  # fmt: skip
        own = report.metrics.where(role="predictor", stratum="all", metric="mae")
        error[name] = own.column("value")[0]
    assert error["shuffled"] > error["true"]


def test_several_processes_find_the_same() -> None:
    table = planted_evidence(models=14)
    one, two = (
        validate(
            table, splits=["leave-models-out"], blocks=3, draws=20, inner_blocks=3, workers=workers
        )
        for workers in (1, 2)
    )
    assert two.to_json() == one.to_json()


def test_validate_anybodys_table(table, tmp_path, capsys) -> None:
    command = (
        f"predictor validate --table {table} --outcome kept --columns method=how "
        "--features distance:-,quotient:-,cosine:+ --split leave-models-out --draws 20 "
        "--regressor ridge --workers 1 --json -o"
    )
    assert exit_code(*command.split(), tmp_path / "out") == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["info"]["features"] == ["distance", "quotient", "cosine"]
    found = {
        r["metric"]: r["value"] for r in document["metrics"]
        if r["role"] == "predictor" and r["predictor"] == "ridge" and r["method"] == "all"
    }  # fmt: skip
    assert found["spearman"] > 0.5
    assert found["pearson"] > 0.5
    page = tmp_path / "out" / "report.html"
    assert document["report"] == str(page)
    for file in ("outcome_validation.json", "outcome_scores.csv", "outcome_forecasts.parquet",
                 "figures/scores.png"):  # fmt: skip
        assert (tmp_path / "out" / file).exists()
    source = page.read_text(encoding="utf-8")
    # Columns of others keep the names that they have.
    assert "distance · quotient · cosine" in source
    lines = shown.err.splitlines()
    assert any(line.startswith("split  leave-models-out: ") for line in lines)
    assert lines[-1] == f"next   open {page}"
