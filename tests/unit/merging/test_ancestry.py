"""A base that fits or does not, and parents without one: what check, merge and predict say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.cli.main import main
from repsim.core.errors import IncompatibleModelsError
from repsim.mergeability.forecast import predict_merge, rank_methods
from repsim.merging.ancestry import check_base, check_lineage
from repsim.merging.to_disk import merge
from repsim.models.zoo import zoo_folder
from repsim.testing.predictors import planted_predictor

FORKS = ("zoo:eng-fork", "zoo:deu-fork")


def tuned(folder: Path, seed: int) -> str:
    """A copy of a model of the zoo whose weights are moved a little."""
    shutil.copytree(zoo_folder("zoo:mixed"), folder)
    generator = torch.Generator().manual_seed(seed)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(
        {k: t + 0.02 * t.std() * torch.randn(t.shape, generator=generator).to(t.dtype)
         for k, t in state.items()},
        folder / "model.safetensors",
    )  # fmt: skip
    return str(folder)


@pytest.fixture(scope="module")
def siblings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("tuned")
    return tuned(root / "one", 1), tuned(root / "two", 2)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(stop.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize(
    ("base", "kind", "level"),
    [("zoo:mixed", "ancestor", "ok"), ("zoo:eng-1", "not nearest", "warning"),
     ("zoo:deu-2", "other origin", "error")],
)  # fmt: skip
def test_a_base_is_an_ancestor_a_sibling_or_a_stranger(base: str, kind: str, level: str) -> None:
    assert check_base(base, FORKS).kind == kind
    assert [f.level for f in check_lineage(FORKS, base)] == [level]
    (aligned,) = check_lineage(FORKS, base, aligned=True)
    assert aligned.level == ("ok" if level == "ok" else "warning")


def test_update_cosines_are_those_of_the_updates() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 40, 60, generator=generator)
    base, shared = 20 * drawn[0], drawn[1]
    a, b = base + shared + 2 * drawn[2], base + shared - drawn[2]
    x, y = (a - base).flatten(), (b - base).flatten()
    states = [{"layers.0.w": each} for each in (base, a, b)]
    expected = float(torch.nn.functional.cosine_similarity(x, y, dim=0))
    assert check_base(states[0], states[1:]).update_cosine == pytest.approx(expected, abs=1e-5)


def test_parents_without_a_base_are_told_apart(siblings: tuple[str, str]) -> None:
    (found,) = check_lineage(siblings)
    assert (found.check, found.level) == ("no base", "warning")
    assert "--base" in found.hint
    (found,) = check_lineage(["zoo:eng-1", "zoo:eng-2"])
    assert found.level == "warning"
    assert "--align orthogonal" in found.hint
    (found,) = check_lineage(FORKS)
    assert found.level == "ok"


def test_check_tells_a_wrong_base(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", *FORKS, "--base", "zoo:deu-2", "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (4, False)
    assert [f["check"] for f in document["findings"] if f["level"] == "error"] == ["base"]
    code, out, err = run(capsys, "check", *FORKS, "--base", "zoo:eng-1")
    assert code == 0
    assert "a sibling of the parents, or an ancestor" in out
    assert "name the checkpoint that the models were last trained from together" in err


def test_check_asks_for_the_base_of_fine_tuned_models(
    siblings: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "check", *siblings)
    assert code == 0
    assert "the models look fine-tuned from one base, and none is given" in out
    assert "give it with --base" in err
    code, out, _ = run(capsys, "check", *siblings, "--base", "zoo:mixed", "--json")
    assert code == 0
    assert {"ok"} == {f["level"] for f in json.loads(out)["findings"] if f["check"] == "base"}


def test_merge_refuses_a_base_of_another_origin_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    ties = ("merge", *FORKS, str(out), "--method", "ties", "--no-forecast", "--device", "cpu")
    code, _, err = run(capsys, *ties, "--base", "zoo:deu-2")
    assert code == 4
    assert "not of one origin" in err
    assert "--any-base" in err
    assert list(tmp_path.iterdir()) == []
    code, shown, _ = run(capsys, *ties, "--base", "zoo:deu-2", "--any-base", "--json")
    assert code == 0
    assert "not of one origin" in json.loads(shown)["notes"][0]
    assert "not of one origin" in (out / "README.md").read_text()


def test_merge_warns_of_a_sibling_as_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("merge", *FORKS, "--method", "ties", "--no-forecast", "--device", "cpu")
    code, _, err = run(capsys, *arguments, str(tmp_path / "a"), "--base", "zoo:eng-1")
    assert code == 0
    assert "note   base: updates from 'eng-1' have cosine" in err
    code, _, err = run(capsys, *arguments, str(tmp_path / "b"), "--base", "zoo:mixed")
    assert code == 0
    assert "note" not in err


def test_a_merge_in_python_is_refused_alike(tmp_path: Path) -> None:
    recipe = {"method": "ties", "models": list(FORKS), "base_model": "zoo:eng-2"}
    with pytest.raises(IncompatibleModelsError, match=r"not of one origin.*any_base=True"):
        merge(recipe, tmp_path / "out", device="cpu")
    # Aligned by permutation, models of another origin have a meaning as a base again.
    assert merge({**recipe, "align": "permutation"}, tmp_path / "out", device="cpu").is_dir()


def test_a_forecast_refuses_a_base_that_does_not_fit() -> None:
    predictor = planted_predictor()
    method = next(m for m, _ in predictor.combinations() if m in ("ties", "task_arithmetic"))

    def ask(base: str, tiers: tuple[str, ...] = ("T0", "T1")) -> str:
        found = predict_merge(FORKS, method, base=base, tiers=tiers, predictor=predictor)
        return found.refusal

    assert ask("zoo:mixed") == ""
    assert "the base does not fit" in ask("zoo:deu-2")
    assert "nearest common ancestor" in ask("zoo:eng-1")
    assert ask("zoo:deu-2", ("T0",)) == ""  # metadata alone: no weight is read
    ranked = rank_methods(FORKS, base="zoo:deu-2", tiers=("T0", "T1"), predictor=predictor)
    refused = {found.method for found in ranked if found.refusal}
    assert method in refused
    assert "linear" not in refused


def test_a_forecast_of_fine_tuned_models_asks_for_their_base(siblings: tuple[str, str]) -> None:
    tiers, predictor = ("T0", "T1"), planted_predictor()
    found = predict_merge(siblings, tiers=tiers, predictor=predictor)
    assert any("give it with --base" in note for note in found.notes)
    found = predict_merge(FORKS, tiers=tiers, predictor=predictor)
    assert not any("--base" in note for note in found.notes)
