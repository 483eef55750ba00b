"""Recipes of mergekit mean what they mean there, or are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repsim.core.errors import UsageError
from repsim.merging import read_recipe
from repsim.merging.checkpoint import StateDict
from repsim.merging.methods import find_method
from repsim.merging.plan import TensorPlan, plan_tensors
from repsim.merging.recipe import Recipe


def model(name: str, **parameters: Any) -> dict[str, Any]:
    return {"model": name, **({"parameters": parameters} if parameters else {})}


def document(method: str = "linear", **keys: Any) -> dict[str, Any]:
    if not {"models", "slices", "modules"} & keys.keys():
        keys["models"] = [model("a", weight=1.0), model("b", weight=1.0)]
    return {"merge_method": method, **keys}


def plan(recipe: Recipe, layers: int = 4) -> dict[str, TensorPlan]:
    state = {"norm.weight": torch.zeros(2)}
    state |= {
        f"layers.{i}.{part}.w": torch.zeros(2) for i in range(layers) for part in ("mlp", "q")
    }
    sources = {name: StateDict(name, state) for name in recipe.sources}
    names = dict.fromkeys(sources, tuple(state))
    found = plan_tensors(recipe, find_method(recipe.method), sources, names)
    return {tensor.name: tensor for tensor in found}


BASED = {"base_model": "base", "models": [model("a", weight=1.0), model("base")]}
THINNING = ("dare_ties", "dare_linear", "della", "della_linear")


@pytest.mark.parametrize(
    ("method", "parameters", "name", "value", "note"),
    [
        ("ties", {}, "density", [1.0], ""),  # all is kept
        *[(method, {}, "rescale", "l1", "rescale: l1") for method in THINNING],
        ("dare_ties", {"rescale": False}, "rescale", "none", ""),
        ("model_stock", {}, "clamp", False,
         "clamp: false, as mergekit has it: t may leave [0, 1]"),
    ],
)  # fmt: skip
def test_values_that_are_not_stated_are_those_of_mergekit(
    method: str, parameters: dict[str, Any], name: str, value: object, note: str
) -> None:
    models = [model("a", **({} if method == "model_stock" else {"weight": 1.0})), model("base")]
    models += [model("b")] if method == "model_stock" else []
    stated = document(method, base_model="base", models=models, parameters=parameters)
    recipe = read_recipe(stated)
    assert plan(recipe)["norm.weight"].parameters[name] == value
    assert any(note in found for found in recipe.notes) or not note


def test_slerp_runs_from_the_base_wherever_it_is_listed() -> None:
    models = [model("a"), model("b")]
    recipe = read_recipe(document("slerp", base_model="b", models=models, parameters={"t": 0.3}))
    assert recipe.models == ("b", "a")


def test_a_base_that_is_not_listed_is_merged_by_methods_without_differences() -> None:
    recipe = read_recipe(document("karcher", base_model="c", models=[model("a"), model("b")]))
    assert recipe.models == ("a", "b", "c")


@pytest.mark.parametrize(("method", "name"), [("linear", "weight"), ("slerp", "t")])
def test_what_mergekit_has_no_default_for_must_be_given(method: str, name: str) -> None:
    recipe = read_recipe(document(method, base_model="a", models=[model("a"), model("b")]))
    with pytest.raises(UsageError, match=f"gives no '{name}' for tensor"):
        plan(recipe)


def test_slices_are_stacked_with_gradients_over_each() -> None:
    slices = [
        {
            "sources": [
                {**model("a", weight=[0.0, 1.0]), "layer_range": [0, 2]},
                {**model("b", weight=1.0), "layer_range": [2, 4]},
            ]
        },
        {
            "sources": [
                {**model("a"), "layer_range": [3, 4]}, {**model("b"), "layer_range": [0, 1]},
            ],
            "parameters": {"weight": 0.25},
        },
    ]  # fmt: skip
    tensors = plan(read_recipe(document(slices=slices, parameters={"weight": 9.0})))
    weights = [tensors[f"layers.{i}.mlp.w"].parameters["weight"] for i in range(3)]
    assert weights == [[0.0, 1.0], [1.0, 1.0], [0.25, 0.25]]
    assert [item.tensor for item in tensors["layers.1.mlp.w"].inputs] == [
        "layers.1.mlp.w",
        "layers.3.mlp.w",
    ]
    assert "layers.3.mlp.w" not in tensors


def test_a_base_in_a_slice_has_layers_of_its_own() -> None:
    sources = [
        {**model("a", weight=1.0), "layer_range": [0, 1]},
        {**model("base"), "layer_range": [3, 4]},
    ]
    recipe = read_recipe(document("ties", base_model="base", slices=[{"sources": sources}]))
    tensor = plan(recipe)["layers.0.mlp.w"]
    assert tensor.base is not None
    assert (tensor.inputs[0].tensor, tensor.base.tensor) == ("layers.0.mlp.w", "layers.3.mlp.w")


def test_one_module_is_the_model_and_its_values_come_before_the_recipe() -> None:
    modules = {
        "default": {
            "models": [model("a"), model("b")],
            "parameters": {"weight": [{"filter": "mlp", "value": 2.0}]},
        }
    }
    tensors = plan(read_recipe(document(modules=modules, parameters={"weight": 3.0})))
    assert tensors["layers.0.mlp.w"].parameters["weight"] == [2.0, 2.0]
    assert tensors["layers.0.q.w"].parameters["weight"] == [3.0, 3.0]


def test_types_are_those_of_storage_for_sums_are_in_float32() -> None:
    recipe = read_recipe(document(dtype="bfloat16"))
    assert (recipe.dtype, recipe.out_dtype) == ("float32", "bfloat16")
    assert recipe.notes == ("computed in float32 and stored as bfloat16",)
    recipe = read_recipe(document(dtype="float32", out_dtype="bfloat16"))
    assert (recipe.dtype, recipe.out_dtype) == ("float32", "bfloat16")
    assert read_recipe(document(dtype="float64")).dtype == "float64"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"row_wise": False, "column_wise": False}),
        ({"nuslerp_row_wise": True}, {"row_wise": False, "column_wise": False}),
        ({"nuslerp_flatten": False}, {"row_wise": True, "column_wise": False}),
        (
            {"nuslerp_flatten": False, "nuslerp_row_wise": True},
            {"row_wise": False, "column_wise": True},
        ),
    ],
)
def test_flags_of_nuslerp_are_translated(flags: dict[str, bool], expected: dict[str, bool]) -> None:
    parameters = plan(read_recipe(document("nuslerp", parameters=flags)))["norm.weight"].parameters
    assert {key: parameters[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("method", "parameters", "note"),
    [
        ("ties", {"int8_mask": True}, "int8_mask saves memory in mergekit and changes nothing"),
        ("task_arithmetic", {"density": 0.5}, "density has no effect in task_arithmetic"),
        ("task_arithmetic", {"rescale": True}, "rescale has no effect in task_arithmetic"),
    ],
)
def test_what_has_no_effect_is_noted(method: str, parameters: dict[str, Any], note: str) -> None:
    recipe = read_recipe(document(method, **BASED, parameters=parameters))
    assert any(note in found for found in recipe.notes)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"tokenizer_source": "base", "base_model": "a"}, ("map", "a")),
        ({"tokenizer_source": "b"}, ("map", "b")),
        ({"tokenizer": {"source": "b"}}, ("map", "b")),
        ({"tokenizer_source": "union"}, ("union", None)),
        ({"tokenizer": {}}, ("union", None)),
        ({}, ("same", None)),
    ],
)
def test_tokenizer_sources(source: dict[str, Any], expected: tuple[str, str | None]) -> None:
    recipe = read_recipe(document(**source))
    assert (recipe.tokenizer, recipe.tokenizer_model) == expected


SLICE = {"sources": [{**model("a"), "layer_range": [0, 1]}]}


def test_an_adapter_stands_behind_its_base() -> None:
    named = [{"model": "a+x"}, {"model": {"model": "b", "lora": "org/y"}}, {"model": {"path": "c"}}]
    found = read_recipe({"merge_method": "linear", "models": [
        {**each, "parameters": {"weight": 1}} for each in named]})  # fmt: skip
    assert found.models == ("a+x", "b+org/y", "c")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"merge_metod": 1}, "unknown key 'merge_metod'.*'merge_method'"),
        ({"merge_method": "arcee_fussion"}, "unknown merge method .*did you mean 'arcee_fusion'"),
        ({"slices": [SLICE], "models": [model("a")]}, "exactly one of models, slices and modules"),
        ({"models": []}, "exactly one of models, slices and modules, found none"),
        ({"models": {"model": "a"}}, "'models' is {'model': 'a'}, must be a list"),
        ({"models": [{"model": "a", "wieght": 1}]}, r"'models\[0\].wieght'"),
        ({"models": [{"model": 3}]}, r"'models\[0\].model' is 3, must be text"),
        (
            {"models": [model("a", t=1), model("b")]},
            r"'models\[0\].parameters.t'.*known: weight, norm",
        ),
        ({"models": [model("a", normalize=True), model("b")]}, "holds for the whole merge, not fo"),
        ({"models": [{"model": "a", "parameters": [1]}]}, "parameters' is .1., must be a mapping"),
        ({"slices": [{**SLICE, "base_model": "b"}, SLICE]}, "slices with bases of their own"),
        (
            {"base_model": "a", "slices": [{**SLICE, "base_model": "b"}]},
            "slices.base_model': slices",
        ),
        (
            {"slices": [{"sources": [{**model("a"), "layer_range": [0, -1], "weight": 1}]}]},
            r"unknown key 'slices\[0\].sources\[0\].weight'",
        ),
        (
            {"slices": [{"sources": [{**model("a"), "layer_range": [0, -1]}]}]},
            r"layer_range' is \[0, -1\], must be \[first, one after the last\], counted from 0",
        ),
        ({"slices": [{"sources": "a"}]}, r"slices\[0\].sources' is 'a', must be a list"),
        ({"modules": {"text": {"models": [model("a")]}, "eye": {}}}, "2 modules; models of"),
        ({"modules": {"text": {}}}, "'modules.text' has exactly one of models and slices"),
        ({"tokenizer": {"source": "base"}}, "'base' needs a base_model"),
        ({"tokenizer": {}, "tokenizer_source": "base"}, "tokenizer or tokenizer_source, not both"),
        ({"tokenizer": {"soruce": "a"}}, "'tokenizer.soruce'.*did you mean 'tokenizer.source'"),
        ({"tokenizer": {"tokens": {"x": {"forc": True}}}}, "'tokenizer.tokens.x.forc'.*'tokenizer"),
        ({"tokenizer": {"tokens": {"x": {"source": 3}}}}, r"\['x'\].source' is 3, must be a mod"),
        (
            {"tokenizer": {"tokens": {"x": {"source": {"kind": "model_token", "model": "a"}}}}},
            r"tokens\['x'\].source' has exactly one of token and token_id",
        ),
        (
            {"tokenizer": {"tokens": {"x": {"source": {"kind": "zeros"}}}}},
            r"unknown kind in .*\['x'\].source' 'zeros' .*did you mean 'zero'",
        ),
        ({"tokenizer": {"pad_to_multiple_of": 0}}, "pad_to_multiple_of' is 0, must be at least 1"),
        ({"chat_template": "chatlm"}, "unknown chat template 'chatlm' .*did you mean 'chatml'"),
        ({"chat_template": "{% for x in %}"}, "'chat_template' is not a Jinja template: .* line 1"),
        ({"models": [{"model": {"path": "a", "override_architecture": "X"}}]}, "override_archite"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    given = {**document(), **keys}
    if keys.keys() & {"slices", "modules"} and "models" not in keys:
        del given["models"]
    with pytest.raises(UsageError, match=message):
        read_recipe(given)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("multislerp", {"eps": 1e-3}, "'parameters.eps': 0.001 is not supported, only 1e-8"),
        ("nuslerp", {"nuslerp_flatten": 1}, "nuslerp_flatten' is 1, must be true or false"),
        ("nuslerp", {"nuslerp_rows": True}, "unknown key 'parameters.nuslerp_rows'"),
    ],
)
def test_parameters_that_would_be_ignored_are_refused(
    method: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(document(method, parameters=parameters))


def test_rescale_must_be_a_switch() -> None:
    with pytest.raises(UsageError, match=r"'parameters.rescale' is 'l1', must be true or false"):
        read_recipe(document("dare_ties", **BASED, parameters={"rescale": "l1"}))


def test_a_written_out_chat_template_is_taken() -> None:
    template = "{{ messages }}"
    assert read_recipe(document(chat_template=template)).chat_template == template


# -- recipes that people have ---------------------------------------------------------------------

LANGUAGES = ("ara", "deu", "eng", "fra", "ita", "nld", "rus", "spa", "tur", "zhos")


def study_recipes() -> list[dict[str, Any]]:
    """The forms of the 117 recipes of github.com/Sethjsa/multimerge, with their names."""
    hub = "HPLT/hplt2c_{}_checkpoints"
    revisions = [f"checkpoint_{step:07d}" for step in (*range(1000, 48000, 1000), 47684)]
    found = [
        document("linear", dtype="float16", models=[
            model(f"{hub.format(lang)}@{revision}", weight=0.1) for lang in LANGUAGES])
        for revision in revisions
    ]  # fmt: skip
    pairs = [(a, b) for i, a in enumerate(LANGUAGES) for b in LANGUAGES[i + 1 :]]
    found += [
        document("linear", dtype="float16", models=[
            model(hub.format(a), weight=0.5), model(f"{hub.format(b)}@main", weight=0.5)])
        for a, b in pairs
    ]  # fmt: skip
    sparse = [model(f"{hub.format(x)}@main", weight=0.1, density=0.75) for x in LANGUAGES]
    found += [document(method, base_model="/models/mixed/checkpoint_0000000", models=sparse,
                       dtype="float16") for method in ("dare_ties", "ties")]  # fmt: skip
    return found


def test_recipes_of_a_published_study_are_read() -> None:
    for given in study_recipes():
        recipe = read_recipe(given)
        assert recipe.models == tuple(each["model"] for each in given["models"])
        assert (recipe.out_dtype, recipe.dtype) == ("float16", "float32")
    assert (
        "HPLT/hplt2c_eng_checkpoints@checkpoint_0001000" in read_recipe(study_recipes()[0]).models
    )


def test_a_base_that_all_slices_name_is_that_of_the_recipe() -> None:
    sources = [{**model("a", weight=1.0), "layer_range": [0, 1]},
               {**model("b", weight=1.0), "layer_range": [0, 1]}]  # fmt: skip
    part = {"sources": sources, "base_model": "base", "residual_weight": 0.5}
    recipe = read_recipe(document("ties", slices=[part, part]))
    assert recipe.base_model == "base"
    assert "residual_weight has no effect, in mergekit as here" in recipe.notes


def test_models_may_be_written_out_in_parts() -> None:
    reference = {"model": {"path": "org/a", "revision": "v1"}, "lora": {"path": "org/tuned"}}
    recipe = read_recipe(document(models=[{"model": reference, "parameters": {"weight": 1.0}},
                                          model("b", weight=1.0)]))  # fmt: skip
    assert recipe.models == ("org/a@v1+org/tuned", "b")
