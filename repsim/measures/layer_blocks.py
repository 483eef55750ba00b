"""All pairs of layers where not all fit into memory: blocks of paged layers, opened while used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from repsim.core.measure import Measure, Rung
from repsim.measures.features import Mask, Side
from repsim.measures.limits import share

#: Bytes that the opened layers may take.
OPEN_BYTES = 5 << 29

#: Layers of both sides and the wanted cells -> values, `[..., len(xs), len(ys)]`.
Compute = Callable[[Side, Side, Mask], np.ndarray]


def in_blocks(
    measure: Measure, compute: Compute, xs: Side, ys: Side, mask: Mask = None
) -> np.ndarray:
    """`compute(xs, ys, mask)`, by blocks of layers if they are paged; NaN where none is wanted."""
    layers = list({id(f): f for f in [*xs, *ys]}.values())
    if not any(f.is_paged for f in layers):
        return compute(xs, ys, mask)
    at_once = max(2, share(OPEN_BYTES) // max(open_bytes(measure, f.n, f.d, f.dtype.itemsize)
                                       for f in layers))  # fmt: skip
    if len(layers) <= at_once:
        with contextlib.ExitStack() as stack:
            for layer in layers:
                stack.enter_context(layer.opened())
            return compute(xs, ys, mask)
    width = max(1, at_once // 2) if measure.pair_matrix is not None else 1
    height = max(1, at_once - width)
    found: np.ndarray | None = None
    for top in range(0, len(xs), height):
        rows = slice(top, top + height)
        for left in range(0, len(ys), width):
            columns = slice(left, left + width)
            wanted = None if mask is None else mask[rows, columns]
            if wanted is not None and not wanted.any():
                continue
            part = in_blocks(measure, compute, xs[rows], ys[columns], wanted)
            if found is None:
                found = np.full((*part.shape[:-2], len(xs), len(ys)), np.nan)
            found[..., rows, columns] = part
    return compute(xs, ys, mask) if found is None else found


def open_bytes(measure: Measure, n: int, d: int, number: int) -> int:
    """Bytes of one opened layer: centered rows, and units or an orthonormal basis beside them."""
    if measure.rung is Rung.L3:
        return 8 * n * d
    return n * d * number * (2 if measure.rung in (Rung.L0, Rung.L1) else 1)
