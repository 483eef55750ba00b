"""Recipes written for mergekit, run as they are, give what mergekit 0.1.5 wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repsim.merging import merge, merge_state_dicts, read_recipe

HERE = Path(__file__).parent / "merging"
CASES = sorted((HERE / "cases" / "untied").glob("*.yml"))


@pytest.fixture(autouse=True)
def _paths_are_relative_to_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        # The reference adds up in another order: up to two last places of float32; one of bfloat16
        # where a sum lies between two of its numbers.
        bound = 2.5e-7 if tensor.dtype == torch.float32 else 2**-8
        difference = (found[name].double() - tensor.double()).abs()
        assert bool((difference <= bound * tensor.double().abs().clamp(min=1.0)).all()), name


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_recipe_gives_the_reference(case: Path, tmp_path: Path) -> None:
    folder = merge(case.relative_to(HERE), tmp_path / "out", device="cpu")
    found = load_file(folder / "model.safetensors")
    assert_equal(found, load_file(case.with_suffix(".safetensors")))


def test_all_cases_are_there() -> None:
    assert len(CASES) == 16


def test_merging_in_memory_gives_the_reference() -> None:
    states = {
        name: load_file(HERE / "models" / "untied" / name / "model.safetensors")
        for name in ("a", "b", "c", "base")
    }
    base = states.pop("base")
    recipe = read_recipe("cases/untied/ties_d0.5.yml")
    merged = merge_state_dicts(
        list(states.values()),
        recipe.method,
        base=base,
        parameters={"weight": [1.0, 0.5, 0.25], "density": 0.5},
    )
    assert_equal(merged, load_file(HERE / "cases" / "untied" / "ties_d0.5.safetensors"))
