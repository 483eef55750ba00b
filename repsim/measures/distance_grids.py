"""Measures over distances for all pairs of layers at once, in memory that does not grow with n^2.

RSA, CKA with a Gaussian kernel and distance correlation are inner products of matrices over pairs
of rows. A constant taken off all entries does not change them, and leaves of nearly equal entries
what differs: so float32 tiles with float64 sums are enough. Ranks are counted, not sorted; a median
is looked for among the pairs near the median of some.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from repsim.measures.algebra import order_statistics, rounding_step
from repsim.measures.features import Side
from repsim.measures.nearest import Metric
from repsim.measures.pair_tiles import DistanceTiles, PairSums, cosines, pair_sums

#: Random rows on either side of the pairs from which constants and brackets are taken.
SAMPLE = 256
#: Quantiles of a sample on either side of its median between which the median of all lies.
BRACKET = 0.08
#: Most distances of a layer that are collected; where a bracket holds more, they are counted.
COLLECTED = 1 << 21
#: Bits of a distance that one pass of counting settles.
SETTLED = 16
#: Leading bits of a float32 that stay for counting: distances differ by 8e-6 of themselves.
DROPPED = 6
#: Keys that are counted at once.
COUNTED = 1 << 20


class LayerTiles:
    """Each of some layers once, their distances as tiles, and the way back to a grid."""

    def __init__(self, xs: Side, ys: Side, metric: Metric, *, zeros: bool = True) -> None:
        layers = list({id(f): f for f in [*xs, *ys]}.values())
        position = {id(f): i for i, f in enumerate(layers)}
        self._rows = [position[id(f)] for f in xs]
        self._columns = [position[id(f)] for f in ys]
        self.n, self.count = xs[0].n, len(layers)
        self.documents, self.labels = xs[0].documents, xs[0].labels
        single = not any(f.has_long_rows for f in layers)
        self.dtype = layers[0].dtype if single else torch.float64
        points = [f.points(metric, self.dtype) for f in layers]
        self.tiles = DistanceTiles([p for p, _ in points], [s for _, s in points], zeros=zeros)
        self.largest = [4 * float(s.max()) for _, s in points]

    def sums(self, change: Callable[[int, Tensor], None] | None, *, apart: bool = True) -> PairSums:
        """Sums over all pairs of the changed distances; `apart`: of different documents only."""
        labels = self.labels if apart else torch.arange(self.n, device=self.tiles.device)
        return pair_sums(iter(self.tiles), self.count, labels, change)

    def grid(self, products: Tensor, least: Tensor | float = 0.0) -> np.ndarray:
        """Cosines of the layers' matrices, `[xs, ys]`."""
        found = cosines(products, least)
        return found[self._rows][:, self._columns].cpu().numpy()

    @functools.cached_property
    def samples(self) -> list[Tensor]:
        """Squared distances of some pairs, per layer."""
        return [self.tiles.samples(i, SAMPLE).double() for i in range(self.count)]

    def order_statistics(self, positions: Sequence[int]) -> list[list[float]]:
        """Squared distances that stand at these positions in order, per layer: exact."""
        pairs = self.n * (self.n - 1) // 2
        if 2 * BRACKET * pairs > COLLECTED:
            return self._counted(positions)
        shares = [min(positions) / pairs - BRACKET, max(positions) / pairs + BRACKET]
        last = len(self.samples[0]) - 1
        places = [round(min(max(share, 0.0), 1.0) * last) for share in shares]
        brackets = [order_statistics(sample, places) for sample in self.samples]
        found = self._within(brackets, positions)
        if any(one is None for one in found):
            found = self._within([[-1.0, float("inf")]] * self.count, positions)
        return [one for one in found if one is not None]

    def _counted(self, positions: Sequence[int]) -> list[list[float]]:
        """The same by counting: each pass settles 16 more bits, in memory that does not grow."""
        kind, width = (torch.int64, 64) if self.dtype == torch.float64 else (torch.int32, 32)
        known = [[(0, position) for position in positions] for _ in range(self.count)]
        for shift in range(width - SETTLED, -1, -SETTLED):
            counts = [
                {prefix: torch.zeros(1 << SETTLED, dtype=torch.int64) for prefix, _ in layer}
                for layer in known
            ]
            for tile in self.tiles:
                for layer, of_prefix in enumerate(counts):
                    # Floats from 0 on are ordered as their bits; adding 0 takes the sign off -0.
                    bits = (tile.pairs(layer).clamp(min=0) + 0.0).view(kind)
                    keys = bits.bitwise_right_shift(shift)
                    for prefix, found in of_prefix.items():
                        mine = keys[keys.bitwise_right_shift(SETTLED) == prefix]
                        found += torch.bincount(
                            mine.bitwise_and((1 << SETTLED) - 1), minlength=1 << SETTLED
                        ).cpu()
            known = [
                [_descended(of_prefix[prefix], prefix, left) for prefix, left in layer]
                for of_prefix, layer in zip(counts, known, strict=True)
            ]
        return [
            [float(torch.tensor(prefix, dtype=kind).view(self.dtype)) for prefix, _ in layer]
            for layer in known
        ]

    def _within(
        self, brackets: list[list[float]], positions: Sequence[int]
    ) -> list[list[float] | None]:
        """Values at the positions, None for layers of which one lies outside its bracket."""
        below, inside = [0] * self.count, [[] for _ in range(self.count)]  # type: ignore[var-annotated]
        for tile in self.tiles:
            for layer, (low, high) in enumerate(brackets):
                values = tile.pairs(layer)
                below[layer] += int((values < low).sum())
                inside[layer].append(values[(values >= low) & (values <= high)])
        found: list[list[float] | None] = []
        for before, parts in zip(below, inside, strict=True):
            values = torch.cat(parts)
            wanted = [position - before for position in positions]
            fits = min(wanted) >= 0 and max(wanted) < len(values)
            found.append(order_statistics(values, wanted) if fits else None)
        return found


