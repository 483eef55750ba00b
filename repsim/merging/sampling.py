"""Rows of matrices, read alike from several models: a sample of their weights within a budget."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef
from repsim.merging.checkpoint import FLOATS, TYPES, Checkpoint, StateDict, TensorSource
from repsim.merging.tensors import kind_of, layer_of
from repsim.models.inspect import locate

if TYPE_CHECKING:
    import torch

#: What may be asked about: a folder, "zoo:NAME", a hub id, a `ModelRef`, or a state dict.
ModelLike = str | Path | ModelRef | Mapping[str, "torch.Tensor"]

#: Most rows of a matrix, and the contiguous bands that they are read in.
MOST_ROWS, BANDS = 512, 16


@dataclasses.dataclass(frozen=True)
class RowSample:
    """Rows of one matrix that are read from every model, in contiguous bands."""

    tensor: str
    bands: tuple[slice, ...]

    def read(self, source: TensorSource) -> np.ndarray:
        """`[rows, columns]` float64."""
        parts = [source.read(self.tensor, band) for band in self.bands]
        return np.concatenate([p.double().reshape(len(p), -1).numpy() for p in parts])


def open_sources(
    models: Sequence[ModelLike], names: Sequence[str] | None = None
) -> list[TensorSource]:
    """Open the weights of two models or more; those of one name are numbered."""
    if len(models) < 2:
        raise UsageError("one model has no lineage to tell", hint="name two models or more")
    if names is not None and len(names) != len(models):
        raise UsageError(f"{len(names)} names for {len(models)} models")
    given = list(names) if names else [None] * len(models)
    found: list[tuple[str, Path | None]] = []
    for number, (model, label) in enumerate(zip(models, given, strict=True), start=1):
        if isinstance(model, Mapping):
            found.append((label or f"model {number}", None))
        else:
            located = locate(model, label=label)
            found.append((located.name, located.folder))
    counts = Counter(name for name, _ in found)
    sources: list[TensorSource] = []
    for number, ((name, folder), model) in enumerate(zip(found, models, strict=True), start=1):
        shown = name if counts[name] == 1 else f"{name} ({number})"
        if isinstance(model, Mapping):
            sources.append(StateDict(shown, model))
        else:
            assert folder is not None
            sources.append(Checkpoint(folder, shown))
    return sources


def shared_tensors(sources: Sequence[TensorSource]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Floating-point tensors of one name and shape in all models."""
    first, *others = (source.headers for source in sources)
    for name, header in first.items():
        found = [other.get(name) for other in others]
        if header.dtype in FLOATS and all(
            other is not None and other.shape == header.shape and other.dtype in FLOATS
            for other in found
        ):
            yield name, tuple(header.shape)


def sample_rows(
    sources: Sequence[TensorSource], megabytes: float, *, blocks: int | None = None
) -> list[RowSample]:
    """Rows of the body's matrices, as many as the budget of one model allows.

    Args:
        sources: The models.
        megabytes: Most that is read of one model.
        blocks: At most so many evenly spaced blocks; None for all, and for the tensors outside of
            the body as well: embeddings, head, norms and biases.
    """
    matrices = [
        (name, shape) for name, shape in shared_tensors(sources)
        if blocks is None
        or (len(shape) == 2 and min(shape) > 1 and kind_of(name, len(shape)) == "matrix")
    ]  # fmt: skip
    numbers = sorted({layer.number for name, _ in matrices if (layer := layer_of(name))})
    if blocks is not None and len(numbers) > blocks:
        spaced = np.linspace(0, len(numbers) - 1, blocks).round().astype(int)
        kept = {numbers[i] for i in spaced}
        matrices = [(n, s) for n, s in matrices if not (at := layer_of(n)) or at.number in kept]
    if not matrices:
        return []
    size = max(TYPES[source.headers[matrices[0][0]].dtype][1] for source in sources)
    row_bytes = sum(math.prod(shape[1:]) for _, shape in matrices) * size
    rows = int(min(MOST_ROWS, megabytes * 1e6 / row_bytes))
    return [RowSample(name, tuple(_bands(shape[0], max(rows, 2)))) for name, shape in matrices]


def _bands(size: int, rows: int) -> Iterator[slice]:
    """At most so many rows, in evenly spaced contiguous bands."""
    if size <= rows:
        yield slice(0, size)
        return
    count = min(BANDS, rows)
    length = rows // count
    for start in np.linspace(0, size - length, count).round().astype(int):
        yield slice(int(start), int(start) + length)
