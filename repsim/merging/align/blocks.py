"""Weights of a model block by block, so that what alignment holds does not grow with the model."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from repsim.merging.align.apply import AlignmentMap, apply_map
from repsim.merging.align.fold import check_rotatable, fold_norms, fold_part
from repsim.merging.align.solvers import distance
from repsim.merging.align.weights import (
    StateDict,
    Weights,
    check_known,
    names_in,
    pack,
    stored_name,
    unpack,
)
from repsim.merging.arrays import Array, flat_array
from repsim.merging.checkpoint import StateDict as InMemory
from repsim.merging.checkpoint import TensorSource
from repsim.models.arch.spaces import WeightSpaces, axes_of, split_key
from repsim.models.headers import TensorHeader

if TYPE_CHECKING:
    import torch

#: Entries of the vocabulary that are held at a time.
ENTRIES = 1 << 19
Keys = frozenset[str]


class Blocks(Protocol):
    """The weights of one model by role, in float64, block by block."""

    def block(self, layer: int, only: Keys | None = None) -> Weights:
        """The weights of one block, or of one of its parts (see `parts_of`)."""

    def outside(self) -> Iterator[Weights]:
        """The weights outside the blocks: each key once, those of the vocabulary some rows."""


@dataclasses.dataclass(frozen=True)
class Held:
    """Weights that are in memory anyway."""

    weights: Weights

    def block(self, layer: int, only: Keys | None = None) -> Weights:
        """The weights of one block, or of one of its parts."""
        return {key: weight for key, weight in self.weights.items()
                if split_key(key)[0] == layer and (only is None or key in only)}  # fmt: skip

    def outside(self) -> Iterator[Weights]:
        """The weights outside the blocks."""
        yield {key: w for key, w in self.weights.items() if split_key(key)[0] is None}


def parts_of(spaces: WeightSpaces, layer: int) -> list[Keys]:
    """Keys of a block in groups that no symmetry inside it, no norm and no fused tensor links."""
    own = [weight for weight in spaces.weights if weight.layer == layer]
    keys = {key for weight in own for key in weight.keys}
    links = [keys.intersection((*weight.keys, weight.norm, f"{weight.norm}_bias"))
             for weight in own]  # fmt: skip
    links += [{key for key in keys if space.acts_on(key)}
              for space in spaces.spaces if space.layer == layer]  # fmt: skip
    found: list[Keys] = []
    for link in links:
        apart = [part for part in found if part.isdisjoint(link)]
        found = [*apart, frozenset(link.union(*(part for part in found if part not in apart)))]
    return found


class Stored:
    """Weights that are read from a source when they are asked for, folded where that is asked."""

    def __init__(self, source: TensorSource, spaces: WeightSpaces, *, folded: bool = False) -> None:
        self.source, self.spaces, self.folded = source, spaces, folded
        self.headers: Mapping[str, TensorHeader] = source.headers
        check_known(self.headers, spaces)
        if folded:
            names = (name for weight in spaces.weights for name in weight.keys
                     if names_in(weight, self.headers, spaces))  # fmt: skip
            check_rotatable(dict.fromkeys(names), spaces)  # type: ignore[arg-type]

    def block(self, layer: int, only: Keys | None = None) -> Weights:
        """The weights of one block, or of one of its parts."""
        give_back()
        return self.weights(self.state(layer, only), layer)

    def outside(self) -> Iterator[Weights]:
        """The weights outside the blocks."""
        for start, raw in self.rows():
            found = self.weights(raw, None)
            yield {k: w for k, w in found.items() if start == 0 or "entry" in axes_of(k)}

    def weights(self, raw: StateDict, layer: int | None) -> Weights:
        """Weights out of the tensors of one block, or of what is outside."""
        part = self.part(raw, layer)
        return fold_part(unpack(raw, part), part) if self.folded else unpack(raw, part)

    def part(self, raw: StateDict, layer: int | None) -> WeightSpaces:
        """The spaces with the weights of some tensors of one block, or of what is outside."""
        own = tuple(
            weight
            for weight in self.spaces.weights
            if weight.layer == layer
            and (names_in(weight, raw, self.spaces)
                 or not names_in(weight, self.headers, self.spaces))
        )  # fmt: skip
        return dataclasses.replace(self.spaces, weights=own)

    def names(self, layer: int | None, only: Keys | None = None) -> list[str]:
        """Tensors that hold weights of one block or part of it, or of what is outside."""
        return [name for weight in self.spaces.weights
                if weight.layer == layer and (only is None or weight.keys[0] in only)
                for name in names_in(weight, self.headers, self.spaces)]  # fmt: skip

    def is_long(self, tensor: str) -> bool:
        """Whether a tensor has rows of a vocabulary or of positions."""
        known = (self.headers, self.spaces)
        return any(
            weight.stored == "entry resid" and stored_name(weight, *known) == tensor
            for weight in self.spaces.weights
            if weight.layer is None
        )

    def state(self, layer: int, only: Keys | None = None) -> dict[str, torch.Tensor]:
        """The tensors of one block, or of one of its parts, as they are stored."""
        return {name: self.source.read(name) for name in self.names(layer, only)}

    def rows(self, only: slice = slice(None)) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """First row and tensors outside the blocks, the vocabulary some rows at a time."""
        listed = {name: weight for weight in self.spaces.weights if weight.layer is None
                  for name in names_in(weight, self.headers, self.spaces)}  # fmt: skip
        long = {name: self.headers[name].shape for name in listed if self.is_long(name)}
        rest = {name: self.source.read(name) for name in listed if name not in long}
        start, stop, _ = only.indices(max((shape[0] for shape in long.values()), default=1))
        step = max(1, ENTRIES // max((shape[1] for shape in long.values()), default=1))
        for first in range(start, stop, step):
            taken = slice(first, min(first + step, stop))
            yield (
                first,
                rest
                | {
                    name: self.source.read(name, slice(first, min(taken.stop, shape[0])))
                    for name, shape in long.items()
                    if first < shape[0]
                },
            )


def give_back() -> None:
    """Freed memory back to the system: glibc keeps arrays of these sizes, as much as is in use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def open_blocks(source: TensorSource, spaces: WeightSpaces, *, folded: bool) -> Blocks:
    """A model block by block; in memory as a whole where norms are read across blocks."""
    across = any(w.norm and split_key(w.norm)[0] != w.layer for w in spaces.weights)
    if not (folded and across):
        return Stored(source, spaces, folded=folded)
    weights = unpack({name: source.read(name) for name in source.headers}, spaces)
    return Held(fold_norms(weights, spaces)[0])


