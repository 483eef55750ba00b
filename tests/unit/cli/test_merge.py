"""`repsim merge`: the forecast in the card, and that it never costs anybody a merge."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

import repsim.cli.merge as command
from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.core.forecast import FORECAST_FILE, GainForecast, Interval, MergeForecast, Reason
from repsim.mergeability import forecast
from repsim.mergeability.question import Question
from repsim.mergeability.remembered import remember
from repsim.testing.predictors import planted_forecast
from tests.planted.commands import exit_code

PAIR = ("zoo:eng-1", "zoo:deu-2")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A predictor that has an answer ready and notes what it is asked."""
    questions: list[dict[str, Any]] = []

    def answer(models: Any, method: str, alignment: str, **options: Any) -> Any:
        questions.append({"models": models, "method": method, "alignment": alignment, **options})
        reason = Reason("T1/cosine", 0.9, 0.5, 0.1, "weight cosine is 0.90")
        return dataclasses.replace(planted_forecast(), advice="merge: it lives", reasons=(reason,))

    monkeypatch.setattr(forecast, "predict_merge", answer)
    return questions


def merge(*arguments: str) -> str:
    """Run the command; what the card says below Forecast."""
    assert exit_code("merge", *arguments, "out", "--device", "cpu") == 0
    text = Path("out/README.md").read_text().partition("\n## Forecast\n")[2]
    return text.partition("\n## ")[0].strip()


def test_small_models_are_forecast_from_their_weights(asked: list[dict[str, Any]]) -> None:
    found = merge(*PAIR, "--align", "permutation")
    assert "**merge: it lives**" in found
    assert "Made before the merge, from configs and weights alone." in found
    assert "\n### Reasons\n\n- weight cosine is 0.90\n" in found
    assert not found.startswith("#")
    (question,) = asked
    assert question["models"] == PAIR
    assert (question["method"], question["alignment"]) == ("linear", "permutation")
    assert question["tiers"] == ("T0", "T1")


def test_what_predict_said_is_what_the_card_says(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    known = dataclasses.replace(
        planted_forecast(), advice="merge: as predict said", tiers=("T0", "T1", "T2"),
        predictor=forecast.choose_predictors()["retention"].identity,
        gain=GainForecast("mixed", {"eng_Latn": Interval(0.8, 0.7, 0.9)}, p_half=0.01),
    )  # fmt: skip
    assert remember(Question(PAIR, base="zoo:mixed"), known) is not None
    card = merge(*PAIR)
    assert "**merge: as predict said**" in card
    assert "gain kept over mixed" in card
    assert "forecast gain kept over mixed: 1 = all" in capsys.readouterr().err
    assert not asked
    assert MergeForecast.from_dict(read_json(f"out/{FORECAST_FILE}")) == known
    assert "it lives" in merge(*PAIR, "--force", "--align", "permutation")
    assert "run repsim predict for more" in capsys.readouterr().err


def test_large_models_are_forecast_if_it_is_asked_for(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SMALL", 1000)
    assert "None was asked for" in merge(*PAIR)
    assert not asked
    found = merge(*PAIR, "--force", "--forecast")
    assert "it lives" in found
    assert "Made before the merge, from configs, weights and activations." in found
    assert asked[0]["tiers"] == ("T0", "T1", "T2")


def test_nobody_is_asked_where_it_is_not_wanted(asked: list[dict[str, Any]]) -> None:
    assert "None was asked for" in merge(*PAIR, "--no-forecast")
    assert not asked


def test_what_a_recipe_has_that_no_forecast_is_of_is_named(asked: list[dict[str, Any]]) -> None:
    recipe = {
        "method": "ties", "models": list(PAIR), "base_model": "zoo:mixed",
        "parameters": {"density": 0.3}, "repair": {"corpus": "bible", "limit": 2},
    }  # fmt: skip
    Path("recipe.yml").write_text(yaml.safe_dump(recipe))
    found = merge("recipe.yml", "--any-base")
    assert asked[0]["parameters"] == {"density": (0.3, 0.3)}
    assert "not considered: repair" in found
    assert asked[0]["base"] == "zoo:mixed"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("the predictor is damaged"), "None could be made: the predictor is damaged."),
        (KeyError("cka"), "None could be made, because of an error: `KeyError: 'cka'`."),
    ],
)
def test_a_forecast_that_fails_does_not_cost_the_merge(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: Exception, message: str,
) -> None:  # fmt: skip
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(forecast, "predict_merge", fail)
    assert merge(*PAIR) == message
    assert "forecast" in capsys.readouterr().err
    assert Path("out/model.safetensors").is_file()


def test_what_cannot_be_forecast_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    """No known merge is a passthrough of one model; asked of the predictor that ships."""
    recipe = {"method": "passthrough", "models": ["zoo:eng-1"]}
    Path("recipe.yml").write_text(yaml.safe_dump(recipe))
    assert merge("recipe.yml", "--forecast").startswith("None could be made: the recipe merges one")


def test_the_predictor_that_ships_speaks_in_the_card() -> None:
    found = merge("zoo:eng-1", "zoo:deu-2")
    assert "**do not merge" in found
    assert "\nBy predictor " in found
    assert "None" not in found


def test_the_help_lists_the_keys_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    from repsim.merging.reading import KEYS

    exit_code("merge", "--help")
    said = capsys.readouterr().out
    assert [key for key in KEYS if key not in said] == []
    assert "repair: {corpus: NAME" in said
