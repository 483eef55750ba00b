"""All pairs of rows of many layers, tile by tile: sums over pairs without an `[n, n]` matrix.

A tile holds the same pairs of rows of every layer, so that products of the layers' matrices are one
small product per tile. Tiles hold the pairs i < j; what else a formula needs are row sums. Memory:
`layers x ROWS x COLUMNS` numbers, and the tiles themselves where all of them are few enough to be
kept for a second pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.documents import row_effects
from repsim.measures.limits import share

#: Pairs of one tile: few enough to stay in cache, enough for products to run at full speed.
ROWS, COLUMNS = 256, 512
#: Pieces in which a tile on the diagonal is computed, to leave out most of what lies below it.
PIECE = 64
#: Products that are summed in the tiles' own precision before float64 takes over.
RUN = 4096
#: Bytes of tiles that are kept for a second pass instead of being computed again.
KEPT_BYTES = 1 << 30

#: What a tile becomes, in place: layer, tile `[h, w]` -> None.
Change = Callable[[int, Tensor], None]


@dataclasses.dataclass(frozen=True)
class Tile:
    """Values of some pairs of rows for every layer, `[layers, h, w]`."""

    rows: slice
    columns: slice
    values: Tensor

    def pairs(self, layer: int, labels: Tensor | None = None) -> Tensor:
        """The values of one layer, flat, i < j only; with labels, of different documents only."""
        values, counted = self.values[layer], self.inside(labels)
        counted = None if counted is None else ~counted
        if self.on_diagonal:
            above = torch.ones_like(values, dtype=torch.bool).triu(1)
            counted = above if counted is None else counted & above
        return values.flatten() if counted is None else values[counted]

    def inside(self, labels: Tensor | None) -> Tensor | None:
        """Which pairs are of one document, `[h, w]`; None if none is."""
        if labels is None:
            return None
        found = rearrange(labels[self.rows], "i -> i 1") == labels[self.columns]
        return found if bool(found.any()) else None

    @property
    def on_diagonal(self) -> bool:
        """Whether the pairs are those of some rows with themselves; only i < j count."""
        return self.rows == self.columns


def gram_tiles(layers: Sequence[Tensor]) -> Iterator[Tile]:
    """Inner products of the rows of each layer; the memory of a tile is used again."""
    n = layers[0].shape[0]
    buffer = layers[0].new_empty(len(layers) * ROWS * max(ROWS, COLUMNS))
    for top in range(0, n, ROWS):
        rows = slice(top, min(top + ROWS, n))
        height = rows.stop - top
        square = buffer[: len(layers) * height**2].view(len(layers), height, height)
        for layer, values in zip(layers, square, strict=True):
            part = layer[rows]
            for start in range(0, height, PIECE):
                piece = slice(start, start + PIECE)
                torch.mm(part[piece], part[start:].mT, out=values[piece, start:])
        yield Tile(rows, rows, square)
        for left in range(rows.stop, n, COLUMNS):
            columns = slice(left, min(left + COLUMNS, n))
            size = len(layers) * height * (columns.stop - left)
            wide = buffer[:size].view(len(layers), height, -1)
            for layer, values in zip(layers, wide, strict=True):
                torch.mm(layer[rows], layer[columns].mT, out=values)
            yield Tile(rows, columns, wide)


class DistanceTiles:
    """Squared Euclidean distances of the rows of each layer; computed once if they may be kept."""

    def __init__(
        self, layers: Sequence[Tensor], squares: Sequence[Tensor], *, zeros: bool = True
    ) -> None:
        self._zeros = zeros
        self._layers = [layer.contiguous() for layer in layers]
        self._squares = [square.to(layers[0].dtype) for square in squares]
        n = len(squares[0])
        whole = len(layers) * n * (n + ROWS) // 2 * layers[0].element_size()
        self._keep = whole <= share(KEPT_BYTES)
        self._kept: list[Tile] = []

    def __iter__(self) -> Iterator[Tile]:
        if self._kept:
            # The reader may change what it gets.
            yield from (dataclasses.replace(t, values=t.values.clone()) for t in self._kept)
            return
        kept = []
        rounding = 16 * torch.finfo(self._squares[0].dtype).eps
        for tile in gram_tiles(self._layers):
            for square, values in zip(self._squares, tile.values, strict=True):
                sums = rearrange(square[tile.rows], "i -> i 1") + square[tile.columns]
                torch.add(sums, values, alpha=-2, out=values)
                if self._zeros:
                    values.masked_fill_(values < sums.mul_(rounding), 0)
            if self._keep:
                kept.append(dataclasses.replace(tile, values=tile.values.clone()))
            yield tile
        self._kept = kept

    @property
    def device(self) -> torch.device:
        """Where the tiles lie."""
        return self._layers[0].device

    def samples(self, layer: int, count: int) -> Tensor:
        """Distances between `count` random rows and as many others (fewer if there are not)."""
        rows, squares = self._layers[layer], self._squares[layer]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randperm(len(rows), generator=generator)[: 2 * count].to(rows.device)
        i, j = drawn.tensor_split(2)
        sums = rearrange(squares[i], "i -> i 1") + squares[j]
        return (sums - 2 * rows[i] @ rows[j].mT).clamp(min=0).flatten()


def tile_products(values: Tensor) -> Tensor:
    """Inner products of the layers' values, `[l, l]` float64, in short runs of their precision."""
    flat = rearrange(values, "l i j -> l (i j)")
    whole = flat.shape[1] // RUN * RUN
    runs = rearrange(flat[:, :whole], "l (r k) -> r l k", k=RUN)
    rest = flat[:, whole:]
    return torch.bmm(runs, runs.mT).sum(dim=0, dtype=torch.float64) + (rest @ rest.mT).double()


