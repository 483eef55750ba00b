"""`repsim predict`: options, exit codes, JSON, files; with a planted predictor."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from repsim.core.errors import ResourceError
from repsim.mergeability import forecast, measuring
from repsim.testing.predictors import planted_predictor
from repsim.testing.tiny_models import write_tiny_model
from tests.planted.commands import exit_code

FORKS = ("zoo:eng-fork", "zoo:deu-fork")
APART = ("zoo:eng-1", "zoo:deu-2")


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is named: the planted predictor takes the place of the one that ships."""
    original = forecast.choose_predictors

    def choose(predictor: Any = (), *, gain: bool = False) -> Any:
        outcomes = ("retention", "gain_kept")[: 1 + gain]
        named = {one.outcome: one for one in predictor if not isinstance(one, str)}
        planted = {one: planted_predictor(outcome=one) for one in outcomes} | named
        return original([*planted.values(), *(p for p in predictor if isinstance(p, str))],
                        gain=gain)  # fmt: skip

    monkeypatch.setattr(forecast, "choose_predictors", choose)


def run(*arguments: str) -> int:
    return exit_code("predict", *arguments, "--tier", "T0")


def test_one_forecast_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FORKS) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == ["language", "retention", "90", "%", "interval"]
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == [
        "eng_Latn", "deu_Latn", "worst",
    ]  # fmt: skip
    lines = shown.err.splitlines()
    assert lines[0].startswith("plan   2 models · linear · tiers T0 · predictor planted")
    assert any(line.startswith("verdict merge: a collapse is") for line in lines)
    assert any(line.startswith("reason share of training in common") for line in lines)
    assert any(line.startswith("cost   T0") for line in lines)
    assert lines[-1] == "next   repsim merge zoo:eng-fork zoo:deu-fork OUT"


def test_with_a_base_each_number_says_which_outcome_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*FORKS, "--base", "zoo:mixed") == 0
    shown = capsys.readouterr()
    heads = "language retention 90 % interval gain kept over zoo:mixed 90 % interval"
    assert " ".join(shown.out.splitlines()[0].split()) == heads
    assert "predictor planted, planted" in shown.err
    assert "gain   gain kept over zoo:mixed: 1 = all that training gave" in shown.err
    assert "of the gain in deu_Latn" in shown.err
    assert run(*FORKS, "--base", "zoo:mixed", "--json") == 0
    found = json.loads(capsys.readouterr().out)["forecast"]
    assert found["gain"]["kept"]["deu_Latn"]["value"] == found["retention"]["deu_Latn"]["value"]
    assert run(*FORKS, "--base", "zoo:mixed", "--rank-methods") == 0
    assert "gain kept, worst" in capsys.readouterr().out


def test_models_are_loaded_in_the_type_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []
    original = measuring.opened

    def opened(models: Any, **how: Any) -> Any:
        asked.append(how)
        return original(models, **how)

    monkeypatch.setattr(measuring, "opened", opened)
    assert run(*FORKS, "--dtype", "bfloat16", "--device-map", "auto") == 0
    loading = {"dtype": "bfloat16", "device_map": "auto"}
    assert asked == [{"device": None, "loading": loading}]
    note = "note   measured in bfloat16; known merges were measured in float32"
    assert note in capsys.readouterr().err.splitlines()


def test_json_is_one_document_and_the_gate_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FORKS, "--json", "--fail-above", "0.2") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gate"] == {"limit": 0.2, "passed": True}
    assert document["forecast"]["verdict"] == "merge"
    assert run(*APART, "--json", "--fail-above", "0.2") == 10
    document = json.loads(capsys.readouterr().out)
    assert document["gate"]["passed"] is False
    assert document["forecast"]["p_collapse"] > 0.9


def test_a_gate_fails_where_nothing_can_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = [str(write_tiny_model("bert", tmp_path / name)) for name in "ab"]
    assert run(*encoders) == 0
    shown = capsys.readouterr()
    assert "verdict cannot say: 'a' does not predict the next token" in shown.err
    assert shown.out == ""
    assert f"next   repsim check {' '.join(encoders)}" in shown.err
    assert run(*encoders, "--fail-above", "1") == 10
    assert "which counts as a failure" in capsys.readouterr().err


