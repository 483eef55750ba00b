"""Quantised checkpoints: matrices unpacked as the libraries that define the formats unpack them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.merging.checkpoint import Checkpoint
from repsim.models import load_causal_lm
from repsim.models.formats import open_weights
from repsim.models.inspect import locate
from repsim.testing.tiny_models import tiny_model, write_tiny_model
from tests.planted.held_files import write_packed

#: Made by `make.py` beside it, with bitsandbytes, compressed-tensors, gptqmodel and autoawq.
VALUES = Path(__file__).parents[2] / "golden" / "quantised" / "values.safetensors"
CASES = json.loads(safe_open(VALUES, "pt").metadata()["cases"])
#: What the libraries round on the way: to float16 or bfloat16, or in another order.
ROUNDED = {
    "gptq": 2e-3,
    "awq": 2e-3,
    "bitsandbytes int8": 1e-7,
    "compressed": 1e-7,
    "compressed-tensors nvfp4": 1e-5,
}
#: The matrix that a case takes the place of.
MATRIX = "model.layers.1.self_attn.o_proj"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


def _case(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Parts of a case, what its library unpacks, and the matrix that it was made of."""
    stored = load_file(VALUES)
    parts = {key.partition("|")[2]: v for key, v in stored.items() if key.startswith(f"{name}|")}
    return parts, parts.pop("="), stored["original"]


