"""The shipped predictor on models that it has never seen: what it says, and what then happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repsim.core.forecast import MergeForecast
from repsim.mergeability.forecast import predict_merge
from repsim.testing.tiny_models import write_tiny_model
from tests.planted.commands import exit_code

FORKS = ["zoo:eng-fork", "zoo:deu-fork"]
APART = ["zoo:eng-1", "zoo:deu-1"]


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MergeForecast]:
    cache = tmp_path_factory.mktemp("cache")
    return {
        "lives": predict_merge(FORKS, cache=cache, device="cpu"),
        "collapses": predict_merge(APART, cache=cache, device="cpu"),
    }


def worst_after_merging(models: list[str], out: Path) -> float:
    """Merge, evaluate, and tell what the worst language kept."""
    from repsim.evaluation import evaluate
    from repsim.merging import merge, read_recipe

    merged = merge(read_recipe({"method": "linear", "models": models}), out, device="cpu")
    table = evaluate(
        [str(merged), *models], languages=["eng_Latn", "deu_Latn"], parents=models,
        max_bytes=10_000, device="cpu",
    )  # fmt: skip
    kept = [
        row["value"]
        for row in table.where(metric="retention").rows()
        if row["role"] == "merged" and row["value"] is not None
    ]
    assert len(kept) == 2
    return float(min(kept))


def test_the_pair_that_lives_lives(forecasts: dict[str, MergeForecast], tmp_path: Path) -> None:
    found = forecasts["lives"]
    assert found.verdict == "merge"
    assert found.in_domain
    assert worst_after_merging(FORKS, tmp_path / "merged") > 0.5


def test_the_pair_that_collapses_collapses(
    forecasts: dict[str, MergeForecast], tmp_path: Path
) -> None:
    found = forecasts["collapses"]
    assert found.verdict == "do not merge"
    assert found.p_collapse is not None
    assert found.p_collapse > 0.5
    assert worst_after_merging(APART, tmp_path / "merged") < 0.5


def test_every_forecast_has_reasons_neighbours_and_costs(
    forecasts: dict[str, MergeForecast],
) -> None:
    for found in forecasts.values():
        assert found.reasons
        assert all(reason.effect for reason in found.reasons)
        assert found.nearest
        assert {"T0", "T1", "T2"} <= set(found.seconds)
        for kept in found.retention.values():
            assert kept.low is not None
            assert kept.high is not None
            assert kept.low <= kept.value <= kept.high
        assert json.dumps(found.to_dict(), allow_nan=False)


def run(*arguments: str) -> int:
    return exit_code("predict", *arguments)


def test_a_mergekit_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        "merge_method: linear\nmodels:\n  - {model: zoo:eng-1, parameters: {weight: 0.5}}\n"
        "  - {model: zoo:deu-2, parameters: {weight: 0.5}}\n"
    )
    assert run(str(recipe), "--tier", "T1", "--json", "--fail-above", "0.5") == 10
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["forecast"]["tiers"] == ["T0", "T1"]
    assert "recipe_notes" not in found  # equal weights are those of known merges


def test_it_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    other = write_tiny_model("llama", tmp_path / "other", head=True)
    encoders = [write_tiny_model("bert", tmp_path / name, seed=i) for i, name in enumerate("ab")]
    large = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(json.dumps(large))
    cases: tuple[tuple[list[str | Path], str], ...] = (
        (["zoo:eng-1", other], "width"),
        ([*encoders], "encoder"),
        ([tmp_path / "large", tmp_path / "large"], "6.7 billion parameters"),
    )
    for models, why in cases:
        found = predict_merge(models)
        assert found.verdict == "cannot say"
        assert why in found.refusal
        assert found.tiers == ("T0",)
        assert found.p_collapse is None
