"""Public threads on merging adapters, re-enacted: mergekit #86, #470 and #521."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.core.errors import UsageError
from repsim.merging import merge
from repsim.testing.tiny_models import write_tiny_model

NAME = "model.layers.{}.self_attn.q_proj.weight"
RANK, ALPHA = 4, 8


def write_adapter(base: Path, folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """An adapter as `peft` writes one, and the update that each weight takes from it."""
    generator = torch.Generator().manual_seed(seed)
    factors, updates = {}, {}
    for layer in range(2):
        out, into = load_file(base / "model.safetensors")[NAME.format(layer)].shape
        a, b = (torch.randn(s, generator=generator) for s in ((RANK, into), (out, RANK)))
        prefix = "base_model.model." + NAME.format(layer).removesuffix("weight")
        factors |= {f"{prefix}lora_A.weight": a, f"{prefix}lora_B.weight": b}
        updates[NAME.format(layer)] = ALPHA / RANK * b @ a
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA", "base_model_name_or_path": str(base), "r": RANK, "bias": "none",
        "lora_alpha": ALPHA, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM",
        "fan_in_fan_out": False,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return updates


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any, Any]:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    return base, *(write_adapter(base, tmp_path / name, s) for s, name in enumerate(("one", "two")))


def test_adapters_of_one_base_merge_by_weights(adapters: Any) -> None:
    """mergekit #86: several LoRA checkpoints of one base, merged by given weights."""
    base, one, two = adapters
    weights = {f"{base}+one": 0.3, f"{base}+two": 0.25}
    listed = [{"model": m, "parameters": {"weight": w}} for m, w in weights.items()]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": listed}
    found = load_file(merge(recipe, "out", device="cpu") / "model.safetensors")
    plain = load_file(base / "model.safetensors")
    for name, tensor in plain.items():
        update = 0.3 * one[name] + 0.25 * two[name] if name in one else torch.zeros(())
        torch.testing.assert_close(found[name], tensor + update, rtol=1e-5, atol=1e-5)


def test_adapters_stand_for_models_beside_their_base(adapters: Any) -> None:
    """mergekit #470: adapters alone as models, above the base that they name."""
    base, one, two = adapters
    listed = [{"model": m, "parameters": {"weight": 0.5, "density": 1.0}} for m in ("one", "two")]
    recipe = {"merge_method": "ties", "base_model": str(base), "models": listed}
    found = load_file(merge(recipe, "out", device="cpu") / "model.safetensors")
    plain = load_file(base / "model.safetensors")
    updates = torch.stack([one[NAME.format(0)], two[NAME.format(0)]])
    elected = torch.where(updates.sum(0) >= 0, 1.0, -1.0)
    agree = updates.sign() == elected
    mean = (updates * agree).sum(0) / agree.sum(0).clamp(min=1)
    torch.testing.assert_close(
        found[NAME.format(0)], plain[NAME.format(0)] + mean, rtol=1e-4, atol=1e-4
    )
    sources = [{"model": "one", "layer_range": [0, -1], "weight": 0.3}]
    with pytest.raises(UsageError, match=r"unknown key 'slices\[0\].sources\[0\].weight'"):
        merge({"merge_method": "linear", "slices": [{"sources": sources}]}, "wrong", device="cpu")


def test_one_adapter_is_put_into_its_base(adapters: Any) -> None:
    """mergekit #521 and #548: passthrough of base and adapter is the tuned model."""
    base, one, _ = adapters
    (base / "tokenizer_config.json").write_text("{}")
    recipe = {"merge_method": "passthrough", "models": [{"model": f"{base}+one"}]}
    folder = merge(recipe, "out", device="cpu")
    found, plain = (load_file(f / "model.safetensors") for f in (folder, base))
    name = NAME.format(1)
    torch.testing.assert_close(found[name], plain[name] + one[name], rtol=1e-5, atol=1e-5)
    assert found.keys() == plain.keys()
    files = {path.name for path in base.iterdir() if path.name.startswith("tokenizer")}
    assert files <= {path.name for path in folder.iterdir()}
