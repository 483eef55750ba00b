"""Columns of Arrow tables as numpy arrays and Python lists, and which rows hold some values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def is_one_of(values: pa.ChunkedArray, options: Sequence[Any]) -> pa.Array:
    """Boolean mask; text is compared by its dictionary codes, and "" is the same as null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = values.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):  # nothing to combine, or too long for one chunk
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], flat.type)
    empty = any(option is None or option == "" for option in options)
    if not pa.types.is_dictionary(flat.type):
        options = [option for option in options if option is not None]
        mask = pc.is_in(flat, value_set=pa.array(options, flat.type))
    else:
        texts = pa.array(
            [*map(str, (o for o in options if o is not None)), *[""] * empty], pa.string()
        )
        codes = pc.index_in(texts, value_set=flat.dictionary).drop_null()
        mask = pc.is_in(flat.indices, value_set=codes.cast(flat.indices.type))
    return pc.or_(mask, pc.is_null(flat)) if empty else mask


def encoded(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Text as dictionary codes, everything else as it is."""
    import pyarrow as pa

    return values.dictionary_encode() if pa.types.is_string(values.type) else values


def as_array(values: pa.ChunkedArray, kind: str) -> np.ndarray:
    """A column in numpy; text is decoded once per distinct value."""
    import pyarrow.compute as pc

    if kind == "float":
        return np.array(pc.fill_null(values, math.nan).to_numpy(), dtype=np.float64)
    if kind == "int":
        return np.array(pc.fill_null(values, -1).to_numpy(), dtype=np.int64)
    texts, codes = _coded(values)
    return np.array([text or "" for text in texts], dtype=object)[codes]


def as_list(values: pa.ChunkedArray) -> list[Any]:
    """A column as Python values, None for null; several times as fast as Arrow makes them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        texts, codes = _coded(values)
        return [texts[code] for code in codes.tolist()]
    numbers = pc.fill_null(values, 0).to_numpy().tolist()
    if not values.null_count:
        return numbers
    known = pc.is_valid(values).to_numpy().tolist()
    return [number if there else None for number, there in zip(numbers, known, strict=True)]


def _coded(values: pa.ChunkedArray) -> tuple[list[str | None], np.ndarray]:
    """Distinct texts, the last of them None, and the number of the text of each row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = values.unify_dictionaries().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # no chunk at all
        return [None], np.empty(0, dtype=np.int64)
    texts = [*coded.dictionary.to_pylist(), None]
    return texts, np.array(pc.fill_null(coded.indices, len(texts) - 1).to_numpy())
