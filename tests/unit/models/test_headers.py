"""Headers of safetensors files: what is read is what the library reads, and nothing else passes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from repsim.core.errors import InputError
from repsim.models.headers import BITS, read_headers, read_layout, weight_files
from repsim.models.inspect import hash_remembered

PLAIN = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SECOND = {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}


def write(path: Path, header: bytes | dict[str, Any], data: bytes = bytes(12)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as handle:
            return handle is not None
    except SafetensorError:
        return False


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [-8, 0]},
        {"data_offsets": [8, 0]},
        {"data_offsets": ["0", "8"]},
        {"data_offsets": [0.0, 8.0]},
        {"data_offsets": [0, 8, 8]},
        {"data_offsets": [4, 12]},
        {"data_offsets": [True, 8]},
        {"data_offsets": None},
        {"shape": [3]},
        {"shape": [-2]},
        {"shape": ["2"]},
        {"shape": [10**400]},
        {"shape": [2**62, 2**62, 0], "data_offsets": [0, 0]},
        {"dtype": "F99"},
        {"dtype": 32},
    ],
)
def test_a_header_that_lies_about_a_tensor_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "model.safetensors", {"a": {**PLAIN, **change}, "b": SECOND})
    assert not library_takes(path)
    with pytest.raises(InputError, match="model.safetensors"):
        read_layout(path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"not json at all",
        b'{"a": {"dtype": "F32"}}',
        b'"a"',
        b'{"a": ' + b"[" * 100_000 + b"}",
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}',
        b'{"a\xff": {}}',
        b'{"a\\ud800": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}',
        b'{"__metadata__": {"x": 1}, "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}',
    ],
)
def test_a_header_that_is_no_header_is_refused(header: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", header)
    assert not library_takes(path)
    with pytest.raises(InputError):
        read_layout(path)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    one, two = json.dumps(PLAIN), json.dumps(SECOND)
    path = write(tmp_path / "m", f'{{"a": {one}, "a": {one}, "b": {two}}}'.encode())
    assert library_takes(path)  # which reads the last one
    with pytest.raises(InputError, match="stands twice"):
        read_layout(path)


@pytest.mark.parametrize("size", [0, 4, 8, 20, -1])
def test_a_file_without_a_whole_header_is_refused(size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"a": PLAIN, "b": SECOND})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="truncated"):
        read_layout(path)


#: What may stand where a header has a number, a list or a text.
_ODD = st.one_of(
    st.integers(-10, 40),
    st.sampled_from([2**63, 10**30, 1.5, "8", None, True]),
    st.builds(list),
    st.builds(dict),
    st.builds(lambda: [0, 8]),
)


@st.composite
def _headers(draw: st.DrawFn) -> dict[str, Any]:
    """A sound header of one to four tensors, in which up to two things are changed."""
    at, header = 0, {}
    for i in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from(["F32", "F16", "U8", "F64", "F4", "BOOL"]))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        bits = int(np.prod(shape, dtype=int)) * BITS[dtype]
        end = at + -(-bits // 8)
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    for _ in range(draw(st.integers(0, 2))):
        entry = header[draw(st.sampled_from(sorted(header)))]
        key = draw(st.sampled_from(sorted(entry)))
        if isinstance(entry[key], list) and entry[key] and draw(st.booleans()):
            entry[key][draw(st.integers(0, len(entry[key]) - 1))] = draw(_ODD)
        else:
            entry[key] = draw(_ODD)
    return header


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=_headers(), extra=st.integers(-2, 2))
def test_what_is_read_is_what_the_library_reads(
    header: dict[str, Any], extra: int, tmp_path: Path
) -> None:
    ends = [e["data_offsets"][1] for e in header.values() if _is_pair(e["data_offsets"])]
    size = max(0, min(max(ends, default=0), 1 << 12) + extra)
    path = write(tmp_path / "m", header, bytes(size))
    try:
        layout = read_layout(path)
    except InputError:
        assert not library_takes(path)
        return
    with safe_open(path, framework="numpy") as handle:
        assert set(handle.keys()) == set(layout)
        for name, tensor in layout.items():
            view = handle.get_slice(name)
            assert (view.get_dtype(), tuple(view.get_shape())) == (
                tensor.header.dtype,
                tensor.header.shape,
            )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


# -- which files ----------------------------------------------------------------------------------


def _two_models(folder: Path) -> None:
    """A folder with a single file and an index of another model's shards."""
    save_file({"a": np.zeros(2, "f4")}, folder / "model.safetensors")
    save_file({"a": np.ones(2, "f4")}, folder / "other.safetensors")
    write_index(folder, {"a": "other.safetensors"})


def write_index(folder: Path, weight_map: Any) -> None:
    document = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(document)


def test_a_single_file_comes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    _two_models(tmp_path)
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]


@pytest.mark.parametrize(
    "weight_map",
    [
        {},
        [],
        "model.safetensors",
        {"a": 1},
        {"a": None},
        {"a": "../other.safetensors"},
        {"a": "/etc/passwd"},
        {"a": ""},
        {"a": ".."},
        {"a": "weights.bin"},
        {"a": "missing.safetensors"},
    ],
)
def test_an_index_that_names_no_file_of_its_folder_is_refused(
    weight_map: Any, tmp_path: Path
) -> None:
    write_index(tmp_path, weight_map)
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(InputError):
        weight_files(tmp_path)


def test_an_index_must_agree_with_the_files_that_it_names(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2, "f4")}, tmp_path / "1.safetensors")
    write_index(tmp_path, {"a": "1.safetensors", "b": "1.safetensors"})
    with pytest.raises(InputError, match="'b' is in 1.safetensors, and it is not"):
        read_headers(weight_files(tmp_path))


def test_a_file_without_tensors_is_not_a_model(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", b"{}", b"")
    with pytest.raises(InputError, match="holds no tensor"):
        read_headers(weight_files(tmp_path))


def test_weights_that_change_while_their_time_is_kept_have_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    path, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    save_file({"a": np.zeros(2, "f4")}, path)
    save_file({"a": np.ones(2, "f4")}, other)
    shutil.copystat(path, other)
    before = hash_remembered([path])
    shutil.copy2(other, path)  # as `cp -p` does: the same size, the same time of writing
    assert hash_remembered([path]) != before
