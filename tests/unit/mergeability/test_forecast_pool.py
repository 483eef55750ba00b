"""Forecasts of many ways and many pairs, recipes as questions, pages and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repsim.core.errors import UsageError
from repsim.core.forecast import MergeForecast
from repsim.mergeability import measuring
from repsim.mergeability.candidate import OUTCOMES
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.forecast import left_out, rank_methods, ways
from repsim.mergeability.matrix import ForecastTable, combinations_of, predict_matrix
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.question import read_question
from repsim.mergeability.words import markdown, next_command
from repsim.testing.predictors import planted_forecast, planted_predictor
from repsim.testing.tiny_models import write_tiny_model


def test_ways_to_merge_are_ranked_on_one_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    original = measuring.Measured

    def count(**fields: object) -> object:
        counted.append("measured")
        return original(**fields)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "Measured", count)
    both = [planted_predictor(outcome=outcome) for outcome in OUTCOMES]
    found = rank_methods(
        ["zoo:eng-1", "zoo:eng-2"], base="zoo:mixed", tiers=("T0",), predictor=both
    )
    assert counted == ["measured"]
    assert [(f.method, f.alignment) for f in found] == [
        ("linear", "orthogonal"), ("linear", "none"), ("linear", "permutation"),
        ("ties", "none"), ("ties", "permutation"),
    ]  # fmt: skip
    worst = [f.worst.value for f in found if f.worst]
    assert worst == sorted(worst, reverse=True)


def test_each_set_of_parameters_that_is_known_is_ranked() -> None:
    known = Predictor()
    settings = ('{"density": 0.2}', '{"density": 0.5, "weight": 0.5}', '{"density": 0.2}')
    rows = [
        {"merge": f"{n}", "parents": f"a{n} + b{n}", "method": "ties", "parameters": text}
        for n, text in enumerate((*settings, ""))
    ]
    known.evidence_ = EvidenceTable.from_rows(rows, {}, {})
    found = known.known_settings("ties", "none")
    assert found == [{}, {"density": 0.2}, {"density": 0.5, "weight": 0.5}]
    assert ways({"retention": known}) == [("ties", "none", one) for one in found]
    told = planted_forecast(
        method="ties", parameters={"density": (0.2, 0.2), "normalize": (True, True)},
        verdict="merge",
    )  # fmt: skip
    assert told.way == "ties density=0.2 normalize=true"
    assert next_command(told, ["a", "b"], "base") == (
        "repsim merge a b OUT --method ties --set density=0.2 --set normalize=true --base base"
    )
    assert MergeForecast.from_dict(json.loads(json.dumps(told.to_dict()))).way == told.way


def test_methods_that_are_not_ranked_are_named_with_the_reason() -> None:
    predictor = planted_predictor(methods=("linear", "ties", "slerp"))
    names = left_out(3, {"retention": predictor}, has_base=False)
    assert names["a base is needed"] == "ties"
    assert names["not for 3 models"] == "slerp"
    assert "karcher" in names["no known merge was made so"].split(", ")
    ranked = {name for listed in names.values() for name in listed.split(", ")}
    assert "linear" not in ranked


def test_one_pair_that_does_not_fit_does_not_stop_the_others(tmp_path: Path) -> None:
    other = write_tiny_model("llama", tmp_path / "other", head=True)
    said: list[str] = []
    found = predict_matrix(
        ["zoo:eng-fork", "zoo:deu-fork", other], tiers=("T0",), languages=("eng_Latn", "deu_Latn"),
        predictor=planted_predictor(), say=lambda label, text: said.append(text),
    )  # fmt: skip
    assert [f.verdict for f in found] == ["merge", "cannot say", "cannot say"]
    assert "width" in found[1].refusal
    assert said[0] == "1 of 3: zoo:eng-fork + zoo:deu-fork"
    table = ForecastTable.of(found)
    assert [(row["verdict"], row["language"]) for row in table.rows()] == [
        ("merge", "eng_Latn"), ("merge", "deu_Latn"), ("cannot say", None), ("cannot say", None),
    ]  # fmt: skip
    assert next(table.rows())["worst_retention"] == pytest.approx(found[0].worst.value)  # type: ignore[union-attr]


def test_combinations_of_a_pool() -> None:
    assert [len(group) for group in combinations_of(list("abcd"), 4)] == [2] * 6 + [3] * 4 + [4]
    with pytest.raises(UsageError, match="'a' is in the pool twice"):
        combinations_of(["a", "b", "a"])
    with pytest.raises(UsageError, match="more than 500"):
        combinations_of([str(i) for i in range(33)])
    with pytest.raises(UsageError, match="two models"):
        combinations_of(["a"])


def test_a_recipe_is_a_question(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(
        "method: ties\nbase_model: base\nalign: permutation\nseed: 4\nout_dtype: float16\n"
        "models:\n  - {model: a, weight: 0.3}\n  - b\nparameters: {density: 0.2}\n"
        "repair: {corpus: bible}\n"
    )
    asked = read_question(path)
    assert (asked.models, asked.method, asked.alignment) == (("a", "b"), "ties", "permutation")
    assert asked.base == "base"
    assert asked.parameters == {"density": (0.2, 0.2), "weight": (0.3, 1.0)}
    assert asked.notes == ("not considered: the type of the stored weights, the seed, repair",)
    graded = {"method": "linear", "models": ["a", "b"], "parameters": {"weight": [0.2, 0.8]}}
    assert read_question(graded).notes[0].startswith("not considered: weight; the forecast is for")
    assert read_question({"method": "linear", "models": ["a", "b"]}).notes == ()


def test_recipes_that_are_no_merge_of_models_are_refused() -> None:
    stacked = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, 2]}]},
            {"sources": [{"model": "b", "layer_range": [1, 3]}]},
        ],
    }
    with pytest.raises(UsageError, match="stacks them"):
        read_question(stacked)
    with pytest.raises(UsageError, match="one model"):
        read_question({"method": "passthrough", "models": ["a"]})


def test_what_to_type_next_follows_the_verdict() -> None:
    def after(**changes: object) -> str:
        return next_command(planted_forecast(**changes), ["a", "b c"], "base")

    assert after(method="ties") == "repsim merge a 'b c' OUT --method ties --base base"
    aligned = after(verdict="align first", align_with="orthogonal")
    assert aligned.endswith("OUT --align orthogonal")  # linear takes no base
    unsure = after(verdict="merge or align first", align_with="permutation", tiers=("T0", "T1"))
    assert unsure == "repsim predict a 'b c' --tier T2"
    assert after(verdict="cannot say", refusal="too large") == "repsim check a 'b c'"
    assert after(verdict="cannot say") == "repsim predict a 'b c' --tier T2"
    assert after(verdict="cannot say", tiers=("T0", "T1", "T2")).endswith("'b c' --trial")
    assert after(verdict="keep one parent") == "repsim predict a 'b c' --rank-methods"
    assert after(verdict="do not merge") == "repsim predict a 'b c' --rank-methods"


def test_a_page_says_that_evidence_is_no_forecast() -> None:
    refused = planted_forecast(
        retention={}, worst=None, p_collapse=None, verdict="cannot say", refusal="too large",
        advice="cannot say: too large", nearest=(),
    )  # fmt: skip
    page = markdown([refused, planted_forecast()], figure="forecast.png")
    assert "- en + de, linear, none: too large" in page
    assert "![forecast](forecast.png)" in page
    assert "| en + de | linear | none | – | – | – |" in page
    assert "## Reasons" not in markdown([refused])
    assert "known | eng_Latn | retention | 0.88" in markdown([planted_forecast()])
