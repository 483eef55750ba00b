import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from repsim.activations import store
from repsim.activations.checksums import is_whole, verify
from repsim.core import InputError, ResourceError

CHUNKS = [np.array([4, 1]), np.array([0, 3]), np.array([2])]
IDS = ("a", "b", "c", "d", "e")
METADATA = {"schema": store.SCHEMA, "dtype": "float32", "n": 5, "info": {"note": "ü"}}


def part(sentences: np.ndarray, counts: list[int], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Rows that say where they belong: value = 10 * sentence + row within it."""
    values = [
        10.0 * s + k for s, count in zip(sentences, counts, strict=True) for k in range(count)
    ]
    column = torch.tensor(values, dtype=dtype).reshape(-1, 1)
    ints = torch.tensor(counts, dtype=torch.int32)
    return {
        "resid.00": column.repeat(1, 3),
        "mlp.01": -column,
        "rows": ints,
        "tokens": ints + 7,
        "truncated": torch.tensor(sentences == 1).int(),
        "short": torch.zeros(len(counts), dtype=torch.int32),
        "labels": torch.tensor(values).int(),
    }


def write_parts(folder: Path, counts: dict[int, int], dtype=torch.float32) -> None:
    for chunk, sentences in enumerate(CHUNKS):
        mine = [counts.get(int(s), 1) for s in sentences]
        store.write_part(folder, chunk, part(sentences, mine, dtype))


def assemble(tmp_path: Path, **metadata: str) -> Path:
    target = tmp_path / "acts.safetensors"
    store.assemble(target, tmp_path / "parts", CHUNKS, {**METADATA, **metadata}, IDS)
    return target


def test_rows_land_at_their_sentence(tmp_path):
    write_parts(tmp_path / "parts", {})
    target = assemble(tmp_path)
    found = load_file(target)
    assert found["resid.00"].tolist() == [[10.0 * i] * 3 for i in range(5)]
    assert found["mlp.01"].tolist() == [[-10.0 * i] for i in range(5)]
    assert found["tokens"].tolist() == [8] * 5
    source = store.StoredArrays(target)
    assert source.read("mlp", 1).dtype == np.float32
    assert source.read("resid", 0).shape == (5, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sentences_may_have_several_rows_or_none(tmp_path, dtype):
    write_parts(tmp_path / "parts", {1: 3, 3: 0, 4: 2}, getattr(torch, dtype))
    target = assemble(tmp_path, dtype=dtype)
    expected = [0, 10, 11, 12, 20, 40, 41]
    assert store.StoredArrays(target).read("resid", 0)[:, 2].tolist() == expected
    assert store.StoredArrays(target).small("labels").tolist() == expected
    assert store.StoredArrays(target).small("rows").tolist() == [1, 3, 1, 0, 2]
    header = store.read_header(target)
    assert header["rows"] == 7
    assert header["info"] == {
        "note": "ü",
        "tokens": 42,
        "truncated": 1,
        "truncated_ids": ["b"],
        "short": 0,
        "short_ids": [],
        "sentences_without_rows": 1,
    }


def test_arrays_are_aligned_in_the_file(tmp_path):
    write_parts(tmp_path / "parts", {}, torch.bfloat16)
    raw = assemble(tmp_path, dtype="bfloat16").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for key, entry in header.items():
        if key != "__metadata__":
            assert entry["data_offsets"][0] % (2 if entry["dtype"] == "BF16" else 4) == 0


def test_a_missing_part_is_named_and_nothing_is_written(tmp_path):
    write_parts(tmp_path / "parts", {})
    store.part_path(tmp_path / "parts", 1).unlink()
    with pytest.raises(InputError, match=r"part-000001.safetensors' is missing"):
        assemble(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_a_damaged_file_is_named(tmp_path):
    write_parts(tmp_path / "parts", {})
    target = assemble(tmp_path)
    target.write_bytes(target.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"acts.safetensors' is damaged: .*delete it and run"):
        store.StoredArrays(target).read("resid", 0)
    with pytest.raises(InputError, match=r"part-000000.safetensors' is not an activations file"):
        store.read_header(store.part_path(tmp_path / "parts", 0))


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path, monkeypatch):
    write_parts(tmp_path / "parts", {})

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write_all", full)
    with pytest.raises(ResourceError, match=r"the disk is full: .*acts.safetensors' could not"):
        assemble(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_a_full_disk_is_recognised_in_what_safetensors_makes_of_it(tmp_path, monkeypatch):
    def full(*args, **options):
        text = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(text)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ResourceError, match=r"the disk is full: .*part-000000.safetensors'"):
        write_parts(tmp_path / "parts", {})


def stored(tmp_path: Path) -> Path:
    write_parts(tmp_path / "parts", {})
    return assemble(tmp_path)


def test_a_file_is_whole_until_a_byte_of_it_changes(tmp_path):
    target = stored(tmp_path)
    verify(target)
    whole = target.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), size=200, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        target.write_bytes(damaged)
        assert not is_whole(target), f"byte {place} of {len(whole)}"
    for size in rng.choice(len(whole), size=20, replace=False):
        target.write_bytes(whole[:size])
        assert not is_whole(target), f"cut to {size}"
    target.write_bytes(whole[:-8] + bytes(8))
    assert not is_whole(target)
    target.write_bytes(whole)
    assert is_whole(target)


def test_a_part_is_whole_until_a_byte_of_its_arrays_changes(tmp_path):
    write_parts(tmp_path, {})
    path = store.part_path(tmp_path, 0)
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(InputError, match=r"checksum of '.*' is wrong"):
        verify(path)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        verify(path)
