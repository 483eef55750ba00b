"""Rows of matrices, read alike from several models: a sample of their weights within a budget."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef
from repsim.merging.arrays import widen
from repsim.merging.checkpoint import FLOATS, STORED, TYPES, Checkpoint, StateDict, TensorSource
from repsim.merging.tensors import kind_of, layer_of
from repsim.models.headers import INDEX, SINGLE
from repsim.models.inspect import locate

if TYPE_CHECKING:
    import torch

#: What may be asked about: a folder, a safetensors file, "zoo:NAME", a hub id, a `ModelRef`, or the
#: arrays of a model by name, of numpy or torch.
ModelLike = str | Path | ModelRef | Mapping[str, "torch.Tensor | np.ndarray"]
#: Several of them; in a mapping, by the names that they are to have.
Models = Sequence[ModelLike] | Mapping[str, ModelLike]

#: Most rows of a matrix, and the contiguous bands that they are read in.
MOST_ROWS, BANDS = 512, 16


@dataclasses.dataclass(frozen=True)
class RowSample:
    """Bands of rows read from every model, of a matrix of its last axis; a vector is one column."""

    tensor: str
    columns: int
    bands: tuple[slice, ...]

    def read(self, source: TensorSource) -> np.ndarray:
        """`[rows, columns]` float64."""
        wide = self.columns
        if isinstance(source, Checkpoint):
            parts = [source.entries(self.tensor, b.start * wide, b.stop * wide) for b in self.bands]
        else:
            flat = source.array(self.tensor)
            parts = [flat[band.start * wide : band.stop * wide] for band in self.bands]
        return np.concatenate([widen(part, "float64") for part in parts]).reshape(-1, wide)

    def megabytes(self, source: TensorSource) -> float:
        """What is read of a source."""
        entries = sum(band.stop - band.start for band in self.bands) * self.columns
        return entries * TYPES[source.headers[self.tensor].dtype][1] / 1e6


def open_sources(models: Models, *, least: int = 2) -> list[TensorSource]:
    """Open the weights of some models; those of one name are numbered."""
    if len(models) < least:
        raise UsageError("one model has no lineage to tell", hint="name two models or more")
    # A tensor has a shape; a module has a dtype too.
    if isinstance(models, Mapping) and not any(hasattr(each, "shape") for each in models.values()):
        return [_open(model, name) for name, model in models.items()]
    if isinstance(models, Mapping):
        raise UsageError("one state dict has no lineage to tell", hint="give {name: state dict}")
    found = [_open(model, None, number) for number, model in enumerate(models, start=1)]
    counts, seen = Counter(source.name for source in found), Counter[str]()
    for place, (source, model) in enumerate(zip(found, models, strict=True)):
        if counts[source.name] > 1:
            seen[source.name] += 1
            found[place] = _open(model, f"{source.name} ({place + 1})")
    return found


def open_with(one: ModelLike, others: Models) -> tuple[TensorSource, list[TensorSource]]:
    """Open a merge or a base, and the models that it is held against."""
    if isinstance(others, Mapping):
        return open_sources([one], least=1)[0], open_sources(others, least=1)
    first, *rest = open_sources([one, *others])
    return first, rest


def _open(model: ModelLike, name: str | None, number: int = 1) -> TensorSource:
    """One model; files of safetensors need neither config nor their usual name."""
    if isinstance(model, Mapping):
        return StateDict(name or f"model {number}", _as_tensors(model))
    path = Path(model).expanduser() if isinstance(model, str | Path) else None
    if path and path.suffix == ".safetensors" and path.is_file():
        return Checkpoint(path.parent, name or path.stem, files=[path])
    located = locate(model, label=name)
    usual = any((located.folder / file).is_file() for file in (SINGLE, INDEX))
    others = [] if usual else sorted(located.folder.glob("*.safetensors"))
    return Checkpoint(located.folder, located.name, files=others or None)


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The arrays that a file could hold, as tensors."""
    import torch

    found = {}
    for name, array in arrays.items():
        tensor = array if isinstance(array, torch.Tensor) else torch.tensor(np.asarray(array))
        if str(tensor.dtype).removeprefix("torch.") in STORED:
            found[name] = tensor
    return found


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


def body_matrices(
    sources: Sequence[TensorSource], blocks: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Matrices inside of at most so many evenly spaced blocks; all where blocks have no number."""
    found = [
        (name, shape) for name, shape in shared_tensors(sources)
        if len(shape) >= 2 and min(as_matrix(shape)) > 1 and kind_of(name, len(shape)) == "matrix"
    ]  # fmt: skip
    numbers = sorted({layer.number for name, _ in found if (layer := layer_of(name))})
    if len(numbers) <= blocks:
        return found
    spaced = np.linspace(0, len(numbers) - 1, blocks).round().astype(int)
    kept = {numbers[i] for i in spaced}
    return [(n, s) for n, s in found if not (at := layer_of(n)) or at.number in kept]


def as_matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a tensor as it is sampled."""
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)


def sample_rows(
    sources: Sequence[TensorSource],
    tensors: Sequence[tuple[str, tuple[int, ...]]],
    megabytes: float,
    *,
    most: int = MOST_ROWS,
) -> list[RowSample]:
    """As many rows of named tensors as the budget of one model (megabytes) allows, two at least."""
    row_bytes = 0
    for name, shape in tensors:
        size = max(TYPES[source.headers[name].dtype][1] for source in sources)
        row_bytes += as_matrix(shape)[1] * size
    rows = max(2, int(min(most, megabytes * 1e6 / row_bytes))) if row_bytes else 2
    return [
        RowSample(name, columns, tuple(_bands(count, rows)))
        for name, shape in tensors
        for count, columns in [as_matrix(shape)]
        if count * columns
    ]


def _bands(size: int, rows: int) -> Iterator[slice]:
    """At most so many rows, in evenly spaced contiguous bands."""
    if size <= rows:
        yield slice(0, size)
        return
    count = min(BANDS, rows)
    length = rows // count
    for start in np.linspace(0, size - length, count).round().astype(int):
        yield slice(int(start), int(start) + length)
