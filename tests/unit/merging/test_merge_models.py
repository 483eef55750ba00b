"""Models in memory merge as their folders do, and are left as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import repsim
from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.merging import merge_models
from repsim.models.causal import load_causal_lm
from repsim.models.identity import weights_in_memory
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer, write_tiny_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


def _tuned(base: Any, seed: int) -> Any:
    """A copy of a model that is a little further on."""
    model = tiny_model("llama+tied", head=True)
    torch.manual_seed(seed)
    with torch.no_grad():
        for own, start in zip(model.parameters(), base.parameters(), strict=True):
            own.copy_(start + 0.002 * torch.randn_like(start))
    return model


@pytest.mark.parametrize(
    ("method", "with_base", "parameters"),
    [("linear", False, {"weight": [0.7, 0.3]}), ("slerp", False, {"t": 0.3}),
     ("ties", True, {"density": 0.5, "weight": 1.0})],
)  # fmt: skip
def test_modules_merge_as_their_folders_do(
    method: str, with_base: bool, parameters: dict[str, Any], tmp_path: Path
) -> None:
    base = tiny_model("llama+tied", head=True)
    models = {name: _tuned(base, seed) for seed, name in enumerate("ab", start=1)}
    before = [weights_in_memory(model) for model in (base, *models.values())]
    found: Any = merge_models(
        models, method, base=base if with_base else None, parameters=parameters
    )
    for name, model in {**models, "base": base}.items():
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer("<s> $A").save_pretrained(tmp_path / name)
    weights = parameters.get("weight")
    each = [{"weight": w} for w in weights] if isinstance(weights, list) else [{}, {}]
    common = {k: v for k, v in parameters.items() if not isinstance(v, list)}
    recipe = {
        "method": method, "parameters": common,
        "models": [{"model": str(tmp_path / name), **own}
                   for name, own in zip(models, each, strict=True)],
        **({"base_model": str(tmp_path / "base")} if with_base else {}),
    }  # fmt: skip
    stored = AutoModelForCausalLM.from_pretrained(repsim.merge(recipe, tmp_path / "merged"))
    for name, tensor in stored.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert found.lm_head.weight is found.model.embed_tokens.weight
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        assert torch.equal(found(ids).logits, stored(ids).logits)
    assert [weights_in_memory(m) for m in (base, *models.values())] == before
    with torch.no_grad():
        found.model.norm.weight.add_(1)
    assert [weights_in_memory(m) for m in (base, *models.values())] == before


@pytest.mark.parametrize("align", ["permutation", "orthogonal"])
def test_a_copy_in_other_coordinates_is_brought_back(align: Any) -> None:
    model = tiny_model("llama", head=True)
    other = tiny_model("llama", head=True)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in other.model.layers:
            for part in (block.mlp.gate_proj, block.mlp.up_proj):
                part.weight.copy_(part.weight[order])
            block.mlp.down_proj.weight.copy_(block.mlp.down_proj.weight[:, order])
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        expected = model(ids).logits
        plain = merge_models([model, other])(ids).logits
        aligned = merge_models([model, other], align=align)(ids).logits
    assert (plain - expected).abs().max() > 1e-3
    torch.testing.assert_close(aligned, expected, atol=1e-5, rtol=1e-4)


def test_rows_of_tokens_are_weighed_as_those_of_folders_are(tmp_path: Path) -> None:
    names = {"eng": "zoo:eng-1", "deu": "zoo:deu-1"}
    models = {name: load_causal_lm(model) for name, model in names.items()}
    weights = {"corpus": "bible", "tokens": 2_048}
    languages = {name: (f"{name}_Latn",) for name in names}
    pairs = {name: (model.model, model.tokenizer) for name, model in models.items()}
    found = merge_models(pairs, token_weights=weights | {"languages": languages})
    recipe = {"method": "linear", "models": list(names.values()), "token_weights": weights}
    stored = AutoModelForCausalLM.from_pretrained(repsim.merge(recipe, tmp_path / "out"))
    rows = stored.get_input_embeddings().weight.float()
    torch.testing.assert_close(found.get_input_embeddings().weight, rows, atol=1e-2, rtol=0)
    assert (rows - merge_models(pairs).get_input_embeddings().weight).abs().max() > 0.1
    with pytest.raises(UsageError, match="not state its languages"):
        merge_models(pairs, token_weights=weights)
    with pytest.raises(UsageError, match="no model has one"):
        merge_models([pair[0] for pair in pairs.values()], token_weights=weights)


def test_maps_are_learned_as_those_of_folders_are(tmp_path: Path) -> None:
    names = {"eng": "zoo:eng-1", "deu": "zoo:deu-1"}
    loaded = {name: load_causal_lm(model) for name, model in names.items()}
    pairs = {name: (model.model, model.tokenizer) for name, model in loaded.items()}
    learn = {"corpus": "bible", "languages": ["eng_Latn", "deu_Latn"], "tokens": 512}
    weights = {"corpus": "bible", "tokens": 2_048}
    languages = {name: (f"{name}_Latn",) for name in names}
    found = merge_models(
        pairs, align="learned", learn=learn, token_weights=weights | {"languages": languages}
    )
    recipe = {"method": "linear", "models": list(names.values()), "align": "learned",
              "learn": learn, "token_weights": weights, "out_dtype": "float32"}  # fmt: skip
    stored = AutoModelForCausalLM.from_pretrained(repsim.merge(recipe, tmp_path / "out"))
    ids = loaded["eng"].tokenizer("In the beginning", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, stored(ids).logits, atol=1e-3, rtol=1e-3)
        assert (found(ids).logits - merge_models(pairs)(ids).logits).abs().max() > 0.1
    with pytest.raises(UsageError, match="go together"):
        merge_models(pairs, align="learned")
    with pytest.raises(UsageError, match="no model has one"):
        merge_models([pair[0] for pair in pairs.values()], align="learned", learn=learn)
    with pytest.raises(UsageError, match="no text to learn on"):
        merge_models(pairs, align="learned", learn={"corpus": "bible"})


def test_what_cannot_be_merged_is_named(tmp_path: Path) -> None:
    a = tiny_model("llama", head=True)
    folder = write_tiny_model("llama", tmp_path / "b", head=True, seed=1)
    told: list[str] = []
    merged: Any = merge_models([a, folder], say=lambda label, text: told.append(text))
    assert type(merged) is type(a)
    assert any("no tokenizer" in text for text in told)
    with pytest.raises(UsageError, match="the first model is not in memory"):
        merge_models([folder, a])
    with pytest.raises(IncompatibleModelsError, match="layers: 2 and 3"):
        merge_models([a, tiny_model("llama", head=True, num_hidden_layers=3)])
    with pytest.raises(UsageError, match="unknown alignment 'rotate'"):
        merge_models([a, a], align="rotate")  # type: ignore[arg-type]
    with pytest.raises(IncompatibleModelsError, match=r"any_base=True merges all the same"):
        merge_models([a, a], "ties", base=tiny_model("llama", head=True, seed=5))
