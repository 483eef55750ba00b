"""Adapters extracted from models: read back by peft, by this package, and held against an SVD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.cli.main import main
from repsim.core.errors import UsageError
from repsim.merging import extract_lora, merge, merge_state_dicts
from repsim.testing.tiny_models import write_tiny_model


def tuned(base: Path, out: Path, rank: int, *, others: bool = True, seed: int = 3) -> Path:
    """A copy whose matrices moved by that rank, and whose other tensors moved a little."""
    rng = torch.Generator().manual_seed(seed)
    out.mkdir()
    for path in base.iterdir():
        if path.suffix == ".json":
            (out / path.name).write_bytes(path.read_bytes())
    state = load_file(base / "model.safetensors")
    for name, tensor in state.items():
        if tensor.ndim == 2 and ".layers." in f".{name}".replace(".h.", ".layers."):
            step = [torch.randn(n, rank, generator=rng) for n in tensor.shape]
            state[name] = tensor + 0.05 * (step[0] @ step[1].T).to(tensor)
        elif others:
            state[name] = tensor + 0.05 * torch.randn(tensor.shape, generator=rng).to(tensor)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    return out


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(1, 11)[None]).logits


# peft asks for a name that transformers calls old, and knows tied embeddings by one name only.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(("family", "fields"), [
    ("llama", {"tie_word_embeddings": True}), ("gpt2", {}), ("qwen2", {}),
])  # fmt: skip
def test_peft_loads_what_was_extracted(tmp_path: Path, family: str, fields: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = Path(write_tiny_model(family, tmp_path / "base", head=True, **fields))
    model = tuned(base, tmp_path / "tuned", rank=2)
    found = extract_lora(model, base, tmp_path / "adapter", rank=2)
    assert found.error < 1e-5
    assert {module.rank for module in found.modules} == {2}
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    before = logits(plain)
    adapted = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    wanted = logits(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval())
    assert not torch.allclose(before, wanted, atol=1e-3)
    assert torch.allclose(logits(adapted), wanted, atol=1e-4)
    # The verbs of this package read the same: here a merge, which copies base + adapter.
    copied = merge(
        {"method": "passthrough", "models": [f"{base}+{tmp_path / 'adapter'}"]}, tmp_path / "copied"
    )
    again = logits(AutoModelForCausalLM.from_pretrained(copied, dtype=torch.float32).eval())
    assert torch.allclose(again, wanted, atol=1e-4)


def test_adapters_merge_in_common_directions_as_their_models_do(tmp_path: Path) -> None:
    base = Path(write_tiny_model("llama", tmp_path / "base", head=True))
    state = load_file(base / "model.safetensors")
    models, names = [], []
    for seed in (3, 4):
        model = tuned(base, tmp_path / f"m{seed}", rank=2, others=False, seed=seed)
        extract_lora(model, base, tmp_path / f"adapter{seed}", rank=2)
        models.append(load_file(model / "model.safetensors"))
        names.append(f"{base}+{tmp_path / f'adapter{seed}'}")
    recipe = {"method": "knots", "models": names, "base_model": str(base)}
    merged = load_file(merge(recipe, tmp_path / "out") / "model.safetensors")
    expected = merge_state_dicts(models, "knots", base=state)
    for name, tensor in merged.items():
        assert torch.allclose(tensor, expected[name], atol=1e-4)
    # What was merged of two adapters of rank 2 is one of rank 4.
    found = extract_lora(tmp_path / "out", base, tmp_path / "both", rank=4)
    assert found.error < 1e-3


def test_each_layer_has_the_least_rank_of_that_energy(tmp_path: Path) -> None:
    base = Path(write_tiny_model("llama", tmp_path / "base", head=True))
    model = Path(write_tiny_model("llama", tmp_path / "tuned", head=True, seed=1))
    found = extract_lora(model, base, tmp_path / "adapter", energy=0.6, rank=7)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    one, other = (load_file(each / "model.safetensors") for each in (model, base))
    assert len({module.rank for module in found.modules}) > 1
    missing = 0.0
    for module in found.modules:
        delta = (one[f"{module.name}.weight"].double() - other[f"{module.name}.weight"]).numpy()
        values = np.linalg.svd(delta, compute_uv=False)
        shares = np.cumsum(values**2) / (values**2).sum()
        rank = min(7, int((shares < 0.6).sum()) + 1)
        assert module.rank == rank
        assert module.error == pytest.approx(np.sqrt(1 - shares[rank - 1]), rel=1e-5)
        key = f"base_model.model.{module.name}.lora_"
        product = (stored[f"{key}B.weight"] @ stored[f"{key}A.weight"]).numpy()
        assert np.linalg.norm(delta - product) == pytest.approx(
            np.sqrt((values[rank:] ** 2).sum()), rel=1e-5
        )
        missing += (values[rank:] ** 2).sum()
    whole = sum(float((one[n].double() - other[n]).square().sum()) for n in one)
    assert found.error == pytest.approx(np.sqrt(missing / whole), rel=1e-6)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == max(module.rank for module in found.modules)
    assert config["rank_pattern"] == config["alpha_pattern"] != {}


def test_what_is_left_out_counts_as_missing(tmp_path: Path) -> None:
    base = Path(write_tiny_model("llama", tmp_path / "base", head=True))
    model = tuned(base, tmp_path / "tuned", rank=2)
    found = extract_lora(model, base, tmp_path / "adapter", rank=2, save_rest=False)
    one, other = (load_file(each / "model.safetensors") for each in (model, base))
    squares = {n: float((one[n].double() - other[n]).square().sum()) for n in one}
    assert "model.norm.weight" in found.left
    expected = sum(squares[n] for n in found.left) / sum(squares.values())
    assert found.error**2 == pytest.approx(expected, rel=1e-4)


def test_requests_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(write_tiny_model("llama", tmp_path / "base", head=True))
    out = tmp_path / "adapter"
    for options, what in (
        ({}, "needs a rank"),
        ({"rank": 0}, "at least 1"),
        ({"energy": 1.5}, "energy"),
    ):
        with pytest.raises(UsageError, match=what):
            extract_lora(base, base, out, **options)
    with pytest.raises(UsageError, match="no linear layer of 'base' differs"):
        extract_lora(base, base, out, rank=1)
    assert not out.exists()
    model = tuned(base, tmp_path / "tuned", rank=1)
    for code in (0, 2):
        with pytest.raises(SystemExit) as stop:
            main(
                ["extract-lora", str(model), str(out), "--base", str(base), "--rank", "1", "--json"]
            )
        assert stop.value.code == code
    assert '"energy": 0.99' in capsys.readouterr().out
