"""Activations on disk: one safetensors file per model, language and settings.

Keys are `<point>.<layer>` (`resid.00`), each `[rows, width]` in the order of the corpus; what they
rest on stands in the header. While an extraction runs, finished chunks lie as part files in a work
folder beside the target; the file is put together from them row by row, so memory does not grow
with their number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.activations.checksums import HEADER, MADE_FOR, blank, of_file, of_header
from repsim.activations.checksums import KEY as CHECKSUMS
from repsim.core.aside import sweep_once, written_aside
from repsim.core.errors import InputError, ResourceError, UsageError
from repsim.models.headers import read_layout
from repsim.models.identity import of_tensor

if TYPE_CHECKING:
    import torch

SCHEMA = "repsim/activations/2"
#: Storage types by name, and as safetensors calls them.
STORED_AS = {"float32": "F32", "bfloat16": "BF16"}
#: Keys beside the arrays: `[n]` rows per sentence, tokens per sentence, whether it was cut or
#: short, and `[rows]` the label of each row (token position or byte offset).
PER_SENTENCE = ("rows", "tokens", "truncated", "short")
LABELS = "labels"
#: Entries of the header that are JSON; the others are text.
_JSON = ("info", "n", "rows", "token_policy")


def check_storage(dtype: str) -> None:
    """Refuse a storage type that would lose numbers."""
    if dtype == "float16":
        raise UsageError(
            "activations cannot be stored as float16: residual streams exceed its maximum, 65504",
            hint="use float32, or bfloat16 for half the space",
        )
    if dtype not in STORED_AS:
        raise UsageError(
            f"activations cannot be stored as '{dtype}'", hint=f"use {' or '.join(STORED_AS)}"
        )


def array_key(point: str, layer: int) -> str:
    """Key of one array in a file."""
    return f"{point}.{layer:02d}"


def split_key(key: str) -> tuple[str, int]:
    """Inverse of `array_key`."""
    point, _, layer = key.rpartition(".")
    return point, int(layer)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Name a full disk as what it is."""
    try:
        yield
    except Exception as error:
        # safetensors wraps the error of the operating system in one of its own.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "os error 28" in str(error):
            raise ResourceError(
                f"the disk is full: '{path}' could not be written",
                hint="free some space and run the command again: finished parts are kept",
            ) from error
        raise


# -- parts ---------------------------------------------------------------------------------------


def part_path(folder: Path, chunk: int) -> Path:
    """Where the part of one chunk lies."""
    return folder / f"part-{chunk:06d}.safetensors"


def write_part(
    folder: Path, chunk: int, tensors: Mapping[str, torch.Tensor], made_for: str = ""
) -> Path:
    """Write one chunk, whole or not at all."""
    from safetensors.torch import save_file

    sweep_once(folder.parent)
    path = part_path(folder, chunk)
    sums = {key: of_tensor(tensor) for key, tensor in tensors.items()}
    with _disk_errors(path), written_aside(path) as aside:
        save_file(dict(tensors), aside, metadata={CHECKSUMS: json.dumps(sums), MADE_FOR: made_for})
    return path


# -- the finished file ---------------------------------------------------------------------------


def assemble(
    target: Path,
    folder: Path,
    chunks: Sequence[np.ndarray],
    metadata: Mapping[str, Any],
    sentence_ids: Sequence[str],
) -> None:
    """Put the parts of a work folder together into one file."""
    n = len(sentence_ids)
    small = {name: np.zeros(n, dtype=np.int32) for name in PER_SENTENCE}
    for chunk, sentences in enumerate(chunks):
        with opened(part_path(folder, chunk)) as part:
            for name in PER_SENTENCE:
                small[name][sentences] = part.get_tensor(name).numpy()
    starts = np.concatenate([[0], np.cumsum(small["rows"], dtype=np.int64)])
    with opened(part_path(folder, 0)) as part:
        keys = sorted(key for key in part.keys() if "." in key)  # noqa: SIM118
        widths = {key: part.get_slice(key).get_shape()[1] for key in keys}
    info = dict(metadata["info"]) | _counts(small, sentence_ids)
    stated = {**metadata, "info": info, "rows": int(starts[-1])}
    sums = blank([*keys, LABELS, "rows", "tokens"])
    header, places = _header(keys, widths, int(starts[-1]), n, {**stated, CHECKSUMS: sums})
    with _disk_errors(target), written_aside(target) as aside, aside.open("w+b", 0) as out:
        _write_all(out, header)
        for chunk, sentences in enumerate(chunks):
            with opened(part_path(folder, chunk)) as part:
                for key in (*keys, LABELS):
                    _scatter(out, places[key], part.get_tensor(key), sentences, starts)
        for name in ("rows", "tokens"):
            out.seek(places[name])
            _write_all(out, small[name].astype("<i4").tobytes())
        sums = {HEADER: of_header(header[8:])}
        for key, stored in read_layout(aside).items():
            sums[key] = of_file(out, stored.start, stored.end)
        out.seek(0)
        _write_all(out, _header(keys, widths, int(starts[-1]), n, {**stated, CHECKSUMS: sums})[0])