def whole(blocks: Blocks, layers: int) -> Weights:
    """All weights at once, for what needs them so."""
    import torch

    found: dict[str, list[torch.Tensor]] = {}
    for part in (*blocks.outside(), *map(blocks.block, range(layers))):
        for key, weight in part.items():
            found.setdefault(key, []).append(weight)
    return {key: parts[0] if len(parts) == 1 else torch.cat(parts) for key, parts in found.items()}


def maps_in(maps: AlignmentMap, layer: int | None) -> AlignmentMap:
    """Those elements that act on one block, or on what is outside."""
    return {key: m for key, m in maps.items() if split_key(key)[0] in (None, layer)}


def total_distance(a: Blocks, b: Blocks, spaces: WeightSpaces, maps: AlignmentMap) -> float:
    """Distance of A from B after a map of B, a part at a time."""
    outer = maps_in(maps, None)
    pairs = zip(a.outside(), b.outside(), strict=True)
    total = sum(distance(x, apply_map(y, spaces, outer)) ** 2 for x, y in pairs)
    for layer in range(spaces.layers):
        own = maps_in(maps, layer)
        for part in parts_of(spaces, layer):
            moved = apply_map(b.block(layer, part), spaces, own)
            total += distance(a.block(layer, part), moved) ** 2
    return float(total) ** 0.5


def norm_of(blocks: Blocks, layers: int) -> float:
    """Euclidean norm of all weights."""
    total = sum(_square(part) for part in blocks.outside())
    return float(total + sum(_square(blocks.block(layer)) for layer in range(layers))) ** 0.5


def _square(weights: Weights) -> float:
    return float(sum(float(weight.square().sum()) for weight in weights.values()))


