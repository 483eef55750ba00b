"""`repsim predictor`: fit, validate, show and add from the command line."""

import json

import pyarrow.parquet as pq
import pytest

from repsim.mergeability.predictor import EVIDENCE_FILE, PREDICTOR_FILE, Predictor
from tests.planted.commands import exit_code
from tests.planted.evaluation_tables import table_of_somebody

FEATURES = "distance:-,quotient:-,cosine:+"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Somebody's table, with names of columns of their own."""
    return table_of_somebody(tmp_path_factory.mktemp("table"))


def _fit(table, out) -> int:
    return exit_code("predictor", "fit", "--table", table, "--outcome", "kept", "--columns",
                "method=how", "--features", FEATURES, "-o", out)  # fmt: skip


def test_fit_show_and_add(table, tmp_path, capsys) -> None:
    assert _fit(table, tmp_path / "one") == 0
    assert _fit(table, tmp_path / "two") == 0
    one, two = ((tmp_path / name / PREDICTOR_FILE).read_bytes() for name in ("one", "two"))
    assert one == two
    capsys.readouterr()
    assert exit_code("predictor", "show", tmp_path / "one", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["methods"] == ["linear", "linear (permutation)", "ties"]
    assert shown["sets"][0]["features"] == ["distance", "quotient", "cosine"]

    mine = tmp_path / "mine.csv"
    mine.write_text(
        "parents,method,retention,distance,quotient,cosine\nx + y,linear,0.4,0.6,0.5,0.6\n"
    )
    added = exit_code("predictor", "add", mine, "--to", tmp_path / "one", "-o", tmp_path / "more")
    assert added == 0
    known = Predictor.load(tmp_path / "more").evidence_
    assert known["retention"][-1] == 0.4
    assert len(known) == len(Predictor.load(tmp_path / "one").evidence_) + 1
    assert (tmp_path / "more" / EVIDENCE_FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "-o", "x"], 2, "name atlases, or a table"),
        (["fit", "--table", "no.csv", "-o", "x"], 3, "does not exist"),
        (["show", "nowhere"], 3, "does not exist"),
        (["validate", "nowhere"], 3, "there is no atlas 'nowhere'"),
    ],
)
def test_errors_say_what_to_do(arguments, code, said, capsys) -> None:
    assert exit_code("predictor", *arguments) == code
    assert said in capsys.readouterr().err


def test_gain_kept_is_an_outcome_of_its_own(table, tmp_path, capsys) -> None:
    gained, data = tmp_path / "gained.parquet", pq.read_table(table).drop(["gain_kept"])
    names = ["gain_kept" if name == "kept" else name for name in data.column_names]
    pq.write_table(data.rename_columns(names), gained)
    how = ["--table", gained, "--columns", "method=how", "--features", FEATURES]
    assert (
        exit_code("predictor", "fit", *how, "--outcome", "gain_kept", "-o", tmp_path / "gain") == 0
    )
    told = capsys.readouterr().err
    assert "fit    gain kept of" in told
    assert Predictor.load(tmp_path / "gain").outcome == "gain_kept"
    assert f"next   repsim predict A B --base BASE --predictor {tmp_path / 'gain'}" in told
    assert exit_code("predict", "zoo:eng-1", "zoo:eng-2", "--predictor", tmp_path / "gain") == 2
    assert "forecasts the gain kept over a base, and none is given" in capsys.readouterr().err
    fit = ["predictor", "fit", "cpu_atlas", "-o", tmp_path / "none", "--outcome", "kept"]
    assert exit_code(*fit) == 2
    assert not (tmp_path / "none").exists()
    assert exit_code("predictor", "validate", "cpu_atlas", "--outcome", "kept") == 2
    assert "of an atlas the outcome is retention or gain_kept" in capsys.readouterr().err
    how = ["predictor", "validate", "cpu_atlas", "--dry-run", "--json", "--outcome"]
    plans = []
    for outcome in ("gain_kept", "retention"):
        assert exit_code(*how, outcome) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert [plan["outcome"] for plan in plans] == ["gain_kept", "retention"]
    assert plans[0]["plan"] != plans[1]["plan"]


def test_unknown_features_and_splits_are_named(table, capsys) -> None:
    how = ["--table", table, "--outcome", "kept", "--columns", "method=how"]
    assert exit_code("predictor", "validate", *how, "--features", "distanse") == 2
    assert "did you mean 'distance'" in capsys.readouterr().err
    assert exit_code("predictor", "validate", *how, "--split", "leave-model-out") == 2
    assert "did you mean 'leave-models-out'" in capsys.readouterr().err
    assert exit_code("predictor", "fit", *how, "--regressor", "boosting", "-o", "x") == 2
    assert "yardstick" in capsys.readouterr().err
