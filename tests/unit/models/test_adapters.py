"""Adapters on their bases: the same outputs as `peft` attached, computed one tensor at a time."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.evaluation.parents import find_parents
from repsim.merging import merge
from repsim.merging.checkpoint import Checkpoint
from repsim.models import load_causal_lm
from repsim.models.adapters import AdaptedWeights
from repsim.models.formats import open_weights
from repsim.models.inspect import inspect_model, locate
from repsim.testing.tiny_models import write_tiny_model

X = torch.arange(5, 40)[None]
BOTH = ["q_proj", "down_proj"]
#: Family and settings of an adapter; each is a way that people train.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": BOTH, "lora_alpha": 5}),
    "rslora": ("llama", {"target_modules": BOTH, "use_rslora": True}),
    "patterns": ("llama", {
        "target_modules": BOTH, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1": 3,
        "1.self_attn.q_proj": 30}}),
    "biases": ("gpt2", {"target_modules": ["c_attn"], "bias": "lora_only"}),
    "as [in, out], square": ("gpt2", {"target_modules": ["c_proj"]}),
    "dora": ("llama", {"target_modules": BOTH, "use_dora": True}),
    "dora, [in, out]": ("gpt2", {"target_modules": ["c_fc"], "use_dora": True}),
    "head saved": ("llama", {"target_modules": BOTH, "modules_to_save": ["lm_head"]}),
    "head saved, tied": ("llama+tied", {"target_modules": BOTH, "modules_to_save": ["lm_head"]}),
    "head adapted, tied": ("llama+tied", {"target_modules": ["lm_head"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "v_proj"]}),
    "embedding, tied": ("llama+tied", {"target_modules": ["embed_tokens"]}),
    "embedding saved, tied": ("llama+tied", {
        "target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}),
    "both saved, tied": ("gpt2", {
        "target_modules": ["c_fc"], "modules_to_save": ["wte", "lm_head"]}),
    "kept tied": ("llama+tied", {
        "target_modules": BOTH, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


def _adapter(base: Path, folder: Path, **settings: Any) -> Any:
    """An adapter with random weights in every part of it, as peft attaches it."""
    import peft
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        attached = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, **settings}))
        with torch.no_grad():
            for parameter in attached.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        attached.save_pretrained(folder)
    return attached.eval()


@pytest.mark.parametrize("way", WAYS)
def test_outputs_equal_those_with_the_adapter_attached_by_peft(way: str, tmp_path: Path) -> None:
    family, settings = WAYS[way]
    base = write_tiny_model(family, tmp_path / "base", head=True)
    attached = _adapter(base, tmp_path / "tuned", **settings)
    loaded = load_causal_lm(tmp_path / "tuned")
    with torch.no_grad():
        known, found = attached(X).logits, loaded.model(X).logits
        plain = load_causal_lm(base).model(X).logits
    assert float((known - plain).abs().max()) > 1e-2
    torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-4)
    # What merges read is what is loaded.
    weights = Checkpoint(locate(tmp_path / "tuned").folder)
    own = loaded.model.state_dict()
    assert all(torch.equal(weights.read(n), own[n]) for n in weights.headers)
    assert all(weights.read(n).shape == h.shape for n, h in weights.headers.items())
    assert loaded.ref.role == "fine-tuned"


def test_a_task_vector_is_the_product_and_never_stored(tmp_path: Path) -> None:
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    _adapter(base, tmp_path / "tuned", target_modules=["q_proj"], lora_alpha=6)
    weights = open_weights(locate(tmp_path / "tuned").folder)
    assert isinstance(weights, AdaptedWeights)
    stored = load_file(tmp_path / "tuned" / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (stored[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    update = weights.update(f"{name}.weight")
    assert update is not None
    assert torch.equal(update, 1.5 * (b @ a))
    assert weights.update("model.norm.weight") is None
    assert not list((tmp_path / "cache" / "views").rglob("*.safetensors"))


def test_the_base_is_given_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    _adapter(base, tmp_path / "tuned", target_modules=["q_proj"])
    path = tmp_path / "tuned" / "adapter_config.json"
    settings = json.loads(path.read_text())
    named = inspect_model(tmp_path / "tuned")
    moved = (base.rename(tmp_path / "elsewhere"), tmp_path / "tuned")
    with pytest.raises(InputError, match=r"names a base that is not here.*BASE\+"):
        locate(tmp_path / "tuned")
    given = inspect_model("+".join(map(str, moved)))
    assert (given.weights_hash, given.name) == (named.weights_hash, "tuned")
    assert inspect_model(given).weights_hash == given.weights_hash
    # A path is taken from the adapter's own folder, wherever the program runs.
    path.write_text(json.dumps(settings | {"base_model_name_or_path": "../elsewhere"}))
    assert inspect_model(tmp_path / "tuned").weights_hash == given.weights_hash
    path.write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match="names no base"):
        locate(tmp_path / "tuned")
    with pytest.raises(InputError, match="is no adapter"):
        locate(f"{moved[0]}+{moved[0]}")


def test_a_model_of_the_zoo_takes_an_adapter(tmp_path: Path) -> None:
    _adapter(locate("zoo:eng-1").folder, tmp_path / "a", target_modules=BOTH)
    ref = inspect_model(f"zoo:eng-1+{tmp_path / 'a'}")
    assert (ref.name, ref.role) == ("a", "fine-tuned")
    assert ref.weights_hash != inspect_model("zoo:eng-1").weights_hash


def test_a_merge_states_base_and_adapter_from_its_own_folder(tmp_path: Path) -> None:
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    _adapter(base, tmp_path / "tuned", target_modules=["q_proj"])
    named = [f"{base}+{tmp_path / 'tuned'}", str(base)]
    out = merge({"method": "linear", "models": named}, tmp_path / "out", device="cpu")
    stated = json.loads((out / "repsim_provenance.json").read_text())["parents"]
    assert [parent["path"] for parent in stated] == ["../base+../tuned", "../base"]
    known = [inspect_model(name).weights_hash for name in named]
    refs, _ = find_parents([out], None, {})
    assert [ref.weights_hash for ref in refs[1:]] == known


def test_two_adapters_stand_on_each_other(tmp_path: Path) -> None:
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    for name in ("one", "two"):
        _adapter(base, tmp_path / name, target_modules=["q_proj"])
    weights = Checkpoint(locate(f"{base}+{tmp_path / 'one'}+{tmp_path / 'two'}").folder)
    name = "model.layers.0.self_attn.q_proj.weight"
    start = load_file(base / "model.safetensors")[name]
    once = Checkpoint(locate(tmp_path / "one").folder).read(name) - start
    torch.testing.assert_close(weights.read(name) - start, 2 * once)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"peft_type": "IA3"}, IncompatibleModelsError, "adapter of type IA3.*merge_and_unload"),
        ({"init_lora_weights": "pissa_niter_4"}, IncompatibleModelsError, "changes the base's"),
        ({"layer_replication": [[0, 1]]}, IncompatibleModelsError, "uses layer_replication"),
    ],
)
def test_what_is_not_read_is_refused(
    change: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    _adapter(base, tmp_path / "tuned", target_modules=["q_proj"])
    path = tmp_path / "tuned" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=said):
        locate(tmp_path / "tuned")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = write_tiny_model("llama", tmp_path / "base", head=True)
    other = write_tiny_model("llama", tmp_path / "other", head=True, hidden_size=64)
    third = write_tiny_model("gpt2", tmp_path / "third", head=True)
    _adapter(base, tmp_path / "tuned", target_modules=["q_proj"])
    for wrong in (other, third):
        with pytest.raises(InputError, match="is not of this base"):
            locate(f"{wrong}+{tmp_path / 'tuned'}")
    file = tmp_path / "tuned" / "adapter_model.safetensors"
    half = {
        n: t
        for n, t in load_file(file).items()
        if not n.endswith("0.self_attn.q_proj.lora_B.weight")
    }
    save_file(half, file)
    with pytest.raises(InputError, match="lacks half"):
        locate(tmp_path / "tuned")
    file.unlink()
    (tmp_path / "tuned" / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="pickled"):
        locate(tmp_path / "tuned")
