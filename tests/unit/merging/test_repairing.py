"""Repair as a key of a recipe: what is refused, what is written, and what the card says of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.files import read_json
from repsim.merging import merge, read_recipe, repairing
from repsim.merging.align import repair_state_dict
from repsim.merging.output import JOURNAL, Output
from repsim.merging.prepare import prepare
from repsim.merging.recipe import Repair
from repsim.testing.tiny_models import write_tiny_model

MakeModel = Callable[..., Path]
REPAIR = {"corpus": "text", "languages": ["eng_Latn", "deu_Latn"], "limit": 2}
LINEAR: dict[str, Any] = {"method": "linear", "models": ["a", "b"]}
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny decoders `a` and `b`, and a folder `text` in two languages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate("ab"):
        write_tiny_model("llama+tied", name, head=True, seed=seed)
    Path("text").mkdir()
    write_text("eng_Latn", "the cat sat on the mat and saw {} birds")
    write_text("deu_Latn", "die Katze sah {} Voegel auf dem Dach")
    return tmp_path


def write_text(language: str, sentence: str) -> None:
    documents = [" ".join(sentence.format(i + k) for k in range(9)) for i in range(9)]
    Path(f"text/{language}.train.txt").write_text("\n\n".join(documents) + "\n")


# -- the key ---------------------------------------------------------------------------------------


def test_the_key_is_read() -> None:
    assert read_recipe(LINEAR | {"repair": REPAIR}).repair == Repair(
        corpus="text", languages=("eng_Latn", "deu_Latn"), limit=2
    )
    assert read_recipe(LINEAR | {"repair": {"corpus": "bible"}}).repair == Repair(corpus="bible")
    assert read_recipe(LINEAR).repair is None


@pytest.mark.parametrize(
    ("repair", "message"),
    [
        ({"corpus": "bible", "limits": 3}, r"unknown key 'repair.limits' .*'repair.limit'"),
        ({"limit": 3}, "'repair.corpus' is missing"),
        ({"corpus": 3}, "'repair.corpus' is 3, must be text"),
        (
            {"corpus": "bible", "languages": "eng_Latn"},
            "'repair.languages' is 'eng_Latn', must be a",
        ),
        ({"corpus": "bible", "languages": [1]}, r"'repair.languages\[0\]' is 1, must be text"),
        ({"corpus": "bible", "limit": 0}, "'repair.limit' is 0, must be at least 1"),
        ({"corpus": "bible", "limit": 2.5}, "'repair.limit' is 2.5, must be a whole number"),
        ({"corpus": "bible", "limit": True}, "'repair.limit' is True, must be a whole number"),
        ("bible", "'repair' is 'bible', must be a mapping"),
    ],
)
def test_what_is_not_meant_so_is_refused(repair: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(LINEAR | {"repair": repair})


# -- what is written -------------------------------------------------------------------------------


def test_units_of_the_stored_model_are_those_that_repair_gives(parents: Path) -> None:
    """The same as averaging the state dicts and repairing the average on the same windows."""
    recipe = read_recipe(LINEAR | {"repair": REPAIR})
    calibration = prepare(recipe).calibration
    assert calibration is not None
    plain = load_file(merge(LINEAR, "plain", device="cpu") / "model.safetensors")
    folder = merge(recipe, "repaired", device="cpu")
    found = load_file(folder / "model.safetensors")
    states = [load_file(f"{name}/model.safetensors") for name in "ab"]
    expected = repair_state_dict(
        {name: (states[0][name] + states[1][name]) / 2 for name in states[0]}, states,
        AutoConfig.from_pretrained("a"), torch.tensor(calibration.windows),
    )  # fmt: skip
    assert found.keys() == plain.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected.state[name], rtol=1e-5, atol=1e-7)
    changed = {name for name in found if not torch.equal(found[name], plain[name])}
    assert changed == {report.tensor for report in expected.report}


def test_windows_are_of_the_languages_and_no_longer_than_the_model_takes(parents: Path) -> None:
    found = prepare(read_recipe(LINEAR | {"repair": REPAIR})).calibration
    assert found is not None
    longest = AutoConfig.from_pretrained("a").max_position_embeddings
    assert found.languages == {"eng_Latn": 2, "deu_Latn": 2}
    assert {len(window) for window in found.windows} == {min(repairing.WINDOW, longest)}
    assert len(set(found.windows)) == 4


@pytest.mark.parametrize(
    ("recipe", "shares"),
    [
        ({"method": "linear", "parameters": {"weight": 2.0}}, (0.5, 0.5)),
        ({"method": "linear", "models": [{"model": "a", "weight": 3}, "b"]}, (0.75, 0.25)),
        ({"method": "slerp", "parameters": {"t": 0.25}}, (0.75, 0.25)),
        ({"method": "karcher"}, (0.5, 0.5)),
    ],
)
def test_parents_count_as_the_merge_weighs_them(
    parents: Path, recipe: dict[str, Any], shares: tuple[float, ...]
) -> None:
    found = prepare(read_recipe(LINEAR | recipe | {"repair": REPAIR})).calibration
    assert found is not None
    assert found.shares == pytest.approx(shares)


def test_a_gradient_of_weights_counts_by_its_mean_over_tensors(parents: Path) -> None:
    values = {"t": [{"filter": "mlp", "value": 1.0}, {"filter": "*", "value": 0.0}]}
    prepared = prepare(
        read_recipe({"method": "slerp", "models": ["a", "b"], "parameters": values,
                     "repair": REPAIR})
    )  # fmt: skip
    of_mlp = sum("mlp" in plan.name for plan in prepared.plans) / len(prepared.plans)
    assert prepared.calibration is not None
    assert 0 < of_mlp < 1
    assert prepared.calibration.shares == pytest.approx((1 - of_mlp, of_mlp))


def test_the_card_and_the_provenance_say_so(parents: Path) -> None:
    folder = merge(LINEAR | {"repair": REPAIR}, "out", device="cpu")
    card = (folder / "README.md").read_text()
    assert (
        "units repaired (REPAIR) to the deviations of 'a' (50%) and 'b' (50%) on 'text': 2 windows"
    ) in card
    assert "repair: median deviation of units as merged, over what is wanted: from " in card
    assert "repair: largest relative error of a deviation afterwards: from " in card
    stated = read_json(folder / "repsim_provenance.json")["repair"]
    assert (stated["corpus"], stated["languages"]) == ("text", {"eng_Latn": 2, "deu_Latn": 2})
    plain = merge(LINEAR, "plain", device="cpu")
    assert read_json(plain / "repsim_provenance.json")["repair"] is None
    assert "repair" not in (plain / "README.md").read_text()


def test_languages_are_those_of_the_parents_unless_named(parents: Path) -> None:
    unnamed = {"corpus": "text", "limit": 1}
    with pytest.raises(UsageError, match="no model states its languages"):
        prepare(read_recipe(LINEAR | {"repair": unnamed}))
    history = {"role": "monolingual", "languages": ["deu_Latn"]}
    Path("b/repsim_provenance.json").write_text(json.dumps(history))
    found = prepare(read_recipe(LINEAR | {"repair": unnamed})).calibration
    assert found is not None
    assert found.languages == {"deu_Latn": 1}


def test_half_precision_is_rounded_once(parents: Path) -> None:
    """Not the repair of a rounded average: that would round twice."""
    wide = load_file(merge(LINEAR | {"repair": REPAIR}, "wide", device="cpu") / "model.safetensors")
    low = merge(LINEAR | {"repair": REPAIR, "out_dtype": "bfloat16"}, "low", device="cpu")
    found = load_file(low / "model.safetensors")
    assert all(torch.equal(tensor, wide[name].bfloat16()) for name, tensor in found.items())


# -- resuming --------------------------------------------------------------------------------------


def test_the_key_of_the_journal_changes_with_text_limit_and_repair(parents: Path) -> None:
    def key(**repair: Any) -> str:
        # Without the file's own text, which would tell them apart by itself.
        recipe = read_recipe(LINEAR | ({"repair": REPAIR | repair} if repair else {}))
        return prepare(dataclasses.replace(recipe, text="")).key

    keys = [key(), key(limit=2), key(limit=1), key(languages=["eng_Latn"])]
    write_text("eng_Latn", "another text of the same length on {} birds")
    keys.append(key(limit=2))
    assert len(set(keys)) == len(keys)


def test_an_interrupted_repair_goes_on_and_gives_the_same_bytes(
    parents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = LINEAR | {"repair": REPAIR}
    whole = merge(recipe, "whole", device="cpu")
    written: list[str] = []
    finish = Output.finish

    def stop(self: Output, tensor: str, **facts: Any) -> None:
        finish(self, tensor, **facts)
        written.append(tensor)
        if len(written) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Output, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        merge(recipe, "out", device="cpu")
    assert len((parents / ".out.merging" / JOURNAL).read_text().splitlines()) == 1 + 5
    written.append("")  # counts on beyond the one that stops
    folder = merge(recipe, "out", device="cpu")
    assert len(set(written)) == len(written)
    for name in ("model.safetensors", "repsim_provenance.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    for line in (folder / "README.md").read_text().splitlines():
        if "repair: " in line:
            assert line in (whole / "README.md").read_text()


# -- what cannot be repaired -----------------------------------------------------------------------


def test_stacked_layers_have_no_parents(parents: Path) -> None:
    recipe = {
        "method": "passthrough", "models": [{"model": "a", "layers": [0, 1]}, "b"],
        "repair": REPAIR,
    }  # fmt: skip
    with pytest.raises(UsageError, match="stacks layers cannot be repaired"):
        merge(recipe, "out", device="cpu")
    assert not Path("out").exists()


def test_a_family_that_does_not_say_where_its_units_are(parents: Path) -> None:
    for seed, name in enumerate("cd"):
        write_tiny_model("bloom", name, head=True, seed=seed)
    recipe = {"method": "linear", "models": ["c", "d"], "repair": REPAIR}
    with pytest.raises(IncompatibleModelsError, match="'bloom' cannot be repaired: ALiBi"):
        merge(recipe, "out", device="cpu")
    assert not Path(".out.merging").exists()


def test_negative_weights_have_no_mean(parents: Path) -> None:
    recipe = {
        "method": "linear", "models": [{"model": "a", "weight": 2.0}, {"model": "b", "weight": -1}],
        "repair": REPAIR,
    }  # fmt: skip
    with pytest.raises(UsageError, match="weights 2, -1 cannot be repaired"):
        merge(recipe, "out", device="cpu")


def test_text_must_be_there_and_enough(parents: Path) -> None:
    with pytest.raises(InputError):
        merge(LINEAR | {"repair": REPAIR | {"corpus": "nowhere/"}}, "out", device="cpu")
    Path("text/eng_Latn.train.txt").write_text("short\n")
    message = r"'text' has \d+ tokens in eng_Latn, less than one window of \d+"
    with pytest.raises(InputError, match=message):
        merge(LINEAR | {"repair": REPAIR}, "out", device="cpu")


def test_what_leaves_the_range_of_its_type_is_refused(parents: Path) -> None:
    """Repair scales a nearly dead unit of the average up beyond float16."""
    for name, sign in (("a", 1.0), ("b", -1.0)):
        state = load_file(f"{name}/model.safetensors")
        other = load_file("a/model.safetensors")
        state[UP] = sign * 3e4 * (other[UP] / other[UP].abs().max())
        if name == "b":
            state[UP] = state[UP] * 0.999
        save_file(state, f"{name}-new.safetensors", metadata={"format": "pt"})
    for name in "ab":
        Path(f"{name}-new.safetensors").replace(f"{name}/model.safetensors")
    recipe = LINEAR | {"repair": REPAIR, "out_dtype": "float16"}
    merge(LINEAR | {"out_dtype": "float16"}, "plain", device="cpu")
    with pytest.raises(InputError, match=rf"merged tensor '{UP}' does not fit into F16"):
        merge(recipe, "out", device="cpu")


def test_encoders_are_repaired_too(parents: Path) -> None:
    for seed, name in enumerate("cd"):
        write_tiny_model("bert", name, seed=seed)
    recipe = {"method": "linear", "models": ["c", "d"], "repair": REPAIR}
    folder = merge(recipe, "out", device="cpu")
    assert "units repaired (REPAIR)" in (folder / "README.md").read_text()
