"""GGUF files read one tensor at a time, against transformers' own loader and its own unpacking."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.merging.checkpoint import Checkpoint
from repsim.models import load_causal_lm, load_model
from repsim.models.gguf import Block, GgufWeights
from repsim.models.headers import weight_files
from repsim.models.inspect import inspect_model, locate
from repsim.models.load import quiet_transformers
from repsim.models.views import VIEW
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer
from tests.planted.held_files import write_tiny_gguf

TEXT = "the der and in Пиши"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


def _write(file: Path, kind: str = "llama", packed: str = "F32", **overrides: Any) -> Any:
    model = tiny_model(kind, head=True, **overrides)
    write_tiny_gguf(file, model, tiny_tokenizer(), packing=lambda name, shape: packed)
    return model


@pytest.mark.parametrize("kind", ["llama", "llama+tied"])
def test_plain_numbers_come_back_as_they_were(kind: str, tmp_path: Path) -> None:
    model = _write(tmp_path / "a.gguf", kind)
    weights = Checkpoint(locate(tmp_path / "a.gguf").folder)
    own = dict(model.named_parameters())
    assert weights.headers.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(weights.read(name), tensor)
        assert torch.equal(weights.read(name, slice(1, 3)), tensor[1:3])
        flat = tensor.detach().flatten().numpy()
        assert np.array_equal(weights.array(name), flat)
        assert np.array_equal(weights.entries(name, 3, 9), flat[3:9])


@pytest.mark.parametrize("packed", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_packed_weights_equal_those_that_transformers_loads(packed: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    file = tmp_path / "a.gguf"
    original = _write(file, packed=packed, intermediate_size=64)
    with quiet_transformers():
        known = AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file=file.name, dtype=torch.float32
        )
    model, tokenizer, ref = load_causal_lm(file)
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in known.state_dict().items())
    weights = Checkpoint(locate(file).folder)
    assert all(torch.equal(weights.read(n).float(), own[n]) for n in weights.headers)
    kinds = {h.dtype for n, h in weights.headers.items() if len(h.shape) > 1}
    assert kinds == {packed if packed in ("F16", "BF16") else "F32"}
    rough = max(float((own[n] - t).abs().max()) for n, t in original.state_dict().items())
    assert 0 < rough < 0.2
    assert ref.parameters == sum(p.numel() for p in original.parameters())
    assert tokenizer.decode(tokenizer(TEXT).input_ids, skip_special_tokens=True) == TEXT


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q4_1"])
def test_blocks_unpack_as_transformers_unpacks_them_on_its_own(kind: str, tmp_path: Path) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from transformers.integrations.gguf.dequant import GGML_NAME, dequantize

    entries, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    rng = np.random.default_rng(0)
    rows, columns = 3, 512
    blocks = rng.integers(0, 256, (rows * columns // entries, size), np.uint8)
    # Scales of float16 are drawn too: none may be infinite or not a number.
    blocks[:, 1::2] &= 0x3B
    file = tmp_path / "blocks"
    file.write_bytes(b"head" + blocks.tobytes())
    block = Block("t", kind, (rows, columns), 4, blocks.nbytes)
    weights = GgufWeights({
        "files": [str(file)], "architecture": "other", "config": {}, "names": {"t": "t"},
        "tensors": {"t": {"shape": [rows, columns], "blocks": [
            ["t", kind, [rows, columns], block.start, block.size]]}},
    })  # fmt: skip
    number = next(key for key, name in GGML_NAME.items() if name == kind)
    known = dequantize(torch.from_numpy(blocks.reshape(-1)), number).reshape(rows, columns)
    torch.testing.assert_close(weights.read("t"), known, rtol=1e-6, atol=1e-6)


def test_a_folder_with_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    _write(folder / "a.gguf", packed="Q8_0", intermediate_size=64)
    ref = inspect_model(folder)
    assert (ref.name, ref.architecture, ref.layers) == ("held", "llama", 2)
    loaded = load_model(folder)
    assert load_model(ref).ref == loaded.ref == ref
    view = locate(folder).folder
    assert weight_files(view) == [folder / "a.gguf"]
    assert not list(view.glob("*.safetensors"))
    # Another file in its place is another model.
    _write(folder / "a.gguf", packed="F16")
    assert inspect_model(folder).weights_hash != ref.weights_hash


def test_a_file_that_was_split_is_one_model(tmp_path: Path) -> None:
    model = _write(tmp_path / "whole.gguf", packed="Q8_0", intermediate_size=64)
    (tmp_path / "split").mkdir()
    first = write_tiny_gguf(tmp_path / "split" / "held.gguf", model, tiny_tokenizer(),
                            packing=lambda *_: "Q8_0", per_part=8)  # fmt: skip
    parts = sorted(first.parent.iterdir())
    assert [part.name for part in parts] == [f"held-0000{i}-of-00004.gguf" for i in range(1, 5)]
    whole = Checkpoint(locate(tmp_path / "whole.gguf").folder)
    for named in (first, parts[2], first.parent):
        view = locate(named)
        weights = Checkpoint(view.folder)
        assert weights.headers == whole.headers
        assert all(torch.equal(weights.read(name), whole.read(name)) for name in whole.headers)
    assert locate(parts[2]).name == "held"
    config = (locate(tmp_path / "whole.gguf").folder / "config.json").read_text()
    assert (locate(first).folder / "config.json").read_text() == config  # not tied
    parts[3].rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(InputError, match=r"split; beside it held-00004-of-00004.gguf is missing"):
        locate(first)
    for part in parts[:3]:
        part.rename(part.with_name(part.name.replace("-of-00004", "-of-00003")))
    with pytest.raises(InputError, match=r"is one of 4 parts of a GGUF file, by its name of 3"):
        locate(first.parent)


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a.gguf")
    data = (tmp_path / "a.gguf").read_bytes()
    for name, content, said in (
        ("no.gguf", b"GG", "is not a GGUF file"),
        ("cut.gguf", data[:-100], "truncated"),
        ("head.gguf", data[:300], "truncated or is not a GGUF file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said):
            locate(tmp_path / name)
    with pytest.raises(InputError, match=r"holds 4 GGUF files: a.gguf, .*name one of them"):
        locate(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(IncompatibleModelsError, match=r"needs the package gguf.*extra 'gguf'"):
        locate(tmp_path / "a.gguf")


def test_a_view_of_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    _write(tmp_path / "a.gguf")
    view = locate(tmp_path / "a.gguf").folder
    assert (view / VIEW).is_file()
    (tmp_path / "a.gguf").unlink()
    with pytest.raises(InputError, match="changed or moved"):
        Checkpoint(view)
