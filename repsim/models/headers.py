"""Weight files of a model folder and what their headers say, demanded of every file that is read.

All that the reference library demands of a safetensors header, and that no name comes twice.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.models.views import read_view

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
#: How shards are named.
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
#: The longest header that the library reads.
MOST_HEADER_BYTES = 100_000_000
#: Type in a header -> bits of one entry.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


_ENTRY = {"dtype", "shape", "data_offsets"}


@dataclasses.dataclass(frozen=True)
class TensorHeader:
    """Type and shape of one tensor in a safetensors file."""

    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its header, and where its bytes lie, counted from the file's start."""

    header: TensorHeader
    start: int
    end: int


def weight_files(folder: Path) -> list[Path]:
    """Weight files of a folder or view, by name; an index counts where there is no single file."""
    if view := read_view(folder):
        return [Path(file) for file in view["files"]]
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    if pickled := sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern)):
        raise InputError(
            f"model folder '{folder}' holds weights only as {pickled[0]}, and pickled weights are "
            "not loaded, for they can run code",
            hint="convert it where you trust it: AutoModel.from_pretrained(folder)"
            ".save_pretrained(folder)",
        )
    stored = sorted(path.name for path in folder.glob("*.safetensors"))
    if shards := [name for name in stored if _SHARD.search(name)]:
        raise InputError(
            f"model folder '{folder}' has no {SINGLE} and no {INDEX}, and holds {len(shards)} "
            f"shard(s), first {shards[0]}",
            hint="copy or download the index: it says which tensor is in which shard",
        )
    if stored:
        raise InputError(
            f"model folder '{folder}' has no {SINGLE}, and holds {', '.join(stored[:4])}",
            hint=f"rename the file of the weights to {SINGLE}, if its tensors have the names of "
            "transformers",
        )
    raise InputError(
        f"model folder '{folder}' has no {SINGLE}; {what_is_in(folder)}",
        hint="a Hugging Face folder is needed",
    )


def what_is_in(folder: Path) -> str:
    """What a folder holds that was taken for a model, in a sentence."""
    inside = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    models = [name for name in inside if (folder / name / "config.json").is_file()]
    if models:
        return f"models are in its folders {', '.join(models[:6])}"
    return f"it holds {', '.join(inside[:6])}" if inside else "it is empty"


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors weights, or stands for weights elsewhere."""
    return read_view(folder) is not None or any(folder.glob("*.safetensors"))


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, as an index states it."""
    document = read_json(index)
    stated = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(stated, dict) or not stated:
        raise InputError(f"'{index}' states no weight_map", hint="copy or download it again")
    for tensor, name in stated.items():
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
            raise InputError(
                f"'{index}' says that tensor '{tensor[:80]}' is in {str(name)[:80]!r}, which is no "
                "file of its folder",
                hint="weights are read from the model's own folder only",
            )
        if not name.endswith(".safetensors"):
            raise InputError(
                f"'{index}' says that tensor '{tensor[:80]}' is in '{name[:80]}', which is not a "
                "safetensors file",
                hint="pickled weights are not loaded, for they can run code",
            )
    if missing := sorted({n for n in stated.values() if not (index.parent / n).is_file()}):
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        raise InputError(
            f"model folder '{index.parent}' lacks shard(s) {shown}", hint="copy or download them"
        )
    return stated


def read_layout(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file, from its header alone."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(0)
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or length > min(size - 8, MOST_HEADER_BYTES):
                _refuse(path, f"its header is said to have {length:,} bytes, the file has {size:,}")
            text = handle.read(length)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from None
    entries = _entries(path, text)
    start = 8 + length
    found = {name: _stored(path, name, entry, start) for name, entry in entries.items()}
    at = start
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != at:
            _refuse(
                path, f"tensor '{name[:80]}' overlaps another one, or bytes before it are unused"
            )
        at = tensor.end
    if at != size:
        _refuse(path, f"its tensors end at byte {at:,}, the file has {size:,}")
    return found


def _entries(path: Path, text: bytes) -> dict[str, Any]:
    """The header's entries without its metadata; names that are repeated are refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            _refuse(path, "a name stands twice in its header")
        return found

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # also integers of thousands of digits
        _refuse(path, f"its header is not JSON ({type(error).__name__})")
    if not isinstance(document, dict) or text[:1] != b"{":
        _refuse(path, "its header is not a JSON object")
    try:
        "".join(document).encode()
    except UnicodeEncodeError:  # JSON may hold halves of characters
        _refuse(path, "a name in its header is not text")
    metadata = document.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse(path, "the metadata in its header is not text")
    return document


def _stored(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    what = f"tensor '{name[:80]}'"
    if not isinstance(entry, dict) or not entry.keys() >= _ENTRY:
        _refuse(path, f"{what} is not stated as dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        _refuse(path, f"{what} has the unknown type {str(dtype)[:40]!r}")
    if not isinstance(shape, list) or not all(_is_size(n) for n in shape):
        _refuse(path, f"the shape of {what} is not a list of whole numbers from 0")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        _refuse(path, f"the offsets of {what} are not two whole numbers from 0")
    bits = math.prod(shape) * BITS[dtype]
    if max([bits, *itertools.accumulate(shape, int.__mul__)]) >= 1 << 64:
        _refuse(path, f"{what} has an impossible shape")
    if (offsets[1] - offsets[0]) * 8 != bits:
        _refuse(
            path, f"{what}, {dtype} {shape}, does not fill its {offsets[1] - offsets[0]:,} bytes"
        )
    return StoredTensor(TensorHeader(dtype, tuple(shape)), start + offsets[0], start + offsets[1])


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(
        f"'{path}' is truncated or is not a safetensors file: {why}",
        hint="copy or download it again",
    )


def read_layouts(files: Sequence[Path]) -> dict[str, tuple[Path, StoredTensor]]:
    """Every tensor of some files and its file; twice, or not where an index says, is an error."""
    found: dict[str, tuple[Path, StoredTensor]] = {}
    for path in files:
        for name, tensor in read_layout(path).items():
            if name in found:
                raise InputError(
                    f"tensor '{name}' is in two files: {found[name][0].name} and {path.name}",
                    hint="copy or download the folder again",
                )
            found[name] = path, tensor
    if not found:
        raise InputError(
            f"'{files[0].parent if files else '?'}' holds no tensor",
            hint="copy or download it again",
        )
    index = files[0].parent / INDEX
    if files[0].name != SINGLE and index.is_file():
        for name, file in _weight_map(index).items():
            if name not in found or found[name][0].name != file:
                raise InputError(
                    f"'{index}' says that tensor '{name[:80]}' is in {file}, and it is not",
                    hint="copy or download the folder again",
                )
    return found


def read_headers(files: Sequence[Path]) -> dict[str, TensorHeader]:
    """Type and shape of every tensor of some files, read from the headers alone."""
    return {name: tensor.header for name, (_, tensor) in read_layouts(files).items()}


def count_parameters(headers: Mapping[str, TensorHeader]) -> int:
    """Number of trained values."""
    return sum(math.prod(header.shape) for header in _trained(headers.values()))


def _trained(headers: Iterable[TensorHeader]) -> Iterable[TensorHeader]:
    """Floating-point tensors that are not masks."""
    for header in headers:
        mask = len(header.shape) == 4 and header.shape[:2] == (1, 1)
        if header.dtype.startswith(("F", "BF")) and not mask:
            yield header
