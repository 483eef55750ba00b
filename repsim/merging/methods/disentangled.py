"""WIDEN: changes weighted by how much they turn and stretch the columns of a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from repsim.merging.arrays import (
    Along,
    Array,
    Part,
    Stream,
    cast,
    combined,
    kind_of_array,
    namespace,
    products,
)
from repsim.merging.base import TensorContext, merge_method
from repsim.merging.parameters import parameter


@merge_method(
    name="widen",
    label="WIDEN",
    definition="w_0 + sum_i s_i d_i, s_i per column j of a matrix the mean of two scores, of the "
    "change of its norm and of its direction (1 - cosine): softmax over models of the change's "
    "rank among the columns of its model, over their number; `calibration` where the rank is above "
    "`above_average` times the mean rank. Rows of embeddings count as columns; vectors have one "
    "score per entry, from |d_i| itself",
    reference="Yu et al. 2024, arXiv:2408.03092",
    min_models=1,
    needs_base=True,
)
def widen(
    stream: Stream,
    *,
    context: TensorContext,
    above_average: float = parameter(1.0, least=0),
    calibration: float = parameter(1.0, least=0),
) -> Iterator[Array]:
    """Weight disentanglement; `above_average` and `calibration` are the t and s of the paper."""
    if len(stream.shape) != 2:
        yield from _by_entry(stream, above_average, calibration)
        return
    along: Along = "row" if context.kind == "embedding" else "column"
    scores: Any = 0.0
    for change in _changes(stream, along, context):
        ranks = change.argsort(-1, stable=True).argsort(-1, stable=True) / change.shape[-1]
        mean = ranks.mean(-1, keepdims=True)
        scores = scores + 0.5 * _scores(np, ranks, ranks > above_average * mean, calibration)
    yield from combined(stream, list(scores), "deltas", along)


def _scores(xp: Any, significance: Any, important: Any, calibration: float) -> Any:
    """Softmax over the first axis, and the calibrated score where a change is important."""
    powers = xp.exp(significance - xp.amax(significance, 0))
    return xp.where(important, calibration, powers / powers.sum(0))


def _changes(stream: Stream, along: Along, context: TensorContext) -> tuple[Any, Any]:
    """Changes of norms and directions of columns, by products with deltas: they keep digits."""

    def pairs(part: Part) -> Iterator[tuple[Array, Array]]:
        yield part.base, part.base
        for delta in part.deltas:
            yield from ((part.base, delta), (delta, delta))

    base, *others = products(stream, pairs, along)
    mixed, own = np.array(others[::2]), np.array(others[1::2])
    norm, moved = np.sqrt(base), np.sqrt(np.maximum(base + 2 * mixed + own, 0))
    there = (norm > 0) & (moved > 0)
    if not there.all():
        context.note("a column is zero: its change counts as one of norm alone")
    stretch = (2 * mixed + own) / np.where(norm + moved > 0, norm + moved, 1.0)
    turn = (own - stretch**2) / np.where(there, 2 * norm * moved, 1.0)
    return np.abs(stretch), np.where(there, np.maximum(turn, 0), 0.0)


def _by_entry(stream: Stream, above_average: float, calibration: float) -> Iterator[Array]:
    """Each entry's changes scored by their size."""
    means = np.zeros(stream.models)
    for part in stream.parts():
        means += [float(cast(abs(delta), "float64").sum()) for delta in part.deltas]
    means /= stream.entries
    for part in stream.parts():
        yield _weighed(part, above_average * means, calibration)


def _weighed(part: Part, bounds: Any, calibration: float) -> Array:
    xp, kind = namespace(part.base), kind_of_array(part.base)
    deltas = xp.stack(part.deltas)
    sizes = abs(deltas)
    important = xp.stack([size > float(bound) for size, bound in zip(sizes, bounds, strict=True)])
    scores = cast(_scores(xp, sizes, important, calibration), kind)
    return part.base + (deltas * scores).sum(0)
