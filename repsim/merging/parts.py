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

#: Residual up to which a merge is called linear, beside what rounding makes.
LEFT = 0.03
#: Type of a file -> bits of the mantissa after the first.
_MANTISSA = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}


class PartsTable(Table):
    """One row per part and parent: the weight of the parent in a merge, by least squares."""

    SCHEMA = "repsim/merge-parts/2"
    STEM = "parts"
    COLUMNS: ClassVar = {
        "merge": ("string", "the merge"),
        "part": ("string", "number of a block's matrices; body, embedding, head or norms"),
        "parent": ("string", "a parent, or the base"),
        "weight": ("float", "its weight: the merge is nearest to the sum of weight times parent"),
        "residual": ("float", "distance from that sum over the mean distance of the parents"),
        "rounding": ("float", "the distance that rounding to the stored type makes, likewise"),
    }

    def linear(self, part: str = "body") -> bool:
        """Whether rounding explains what the weighted sum of the parents does not."""
        rows = list(self.where(part=part).rows())
        if not rows:
            raise UsageError(f"no part '{part}'", hint=f"parts: {', '.join(self.unique('part'))}")
        residual, rounding = (float(rows[0][name] or 0.0) for name in ("residual", "rounding"))
        return residual <= math.hypot(LEFT, 1.2 * rounding)

    def describe(self, part: str = "body") -> str:
        """Weights in one line, and whether they are all there is to it."""
        rows = list(self.where(part=part).rows())
        weights = " + ".join(f"{row['weight']:.2f} {row['parent']}" for row in rows)
        if self.linear(part):
            return f"linear: {weights}"
        return (
            f"not linear in the models named: {weights} is nearest and leaves "
            f"{rows[0]['residual']:.2f} of their distance, as methods that drop, resolve or rotate "
            "entries do (TIES, DARE, SCE), or a model that is not named"
        )


def take_apart(merge: ModelLike, parents: Models, *, max_megabytes: float = 300) -> PartsTable:
    """Which parents a merge is made of, and with which weight in each block.

    Weights are found by least squares over sampled rows of each part (the matrices of each block,
    the whole body, embedding, head, norms and biases), without a constraint on their sum; name
    the base among the parents where there is one (task arithmetic gives it 1 - the sum of the
    others). A residual no larger than rounding makes means that the merge is linear in what was
    named; `PartsTable.describe` says it.

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
    rounding: dict[str, float] = {}
    for sample in samples:
        gram, rounded = _gram(sample, made, sources)
        for part in _parts_of(sample.tensor, len(made.headers[sample.tensor].shape)):
            sums[part] = sums.get(part, np.zeros((k + 1, k + 1))) + gram
            rounding[part] = rounding.get(part, 0.0) + rounded
    parts = sorted(sums, key=lambda name: (name.isdigit(), name.zfill(9)))
    rows = [
        {"merge": made.name, "part": part, "parent": source.name, "weight": float(weight),
         "residual": residual, "rounding": rounded}
        for part in parts
        for weights, residual, rounded in [_solved(sums[part], rounding[part])]
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


def _gram(
    sample: RowSample, made: TensorSource, sources: Sequence[TensorSource]
) -> tuple[np.ndarray, float]:
    """Products of first parent, differences and merge; rounding error, step^2 / 12."""
    first, merged = sample.read(sources[0]), sample.read(made)
    columns = [first, *(sample.read(source) - first for source in sources[1:]), merged - first]
    flat = np.stack([column.ravel() for column in columns])
    bits = _MANTISSA[made.headers[sample.tensor].dtype]
    steps = np.ldexp(1.0, np.frexp(merged)[1] - 1 - bits)[merged != 0]
    return np.asarray(flat @ flat.T), float((steps**2).sum() / 12)


def _solved(gram: np.ndarray, rounding: float) -> tuple[np.ndarray, float, float]:
    """Weights of the parents; residual and rounding over the mean distance from the first."""
    k = len(gram) - 1
    scale = np.sqrt(np.maximum(np.diag(gram)[:k], np.finfo(float).tiny))
    inner = gram[:k, :k] / np.outer(scale, scale)
    found = np.linalg.lstsq(inner, gram[:k, k] / scale, rcond=1e-12)[0] / scale
    left = gram[k, k] - 2 * found @ gram[:k, k] + found @ gram[:k, :k] @ found
    apart = np.sqrt(np.diag(gram)[1:k]).mean() if k > 1 else math.sqrt(gram[0, 0])
    weights = found.copy()
    weights[0] = 1.0 + found[0] - found[1:].sum()
    if not apart:
        return weights, math.nan, math.nan
    return weights, math.sqrt(max(left, 0.0)) / apart, math.sqrt(rounding) / apart
