"""Where the tensors of a merge come from: model folders through memory maps, or state dicts."""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from repsim.core.errors import InputError
from repsim.core.files import file_mark
from repsim.merging.arrays import Array, flat_array, stored_array
from repsim.models.formats import derived_weights
from repsim.models.headers import TensorHeader, read_layouts, weight_files

if TYPE_CHECKING:
    import torch

#: Types in safetensors files -> (name in torch, bytes). Quantised types are not merged.
TYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
FLOATS = ("F64", "F32", "F16", "BF16")
#: Name in torch -> type in safetensors files.
STORED = {name: stored for stored, (name, _) in TYPES.items()}
#: Bytes that are read at once ahead of their use.
FETCHED = 4 << 20


class TensorSource(Protocol):
    """Tensors of one model by name, read when asked for."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Type and shape of every tensor."""

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows, in its stored type. It must not be written to."""

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array of numpy, bfloat16 as the bits of its entries."""


def torch_type(stored: str) -> torch.dtype:
    """The torch type of a type in a safetensors file."""
    import torch

    found: torch.dtype = getattr(torch, TYPES[stored][0])
    return found


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the bytes of one tensor lie."""

    file: Path
    start: int


class Checkpoint:
    """The weights of a Hugging Face folder, mapped; a view's are computed, the last is kept."""

    def __init__(
        self, folder: str | Path, name: str | None = None, *, files: Sequence[Path] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.name = name or self.folder.resolve().name
        self.files = weight_files(self.folder) if files is None else list(files)
        self.headers: dict[str, TensorHeader] = {}
        self._places: dict[str, _Place] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._handles: dict[Path, int] = {}
        self._derived = derived_weights(self.folder) if files is None else None
        self._last: tuple[str, torch.Tensor] | None = None
        if self._derived is not None:
            self.headers.update(self._derived.headers)
            return
        for tensor, (file, stored) in read_layouts(self.files).items():
            if stored.header.dtype not in TYPES:
                raise InputError(
                    f"tensor '{tensor}' of model '{self.name}' has type {stored.header.dtype}, "
                    "which cannot be merged",
                    hint="quantised weights are merged from the unquantised models",
                )
            self._places[tensor] = _Place(file, stored.start)
            self.headers[tensor] = stored.header

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows, in its stored type, without a copy."""
        import torch

        if self._derived is not None:
            return self._computed(tensor) if rows is None else self._computed(tensor)[rows]
        header = self.headers[tensor]
        kind, size = torch_type(header.dtype), TYPES[header.dtype][1]
        place = self._places[tensor]
        source: mmap.mmap | bytearray = self._map(place.file)
        start = place.start
        shape = header.shape
        if rows is not None:
            first, last, _ = rows.indices(shape[0])
            start += first * math.prod(shape[1:]) * size
            shape = (max(0, last - first), *shape[1:])
        count = math.prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=kind)
        if start % size:  # old writers do not align
            source, start = bytearray(source[start : start + count * size]), 0
        return torch.frombuffer(source, dtype=kind, count=count, offset=start).reshape(shape)

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array, without a copy."""
        if self._derived is not None:
            return flat_array(self._computed(tensor))
        place, header = self._places[tensor], self.headers[tensor]
        source = self._map(place.file)
        return stored_array(source, header.dtype, place.start, math.prod(header.shape))

    def entries(self, tensor: str, start: int, stop: int) -> Array:
        """Some entries of a flat tensor, and no byte beside them: nothing is read ahead."""
        if self._derived is not None:
            return flat_array(self._computed(tensor))[start:stop]
        place, header = self._places[tensor], self.headers[tensor]
        size = TYPES[header.dtype][1]
        if place.file not in self._handles:
            handle = self._handles[place.file] = os.open(place.file, os.O_RDONLY)
            weakref.finalize(self, os.close, handle)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        wanted, first = (stop - start) * size, place.start + start * size
        data = os.pread(self._handles[place.file], wanted, first)
        if len(data) != (stop - start) * size:
            raise InputError(f"'{place.file}' ends within tensor '{tensor}'")
        return stored_array(data, header.dtype, 0, stop - start)

    def fetch(self, tensor: str) -> None:
        """Bring a tensor into the page cache: to be called by another thread, ahead of its use."""
        if self._derived is not None:
            return
        place, header = self._places[tensor], self.headers[tensor]
        left = math.prod(header.shape) * TYPES[header.dtype][1]
        buffer = memoryview(bytearray(min(left, FETCHED)))
        with place.file.open("rb", buffering=0) as handle:
            handle.seek(place.start)
            while left > 0 and (got := handle.readinto(buffer[:left])):
                left -= got

    def _computed(self, tensor: str) -> torch.Tensor:
        """A tensor of a view. Threads may compute one twice; none sees another one's tensor."""
        last = self._last
        if last is not None and last[0] == tensor:
            return last[1]
        assert self._derived is not None
        found = self._derived.read(tensor)
        self._last = (tensor, found)
        return found

    def _map(self, file: Path) -> mmap.mmap:
        """The map of a file. Private, so that torch may take it for writable memory."""
        if file not in self._maps:
            with file.open("rb") as handle:
                mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
            if hasattr(mmap, "MADV_SEQUENTIAL"):
                mapped.madvise(mmap.MADV_SEQUENTIAL)
            self._maps[file] = mapped
        return self._maps[file]

    def marks(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and mark of each file: what tells that it is still the same."""
        return [(file.name, file_mark(file)) for file in self.files]


@dataclasses.dataclass(frozen=True)
class StateDict:
    """A state dict as a source."""

    name: str
    tensors: Mapping[str, torch.Tensor]

    @property
    def headers(self) -> dict[str, TensorHeader]:
        """Type and shape of every tensor."""
        return {
            name: TensorHeader(STORED[str(t.dtype).removeprefix("torch.")], tuple(t.shape))
            for name, t in self.tensors.items()
        }

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows."""
        found = self.tensors[tensor].detach()
        return found if rows is None else found[rows]

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array; a copy only where it is not contiguous on the CPU."""
        return flat_array(self.tensors[tensor])


@dataclasses.dataclass(frozen=True)
class View:
    """A source whose tensors are computed from those of another one when they are read."""

    source: TensorSource

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.source.name

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Type and shape of every tensor."""
        return self.source.headers

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows."""
        return self.source.read(tensor, rows)

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array."""
        return flat_array(self.read(tensor))


@dataclasses.dataclass(frozen=True)
class Transformed(View):
    """A source whose tensors pass through a function of name and tensor when they are read."""

    transform: Callable[[str, torch.Tensor], torch.Tensor]

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """The transformed tensor, or a range of its rows."""
        found = self.transform(tensor, self.source.read(tensor))
        if tuple(found.shape) != self.headers[tensor].shape:
            raise InputError(
                f"the transform of model '{self.name}' changed the shape of '{tensor}' to "
                f"{tuple(found.shape)}"
            )
        return found if rows is None else found[rows]
