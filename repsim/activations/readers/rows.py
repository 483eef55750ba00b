"""Blocks of a dump -> `[n, d]`: tokens are pooled as our own extractor pools them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from repsim.activations.pooling import token_weights
from repsim.activations.readers.formats import StoredArray
from repsim.activations.readers.layout import Layer, Layout, Part
from repsim.activations.readers.manifest import Manifest
from repsim.core.aside import written_aside
from repsim.core.errors import InputError

#: Bytes of a block, as float32.
BLOCK_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The sentences of one part: where their tokens stand, and which of them count."""

    #: `[n + 1]` first token of each along the token axis, for `[token, unit]`; else None.
    starts: np.ndarray | None
    kept: tuple[np.ndarray, ...]  # Positions of the tokens that count, for each sentence
    #: Ids of its tokens, without padding; None where the file holds none.
    ids: tuple[np.ndarray, ...] | None


def sentences_of(part: Part, layer: Layer, manifest: Manifest) -> Sentences:
    """Which tokens count, by lengths or mask, special ids and the first token."""
    array = part.arrays[layer.key]
    tokens = array.shape[layer.axes.index("token")]
    lengths = _lengths(part, manifest)
    if "row" not in layer.axes:
        lengths = np.array([tokens]) if lengths is None else lengths
        starts = np.concatenate([[0], np.cumsum(lengths)])
        if starts[-1] != tokens:
            raise InputError(
                f"'{part.path}': lengths add up to {starts[-1]} tokens, '{layer.key}' has {tokens}"
            )
        ids = _ids(part, (tokens,))
        found = ids if ids is None else tuple(ids[a:b] for a, b in itertools.pairwise(starts))
        kept = [_kept(np.ones(length, dtype=bool), None if found is None else found[i], manifest)
                for i, length in enumerate(lengths)]  # fmt: skip
        return Sentences(starts, tuple(kept), found)
    rows = array.shape[layer.axes.index("row")]
    mask = _mask(part, layer, (rows, tokens), lengths, manifest)
    ids = _ids(part, (rows, tokens))
    return Sentences(
        None,
        tuple(_kept(mask[i], None if ids is None else ids[i], manifest) for i in range(rows)),
        None if ids is None else tuple(ids[i][mask[i]] for i in range(rows)),
    )


def _kept(real: np.ndarray, ids: np.ndarray | None, manifest: Manifest) -> np.ndarray:
    """Positions of the tokens of one sentence that count; the last one if none would."""
    if not real.any():
        return np.empty(0, dtype=np.int64)
    keep = real.copy()
    if manifest.special_ids and ids is not None:
        keep &= ~np.isin(ids, manifest.special_ids)
    text = keep.copy()
    if manifest.skip_first is True:
        keep[np.flatnonzero(real)[0]] = False
    if not keep.any():
        keep[np.flatnonzero(text if text.any() else real)[-1]] = True
    return np.flatnonzero(keep)


def _lengths(part: Part, manifest: Manifest) -> np.ndarray | None:
    """Tokens of each sentence, where manifest or file state them."""
    if manifest.lengths == "full":
        return None
    if isinstance(manifest.lengths, tuple) and manifest.lengths:
        return np.array(manifest.lengths, dtype=np.int64)
    key = manifest.lengths if isinstance(manifest.lengths, str) else "lengths"
    if manifest.lengths and key not in part.arrays:
        raise InputError(f"'{part.path}' lacks '{key}', which is to hold lengths")
    return whole(part.arrays[key]).astype(np.int64) if key in part.arrays else None


def _mask(
    part: Part, layer: Layer, shape: tuple[int, int], lengths: np.ndarray | None, manifest: Manifest
) -> np.ndarray:
    """`[rows, tokens]`, whether a token is one, or padding."""
    if manifest.lengths == "full":
        return np.ones(shape, dtype=bool)
    if lengths is not None:
        if len(lengths) != shape[0] or lengths.max(initial=0) > shape[1]:
            raise InputError(f"'{part.path}': {len(lengths)} lengths do not fit '{layer.key}'")
        return np.arange(shape[1]) < lengths[:, None]
    for key in (manifest.mask, "attention_mask", "mask"):
        if key and key in part.arrays:
            mask = whole(part.arrays[key]).astype(bool)
            if mask.shape != shape:
                raise InputError(f"'{part.path}': '{key}' is {list(mask.shape)}, not {list(shape)}")
            return mask
    if shape[0] == 1:
        return np.ones(shape, dtype=bool)  # one sentence is padded to nothing
    raise InputError(
        f"'{part.path}': which tokens of '{layer.key}', {list(shape)}, are padding is not stated",
        hint="save attention_mask with it; or in a manifest: mask: ARRAY, lengths: [...], or "
        "lengths: full where there is no padding",
    )


