"""What would break a merge is found from files alone, also where all shapes are equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.cli.main import main
from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.merging import Finding, check_models
from repsim.merging.check import refuse_errors

MakeModel = Callable[..., Path]
TOKENS = [f"t{i}" for i in range(16)]


def found(level: str, **options: Any) -> list[Finding]:
    return [finding for finding in check_models(["a", "b"], **options) if finding.level == level]


def only(level: str, **options: Any) -> Finding:
    (finding,) = found(level, **options)
    return finding


def change(name: str, **values: Any) -> None:
    path = Path(name) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def pair(make_model: MakeModel, **second: Any) -> None:
    make_model("a", 0, tokens=TOKENS)
    make_model("b", 1, **{"tokens": TOKENS, **second})


def test_models_that_fit_are_found_to_fit(make_model: MakeModel) -> None:
    pair(make_model)
    findings = check_models(["a", "b"], deep=True)
    assert {finding.level for finding in findings} == {"ok"}
    assert [finding.check for finding in findings] == [
        "config", "rotary positions", "tied embeddings", "tensors", "types", "tokens",
        "generation config", "chat template", "values", "values",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "check", "message"),
    [
        ({"model_type": "mistral"}, "architecture", "llama and mistral"),
        ({"num_attention_heads": 4}, "heads", "2 and 4"),
        ({"num_key_value_heads": 1}, "key-value heads", "2 and 1"),
        ({"rms_norm_eps": 1e-5}, "norm eps", "1e-06 and 1e-05"),
        ({"rope_theta": 5e5}, "rotary positions", "rope_theta is 10000.0 and 500000.0"),
        ({"hidden_act": "gelu"}, "activation", "silu and gelu"),
    ],
)
def test_configs_that_differ_with_equal_shapes_are_errors(
    make_model: MakeModel, values: dict[str, Any], check: str, message: str
) -> None:
    pair(make_model)
    change("b", **values)
    finding = only("error")
    assert (finding.check, finding.what) == (check, message)
    assert finding.hint
    with pytest.raises(IncompatibleModelsError, match=f"{check}: {message}, 'a' and 'b'"):
        refuse_errors([finding])


def test_rotary_positions_are_the_same_however_they_are_written(make_model: MakeModel) -> None:
    pair(make_model)
    change("a", rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, attention_bias=0)
    document = json.loads(Path("a/config.json").read_text())
    del document["rope_theta"], document["attention_bias"]
    Path("a/config.json").write_text(json.dumps(document))
    assert found("error") == []


def test_a_value_that_one_file_leaves_out_is_compared_with_its_default(
    make_model: MakeModel,
) -> None:
    pair(make_model)
    change("b", attention_bias=True)
    assert only("error").check == "biases"
    change("b", attention_bias=False)
    assert found("error") == []


def test_a_key_that_is_stated_twice_is_compared_by_what_counts(make_model: MakeModel) -> None:
    pair(make_model)
    change("b", hidden_act="swish", head_dim=4)
    assert found("error") == []
    # Gemma 2 states both; transformers reads `hidden_activation`.
    for name in "ab":
        change(name, model_type="gemma2", hidden_activation="gelu_pytorch_tanh", head_dim=4)
    change("a", hidden_act="gelu_pytorch_tanh")
    change("b", hidden_act="gelu")
    assert found("error") == []
    change("b", hidden_activation="gelu")
    assert only("error").what == "gelu_pytorch_tanh and gelu"


def test_a_head_size_that_is_left_out_is_width_over_heads(make_model: MakeModel) -> None:
    pair(make_model)
    for name in "ab":
        change(name, model_type="unheard-of")
    change("b", head_dim=4)
    assert found("error") == []
    change("b", head_dim=8)
    assert (only("error").check, only("error").what) == ("head size", "4 and 8")


def test_configs_inside_others_are_compared_by_what_they_state(make_model: MakeModel) -> None:
    pair(make_model)
    for name, eps in (("a", 1e-6), ("b", 1e-5)):
        document = json.loads(Path(f"{name}/config.json").read_text())
        inner = {key: document.pop(key) for key in ("rms_norm_eps", "hidden_size", "hidden_act")}
        sees = {"names": [f"a long list of names of {name}" for _ in range(9)]}
        outer = {**document, "model_type": "gemma3", "text_config": {**inner, "rms_norm_eps": eps}}
        Path(f"{name}/config.json").write_text(json.dumps({**outer, "vision_config": sees}))
    assert (only("error").check, only("error").what) == ("norm eps", "1e-06 and 1e-05")
    assert only("warning").what.startswith("vision_config is {'names': ['a long list")
    assert len(only("warning").what) < 300


def test_other_special_tokens_and_generation_settings_are_said(make_model: MakeModel) -> None:
    pair(make_model)
    change("a", eos_token_id=1)
    change("b", eos_token_id=[1])
    assert found("warning") == []
    Path("b/generation_config.json").write_text(
        json.dumps({"eos_token_id": [1, 2], "temperature": 0.6, "transformers_version": "5"})
    )
    first, second = found("warning")
    assert first.what == "eos_token_id is 1 ('t1') and 1 ('t1'), 2 ('t2')"
    assert (second.check, second.what) == ("generation config", "temperature is None and 0.6")


def test_other_values_are_worth_a_warning(make_model: MakeModel) -> None:
    pair(make_model)
    for name, positions in (("a", 128), ("b", 256)):
        change(name, max_position_embeddings=positions)
    assert only("warning").what == "max_position_embeddings is 128 and 256"


def test_weights_that_cannot_be_unpacked_are_refused(make_model: MakeModel) -> None:
    pair(make_model)
    file = Path("a/model.safetensors")
    save_file(load_file(file) | {"w.W_q": torch.zeros(2, dtype=torch.uint8)}, file)
    change("a", quantization_config={"quant_method": "hqq"})
    with pytest.raises(IncompatibleModelsError, match=r"quantised by hqq.*w\.W_q of type U8"):
        found("error")


@pytest.mark.parametrize(
    ("first", "second", "where", "message", "hint"),
    [
        ({}, {"x.bias": 3}, "'a'", "1 tensor(s) missing: x.bias", "one has biases"),
        ({"y": 3}, {}, "'b'", "1 tensor(s) missing: y", "cannot be merged"),
        ({"w": 3}, {"w": 4}, "'a' and 'b'", "'w' is [3] and [4]", "one architecture"),
    ],
)
def test_tensors_must_have_the_same_names_and_shapes(
    make_model: MakeModel, first: Any, second: Any, where: str, message: str, hint: str
) -> None:
    for name, extra in (("a", first), ("b", second)):
        tensors = {"norm.weight": torch.ones(8), **{k: torch.ones(n) for k, n in extra.items()}}
        make_model(name, tensors=tensors, tokens=TOKENS)
    finding = only("error")
    assert (finding.where, finding.what) == (where, message)
    assert hint in finding.hint


def test_a_model_saved_without_its_head_is_told(make_model: MakeModel) -> None:
    pair(make_model, tied=True)
    change("a", tie_word_embeddings=True)
    state = load_file("a/model.safetensors")
    del state["lm_head.weight"]
    save_file(state, "a/model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    save_file(bare, "b/model.safetensors")
    assert {finding.hint for finding in found("error")} == {
        "one was saved with its head and the other without: save both alike"
    }


def test_ties_must_agree(make_model: MakeModel) -> None:
    pair(make_model, tied=True)
    checks = {finding.check: finding for finding in found("error")}
    assert checks["tied embeddings"].where == "tied in 'b', not in 'a'"
    assert "unties 'b'" in checks["tied embeddings"].hint
    assert found("error", aligned=True) == []
    assert only("warning", aligned=True).what.endswith("all get a head of their own")


def test_a_tied_head_that_is_not_the_embedding_is_an_error(make_model: MakeModel) -> None:
    pair(make_model)
    for name in "ab":
        change(name, tie_word_embeddings=True)
    first, second = found("error")
    assert (first.where, second.where) == ("'a'", "'b'")
    assert first.what.startswith("the config ties lm_head.weight to model.embed_tokens.weight, and")


def test_token_maps_are_compared_though_sizes_agree(make_model: MakeModel) -> None:
    pair(make_model, tokens=[*TOKENS[:14], TOKENS[15], TOKENS[14]])
    finding = only("error")
    assert finding.what.startswith("2 of 16 tokens differ (id 14: 't14' and 't15', id 15:")
    assert "tokenizer: {strategy: map}" in finding.hint
    assert only("warning", tokenizer="map").what.endswith("rows are matched by token")


def test_tokens_that_cut_text_differently_cannot_be_matched(make_model: MakeModel) -> None:
    pair(make_model, tokens=[*TOKENS[:15], "new"])
    for strategy in ("same", "map"):
        finding = only("error", tokenizer=strategy)
        assert "train on one joint tokenizer" in finding.hint


def test_a_vocabulary_of_another_size_is_told_by_its_tokens(make_model: MakeModel) -> None:
    pair(make_model, tokens=[*TOKENS, "more"])
    state = load_file("b/model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.zeros(17, 8)
    save_file(state, "b/model.safetensors")
    change("b", vocab_size=17)
    checks = {finding.check for finding in found("error")}
    assert checks == {"shapes", "tokens"}


def test_rows_that_stand_for_no_token_are_worth_a_warning(make_model: MakeModel) -> None:
    pair(make_model)
    state = load_file("b/model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], torch.zeros(64, 8)])
    save_file(state, "b/model.safetensors")
    change("b", vocab_size=80)
    assert found("error") == []
    assert [f.what.partition(" has ")[2][:40] for f in found("warning")] == [
        "16 and 80 rows for the same tokens; rows"
    ] * 2


def test_only_a_deep_check_reads_the_weights(make_model: MakeModel) -> None:
    pair(make_model)
    state = load_file("b/model.safetensors")
    state["model.norm.weight"][:3] = float("nan")
    save_file(state, "b/model.safetensors")
    assert found("error") == []
    finding = only("error", deep=True)
    assert finding.what == "3 of 8 values of 'model.norm.weight' are NaN or infinite"
    assert finding.where == "'b'"


def test_models_of_different_depth_are_compared_outside_their_layers(make_model: MakeModel) -> None:
    pair(make_model, layers=3)
    assert {finding.check for finding in found("error")} == {"layers", "tensors"}
    assert found("error", stacked=True) == []


def test_further_errors_are_counted() -> None:
    errors = [Finding("error", "heads", "2 and 4", "'a' and 'b'")] * 3
    with pytest.raises(IncompatibleModelsError, match=r"\(and 2 more; see: repsim check\)"):
        refuse_errors(errors)
    refuse_errors([Finding("warning", "types", "x", "y")])


def test_a_check_needs_models_that_are_there(make_model: MakeModel) -> None:
    make_model("a", 0)
    with pytest.raises(UsageError, match="name two or more"):
        check_models(["a"])
    with pytest.raises(InputError, match="model folder './b' does not exist"):
        check_models(["a", "./b"])


def test_a_config_must_be_a_mapping(make_model: MakeModel) -> None:
    pair(make_model)
    Path("b/config.json").write_text("[]")
    with pytest.raises(IncompatibleModelsError, match="config.json' is not a mapping"):
        check_models(["a", "b"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"dtype": torch.bfloat16}, "stored as F32 and BF16"),
        ({"merges": ["t 1"]}, "merges differ"),
        (
            {"tokens": None},
            "no tokenizer in 'b': whether rows stand for the same tokens is not known",
        ),
    ],
)
def test_what_differs_without_harm_is_worth_a_warning(
    make_model: MakeModel, second: dict[str, Any], message: str
) -> None:
    pair(make_model, **second)
    assert only("warning").what.startswith(message)


def test_chat_templates_are_compared(make_model: MakeModel) -> None:
    pair(make_model)
    Path("a/chat_template.jinja").write_text("{{ x }}")
    assert only("warning").what == "chat templates differ (7 characters, has none)"


# -- the command line ------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_the_command_says_what_to_do_and_exits_with_4(
    make_model: MakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(make_model)
    assert run("check", "a", "b") == 0
    assert "next   repsim merge a b OUT" in capsys.readouterr().err
    change("b", num_key_value_heads=1)
    assert run("check", "a", "b") == 4
    said = capsys.readouterr()
    assert "key-value heads" in said.out
    assert "hint   merge models of one architecture" in said.err
    assert run("check", "a", "b", "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert [f["check"] for f in document["findings"] if f["level"] == "error"] == [
        "key-value heads"
    ]


def test_models_are_merged_from_the_command_line(
    make_model: MakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(make_model)
    arguments = ("merge", "a", "b", "out", "--method", "linear", "--set", "weight=0.5",
                 "--device", "cpu", "--no-forecast", "--json")  # fmt: skip
    assert run(*arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"out": "out", "method": "linear", "bytes": document["bytes"],
                        "notes": document["notes"]}  # fmt: skip
    assert "no common origin" in document["notes"][0]
    Path("recipe.yml").write_text("method: slerp\nmodels: [a, b]\n")
    assert run("merge", "recipe.yml", "out2", "--device", "cpu", "--no-forecast") == 0
    assert Path("out2/model.safetensors").is_file()
    assert run("merge", "recipe.yml", "out3", "--dry-run", "--json") == 0
    said = capsys.readouterr().out
    assert json.loads(said)["plan"]["tensors"] == 9
    assert not Path("out3").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("recipe.yml",), 2, "name a recipe or models, and then the folder of the result"),
        (("zoo:eng-1", "zoo:eng-2"), 2, "the folder of the result is missing"),
        (("recipe.yml", "out", "--method", "slerp"), 2, "--method does not go with a recipe file"),
        (("recipe.yml", "out", "--set", "t=1"), 2, "--set does not go with a recipe file"),
        (("recipe.yml", "out"), 3, "recipe 'recipe.yml' cannot be read"),
        (("a", "b", "out", "--set", "weight"), 2, "--set needs NAME=VALUE, got 'weight'"),
        (("a", "b", "out", "--set", "weight=["), 2, "value of --set weight=[ cannot be read"),
    ],
)
def test_wrong_use_is_explained(
    make_model: MakeModel, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...],
    code: int, message: str,
) -> None:  # fmt: skip
    assert run("merge", *arguments) == code
    assert message in capsys.readouterr().err


def test_methods_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("methods", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"linear", "slerp", "ties", "karcher"} <= {entry["name"] for entry in listed}
    assert run("methods", "ties") == 0
    assert "weight=1.0, density=0.5" in capsys.readouterr().out
    assert run("methods") == 0
    assert run("methods", "tiez") == 2
    assert "did you mean 'ties'" in capsys.readouterr().err