def test_a_recipe_of_mergekit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        "merge_method: ties\nbase_model: zoo:mixed\nmodels:\n"
        "  - {model: zoo:eng-fork, parameters: {weight: 1.0, density: 0.3}}\n"
        "  - {model: zoo:deu-fork, parameters: {weight: 1.0}}\n"
    )
    assert run(str(recipe), "--json") == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["forecast"]["method"], found["forecast"]["alignment"]) == ("ties", "none")
    assert "recipe_notes" not in found
    assert f"next   repsim merge {recipe} OUT" in shown.err
    assert found["forecast"]["parameters"]["density"] == [0.3, 1.0]
    assert run(str(recipe), "--method", "linear") == 2
    assert "--method does not go with a recipe file" in capsys.readouterr().err


def test_ways_are_ranked_and_those_left_out_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("zoo:eng-1", "zoo:eng-2", "--rank-methods", "-o", str(tmp_path)) == 0
    shown = capsys.readouterr()
    rows = shown.out.splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [
        ["linear", "orthogonal"], ["linear", "none"], ["linear", "permutation"],
    ]  # fmt: skip
    # No alignment is advised that is advised against in the row above.
    assert rows[0].endswith("keep one parent")
    assert all(row.endswith("do not merge") for row in rows[1:])
    assert "not ranked (a base is needed): ties" in shown.err
    assert {path.name for path in tmp_path.iterdir()} == {
        "forecast.json", "forecast.md", "forecast.png", "forecast.svg", "forecasts.parquet",
        "forecasts.csv", "forecasts.json",
    }  # fmt: skip
    assert len(json.loads((tmp_path / "forecast.json").read_text())["forecasts"]) == 3


def test_a_pool_is_ranked_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pool"
    assert run("--matrix", *APART, *FORKS, "--up-to", "3", "-o", str(out)) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1 + 6 + 4
    assert "4 models, 10 combinations" in shown.err
    assert shown.out.splitlines()[1].startswith("eng-fork + deu-fork")
    assert shown.err.splitlines()[-1] == "next   repsim predict zoo:eng-fork zoo:deu-fork"
    assert (out / "forecast.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert "![forecast](forecast.png)" in (out / "forecast.md").read_text(encoding="utf-8")


def test_a_refused_forecast_is_written_without_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*FORKS, "--method", "karcher", "-o", str(tmp_path / "out")) == 0
    assert "skip   the figure" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"forecast.json", "forecast.md"}
    page = (tmp_path / "out" / "forecast.md").read_text(encoding="utf-8")
    assert "## Evidence, not a forecast" in page


