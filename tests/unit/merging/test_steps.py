"""Files of several merges, made one after another (mergekit-multi)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from repsim.cli.main import main
from repsim.core.errors import RepsimError, UsageError
from repsim.merging import to_disk
from repsim.merging.reading import read_recipe
from repsim.merging.steps import read_steps
from repsim.merging.to_disk import merge

MakeModel = Callable[..., Path]


def linear(*models: str, name: str = "", **keys: Any) -> dict[str, Any]:
    listed = [{"model": model, "parameters": {"weight": 1.0}} for model in models]
    return {**({"name": name} if name else {}), "merge_method": "linear", "models": listed, **keys}


def write(*documents: dict[str, Any]) -> str:
    Path("multi.yaml").write_text(yaml.safe_dump_all(documents))
    return "multi.yaml"


@pytest.fixture
def recipe(make_model: MakeModel) -> str:
    """The last one first: order in the file is not the order of making."""
    for seed, name in enumerate("abc"):
        make_model(name, seed)
    return write(linear("inner", "other"), linear("a", "b", name="inner"),
                 linear("inner", "c", name="other"))  # fmt: skip


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def hidden() -> list[str]:
    return [path.name for path in Path().iterdir() if path.name.startswith(".out")]


def test_merges_are_made_of_each_other_and_only_the_last_is_left(recipe: str) -> None:
    assert [step.name for step in read_steps(recipe)] == ["inner", "other", ""]
    said: list[str] = []
    out = merge(recipe, "out", device="cpu", say=lambda label, text: said.append(text))
    a, b, c, found = (weights(folder) for folder in ("a", "b", "c", out))
    for name, tensor in found.items():
        inner = (a[name] + b[name]) / 2
        assert torch.allclose(tensor, (inner + (inner + c[name]) / 2) / 2, atol=1e-7)
    assert [text for text in said if " of 3: " in text] == [
        "1 of 3: inner", "2 of 3: other", "3 of 3: out"
    ]  # fmt: skip
    assert hidden() == []
    assert "merges that are not kept: 'inner', 'other'" in (out / "README.md").read_text()
    again = merge(out / "repsim_recipe.yaml", "again", device="cpu", keep="between")
    assert all(torch.equal(t, found[name]) for name, t in weights(again).items())
    assert sorted(path.name for path in Path("between").iterdir()) == ["inner", "other"]
    assert torch.equal(weights("between/inner")["model.norm.weight"],
                       (a["model.norm.weight"] + b["model.norm.weight"]) / 2)  # fmt: skip
    with pytest.raises(UsageError, match="'between' exists"):
        merge(recipe, "third", device="cpu", keep="between")


def test_an_interrupted_one_goes_on_from_what_is_whole_unless_a_model_changed(
    recipe: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = to_disk.merge, list[str]()

    def interrupted(recipe: Any, out: Any, **how: Any) -> Path:
        if Path(out).name == "other":
            raise KeyboardInterrupt
        made.append(Path(out).name)
        return real(recipe, out, **how)

    with monkeypatch.context() as patched:
        patched.setattr(to_disk, "merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            real(recipe, "out", device="cpu")
    assert hidden() == [".out.merges"]
    said: list[str] = []
    for changed in (False, True):
        if changed:
            with monkeypatch.context() as patched:
                patched.setattr(to_disk, "merge", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    real(recipe, "out", device="cpu", force=True)
            shutil.rmtree("a")
            make_model("a", 9)
        merge(recipe, "out", device="cpu", force=True, say=lambda label, text: said.append(text))
        assert hidden() == []
    assert [t for t in said if "of 3: inner" in t] == [
        "1 of 3: inner, made before",
        "1 of 3: inner",
    ]
    a, b, c, found = (weights(folder)["model.norm.weight"] for folder in ("a", "b", "c", "out"))
    assert torch.allclose(found, (3 * (a + b) / 2 + c) / 4, atol=1e-7)


def test_an_error_leaves_nothing(recipe: str, make_model: MakeModel) -> None:
    shutil.rmtree("c")
    make_model("c", 5, layers=1)
    with pytest.raises(RepsimError, match="layers"):
        merge(recipe, "out", device="cpu")
    assert hidden() == []
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("documents", "what"),
    [
        ([linear("y", name="x"), linear("x", name="y")], "need each other"),
        ([linear("a", name="x"), linear("b", name="y")], "ends in several merges: 'x', 'y'"),
        ([linear("a"), linear("b")], "have one name, or none"),
        ([linear("x"), linear("a", name="../x")], "cannot be the name"),
        ([linear("x"), linear("a", name="x", wieght=1)], "unknown key 'wieght'"),
        (
            [
                {"method": "linear", "models": ["x", "b"]},
                {
                    "name": "x",
                    "method": "linear",
                    "models": ["a", "b"],
                    "then_finetune": {"tokens": 9, "corpus": "bible"},
                },
            ],
            "cannot have",
        ),
    ],
)
def test_files_that_are_no_chain_are_refused(
    documents: list[dict[str, Any]], what: str, make_model: MakeModel
) -> None:
    make_model("a", 0)
    make_model("b", 1)
    with pytest.raises(UsageError, match=what):
        merge(write(*documents), "out", device="cpu")
    assert hidden() == []


def test_what_needs_one_merge_says_how_many_there_are(recipe: str) -> None:
    with pytest.raises(UsageError, match="holds 3 merges, and one is asked for"):
        read_recipe(recipe)


def test_a_plan_lists_them(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["merge", recipe, "out", "--dry-run", "--json"])
    plans = json.loads(capsys.readouterr().out)["plans"]
    assert [(p["merge"], p["of"]) for p in plans] == [
        ("inner", "a, b"), ("other", "inner, c"), ("OUT", "inner, other")
    ]  # fmt: skip
    assert plans[0]["bytes"] == Path("a/model.safetensors").stat().st_size