@dataclasses.dataclass(frozen=True)
class PairSums:
    """Sums over pairs i < j of rows of different documents (or of different rows), float64."""

    products: Tensor  # sum k_ij l_ij of all layers, [layers, layers]
    rows: Tensor  # sum_j k_ij of each layer, [layers, n]
    labels: Tensor  # number of each row's document, or of each row, [n]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def hollow(self) -> Tensor:
        """Inner products of the U-centred matrices: unbiased."""
        effects = torch.stack([row_effects(sums, self.labels) for sums in self.rows])
        crossed = effects @ self.rows.mT
        return 2 * self.products - crossed - crossed.mT

    def centred(self, diagonal: Tensor) -> Tensor:
        """Inner products of the double-centred matrices; `[layers]` values on their diagonals."""
        n, rows = self.n, self.rows + rearrange(diagonal, "l -> l 1")
        total = rows.sum(dim=1)
        whole = 2 * self.products + n * torch.outer(diagonal, diagonal)
        return whole - 2 * rows @ rows.mT / n + torch.outer(total, total) / n**2

    def pairs_centred(self) -> Tensor:
        """Inner products of the vectors of pairs, each less its mean."""
        total = self.rows.sum(dim=1) / 2
        sizes = torch.bincount(self.labels).double()
        pairs = (self.n**2 - float(sizes @ sizes)) / 2
        return self.products - torch.outer(total, total) / pairs


def pair_sums(
    tiles: Iterator[Tile], layers: int, labels: Tensor, change: Change | None = None
) -> PairSums:
    """Sums over all tiles, each layer's changed first, pairs of one label left out."""
    products = rows = None
    for tile in tiles:
        if products is None or rows is None:
            products = tile.values.new_zeros(layers, layers, dtype=torch.float64)
            rows = tile.values.new_zeros(layers, len(labels), dtype=torch.float64)
        for layer, values in enumerate(tile.values):
            if change is not None:
                change(layer, values)
        if tile.on_diagonal:
            tile.values.triu_(1)
        if (inside := tile.inside(labels)) is not None:
            tile.values.masked_fill_(inside, 0)
        rows[:, tile.rows] += tile.values.sum(dim=2)
        rows[:, tile.columns] += tile.values.sum(dim=1)
        products += tile_products(tile.values)
    assert products is not None
    assert rows is not None
    return PairSums(products, rows, labels)


def cosines(products: Tensor, least: Tensor | float = 0.0) -> Tensor:
    """Cosines out of inner products of all layers; NaN where a layer's own is not over `least`."""
    own = products.diagonal()
    own = torch.where(own > least, own, torch.nan).sqrt()
    return products / own / rearrange(own, "l -> l 1")