def _counts(small: Mapping[str, np.ndarray], sentence_ids: Sequence[str]) -> dict[str, Any]:
    """What a report says of sentences that were not read as they stand."""
    found: dict[str, Any] = {"tokens": int(small["tokens"].sum())}
    for name in ("truncated", "short"):
        rows = np.flatnonzero(small[name])
        found[name] = len(rows)
        found[f"{name}_ids"] = [sentence_ids[row] for row in rows[:20]]
    found["sentences_without_rows"] = int((small["rows"] == 0).sum())
    return found


def _header(
    keys: Sequence[str], widths: Mapping[str, int], rows: int, n: int, metadata: Mapping[str, Any]
) -> tuple[bytes, dict[str, int]]:
    """The header of a safetensors file and the offset of each array in the file."""
    stored = STORED_AS[metadata["dtype"]]
    size = 2 if stored == "BF16" else 4
    shapes: dict[str, tuple[str, list[int], int]] = {
        key: (stored, [rows, widths[key]], rows * widths[key] * size) for key in keys
    }
    shapes |= {name: ("I32", [n], n * 4) for name in ("rows", "tokens")}
    shapes[LABELS] = ("I32", [rows], rows * 4)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in metadata.items()
    }
    document: dict[str, Any] = {"__metadata__": texts}
    begins: dict[str, int] = {}
    end = 0
    # Larger elements first keeps every array aligned, as the format asks.
    for key, (kind, shape, length) in sorted(
        shapes.items(), key=lambda e: (e[1][0] == "BF16", e[0])
    ):
        begins[key] = end
        document[key] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(document, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {k: base + v for k, v in begins.items()}


def _scatter(
    out: Any, place: int, block: torch.Tensor, sentences: np.ndarray, starts: np.ndarray
) -> None:
    """Write the rows of one part to where their sentences belong."""
    import torch

    raw = block.contiguous().view(torch.uint8).numpy()
    row_bytes = block.element_size() * (block.shape[1] if block.ndim == 2 else 1)
    flat = memoryview(raw.tobytes())
    begin = 0
    for sentence in sentences:
        length = int(starts[sentence + 1] - starts[sentence]) * row_bytes
        if length:
            out.seek(place + int(starts[sentence]) * row_bytes)
            _write_all(out, flat[begin : begin + length])
            begin += length


def _write_all(out: Any, data: bytes | memoryview) -> None:
    """Unbuffered files may take less than they are given."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]


# -- reading -------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An open safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except FileNotFoundError:
        raise InputError(
            f"activations file '{path}' is missing", hint="run the command again"
        ) from None
    except SafetensorError as error:
        raise InputError(
            f"activations file '{path}' is damaged: {error}",
            hint="delete it and run the command again",
        ) from error


def read_header(path: Path) -> dict[str, Any]:
    """What a file states of itself, JSON values decoded."""
    with opened(path) as handle:
        raw = handle.metadata() or {}
    if raw.get("schema") != SCHEMA:
        raise InputError(f"'{path}' is not an activations file (schema {SCHEMA})")
    return {key: json.loads(text) if key in _JSON else text for key, text in raw.items()}


@dataclasses.dataclass(frozen=True)
class StoredArrays:
    """A `core.activations.ArraySource` over one file, which is read array by array."""

    path: Path

    def read(self, point: str, layer: int) -> np.ndarray:
        """The `[rows, width]` array of one point and layer, float32."""
        with opened(self.path) as handle:
            array: np.ndarray = handle.get_tensor(array_key(point, layer)).float().numpy()
        return array

    def small(self, name: str) -> np.ndarray:
        """One of the small arrays: `rows`, `tokens` `[n]` or `labels` `[rows]`, int32."""
        with opened(self.path) as handle:
            array: np.ndarray = handle.get_tensor(name).numpy()
        return array
