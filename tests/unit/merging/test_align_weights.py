"""State dicts are taken apart and put together without loss, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.merging.align.apply import apply_map, identity_element, transform
from repsim.merging.align.weights import pack, unpack
from repsim.models.arch import spec_for
from repsim.testing.tiny_models import tiny_model

KINDS = ["llama", "llama+tied", "qwen2", "qwen3", "gemma", "gpt2", "gpt_neox", "bert", "roberta",
         "glm", "falcon+grouped", "gpt_oss", "deepseek_v3", "mamba"]  # fmt: skip


def parts(kind: str, **options: Any) -> tuple[dict[str, torch.Tensor], Any]:
    model = tiny_model(kind, head=kind not in ("bert", "roberta"), **options)
    return dict(model.state_dict()), spec_for(model.config.model_type).spaces(model.config)


@pytest.mark.parametrize("kind", KINDS)
def test_packing_what_was_unpacked_gives_the_same_bits_and_types(kind: str) -> None:
    state, spaces = parts(kind)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    again = pack(unpack(state, spaces), state, spaces)
    assert list(again) == list(state)
    for name, tensor in state.items():
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == torch.bfloat16
        assert again[name].is_contiguous()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_a_body_alone_holds_the_same_weights_as_inside_a_model(kind: str) -> None:
    state, spaces = parts(kind)
    body = {k.removeprefix(f"{spaces.body}."): v for k, v in state.items() if "lm_head" not in k}
    whole, alone = unpack(state, spaces), unpack(body, spaces)
    assert set(whole) - {"head"} == set(alone)
    assert all(torch.equal(whole[key], alone[key]) for key in alone)


def test_fused_tensors_come_apart_into_the_heads_that_the_model_uses() -> None:
    state, spaces = parts("gpt_neox")
    weights = unpack(state, spaces)
    fused = state["gpt_neox.layers.0.attention.query_key_value.weight"].double()
    # Head h takes rows 24 h to 24 h + 23: 8 of its query, 8 of its key, 8 of its value.
    assert torch.equal(weights["0.k"][2], fused[48 + 8 : 48 + 16])
    state, spaces = parts("gpt2")
    weights = unpack(state, spaces)
    fused = state["transformer.h.0.attn.c_attn.weight"].double()
    assert torch.equal(weights["0.v"][1], fused[:, 64 + 8 : 64 + 16].T)


def test_neighbours_carry_positions_only_where_positions_are() -> None:
    state, spaces = parts("glm")  # heads of 16, of which 8 dimensions carry positions
    rows = state["model.layers.0.self_attn.k_proj.weight"][:16].double()
    order = [0, 2, 4, 6, 1, 3, 5, 7, *range(8, 16)]
    assert torch.equal(unpack(state, spaces)["0.k"][0], rows[order])


def test_latent_heads_come_apart_into_keys_and_values() -> None:
    state, spaces = parts("deepseek_v3")
    weights = unpack(state, spaces)
    rows = state["model.layers.0.self_attn.kv_b_proj.weight"].double()  # 8 of key, 6 of value
    assert torch.equal(weights["0.k_nope"][2], rows[28:36])
    assert torch.equal(weights["0.v_latent"][2], rows[36:42])


@pytest.mark.parametrize("kind", ["mixtral", "deepseek_v3", "stablelm+qk-norm"])
def test_experts_are_known_as_published_checkpoints_store_them(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, head=True)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    spaces = spec_for(model.config.model_type).spaces(model.config)
    built, stored = unpack(dict(model.state_dict()), spaces), unpack(state, spaces)
    assert built.keys() == stored.keys()
    assert all(torch.equal(built[key], stored[key]) for key in built)
    again = pack(stored, state, spaces)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)
    lost = next(name for name in state if ".w2." in name or "down_proj" in name or "norms" in name)
    with pytest.raises(IncompatibleModelsError, match="lacks 1 tensor"):
        unpack({name: tensor for name, tensor in state.items() if name != lost}, spaces)


def test_a_tied_head_is_no_weight_of_its_own() -> None:
    state, spaces = parts("llama+tied")
    without = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    assert "head" not in unpack(state, spaces)
    assert "head" not in unpack(without, spaces)
    assert "lm_head.weight" not in pack(unpack(without, spaces), without, spaces)


def test_a_tied_head_follows_the_embedding() -> None:
    state, spaces = parts("llama+tied")
    weights = unpack(state, spaces)
    weights["embed"] = weights["embed"] + 1
    packed = pack(weights, state, spaces)
    assert torch.equal(packed["lm_head.weight"], packed["model.embed_tokens.weight"])


def test_causal_masks_of_old_checkpoints_are_left_alone() -> None:
    state, spaces = parts("gpt2")
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4).tril()
    packed = pack(unpack(state, spaces), state, spaces)
    assert packed["transformer.h.0.attn.bias"] is state["transformer.h.0.attn.bias"]


def test_identity_elements_change_nothing() -> None:
    state, spaces = parts("llama")
    weights = unpack(state, spaces)
    same = {space.key: identity_element(space) for space in spaces.spaces}
    moved = apply_map(weights, spaces, same)
    assert all(torch.equal(moved[key], weights[key]) for key in weights)


def test_an_element_of_the_wrong_shape_is_refused() -> None:
    state, spaces = parts("llama")
    with pytest.raises(UsageError, match=r"'0.mlp_units' has shape \(48,\), not \(47,\)"):
        transform(unpack(state, spaces), spaces["0.mlp_units"], torch.arange(47))


def test_a_map_for_another_family_is_refused() -> None:
    state, spaces = parts("gpt2")
    with pytest.raises(UsageError, match="'gpt2' has no symmetry '0.query_heads'"):
        apply_map(unpack(state, spaces), spaces, {"0.query_heads": torch.zeros(4, 1)})


def test_a_space_that_is_not_there_is_no_space() -> None:
    _, spaces = parts("gpt2")
    with pytest.raises(KeyError, match=r"0\.query_heads"):
        spaces["0.query_heads"]


@pytest.mark.parametrize(
    ("kind", "tensor", "change", "message"),
    [
        ("llama+tied", "lm_head.weight", lambda old: old + 1, "the checkpoint holds another head"),
        ("llama", "lm_head.weight", None, "but the checkpoint has no head"),
        ("llama", "model.layers.1.self_attn.v_proj.weight", None, "lacks 1 tensor.*v_proj.weight'"),
        ("llama", "model.layers.0.self_attn.sinks", lambda old: torch.zeros(4),
         r"say nothing of 1 tensor.*sinks'"),
        ("gpt2", "transformer.ln_f.bias", lambda old: old * torch.nan,
         r"'transformer.ln_f.bias' holds values that are NaN"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused_by_name(
    kind: str, tensor: str, change: Any, message: str
) -> None:
    state, spaces = parts(kind)
    old = state.pop(tensor, None)
    with pytest.raises((IncompatibleModelsError, InputError), match=message):
        unpack(state if change is None else {**state, tensor: change(old)}, spaces)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_key_value_heads": 4, "num_attention_heads": 8, "head_dim": 6},
         r"shape \(32, 32\), which is not '\(kv q"),
        ({"intermediate_size": 40}, r"shape \(48, 32\), which is not 'mlp resid'"),
    ],
)  # fmt: skip
def test_weights_of_another_config_are_refused_with_shape_and_axes(
    options: dict[str, int], message: str
) -> None:
    with pytest.raises(IncompatibleModelsError, match=message):
        unpack(parts("llama")[0], parts("llama", **options)[1])
