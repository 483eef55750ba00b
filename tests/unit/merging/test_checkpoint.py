"""Tensors are read through maps as they are stored, whole or by rows."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.core.errors import InputError
from repsim.merging.checkpoint import Checkpoint, StateDict, Transformed
from repsim.merging.tensors import count_layers, is_tied, kind_of, merged_names, token_tensors
from repsim.merging.token_rows import Reindexed
from repsim.merging.vocabulary import Vocabulary, read_vocabulary
from repsim.models.headers import TensorHeader

STATE = {
    "a": torch.arange(24, dtype=torch.float32).reshape(6, 4),
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(3, 2),
    "c": torch.tensor(2.5, dtype=torch.float64),
    "d": torch.zeros(0, 4),
    "e": torch.tensor([True, False]),
    "f": torch.arange(5),
}


def shard(folder: Path, parts: dict[str, dict[str, torch.Tensor]]) -> Path:
    folder.mkdir()
    for file, part in parts.items():
        save_file(part, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def single(folder: Path, state: dict[str, torch.Tensor] = STATE) -> Path:
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    return folder


def test_tensors_are_those_in_the_file_in_their_own_type(tmp_path: Path) -> None:
    checkpoint = Checkpoint(single(tmp_path / "m"))
    expected = load_file(tmp_path / "m" / "model.safetensors")
    assert checkpoint.headers.keys() == expected.keys()
    for name, tensor in expected.items():
        found = checkpoint.read(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    parts = {"x-2.safetensors": {"a": STATE["a"]}, "x-1.safetensors": {"b": STATE["b"]}}
    checkpoint = Checkpoint(shard(tmp_path / "m", parts))
    assert torch.equal(checkpoint.read("a"), STATE["a"])
    assert torch.equal(checkpoint.read("b"), STATE["b"])
    assert [mark[0] for mark in checkpoint.marks()] == ["x-1.safetensors", "x-2.safetensors"]


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 6), slice(3, 3), slice(4, 99)])
def test_rows_are_read_by_themselves(tmp_path: Path, rows: slice) -> None:
    assert torch.equal(Checkpoint(single(tmp_path / "m")).read("a", rows), STATE["a"][rows])


def test_writing_to_what_was_read_does_not_change_the_file(tmp_path: Path) -> None:
    Checkpoint(single(tmp_path / "m")).read("a").fill_(7)
    assert torch.equal(Checkpoint(tmp_path / "m").read("a"), STATE["a"])


def test_a_file_that_is_not_aligned_is_read_all_the_same(tmp_path: Path) -> None:
    head = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    head += b" " * (-len(head) % 8 + 1)
    (tmp_path / "model.safetensors").write_bytes(
        struct.pack("<Q", len(head)) + head + struct.pack("<2f", 1.5, -2.5)
    )
    assert Checkpoint(tmp_path).read("a").tolist() == [1.5, -2.5]


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    parts = {
        "1.safetensors": {"a": STATE["a"], "b": STATE["b"]},
        "2.safetensors": {"a": STATE["a"]},
    }
    with pytest.raises(InputError, match="'a' is in two files: 1.safetensors and 2"):
        Checkpoint(shard(tmp_path / "m", parts))


def test_a_type_that_cannot_be_averaged_is_refused(tmp_path: Path) -> None:
    state = {"a": torch.zeros(2).to(torch.float8_e4m3fn)}
    with pytest.raises(InputError, match="tensor 'a' of model 'm' has type F8_E4M3"):
        Checkpoint(single(tmp_path / "m", state))


def test_a_transform_may_not_change_shapes() -> None:
    source = Transformed(StateDict("m", {"w": torch.ones(2, 3)}), lambda name, tensor: tensor.T)
    with pytest.raises(InputError, match="the transform of model 'm' changed the shape of 'w'"):
        source.read("w")


def vocabulary(name: str, tokens: str, merges: str = "x") -> Vocabulary:
    ids = {token: number for number, token in enumerate(tokens)}
    return Vocabulary(name, ids, dict.fromkeys(sorted(ids)), {"merges": merges}, name)


def test_rows_are_the_mean_of_those_that_they_take() -> None:
    one = StateDict("a", {"wte.weight": torch.eye(4, 3), "norm": torch.ones(1)})
    two = StateDict("b", {"wte.weight": torch.eye(3) + 1, "norm": torch.zeros(1)})
    rows = [torch.tensor(taken) for taken in ([1, -1, 0, -1, -1], [-1, 2, 1, -1, -1])]
    mapped = Reindexed(two, list(zip((one, two), rows, strict=True)), frozenset({"wte.weight"}), 1)
    first, second = one.read("wte.weight"), two.read("wte.weight")
    expected = torch.stack([first[1], second[2], (first[0] + second[1]) / 2, torch.zeros(3)])
    expected = torch.cat([expected, expected.mean(0, keepdim=True)])
    assert mapped.headers["wte.weight"].shape == (5, 3)
    assert torch.equal(mapped.read("wte.weight"), expected)
    assert torch.equal(mapped.read("wte.weight", slice(2, 4)), expected[2:4])
    assert torch.equal(mapped.read("norm"), torch.zeros(1))


def test_a_vocabulary_extends_one_whose_tokens_it_has() -> None:
    small, large = vocabulary("a", "xy"), vocabulary("b", "xyz", merges="more")
    assert large.extends(small)
    assert not small.extends(large)
    assert not small.cuts_alike(large)


def test_differences_name_the_first_tokens() -> None:
    assert vocabulary("a", "xyz").differences(vocabulary("b", "xzy")) == [
        "2 of 3 tokens differ (id 1: 'y' and 'z', id 2: 'z' and 'y')"
    ]
    assert vocabulary("a", "xyz").differences(vocabulary("b", "xyz", merges="m")) == [
        "merges differ"
    ]
    unread = Vocabulary("c", {}, {}, {}, "c")
    assert "do not show their tokens" in vocabulary("a", "xyz").differences(unread)[0]


def test_vocabularies_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    assert read_vocabulary(tmp_path) is None
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    found = read_vocabulary(tmp_path)
    assert found is not None
    assert found.ids == {"a": 0, "b": 1}
    (tmp_path / "vocab.json").write_text('{"x": 0}')
    (tmp_path / "merges.txt").write_text("a b\n")
    found = read_vocabulary(tmp_path)
    assert found is not None
    assert found.ids == {"x": 0}
    unigram = {"vocab": [["<unk>", 0.0], ["▁a", -1.5]], "unk_id": 0}
    added = [{"content": "<pad>", "id": 2}]
    document = {"model": unigram, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    found = read_vocabulary(tmp_path)
    assert found is not None
    assert found.ids == {"<unk>": 0, "▁a": 1, "<pad>": 2}
    assert found.core["▁a"] == -1.5
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(InputError, match="tokenizer.json of model 'm' is damaged"):
        read_vocabulary(tmp_path, "m")


def test_scores_of_a_unigram_model_count() -> None:
    first = Vocabulary("a", {"x": 0}, {"x": -1.0}, {}, "a")
    second = Vocabulary("b", {"x": 0}, {"x": -2.0}, {}, "b")
    assert first.differences(second) == ["scores of tokens differ"]
    assert not first.cuts_alike(second)


def test_vocabulary_tensors_are_told_by_name() -> None:
    names = ["model.embed_tokens.weight", "lm_head.weight", "transformer.wpe.weight", "bert.cls.x",
             "cls.predictions.bias", "wte.weight", "bert.word_embeddings.weight"]  # fmt: skip
    assert sorted(set(names) - token_tensors(names)) == ["bert.cls.x", "transformer.wpe.weight"]


@pytest.mark.parametrize(
    ("name", "dimensions", "kind"),
    [
        ("gpt_neox.embed_in.weight", 2, "embedding"),
        ("transformer.wpe.weight", 2, "embedding"),
        ("embed_out.weight", 2, "head"),
        ("encoder.layer.0.output.LayerNorm.bias", 1, "norm"),
        ("model.layers.0.self_attn.q_norm.weight", 1, "norm"),
        ("model.layers.0.self_attn.q_proj.bias", 1, "vector"),
        ("model.layers.0.self_attn.q_proj.weight", 2, "matrix"),
    ],
)
def test_kinds_are_told_by_name(name: str, dimensions: int, kind: str) -> None:
    assert kind_of(name, dimensions) == kind


def test_stacks_are_counted_apart() -> None:
    names = [f"{stack}.block.{i}.w" for stack in ("encoder", "decoder") for i in range(3)]
    assert count_layers(names) == {"encoder.block": 3, "decoder.block": 3}


def test_a_doubled_head_is_left_out_only_if_it_is_tied() -> None:
    header = TensorHeader("F32", (2, 2))
    stored = {"lm_head.weight": header, "model.embed_tokens.weight": header}
    assert merged_names({"tie_word_embeddings": True}, stored) == ["model.embed_tokens.weight"]
    assert merged_names({"tie_word_embeddings": False}, stored) == list(stored)
    assert not is_tied({}, stored)