def _checkpoint(folder: Path, parts: dict[str, torch.Tensor], root: str, **settings: Any) -> Path:
    """A model one of whose matrices is stored in parts."""
    write_tiny_model("llama", folder, head=True, hidden_size=32, head_dim=32)
    tensors = load_file(folder / "model.safetensors")
    del tensors[f"{MATRIX}.weight"]
    tensors |= {f"{MATRIX}{root}{part}": value for part, value in parts.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    settings = {"quant_method": "some", **settings}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


def _root(parts: dict[str, torch.Tensor]) -> str:
    return "" if {".qweight", ".SCB"} & parts.keys() else ".weight"


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_unpacks_as_its_library_unpacks_it(case: str, tmp_path: Path) -> None:
    parts, known, original = _case(case)
    form = {"checkpoint_format": case.rpartition(" ")[2]} if case.startswith("gptq") else {}
    if case.startswith("compressed"):  # states the version of its library
        form = {"quant_method": "compressed-tensors", "version": "0.20.1"}
    folder = _checkpoint(tmp_path / "q", parts, _root(parts), **form)
    weights = Checkpoint(locate(folder).folder)
    found = weights.read(f"{MATRIX}.weight")
    assert weights.headers[f"{MATRIX}.weight"].shape == found.shape == original.shape
    assert found.dtype == torch.float32
    most = max((t for key, t in ROUNDED.items() if case.startswith(key)), default=0.0)
    assert float((found - known.float()).abs().max()) <= most
    # 8 bits are closer to what was packed than 4: a scale taken for another one would show.
    wrong = float((found - original).norm() / original.norm())
    assert wrong < (0.05 if "8" in case else 0.2)


def test_a_checkpoint_loads_as_what_it_unpacks_to(tmp_path: Path) -> None:
    parts, known, _ = _case("bitsandbytes nf4 nested")
    folder = _checkpoint(tmp_path / "q", parts, ".weight", quant_method="bitsandbytes")
    model, _, ref = load_causal_lm(folder)
    assert torch.equal(model.state_dict()[f"{MATRIX}.weight"], known)
    view = locate(folder).folder
    assert "quantization_config" not in json.loads((view / "config.json").read_text())
    assert ref.path == str(folder)
    assert ref.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("shape", [(64, 96), (50, 70)])
def test_blocks_of_fp8_unpack_as_transformers_unpacks_them(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    block = [32, 32]
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    counts = [-(-n // b) for n, b in zip(shape, block, strict=True)]
    scale = torch.rand(counts, generator=torch.Generator().manual_seed(1)) + 0.5
    packed = w.to(torch.float8_e4m3fn)
    by_hand = packed.float() * scale.repeat_interleave(32, 0).repeat_interleave(32, 1)[
        : shape[0], : shape[1]]  # fmt: skip
    folder = _checkpoint(
        tmp_path / "q", {"": packed, "_scale_inv": scale}, ".weight",
        quant_method="fp8", weight_block_size=block,
    )  # fmt: skip
    found = open_weights(locate(folder).folder).read(f"{MATRIX}.weight")
    assert torch.equal(found, by_hand)
    if all(n % b == 0 for n, b in zip(shape, block, strict=True)):
        known = Fp8Dequantize(None)._dequantize_one(packed, scale, torch.float32)
        assert torch.equal(found, known)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_whole_checkpoint_gives_the_logits_of_what_it_stands_for(
    method: str, tmp_path: Path
) -> None:
    size = {"hidden_size": 64, "intermediate_size": 64}
    folder = write_tiny_model("llama", tmp_path / "plain", head=True, **size)
    known = write_packed(folder, tmp_path / "q", method)
    plain, *_ = load_causal_lm(folder)
    ids = torch.arange(1, 25).reshape(2, 12)
    before = plain(input_ids=ids).logits
    plain.load_state_dict(known, strict=False)
    model, _, ref = load_causal_lm(tmp_path / "q")
    own = model.state_dict()
    assert len(known) == 14
    assert all(torch.equal(own[name], tensor) for name, tensor in known.items())
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert not torch.allclose(before, plain(input_ids=ids).logits, atol=1e-4)
    assert ref.parameters == sum(p.numel() for p in plain.parameters())


def test_experts_in_mxfp4_unpack_as_transformers_unpacks_them(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    model = tiny_model("gpt_oss", head=True, hidden_size=64, intermediate_size=96)
    folder = tmp_path / "q"
    write_tiny_model("gpt_oss", folder, head=True, hidden_size=64, intermediate_size=96)
    tensors, draw = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, wide, high = tensors.pop(name).shape
        shape = (experts, high, wide // 32)
        blocks = torch.randint(0, 256, (*shape, 16), generator=draw, dtype=torch.uint8)
        scales = torch.randint(117, 124, shape, generator=draw, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        known = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        assert known.shape == (experts, wide, high)
        model.get_parameter(name).data = known
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    loaded, *_ = load_causal_lm(folder)
    own = loaded.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())
    ids = torch.arange(1, 25).reshape(2, 12)
    assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_what_is_not_unpacked_is_refused_with_the_command_that_does(tmp_path: Path) -> None:
    bits = torch.zeros(4, 4, dtype=torch.uint8)
    odd = _checkpoint(tmp_path / "odd", {".W_q": bits}, "", quant_method="hqq")
    with pytest.raises(IncompatibleModelsError, match=r"by hqq.*W_q of type U8") as refused:
        locate(odd)
    assert "dequantize().save_pretrained" in str(refused.value)
    lone = _checkpoint(tmp_path / "lone", {"": torch.zeros(32, 128).to(torch.float8_e4m3fn)},
                       ".weight", quant_method="fp8")  # fmt: skip
    with pytest.raises(IncompatibleModelsError, match="type F8_E4M3"):
        locate(lone)
    parts, *_ = _case("awq 4")
    with pytest.raises(IncompatibleModelsError, match="by awq.*its settings"):
        locate(_checkpoint(tmp_path / "gemv", parts, "", quant_method="awq", version="gemv"))
    parts, *_ = _case("gptq 4, gptq")
    three = parts | {".qweight": parts[".qweight"][:12].repeat(1, 1)}
    with pytest.raises((InputError, IncompatibleModelsError), match="not of 2, 4 or 8 bits|do not"):
        folder = locate(_checkpoint(tmp_path / "three", three, "", quant_method="gptq")).folder
        open_weights(folder).read(f"{MATRIX}.weight")


def test_a_config_that_only_says_quantised_is_a_plain_model(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "plain", head=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "compressed-tensors"}})
    )
    weights = open_weights(locate(folder).folder)
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(weights.read(name), tensor)
    shutil.rmtree(folder)