def test_a_missing_model_is_named_before_a_predictor_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "choose_predictors", None)
    assert run("zoo:eng-1", "./nowhere") == 3
    assert "'./nowhere' does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("zoo:eng-1",), 2, "name two models, or a recipe.yml"),
        (("./a.yml",), 3, "recipe './a.yml' cannot be read: No such file"),
        ((*FORKS, "--method", "liner"), 2, "did you mean 'linear'"),
        ((*FORKS, "--method", "ties"), 2, "none is given"),
        ((*FORKS, "--matrix", "--rank-methods"), 2, "do not go together"),
        ((*FORKS, "--rank-methods", "--method", "linear"), 2, "leave out --method"),
        ((*FORKS, "--up-to", "3"), 2, "needs --matrix"),
        ((*FORKS, "--predictor", "./nowhere"), 3, "does not exist"),
        (("zoo:eng-9", "zoo:deu-1"), 3, "zoo"),
    ],
)
def test_errors_have_their_code_and_a_hint(
    arguments: tuple[str, ...], code: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    shown = capsys.readouterr()
    assert what in shown.err
    assert shown.out == ""


def test_a_trial_makes_the_merge_that_is_asked_for_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    way = ("--method", "slerp", "--set", "t=0.01", "--trial", "--device", "cpu", "--base",
           "zoo:mixed", "--trial-bytes", "20000", "-l", "deu_Latn")  # fmt: skip
    assert run(*FORKS, *way, "--json", "-o", str(tmp_path / "out")) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    tried = {row["metric"]: row for row in found["trial"]["rows"] if row["model"] == "trial"}
    # Nearly the first parent: what is scored is that one, not an average.
    first = {row["metric"]: row for row in found["trial"]["rows"] if row["model"] == "eng-fork"}
    assert tried["bits_per_byte"]["value"] == pytest.approx(
        first["bits_per_byte"]["value"], abs=0.02
    )
    assert tried["retention"]["ci_low"] < tried["retention"]["value"] < 1
    assert tried["gain_kept"]["reference"] == tried["retention"]["reference"] == "deu-fork"
    assert found["trial"]["plan"]["base"] == "mixed"
    page = (tmp_path / "out" / "forecast.md").read_text()
    assert (
        f"| deu_Latn | gain kept over mixed | {tried['gain_kept']['value']:.3f}".replace("-", "−")
        in page
    )
    assert (
        "next   repsim merge zoo:eng-fork zoo:deu-fork OUT --method slerp --set t=0.0"
        in (shown.err)
        or "--rank-methods" in shown.err
    )
    assert not list((tmp_path / "cache" / "trials").iterdir())


def test_a_trial_is_planned_and_refused_with_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from repsim.mergeability import trial

    monkeypatch.setattr(trial, "memory_left", lambda: 10_000_000)
    assert run(*FORKS, "--trial", "--device", "cpu", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)["plan"]["trial"]
    assert (plan["parents"], plan["memory_free"]) == (["eng-fork", "deu-fork"], 10_000_000)
    assert set(plan["seconds"]) == {"merging", "loading", "floors", "scoring"}
    assert run(*FORKS, "--trial", "--device", "cpu") == 5
    error = capsys.readouterr().err
    assert "of memory, and 0.010 GB are left" in error
    assert "verdict" not in error  # nothing was measured before
    if not torch.cuda.is_available():
        assert run(*FORKS, "--trial", "--device", "cuda") == 5
    encoders = [str(write_tiny_model("bert", tmp_path / str(name), seed=name)) for name in (0, 1)]
    assert run(*encoders, "--trial", "--device", "cpu", "-l", "eng_Latn") == 4
    assert "no trial: '0' does not predict the next token" in capsys.readouterr().err
    assert run(*FORKS, "--trial", "--matrix") == 2
    assert run(*FORKS, "--trial-bytes", "9") == 2


def test_a_refusal_leads_to_a_trial_where_the_models_can_be_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(write_tiny_model("gpt_neox", tmp_path / name, head=True, seed=i))
            for i, name in enumerate("ab")]  # fmt: skip
    way = ("--method", "slerp", "--set", "t=0.3", "-l", "eng_Latn")
    assert run(*pair, *way) == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == f"next   repsim predict {' '.join(pair)} {' '.join(way)} --trial"


def test_a_trial_of_a_merge_that_is_its_parent_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path))
    assert run(*FORKS, "--method", "slerp", "--set", "t=0", "--trial", "--device", "cpu") == 2
    assert "the merge is 'eng-fork' itself, to the last bit" in capsys.readouterr().err
    assert not list((tmp_path / "trials").iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_trial_that_is_stopped_leaves_nothing(
    stop: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repsim.mergeability import trial
    from repsim.merging import read_recipe

    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path))
    seen: list[Path] = []

    def stopped(models: dict[str, Path], **how: Any) -> None:
        seen.append(models["trial"] / "model.safetensors")
        assert seen[0].is_file()
        raise stop

    monkeypatch.setattr(trial, "evaluate", stopped)
    recipe = read_recipe({"method": "linear", "models": list(FORKS)})
    plan = trial.plan_trial(recipe, device="cpu")
    full = dataclasses.replace(plan, disk=2_000_000_000, disk_free=1_000_000_000)
    with pytest.raises(ResourceError, match=r"takes 2.0 GB on disk, and 1.0 GB are free"):
        trial.run_trial(full)
    with pytest.raises(stop):
        trial.run_trial(plan)
    assert len(seen) == 1
    assert not list((tmp_path / "trials").iterdir())
