"""What lies beside merged weights says what they are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_files
from repsim.merging import merge, read_recipe
from repsim.merging.card import FORECAST, OUTCOME, summarise_notes, summarise_values, write_outcome

MakeModel = Callable[..., Path]
LINEAR = {"method": "linear", "models": ["a", "b"]}


def front_matter(folder: Path) -> dict[str, Any]:
    found = yaml.safe_load((folder / "README.md").read_text().split("---", 2)[1])
    assert isinstance(found, dict)
    return found


def provenance(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "repsim_provenance.json").read_text())
    assert isinstance(found, dict)
    return found


def two(make_model: MakeModel) -> None:
    for seed, (name, language) in enumerate((("a", "eng_Latn"), ("b", "deu_Latn"))):
        folder = make_model(name, seed)
        history = {"role": "monolingual", "languages": [language], "init_seed": seed}
        (folder / "repsim_provenance.json").write_text(json.dumps(history))


def test_the_history_of_the_result_is_that_of_its_parents(make_model: MakeModel) -> None:
    two(make_model)
    found = provenance(merge(LINEAR, "out", device="cpu"))
    assert (found["role"], found["languages"]) == ("merged", ["eng_Latn", "deu_Latn"])
    assert [parent["name"] for parent in found["parents"]] == ["a", "b"]
    assert [parent["init_seed"] for parent in found["parents"]] == [0, 1]
    for parent in found["parents"]:
        file = Path(parent["name"]) / "model.safetensors"
        assert parent["weights_hash"] == hash_files([file])


def test_the_card_can_be_read_by_machines(make_model: MakeModel) -> None:
    two(make_model)
    folder = merge(LINEAR, "out", device="cpu")
    assert front_matter(folder) == {
        "library_name": "transformers",
        "base_model_relation": "merge",
        "language": ["eng", "deu"],
        "pipeline_tag": "text-generation",
        "tags": ["merge", "repsim", "repsim-linear"],
    }


def test_the_card_states_parents_and_the_recipe_word_for_word(make_model: MakeModel) -> None:
    two(make_model)
    text = "# with ``` in a comment\nmethod: linear\nmodels: [a, b]\n"
    Path("recipe.yml").write_text(text)
    folder = merge("recipe.yml", "out", device="cpu")
    card = (folder / "README.md").read_text()
    assert f"````yaml\n{text}````" in card
    assert hash_files([Path("b") / "model.safetensors"]) in card
    assert "linear average" in card
    assert (folder / "repsim_recipe.yaml").read_text() == text
    assert read_recipe(folder / "repsim_recipe.yaml").models == ("a", "b")


def test_a_licence_is_stated_only_if_all_parents_state_it(make_model: MakeModel) -> None:
    two(make_model)
    for name in "ab":
        (Path(name) / "README.md").write_text("---\nlicense: apache-2.0\n---\n# model\n")
    assert front_matter(merge(LINEAR, "same", device="cpu"))["license"] == "apache-2.0"
    (Path("b") / "README.md").write_text("---\nlicense: mit\n---\n# model\n")
    assert "license" not in front_matter(merge(LINEAR, "other", device="cpu"))
    (Path("b") / "README.md").write_text("no front matter")
    assert "license" not in front_matter(merge(LINEAR, "none", device="cpu"))


def test_other_files_are_those_of_the_base_or_the_first_model(make_model: MakeModel) -> None:
    for seed, name in enumerate("abc"):
        folder = make_model(name, seed, tokens=[f"t{i}" for i in range(16)])
        (folder / "generation_config.json").write_text(json.dumps({"of": name}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": f"{{{name}}}"}))
        (folder / "secret.txt").write_text("not copied")
    first = merge(LINEAR, "first", device="cpu")
    assert json.loads((first / "generation_config.json").read_text()) == {"of": "a"}
    assert (first / "tokenizer.json").read_bytes() == Path("a/tokenizer.json").read_bytes()
    assert not (first / "secret.txt").exists()
    ties = {**LINEAR, "method": "ties", "base_model": "c"}
    based = merge(ties, "based", device="cpu", any_base=True)
    assert json.loads((based / "generation_config.json").read_text()) == {"of": "c"}
    assert "chat templates differ" in (based / "README.md").read_text()


def test_a_chat_template_of_the_recipe_replaces_that_of_the_donor(make_model: MakeModel) -> None:
    folder = make_model("a", tokens=["x"])
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old", "k": 1}))
    recipe = {
        "merge_method": "passthrough", "models": [{"model": "a"}], "chat_template": "{{ new }}",
    }  # fmt: skip
    out = merge(recipe, "out", device="cpu")
    assert (out / "chat_template.jinja").read_text() == "{{ new }}"
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"k": 1}


def test_degenerate_tensors_are_stated(make_model: MakeModel) -> None:
    import torch

    make_model("a", tensors={"model.norm.weight": torch.ones(4)})
    make_model("b", tensors={"model.norm.weight": -torch.ones(4)})
    folder = merge({**LINEAR, "method": "slerp"}, "out", device="cpu")
    assert "antipodal tensors" in (folder / "README.md").read_text()
    assert "1 tensor (model.norm.weight)" in (folder / "README.md").read_text()


def test_notes_and_values_are_summarised_over_tensors() -> None:
    facts = {f"t{i}": {"notes": ["zero"], "values": {"t": i / 4}} for i in range(5)}
    assert summarise_notes(facts) == ["zero: 5 tensors (t0, t1, t2, ...)"]
    assert summarise_values(facts) == ["t: from 0 (t0) to 1 (t4) over 5 tensors"]


# -- the forecast, and what came of it -------------------------------------------------------------


def section(folder: Path, heading: str) -> str:
    text = (folder / "README.md").read_text().partition(f"\n{heading}\n")[2]
    return text.partition("\n## ")[0].strip()


def test_the_forecast_stands_in_the_card_below_its_own_heading(make_model: MakeModel) -> None:
    two(make_model)
    page = "Method `linear`.\n\n## Reasons\n\n- #1 of many\n"
    folder = merge(LINEAR, "out", device="cpu", forecast=lambda: page)
    found = section(folder, FORECAST)
    assert found == "Method `linear`.\n\n### Reasons\n\n- #1 of many"
    assert "`repsim evaluate`" in section(folder, OUTCOME)
    assert "None was asked for" in section(merge(LINEAR, "plain", device="cpu"), FORECAST)


def test_nobody_is_asked_about_a_merge_that_is_refused(make_model: MakeModel) -> None:
    def ask() -> str:
        asked.append(True)
        return "fine"

    asked: list[bool] = []
    two(make_model)
    Path("out").mkdir()
    with pytest.raises(UsageError, match="'out' exists"):
        merge(LINEAR, "out", device="cpu", forecast=ask)
    with pytest.raises(InputError, match="model folder './c' does not exist"):
        merge({**LINEAR, "models": ["a", "./c"]}, "other", device="cpu", forecast=ask)
    assert not asked


def test_an_outcome_takes_the_place_of_the_one_before(make_model: MakeModel) -> None:
    two(make_model)
    folder = merge(LINEAR, "out", device="cpu", forecast=lambda: "It lives.")
    before = (folder / "README.md").read_text().partition(f"\n{OUTCOME}\n")[0]
    for outcome in ("# Measured\n\nretention 0.9", "retention 0.2"):
        write_outcome(folder, outcome)
        assert section(folder, OUTCOME) == outcome.replace("# ", "### ")
    assert (folder / "README.md").read_text().startswith(before + f"\n{OUTCOME}\n")
    assert section(folder, FORECAST) == "It lives."
    with pytest.raises(InputError, match="is not the model card of a merge"):
        write_outcome(Path("a"), "retention 0.9")