def _descended(counts: Tensor, prefix: int, left: int) -> tuple[int, int]:
    """The prefix with 16 more bits, and what is left of a position below it."""
    passed = torch.cumsum(counts, 0)
    digit = int((passed <= left).sum())
    return (prefix << SETTLED) | digit, left - int(passed[digit] - counts[digit])


# -- ranks ----------------------------------------------------------------------------------------


def rank_grid(xs: Side, ys: Side, metric: Metric) -> np.ndarray:
    """Spearman correlation of float32 distances, ties averaged, by two passes."""
    layers = LayerTiles(xs, ys, metric, zeros=False)
    keys = [_Keys(largest) for largest in layers.largest]
    for tile in layers.tiles:
        for layer, counter in enumerate(keys):
            counter.count(tile.pairs(layer, layers.documents))
    ranks = [counter.ranks(xs[0].device) for counter in keys]

    def ranked(layer: int, values: Tensor) -> None:
        values.copy_(ranks[layer](values.flatten()).view_as(values))

    return layers.grid(layers.sums(ranked).pairs_centred(), least=1e-20 * layers.n**2)


class _Keys:
    """Whole numbers that are ordered as distances are, and how often each occurs."""

    def __init__(self, largest: float) -> None:
        # What is left of the distance of equal rows lies below.
        self._floor = max(2 * largest * rounding_step(torch.float32), 1e-37)
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._low = 0
        self._waiting: list[Tensor] = []

    def of(self, values: Tensor) -> Tensor:
        """Keys of squared distances, int32; of float64 ones too, whose ranks need no more."""
        bits = values.float().clamp(min=self._floor).view(torch.int32)  # a copy
        return bits.add_(1 << (DROPPED - 1)).bitwise_right_shift_(DROPPED)

    def count(self, values: Tensor) -> None:
        """Count the keys of some distances."""
        self._waiting.append(self.of(values))
        if sum(map(len, self._waiting)) >= COUNTED:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        keys = torch.cat(self._waiting)
        low = int(keys.min())
        found = torch.bincount(keys.sub_(low)).cpu()
        if not len(self._counts):
            self._low, self._counts = low, found
        else:
            start, stop = min(low, self._low), max(low + len(found), self._low + len(self._counts))
            counts = torch.zeros(stop - start, dtype=torch.int64)
            for first, part in ((self._low, self._counts), (low, found)):
                counts[first - start : first - start + len(part)] += part
            self._low, self._counts = start, counts
        self._waiting = []

    def ranks(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """From distances to their mean ranks, centred and as a share of their number, float32."""
        self._flush()
        pairs = int(self._counts.sum())
        rank = torch.cumsum(self._counts, 0).double() - (self._counts.double() - 1) / 2
        table = ((rank - (pairs + 1) / 2) / pairs).float().to(device)

        def of(values: Tensor) -> Tensor:
            # What lies below the diagonal may be anything.
            keys = self.of(values).sub_(self._low).clamp_(0, len(table) - 1)
            return table.index_select(0, keys)

        return of


# -- distances ------------------------------------------------------------------------------------


def distance_grid(xs: Side, ys: Side, metric: Metric, kind: str) -> np.ndarray:
    """Cosine of matrices of distances: "plain", "pearson", "debiased" or "biased" (centred)."""
    layers = LayerTiles(xs, ys, metric)
    rooted = metric == "euclidean"
    middles = [float((s.sqrt() if rooted else s).mean()) for s in layers.samples]
    shift = [0.0] * layers.count if kind == "plain" else middles

    def changed(layer: int, values: Tensor) -> None:
        if rooted:
            values.sqrt_()
        values.sub_(shift[layer])

    sums = layers.sums(changed, apart=kind != "biased")
    if kind == "plain":
        return layers.grid(sums.products)
    if kind == "debiased":
        return layers.grid(sums.hollow())
    if kind == "biased":
        return layers.grid(sums.centred(-torch.tensor(shift).to(sums.rows)))
    # Distances that are equal up to rounding have no correlation.
    step = rounding_step(layers.dtype) * torch.tensor(middles).to(sums.rows)
    return layers.grid(sums.pairs_centred(), least=step.square() * layers.n**2 / 2)


def gaussian_grid(
    xs: Side,
    ys: Side,
    squared_bandwidth: float | None,
    positions: Sequence[int],
    from_positions: Callable[[list[float]], float],
    *,
    debiased: bool,
) -> np.ndarray:
    """CKA of Gaussian kernels, of a bandwidth that is given or follows from order statistics."""
    layers = LayerTiles(xs, ys, "euclidean")
    if squared_bandwidth is not None:
        scales = [squared_bandwidth] * layers.count
    else:
        scales = [from_positions(found) for found in layers.order_statistics(positions)]
    factors = [-1 / (2 * scale) if scale > 0 else float("nan") for scale in scales]
    middle = [
        float(torch.exp(s * factor).mean())
        for s, factor in zip(layers.samples, factors, strict=True)
    ]

    def kernel(layer: int, values: Tensor) -> None:
        values.mul_(factors[layer]).exp_().sub_(middle[layer])

    sums = layers.sums(kernel, apart=debiased)
    if debiased:
        return layers.grid(sums.hollow())
    return layers.grid(sums.centred(1 - torch.tensor(middle).to(sums.rows)))
