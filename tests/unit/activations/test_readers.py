"""Dumps of other tools: whatever format and names, the rows are those of our own extractor."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import repsim
from repsim.activations import extract
from repsim.activations.readers import DumpWarning, read_dump
from repsim.activations.tokens import TokenPolicy, encode
from repsim.core import Activations, InputError, ParallelCorpus, UsageError

N = 24


@pytest.fixture(scope="module")
def read(tiny: Callable[..., Any]) -> SimpleNamespace:
    """Hidden states of a tiny model token by token, as tools see them, and what we make of them."""
    loaded = tiny("llama")
    words = ("the", "cat", "sees", "and", "hears", "a", "dog")
    text = tuple(" ".join(words[(i + j) % 7] for j in range(1 + i % 6)) for i in range(N))
    corpus = ParallelCorpus("text", tuple(map(str, range(N))), {"eng_Latn": text})
    encoded = encode(loaded.tokenizer, text, TokenPolicy())
    states = []
    with torch.no_grad():
        for one in encoded:
            found = loaded.model(torch.tensor([one.ids]), output_hidden_states=True)
            states.append(torch.stack(found.hidden_states[:-1], 1)[0])  # [layer, token, unit]
    longest = max(len(one.ids) for one in encoded)
    padded = torch.full((states[0].shape[0], N, longest, states[0].shape[2]), 7.0)
    mask = torch.zeros(N, longest, dtype=torch.int64)
    for i, own in enumerate(states):
        padded[:, i, : own.shape[1]] = own
        mask[i, : own.shape[1]] = 1
    return SimpleNamespace(
        loaded=loaded, corpus=corpus, states=states, padded=padded, mask=mask,
        ids=[torch.tensor(one.ids) for one in encoded],
    )  # fmt: skip


def _own(read: SimpleNamespace, pooling: str = "mean") -> Activations:
    return extract(read.loaded, read.corpus, points=("resid",), pooling=pooling)[0]


def _same(dump: Activations, own: Activations, point: str = "resid") -> None:
    numbers = dump.layers[point]
    assert numbers == own.layers["resid"][: len(numbers)]
    for number in numbers:
        difference = np.abs(dump.array(point, number) - own.array("resid", number)).max()
        assert difference < 1e-6


@pytest.mark.parametrize("pooling", ["mean", "last", "position-weighted", "tokens"])
def test_a_transformerlens_cache_gives_the_rows_of_our_extractor(
    read: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A cache of a batch: the embedding enters block 0, layer i leaves block i - 1.
    cache = {"blocks.0.hook_resid_pre": read.padded[0], "attention_mask": read.mask}
    for i, layer in enumerate(read.padded[1:]):
        cache[f"blocks.{i}.hook_resid_post"] = layer
        cache[f"blocks.{i}.hook_mlp_out"] = layer * 2
        cache[f"blocks.{i}.attn.hook_pattern"] = torch.ones(N, 2, 3, 3)
    torch.save(cache, tmp_path / "cache.pt")
    dump = read_dump(tmp_path / "cache.pt", manifest={"pooling": pooling})
    _same(dump, _own(read, pooling))
    kept = list(tmp_path.glob("repsim-rows-*/*.npy"))
    assert len(kept) == (0 if pooling == "tokens" else len(read.padded))
    _same(dump, _own(read, pooling))
    assert "blocks.0.hook_mlp_out" in dump.info["left_out"]
    del dump
    assert not list(tmp_path.glob("repsim-rows-*"))
    other = read_dump(tmp_path / "cache.pt", manifest={"point": "mlp"})
    assert other.layers == {"mlp": tuple(range(1, len(read.padded)))}


def test_requests_of_vllm_give_the_rows_of_our_extractor(
    read: SimpleNamespace, tmp_path: Path
) -> None:
    # One file for each request: token_ids [tokens], hidden_states [tokens, layers, units].
    for i, (ids, own) in enumerate(zip(read.ids, read.states, strict=True)):
        states = own.transpose(0, 1).contiguous()
        save_file({"token_ids": ids, "hidden_states": states}, tmp_path / f"req-{i}.safetensors")
    _same(read_dump(tmp_path), _own(read))
    (tmp_path / "manifest.yaml").write_text(
        yaml.safe_dump({"files": [f"req-{i}.safetensors" for i in reversed(range(N))]})
    )
    turned, last = read_dump(tmp_path), len(read.padded) - 1
    assert np.allclose(turned.array()[::-1], _own(read).array(layer=last), atol=1e-6)


def test_rows_of_one_tokenizer_hold_the_same_token_ids(
    read: SimpleNamespace, tmp_path: Path
) -> None:
    def dumped(name: str, order: range, added: int = 0, **manifest: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i, j in enumerate(order):
            states = read.states[j].transpose(0, 1).contiguous()
            save_file({"token_ids": read.ids[j] + added, "hidden_states": states},
                      folder / f"req-{i}.safetensors")  # fmt: skip
        (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
        return folder

    a, same = dumped("a", range(N)), dumped("same", range(N), tokenizer="x")
    none = {"measures": ["cka"], "permutations": 0, "layers": "matched"}
    table = repsim.compare_arrays({"a": a, "same": same}, **none)
    assert np.asarray(table.column("value")) == pytest.approx(1, abs=1e-6)
    turned = dumped("turned", range(N - 1, -1, -1))
    with pytest.raises(InputError, match=r"'a' and 'turned' hold other token ids, first in sen"):
        repsim.compare_arrays({"a": a, "turned": turned}, **none)
    other = dumped("other", range(N), added=1000, tokenizer="y")
    for pair in ({"a": a, "other": other}, {"other": other, "a": a}):  # one side names it
        with pytest.warns(DumpWarning, match="has the same token ids in both"):
            repsim.compare_arrays(pair, **none)
    moved = dumped("moved", range(N), added=1000, tokenizer="x")
    with pytest.raises(InputError, match=r"'same' and 'moved' hold other token ids"):
        repsim.compare_arrays({"same": same, "moved": moved}, **none)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repsim.compare_arrays({"same": same, "other": other}, **none)


def test_what_is_assumed_of_a_dump_is_said(tmp_path: Path) -> None:
    x = torch.randn(9, 4)
    torch.save({"blocks.0.hook_resid_post": x}, tmp_path / "one.pt")
    with pytest.warns(DumpWarning, match=r"'blocks.0.hook_resid_post' has no token axis: .*axes:"):
        assert len(read_dump(tmp_path / "one.pt")) == 9
    with pytest.warns(DumpWarning, match="special_ids leave nothing out"):
        read_dump(tmp_path / "one.pt", manifest={"axes": ["token", "unit"], "special_ids": [1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_dump(tmp_path / "one.pt", manifest={"axes": ["token", "unit"]})) == 1


@pytest.mark.parametrize("path", ["model.layers.{}", "transformer.h.{}.output.0"])
def test_paths_of_modules_name_layers_as_we_do(
    read: SimpleNamespace, tmp_path: Path, path: str
) -> None:
    lengths = [own.shape[1] for own in read.states]
    cache = {path.format(i): layer for i, layer in enumerate(read.padded[1:])}
    torch.save(cache, tmp_path / "nnsight.pt")
    dump = read_dump(tmp_path / "nnsight.pt", manifest={"lengths": lengths})
    own = _own(read)
    for number in dump.layers["resid"]:
        assert np.abs(dump.array("resid", number) - own.array("resid", number)).max() < 1e-6
    assert dump.layers["resid"][0] == 1


def test_lists_of_tensors_and_plain_rows_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(9, 4)).astype(np.float32) for _ in range(12)]
    torch.save([torch.tensor(one) for one in layers], tmp_path / "list.pt")
    save_file({f"layer_{i}": torch.tensor(one).bfloat16() for i, one in enumerate(layers)},
              tmp_path / "rows.safetensors")  # fmt: skip
    np.savez(tmp_path / "plain.npz", *layers)
    np.savez_compressed(tmp_path / "packed.npz", *layers)
    np.save(tmp_path / "stack.npy", np.asfortranarray(np.stack(layers)))
    (tmp_path / "stack.npy.yaml").write_text("axes: [layer, row, unit]\nlanguage: deu_Latn\n")
    (tmp_path / "folder").mkdir()
    for i, one in enumerate(layers):
        np.save(tmp_path / "folder" / f"layer_{i}.npy", one)
    for name in ("list.pt", "rows.safetensors", "plain.npz", "packed.npz", "stack.npy", "folder"):
        dump = read_dump(tmp_path / name)
        assert dump.layers == {"": tuple(range(12))}, name
        for i, one in enumerate(layers):
            assert np.allclose(dump.array("", i), one, rtol=0.01 if "rows" in name else 0), name
    assert read_dump(tmp_path / "stack.npy").language == "deu_Latn"
    named = {"layers": {"arr_2": 7, "arr_0": 3}}
    assert read_dump(tmp_path / "plain.npz", manifest=named).layers == {"": (3, 7)}


def test_sentences_end_to_end_are_cut_by_their_lengths(
    read: SimpleNamespace, tmp_path: Path
) -> None:
    np.savez(tmp_path / "ragged.npz", layer_0=torch.cat([s[0] for s in read.states]).numpy(),
             lengths=[s.shape[1] for s in read.states])  # fmt: skip
    dump = read_dump(tmp_path / "ragged.npz", manifest={"lengths": "lengths"})
    assert np.abs(dump.array("", 0) - _own(read).array("resid", 0)).max() < 1e-6
    with pytest.raises(InputError, match="lengths add up to 3 tokens"):
        read_dump(tmp_path / "ragged.npz", manifest={"lengths": [1, 2]}).array("", 0)


def test_hdf5_and_zarr_are_read_where_installed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(9, 3, 4)).astype(np.float32)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "dump.h5", "w") as file:
        file["layer_0"], file["layer_1"] = x[:, 0], x[:, 1]
    assert np.array_equal(read_dump(tmp_path / "dump.h5").array("", 1), x[:, 1])
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    data = xarray.Dataset({"states": (("sentence", "layer", "unit"), x)})
    data.to_zarr(tmp_path / "dump.zarr")
    assert np.array_equal(read_dump(tmp_path / "dump.zarr").array("", 2), x[:, 2])


class _Object:
    pass


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    x = np.ones((4, 3, 2), dtype=np.float32)
    torch.save({"a": _Object()}, tmp_path / "object.pt")
    np.save(tmp_path / "object.npy", np.array([_Object()]), allow_pickle=True)
    np.save(tmp_path / "three.npy", x)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "a.pkl").write_text("")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "three.npy").read_bytes()[:-8])
    torch.save({"blocks.0.hook_resid_post": torch.tensor(x)}, tmp_path / "batch.pt")
    cases = {
        "object.pt": "pickled objects", "object.npy": "pickled objects",
        "a.pkl": "pickled objects",
        "three.npy": r"what are the 3 axes of '0', \[4, 3, 2\]",
        "text.npy": "no array of numpy",
        "cut.npy": "is cut off", "batch.pt": "padding is not stated", "none.npz": "does not exist",
    }  # fmt: skip
    for name, words in cases.items():
        with pytest.raises(InputError, match=words):
            read_dump(tmp_path / name)
    with pytest.raises(InputError, match="4 rows and 1 documents"):
        read_dump(tmp_path / "batch.pt", manifest={"lengths": "full", "documents": ["a"]})
    with pytest.raises(UsageError, match="unknown key 'manifest.axis'"):
        read_dump(tmp_path / "three.npy", manifest={"axis": ["row"]})


def test_arrays_and_dumps_are_compared_with_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    np.savez(tmp_path / "b.npz", layer_0=x, layer_1=x[:, :4])
    (tmp_path / "b.yaml").write_text(
        yaml.safe_dump({"documents": [f"d{i // 4}" for i in range(60)], "point": "resid"})
    )
    table = repsim.compare_arrays({"a": [x, x**3], "b": tmp_path / "b.npz"}, permutations=19)
    assert table.info["statistics"]["interval_unit"] == "documents"
    assert table.grid("a", "b", measure="cka").values[0, 0] == pytest.approx(1)
    np.save(tmp_path / "short.npy", x[:50])
    with pytest.raises(InputError, match="a and short hold 60 and 50 sentences"):
        repsim.compare_arrays({"a": [x], "short": tmp_path / "short.npy"})
    bad = np.where(np.arange(60)[:, None] == 5, np.nan, x)
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(InputError, match="bad, layer 0, are NaN .* the first is '5'"):
        repsim.compare_arrays({"a": [x], "bad": tmp_path / "bad.npy"}, permutations=0)
