"""A recipe says exactly what it says, and nothing that it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from repsim.core.errors import InputError, UsageError
from repsim.merging import read_recipe
from repsim.merging.checkpoint import StateDict
from repsim.merging.methods import find_method
from repsim.merging.plan import TensorPlan, plan_tensors
from repsim.merging.recipe import Recipe, Rule, evaluate


def plan(recipe: Recipe, layers: int = 3) -> dict[str, TensorPlan]:
    state = {"embed_tokens.weight": torch.zeros(4, 2), "norm.weight": torch.zeros(2)}
    for i in range(layers):
        state |= {f"layers.{i}.self_attn.w": torch.zeros(2, 2), f"layers.{i}.mlp.w": torch.zeros(2)}
    sources = {model: StateDict(model, state) for model in recipe.sources}
    names = dict.fromkeys(sources, tuple(state))
    found = plan_tensors(recipe, find_method(recipe.method), sources, names)
    return {tensor.name: tensor for tensor in found}


def linear(**keys: Any) -> dict[str, Any]:
    return {"method": "linear", "models": ["a", "b"], **keys}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (linear(modles=[]), r"unknown key 'modles' \(hint: did you mean 'models'"),
        ({"models": ["a", "b"]}, "'method' is missing"),
        ({"method": "linaer", "models": ["a", "b"]}, r"unknown merge method 'linaer'.*'linear'"),
        ({"method": "linear", "models": []}, r"'models' is \[\], must be a list of models"),
        ({"method": "linear", "models": "a"}, "'models' is 'a', must be a list of models"),
        ({"method": "linear", "models": ["a"]}, "needs at least 2 models"),
        ({"method": "linear", "models": ["a", {"weight": 1}]}, r"'models\[1\].model' is missing"),
        (
            linear(models=["a", {"model": "b", "wieght": 1}]),
            r"'models\[1\].wieght'.*'models\[1\].weight'",
        ),
        (linear(models=["a", {"model": "b", "density": 1}]), r"unknown .*'models\[1\].density'"),
        (linear(models=["a", 3]), r"'models\[1\]' is 3, must be the name of a model"),
        (
            linear(parameters={"t": 0.5}),
            "unknown key 'parameters.t' .hint: known: weight, normalize",
        ),
        (linear(parameters=[1]), "'parameters' is .1., must be a mapping"),
        (
            linear(parameters={"weight": "heavy"}),
            "'parameters.weight' is 'heavy', must be a number",
        ),
        (linear(parameters={"weight": True}), "'parameters.weight' is True, must be a number"),
        (
            linear(parameters={"weight": float("nan")}),
            "'parameters.weight' is nan, must be a finite number",
        ),
        (linear(parameters={"weight": []}), "'parameters.weight' is .., must be a value or a list"),
        (
            linear(parameters={"weight": [1, "x"]}),
            r"'parameters.weight\[1\]' is 'x', must be a number",
        ),
        (linear(parameters={"normalize": 1}), "'parameters.normalize' is 1, must be true or false"),
        (linear(parameters={"weight": [{"filtre": "mlp", "value": 1}]}), r"weight\[0\].filtre'"),
        (linear(parameters={"weight": [{"filter": "mlp"}]}), r"weight\[0\].value' is missing"),
        (linear(parameters={"weight": [{"filter": 3, "value": 1}]}), "filter' is 3, must be text"),
        (
            linear(parameters={"weight": [{"value": [{"value": 1}]}]}),
            r"weight\[0\].value\[0\]' is {'value': 1}, must be a number",
        ),
        (
            linear(dtype="bfloat16"),
            "'dtype' is 'bfloat16', must be one of: float32, float64.*out_dtype states",
        ),
        (linear(out_dtype="int8"), "'out_dtype' is 'int8', must be one of: float64, float32"),
        (linear(align="rotate"), "'align' is 'rotate', must be one of: none, permutation"),
        (linear(parameters={"weight": [{"filter": "mlp", "value": "x"}]}), "value' is 'x', must"),
        (
            {"method": "slerp", "models": ["a", "b"], "parameters": {"t": [0.1, 1.5]}},
            r"'parameters.t\[1\]' is 1.5, must be at most 1",
        ),
        (linear(seed="x"), "'seed' is 'x', must be a whole number"),
        (linear(base_model=3), "'base_model' is 3, must be text"),
        (linear(base_model="c"), "'linear' takes no differences to a base_model.*list 'c' among"),
        (
            linear(tokenizer={"strategy": "mop"}),
            "'tokenizer.strategy' is 'mop', must be one of: same, map.*'map'",
        ),
        (linear(tokenizer={"stratgy": "map"}), "unknown key 'tokenizer.stratgy'"),
        (linear(models=["a", {"model": "b", "layers": [2, 1]}]), "must be .first, one after the"),
        (
            linear(models=["a", {"model": "b", "layers": 3}]),
            r"'models\[1\].layers' is 3, must be a",
        ),
        ({"method": "ties", "models": ["a", "b"]}, "'ties' merges differences to a base"),
        (
            {"method": "karcher", "models": ["a", "b"], "parameters": {"max_iter": 1.5}},
            "'parameters.max_iter' is 1.5, must be",
        ),
    ],
)
def test_what_is_not_known_is_refused_with_its_path(document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is not a mapping"),
        ("method: [", "is not valid YAML"),
        ("method: linear\nmodels: [a, b]\nmethod: slerp\n", "key 'method' is repeated"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipe '.*nothing.yml' cannot be read: No such file"):
        read_recipe(tmp_path / "nothing.yml")


def test_the_text_of_the_file_is_kept(tmp_path: Path) -> None:
    text = "# my merge\nmethod: linear\nmodels: [a, b]\n"
    (tmp_path / "recipe.yml").write_text(text)
    assert read_recipe(tmp_path / "recipe.yml").text == text


def test_values_of_a_model_come_before_those_of_the_recipe_and_those_before_defaults() -> None:
    recipe = read_recipe(
        linear(
            models=[{"model": "a", "weight": [{"filter": "mlp", "value": 3.0}]}, "b"],
            parameters={"weight": [{"filter": "self_attn", "value": 2.0}]},
        )
    )
    tensors = plan(recipe)
    assert tensors["layers.0.mlp.w"].parameters["weight"] == [3.0, 1.0]
    assert tensors["layers.0.self_attn.w"].parameters["weight"] == [2.0, 2.0]
    assert tensors["norm.weight"].parameters["weight"] == [1.0, 1.0]


def test_a_list_runs_linearly_over_the_layers_and_starts_outside_them() -> None:
    tensors = plan(read_recipe(linear(parameters={"weight": [1.0, 2.0, 4.0]})), layers=5)
    found = [tensors[f"layers.{i}.mlp.w"].parameters["weight"][0] for i in range(5)]
    assert found == [1.0, 1.5, 2.0, 3.0, 4.0]
    assert tensors["norm.weight"].parameters["weight"] == [1.0, 1.0]


def test_switches_and_words_are_chosen_not_interpolated() -> None:
    assert [evaluate((True, False), "w", depth) for depth in (0.0, 0.9, 1.0)] == [True, True, False]
    assert evaluate((Rule("*", "x"),), "w", 0.0) == "x"


def test_a_number_written_in_scientific_notation_is_a_number() -> None:
    document = {"method": "karcher", "models": ["a", "b"], "parameters": {"tol": "1e-7"}}
    assert read_recipe(document).parameters["tol"] == 1e-7


def test_a_listed_base_is_not_merged_with_itself() -> None:
    recipe = read_recipe({"method": "ties", "models": ["a", "base", "b"], "base_model": "base"})
    assert recipe.models == ("a", "b")
    assert recipe.sources == ("a", "b", "base")
    assert recipe.donor == "base"


def test_passthrough_stacks_layers_in_the_order_listed() -> None:
    recipe = read_recipe(
        {
            "method": "passthrough",
            "models": [
                {"model": "a", "layers": [0, 2], "scale": 2.0},
                {"model": "b", "layers": [1, 3]},
            ],
        }
    )
    tensors = plan(recipe)
    origin = [tensors[f"layers.{i}.mlp.w"].inputs[0] for i in range(4)]
    assert [(item.source, item.tensor) for item in origin] == [
        (0, "layers.0.mlp.w"), (0, "layers.1.mlp.w"), (1, "layers.1.mlp.w"), (1, "layers.2.mlp.w"),
    ]  # fmt: skip
    assert tensors["embed_tokens.weight"].inputs[0].source == 0
    assert tensors["norm.weight"].inputs[0].source == 1
    assert tensors["layers.0.mlp.w"].parameters["scale"] == 2.0
    assert tensors["layers.2.mlp.w"].parameters["scale"] == 1.0


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a", {"model": "b", "layers": [0, 2]}], "different numbers of layers .'a': 3, 'b': 2"),
        (["a", {"model": "b", "layers": [0, 4]}], r"layers \[0, 4\] are asked for of 'b', which"),
        (["a", "a"], "model 'a' is listed twice"),
    ],
)
def test_layers_that_do_not_fit_are_refused(models: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(read_recipe(linear(models=models)))
