"""A merge taken apart: which parents it is made of, and with which weight in each part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.core.table import Table
from repsim.merging.checkpoint import TensorSource
from repsim.merging.sampling import (
    ModelLike,
    Models,
    RowSample,
    open_with,
    sample_rows,
    shared_tensors,
)
from repsim.merging.tensors import kind_of, layer_of


class PartsTable(Table):
    """One row per part and parent: the weight of the parent in a merge, by least squares."""

    SCHEMA = "repsim/merge-parts/1"
    STEM = "parts"
    COLUMNS: ClassVar = {
        "merge": ("string", "the merge"),
        "part": ("string", "number of a block's matrices; body, embedding, head or norms"),
        "parent": ("string", "a parent, or the base"),
        "weight": ("float", "its weight: the merge is nearest to the sum of weight times parent"),
        "residual": ("float", "distance from that sum over the mean distance of the parents"),
    }


def take_apart(merge: ModelLike, parents: Models, *, max_megabytes: float = 300) -> PartsTable:
    """Which parents a merge is made of, and with which weight in each block.

    Weights are found by least squares over sampled rows of each part (the matrices of each block,
    the whole body, embedding, head, norms and biases), without a constraint on their sum; name
    the base among the parents where there is one (task arithmetic gives it 1 - the sum of the
    others). A residual near 0 means that the merge is linear in what was named.

    Args:
        merge: The merge.
        parents: Models that it may be made of; one that is no parent gets a weight near 0. A
            mapping gives them names.
        max_megabytes: Most that is read of each model.

    Raises:
        IncompatibleModelsError: No matrix has one name and shape in all of them.
        InputError: A model is not there, or its files are damaged.
        UsageError: No parents.

    Example:
        >>> parts = take_apart("zoo:mixed", ["zoo:mixed", "zoo:eng-1"])
        >>> np.round(parts.where(part="body")["weight"], 6).tolist()
        [1.0, 0.0]
    """
    if not parents:
        raise UsageError("name the models that the merge may be made of")
    made, sources = open_with(merge, parents)
    everything = [made, *sources]
    samples = sample_rows(everything, list(shared_tensors(everything)), max_megabytes / 2)
    if not samples:
        raise IncompatibleModelsError(
            f"no tensor of '{made.name}' has the same name and shape in all of its parents"
        )
    k = len(sources)
    sums: dict[str, np.ndarray] = {}
    for sample in samples:
        gram = _gram(sample, made, sources)
        for part in _parts_of(sample.tensor, len(made.headers[sample.tensor].shape)):
            sums[part] = sums.get(part, np.zeros((k + 1, k + 1))) + gram
    parts = sorted(sums, key=lambda name: (name.isdigit(), name.zfill(9)))
    rows = [
        {"merge": made.name, "part": part, "parent": source.name, "weight": float(weight),
         "residual": residual}
        for part in parts
        for weights, residual in [_solved(sums[part])]
        for source, weight in zip(sources, weights, strict=True)
    ]  # fmt: skip
    return PartsTable(rows)


def _parts_of(tensor: str, dimensions: int) -> tuple[str, ...]:
    """The parts of a model that a tensor belongs to."""
    kind = kind_of(tensor, dimensions)
    if kind in ("embedding", "head"):
        return (kind,)
    if kind != "matrix":
        return ("norms",)
    layer = layer_of(tensor)
    return ("body", str(layer.number)) if layer else ("body",)


def _gram(sample: RowSample, made: TensorSource, sources: Sequence[TensorSource]) -> np.ndarray:
    """Inner products `[k + 1, k + 1]` of the first parent, differences from it, and the merge."""
    first = sample.read(sources[0])
    columns = [first, *(sample.read(source) - first for source in sources[1:])]
    columns.append(sample.read(made) - first)
    flat = np.stack([column.ravel() for column in columns])
    return np.asarray(flat @ flat.T)


def _solved(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of the parents; residual over the mean distance of the others from the first."""
    k = len(gram) - 1
    scale = np.sqrt(np.maximum(np.diag(gram)[:k], np.finfo(float).tiny))
    inner = gram[:k, :k] / np.outer(scale, scale)
    found = np.linalg.lstsq(inner, gram[:k, k] / scale, rcond=1e-12)[0] / scale
    left = gram[k, k] - 2 * found @ gram[:k, k] + found @ gram[:k, :k] @ found
    apart = np.sqrt(np.diag(gram)[1:k]).mean() if k > 1 else math.sqrt(gram[0, 0])
    weights = found.copy()
    weights[0] = 1.0 + found[0] - found[1:].sum()
    return weights, float(math.sqrt(max(left, 0.0)) / apart) if apart else math.nan