def _ids(part: Part, shape: tuple[int, ...]) -> np.ndarray | None:
    for key in ("token_ids", "input_ids", "tokens"):
        if key in part.arrays:
            ids = whole(part.arrays[key])
            return ids if ids.shape == shape else None
    return None


def whole(array: StoredArray) -> np.ndarray:
    """A small array, all of it."""
    return array.read(tuple(slice(None) for _ in array.shape))


def plain_rows(part: Part, layer: Layer) -> int:
    """Rows of a part whose tokens are pooled already."""
    return part.arrays[layer.key].shape[layer.axes.index("row")]


@dataclasses.dataclass(frozen=True)
class DumpArrays:
    """An `ArraySource` over a dump, read in blocks; pooled rows are kept in a temporary folder."""

    parts: tuple[Part, ...]
    layout: Layout
    sentences: tuple[Sentences | None, ...]
    manifest: Manifest
    rows: int

    @functools.cached_property
    def _kept(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="repsim-rows-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def read(self, point: str, layer: int) -> np.ndarray:
        """The `[n, d]` float32 array of one layer; the point is the one that was chosen."""
        if not self.layout.by_token or self.manifest.pooling == "tokens":
            return self._read(layer)
        file = self._kept / f"{layer}.npy"
        if file.is_file():
            return np.load(file)
        rows = self._read(layer)
        with contextlib.suppress(OSError), written_aside(file) as aside, aside.open("wb") as out:
            np.save(out, rows)  # to save time: a full disk is no reason to fail
        return rows

    def _read(self, layer: int) -> np.ndarray:
        where = self.layout.layers[layer]
        found, filled = np.empty((self.rows, 0), np.float32), 0
        for part, sentences in zip(self.parts, self.sentences, strict=True):
            for block in _blocks(part, where, sentences, self.manifest):
                if not filled:
                    found = np.empty((self.rows, block.shape[1]), np.float32)
                if block.shape[1] != found.shape[1]:
                    raise InputError(f"the files of '{part.path.parent}' differ in width")
                found[filled : filled + len(block)] = block
                filled += len(block)
        return found


def _blocks(
    part: Part, layer: Layer, sentences: Sentences | None, manifest: Manifest
) -> Iterator[np.ndarray]:
    array = part.arrays[layer.key]
    size = dict(zip(layer.axes, array.shape, strict=True))
    row_bytes = 4 * size["unit"]
    if sentences is None:
        step = max(1, BLOCK_BYTES // row_bytes)
        for start in range(0, size["row"], step):
            yield _taken(array, layer, row=slice(start, start + step))
        return
    if sentences.starts is None:
        step = max(1, BLOCK_BYTES // (row_bytes * size["token"]))
        for start in range(0, size["row"], step):
            block = _taken(array, layer, row=slice(start, start + step))
            kept = sentences.kept[start : start + step]
            yield _pooled(zip(block, kept, strict=True), manifest, size["unit"])
        return
    starts, first = sentences.starts, 0
    while first < len(sentences.kept):
        last = first + 1
        while (last < len(sentences.kept)
               and (starts[last + 1] - starts[first]) * row_bytes <= BLOCK_BYTES):  # fmt: skip
            last += 1
        block = _taken(array, layer, token=slice(int(starts[first]), int(starts[last])))
        pieces = [block[starts[i] - starts[first] : starts[i + 1] - starts[first]]
                  for i in range(first, last)]  # fmt: skip
        kept = sentences.kept[first:last]
        yield _pooled(zip(pieces, kept, strict=True), manifest, size["unit"])
        first = last


def _taken(array: StoredArray, layer: Layer, **slices: slice) -> np.ndarray:
    """One block as float32, its axes in the order row, token, unit."""
    index: list[slice | int] = [slices.get(axis, slice(None)) for axis in layer.axes]
    if layer.place is not None:
        index[layer.axes.index("layer")] = layer.place
    left = [axis for axis in layer.axes if axis != "layer"]
    order = [left.index(axis) for axis in ("row", "token", "unit") if axis in left]
    block = array.read(tuple(index)).transpose(order)
    return np.ascontiguousarray(block, dtype=np.float32)


def _pooled(pairs: Any, manifest: Manifest, width: int) -> np.ndarray:
    """`[sentences, units]`, or `[tokens, units]` where they are not pooled."""
    rows = []
    for hidden, kept in pairs:
        if manifest.pooling == "tokens":
            rows.append(hidden[kept])
        elif not len(kept):
            rows.append(np.full((1, width), np.nan, np.float32))
        elif manifest.pooling == "last":
            rows.append(hidden[kept[-1:]])
        else:
            weights = token_weights(len(kept), manifest.pooling).astype(np.float32)
            rows.append((weights @ hidden[kept])[None])
    return np.concatenate(rows)