class _SomeRows:
    """A long tensor as a flat array whose rows are computed when they are asked for."""

    def __init__(self, read: Callable[[slice], torch.Tensor], shape: tuple[int, ...]) -> None:
        self._read, self._rows, self._width = read, shape[0], math.prod(shape[1:])
        self._first, self._kept = 0, np.empty(0)

    def __len__(self) -> int:
        return self._rows * self._width

    def __getitem__(self, wanted: slice) -> Array:
        start, stop, step = wanted.indices(len(self))
        if step > 1:
            parts = range(start, stop, ENTRIES)
            found = [self[a : min(a + ENTRIES, stop)][-(a - start) % step :: step] for a in parts]
            return np.concatenate(found)
        if not self._first <= start <= stop <= self._first + len(self._kept):
            first, last = start // self._width, -(-stop // self._width)
            last = min(max(last, first + ENTRIES // self._width), self._rows)
            self._first = first * self._width
            self._kept = flat_array(self._read(slice(first, last)))
        return self._kept[start - self._first : stop - self._first]


class Mapped:
    """A model whose weights pass through a map when they are read; the last block is kept."""

    def __init__(self, stored: Stored, maps: AlignmentMap) -> None:
        self.stored, self.maps = stored, maps
        self.name = stored.source.name
        spaces = stored.spaces
        self.headers: dict[str, TensorHeader] = dict(stored.headers)
        self._blocks = {n: layer for layer in range(spaces.layers) for n in stored.names(layer)}
        self._outside = set(stored.names(None))
        self._last: tuple[int, dict[str, torch.Tensor]] | None = None
        if stored.folded and spaces.tied:
            self._untie()

    def _untie(self) -> None:
        """The head that folding makes of an embedding that stood for both."""
        heads = [weight for weight in self.stored.spaces.weights if weight.roles == ("head",)]
        known = (self.headers, self.stored.spaces)
        if heads and not any(names_in(weight, *known) for weight in heads):
            name = stored_name(heads[0], *known)
            self.headers[name] = self.headers[stored_name(known[1].weights[0], *known)]
            self._outside.add(name)

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows, after the map."""
        if tensor in self._blocks:
            found = self._block(self._blocks[tensor])[tensor]
            return found if rows is None else found[rows]
        if tensor not in self._outside:
            return self.stored.source.read(tensor, rows)
        return self._in_rows(tensor, rows)

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array, after the map; of a vocabulary some rows at a time."""
        if tensor in self._outside and self.stored.is_long(tensor):
            return _SomeRows(functools.partial(self._in_rows, tensor), self.headers[tensor].shape)
        return flat_array(self.read(tensor))

    def _block(self, layer: int) -> dict[str, torch.Tensor]:
        if self._last is None or self._last[0] != layer:
            self._last = None
            self._last = (layer, self._packed(self.stored.state(layer), layer))
        return self._last[1]

    def _in_rows(self, tensor: str, rows: slice | None) -> torch.Tensor:
        import torch

        if not self.stored.is_long(tensor):
            _, raw = next(self.stored.rows(slice(0, 1)))
            one = self._packed(raw, None)[tensor]
            return one if rows is None else one[rows]
        start, stop, _ = (rows or slice(None)).indices(self.headers[tensor].shape[0])
        found: torch.Tensor | None = None
        for first, raw in self.stored.rows(slice(start, stop)):
            part = self._packed(raw, None)[tensor]
            if found is None:  # filled part by part, for parts and their whole are twice as much
                found = torch.empty((stop - start, *part.shape[1:]), dtype=part.dtype)
            found[first - start : first - start + len(part)] = part
        assert found is not None
        return found

    def _packed(self, raw: StateDict, layer: int | None) -> dict[str, torch.Tensor]:
        part = self.stored.part(raw, layer)
        moved = apply_map(self.stored.weights(raw, layer), part, maps_in(self.maps, layer))
        return pack(moved, raw, part.untied() if self.stored.folded else part)


def mapped(
    source: TensorSource, blocks: Blocks, spaces: WeightSpaces, maps: AlignmentMap
) -> TensorSource:
    """A model after a map, read when it is asked for; in memory where its blocks are."""
    if isinstance(blocks, Stored):
        return Mapped(blocks, maps)
    state = {name: source.read(name) for name in source.headers}
    moved = apply_map(whole(blocks, spaces.layers), spaces, maps)
    return InMemory(source.name, pack(moved, state, spaces))
