"""Model folders of a few hundred parameters, written without building a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

WIDTH, UNITS, TOKENS = 8, 12, 16
MakeModel = Callable[..., Path]


def tensors_of(seed: int, layers: int = 2, tokens: int = TOKENS, *, head: bool = True) -> Any:
    """Weights of a decoder by the names of the Llama family."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    found = {"model.embed_tokens.weight": draw(tokens, WIDTH), "model.norm.weight": draw(WIDTH)}
    for i in range(layers):
        found[f"model.layers.{i}.input_layernorm.weight"] = draw(WIDTH)
        found[f"model.layers.{i}.self_attn.q_proj.weight"] = draw(WIDTH, WIDTH)
        found[f"model.layers.{i}.mlp.up_proj.weight"] = draw(UNITS, WIDTH)
    if head:
        found["lm_head.weight"] = draw(tokens, WIDTH)
    return found


def tokenizer_of(tokens: Sequence[str], merges: Sequence[str] = ()) -> dict[str, Any]:
    """A tokenizer.json with these tokens in this order."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": list(merges)}
    return {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "model": model}


@pytest.fixture
def make_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeModel:
    """Write a model folder `tmp_path/name`; the test runs in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / ".cache"))

    def make(
        name: str,
        seed: int = 0,
        *,
        layers: int = 2,
        dtype: torch.dtype = torch.float32,
        tensors: dict[str, torch.Tensor] | None = None,
        tokens: Sequence[str] | None = None,
        merges: Sequence[str] = (),
        config: dict[str, Any] | None = None,
        tied: bool = False,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        state = tensors_of(seed, layers, head=not tied) if tensors is None else tensors
        state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in state.items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        numbers = {int(key.split(".")[2]) for key in state if key.startswith("model.layers.")}
        embedding = state.get("model.embed_tokens.weight")
        rows = TOKENS if embedding is None else len(embedding)
        width = next((t.shape[-1] for t in (embedding, state.get("model.norm.weight"))
                      if t is not None), WIDTH)  # fmt: skip
        document = {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": width,
            "num_hidden_layers": len(numbers) or layers, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": UNITS, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": tied, "vocab_size": rows, "hidden_act": "silu",
            "torch_dtype": str(dtype).removeprefix("torch."), **(config or {}),
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(document))
        if tokens is not None:
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer_of(tokens, merges)))
        return folder

    return make
