"""Parallel-sentence retrieval: is the nearest vector in the other language the translation?"""

from __future__ import annotations

import dataclasses

import numpy as np
from einops import rearrange

from repsim.core.activations import Activations
from repsim.core.errors import InputError
from repsim.stats.intervals import Interval, wilson

#: Similarities closer than this are ties.
_TIE = 1e-12


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Accuracy at 1 of parallel-sentence retrieval."""

    forward: Interval
    backward: Interval
    both: Interval
    chance: float
    n: int


def retrieval(
    activations_a: Activations | np.ndarray,
    activations_b: Activations | np.ndarray,
    *,
    point: str = "resid",
    layer: int = -1,
    centre: bool = False,
    level: float = 0.95,
    block: int = 1024,
) -> Retrieval:
    """Accuracy at 1 by cosine similarity, in both directions.

    `k` rows that tie for the nearest count `1 / k` each, so vectors that are all alike give chance.

    Args:
        activations_a: `[n, d]`, or activations on one language.
        activations_b: `[n, d]` of the translations, row i of row i.
        point: Hook point, for `Activations`.
        layer: Layer, for `Activations`; -1 is the last.
        centre: Whether to take the mean off each side first, which removes what says only which
            language it is.
        level: Nominal coverage of the Wilson intervals.
        block: Rows at once; memory is `block * n` numbers.

    Raises:
        InputError: Other shapes or sentences, NaN, a row of zeros, fewer than two rows.

    Source: Artetxe and Schwenk (2019), arXiv:1812.10464 (Tatoeba), with cosine and no margin.

    Example:
        >>> x = np.eye(4)
        >>> found = retrieval(x, x[[0, 1, 3, 2]])
        >>> found.forward.value, found.chance
        (0.5, 0.25)
    """
    ids = [side.ids for side in (activations_a, activations_b) if isinstance(side, Activations)]
    if len(ids) == 2 and ids[0] != ids[1]:
        raise InputError("the two activations are of different sentences")
    x = _unit_rows(activations_a, point, layer, centre, "the first side")
    y = _unit_rows(activations_b, point, layer, centre, "the second side")
    if x.shape != y.shape:
        raise InputError(f"activations of shape {x.shape} and {y.shape} cannot be held together")
    n = len(x)
    if n < 2:
        raise InputError("retrieval needs two sentences or more")
    forward, backward = _hits(x, y, block), _hits(y, x, block)
    return Retrieval(
        forward=wilson(forward, n, level),
        backward=wilson(backward, n, level),
        both=wilson((forward + backward) / 2, n, level),
        chance=1.0 / n,
        n=n,
    )


def _unit_rows(
    side: Activations | np.ndarray, point: str, layer: int, centre: bool, name: str
) -> np.ndarray:
    raw = side.array(point, layer) if isinstance(side, Activations) else side
    rows = np.asarray(raw, dtype=np.float64)
    if rows.ndim != 2:
        raise InputError(f"{name} has shape {rows.shape}, not [sentences, width]")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} holds values that are NaN or infinite")
    if centre:
        rows = rows - rows.mean(axis=0)
    norms = np.linalg.norm(rows, axis=1)
    if (norms == 0).any():
        raise InputError(f"row {int(np.argmin(norms))} of {name} is zero: it has no direction")
    return np.asarray(rows / rearrange(norms, "n -> n 1"))


def _hits(queries: np.ndarray, keys: np.ndarray, block: int) -> float:
    """Queries whose own key is the nearest; `1 / k` of a query whose own key ties with k - 1."""
    hits = 0.0
    for start in range(0, len(queries), block):
        rows = np.arange(start, min(start + block, len(queries)))
        similarity = queries[rows] @ keys.T
        best = similarity.max(axis=1)
        nearest = similarity >= rearrange(best, "q -> q 1") - _TIE
        own = nearest[rows - start, rows]
        hits += float((own / nearest.sum(axis=1)).sum())
    return hits
