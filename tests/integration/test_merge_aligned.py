"""Merged folders are models, and alignment by the recipe undoes what a symmetry did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from repsim.core.errors import IncompatibleModelsError
from repsim.merging import merge
from repsim.models import inspect_model
from repsim.testing.tiny_models import write_tiny_model

IDS = torch.arange(3, 19).reshape(2, 8)


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`a`, and `b`: the same function with the hidden units of its MLPs in another order."""
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        write_tiny_model("llama+tied", name, head=True)
    state = load_file("b/model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for layer in range(2):
        mlp = f"model.layers.{layer}.mlp"
        order = torch.randperm(48, generator=generator)
        for part in ("gate", "up"):
            state[f"{mlp}.{part}_proj.weight"] = state[f"{mlp}.{part}_proj.weight"][order]
        down = f"{mlp}.down_proj.weight"
        state[down] = state[down][:, order].contiguous()
    save_file(state, "b/model.safetensors", metadata={"format": "pt"})
    return tmp_path


def logits(folder: str | Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder)(IDS).logits
    return found


def test_a_twin_is_merged_as_one_after_alignment_and_breaks_without(twins: Path) -> None:
    recipe = {"method": "linear", "models": ["a", "b"]}
    expected = logits("a")
    naive = logits(merge(recipe, "naive", device="cpu"))
    aligned = merge({**recipe, "align": "permutation"}, "aligned", device="cpu")
    assert float((naive - expected).abs().max()) > 0.1
    assert torch.allclose(logits(aligned), expected, atol=1e-5)
    first, found = load_file("a/model.safetensors"), load_file(aligned / "model.safetensors")
    assert all(torch.allclose(first[name], found[name], atol=1e-6) for name in first)
    assert "'b' aligned to 'a' (permutation, weights)" in (aligned / "README.md").read_text()


def test_a_tied_model_is_merged_with_its_rotated_twin(twins: Path) -> None:
    # Rotation unties: aligning `b` to another model gives a rotated twin of it with its own head.
    from repsim.merging.align import align

    write_tiny_model("llama+tied", "c", head=True, seed=3)
    twin = align("c", ["b"], method="orthogonal", check=False)
    write_tiny_model("llama+tied", "twin", head=True, tie_word_embeddings=False)
    save_file(twin.states[1], "twin/model.safetensors", metadata={"format": "pt"})
    assert torch.allclose(logits("twin"), logits("a"), atol=1e-4)
    recipe = {"method": "linear", "models": ["a", "twin"]}
    with pytest.raises(IncompatibleModelsError, match="embedding in one and not in the other"):
        merge(recipe, "refused", device="cpu")
    for models in (["a", "twin"], ["twin", "a"]):
        out = merge(
            {**recipe, "models": models, "align": "orthogonal"}, "-".join(models), device="cpu"
        )
        assert torch.allclose(logits(out), logits("a"), atol=1e-4)


def test_rotated_models_are_stored_with_a_head_of_their_own(twins: Path) -> None:
    recipe = {"method": "slerp", "models": ["a", "b"], "align": "orthogonal"}
    folder = merge(recipe, "out", device="cpu")
    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    assert torch.allclose(logits(folder), logits("a"), atol=1e-4)


def test_a_merge_is_a_model_like_any_other(twins: Path) -> None:
    ref = inspect_model(merge({"method": "linear", "models": ["a", "b"]}, "out", device="cpu"))
    assert (ref.role, ref.architecture, ref.layers) == ("merged", "llama", 2)
