"""Is unit i of one model unit i of the other? Told from the weights.

Units of models that were initialised apart are in arbitrary order, so that namesakes are held
against all permutations (moments of Mantel 1967): an exact test of a common origin.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from repsim.mergeability.features.layout import Place

if TYPE_CHECKING:
    import torch

#: Most units of one block that are compared, evenly spaced.
MOST_UNITS = 512
#: Most entries of the residual stream by which attention heads are compared, evenly spaced.
MOST_WIDTH = 512
#: Standard deviations above chance from which a common origin is taken as found (p < 1e-9).
FOUND = 6.0
Matrix = NDArray[np.float64]


@dataclasses.dataclass
class UnitProducts:
    """Inner products of the units of some models in one block, summed over weights."""

    products: dict[tuple[int, int], Matrix]
    squares: Matrix

    def similarity(self, i: int, j: int) -> Matrix:
        """Cosines of all pairs of units of two models; 0 for a unit without weights."""
        scale = np.sqrt(np.outer(self.squares[i], self.squares[j]))
        return np.divide(
            self.products[i, j], scale, out=np.zeros_like(scale), where=scale > 0
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UnitMatch:
    """How far units of two models agree with their namesakes, over all blocks."""

    match: float  # share of units nearest to their namesake, beyond chance
    score: float  # similarity of namesakes between that of any two (0) and of nearest ones (1)
    deviations: float  # of the namesakes' similarity, in standard deviations under a random order


def evenly_spaced(size: int, most: int) -> NDArray[np.int64]:
    """At most so many numbers below a size, from the first to the last."""
    if size <= most:
        return np.arange(size)
    return np.round(np.linspace(0, size - 1, most)).astype(np.int64)


def units_of(place: Place, tensor: torch.Tensor, sizes: Mapping[str, int]) -> torch.Tensor | None:
    """The units or heads that a tensor describes, one a row, in float32."""
    weight = place.stored
    if weight is not None and weight.roles == ("gate", "up"):
        halves = [spaced_slices(half, 0, MOST_UNITS) for half in tensor.chunk(2)]
        return rearrange(halves, "part mlp resid -> mlp (part resid)")
    if weight is None or len(weight.roles) != 1 or len(place.shape) != 2:
        return None
    top = weight.stored.replace("(", " ( ").split()
    role = weight.roles[0]
    if role in ("gate", "up") and sorted(top) == ["mlp", "resid"]:
        axis = top.index("mlp")
        chosen = spaced_slices(tensor, axis, MOST_UNITS)
        return chosen if axis == 0 else chosen.T
    if role == "o":
        axis = 0 if weight.stored.startswith("resid") else 1
        chosen = spaced_slices(tensor, axis, MOST_WIDTH)
        known = {axis: sizes[axis] for axis in ("kv", "q", "dim")}
        found: torch.Tensor = rearrange(chosen, f"{weight.stored} -> (kv q) (dim resid)", **known)
        return found
    return None


def spaced_slices(tensor: torch.Tensor, axis: int, most: int) -> torch.Tensor:
    """Evenly spaced rows or columns, in float32."""
    import torch

    size = tensor.shape[axis]
    if size > most:
        index = torch.from_numpy(evenly_spaced(size, most)).to(tensor.device)
        tensor = tensor.index_select(axis, index)
    return tensor.to("cpu", torch.float32)


def add_units(known: UnitProducts | None, rows: Sequence[torch.Tensor]) -> UnitProducts:
    """Add the inner products over one weight to those of its block."""
    products = {
        (i, j): (rows[i] @ rows[j].T).double().numpy()
        for i, j in itertools.combinations(range(len(rows)), 2)
    }
    squares = np.stack([row.square().sum(1).double().numpy() for row in rows])
    if known is None:
        return UnitProducts(products, squares)
    added = {pair: known.products[pair] + product for pair, product in products.items()}
    return UnitProducts(added, known.squares + squares)


def match_units(blocks: Sequence[Matrix]) -> UnitMatch:
    """Compare namesakes with all other units, block by block."""
    if not blocks:
        return UnitMatch(math.nan, math.nan, math.nan)
    each = [_match_block(block) for block in blocks]
    match, score, deviations = (
        np.array([getattr(found, name) for found in each])
        for name in ("match", "score", "deviations")
    )
    known = deviations[~np.isnan(deviations)]
    combined = float(known.sum()) / math.sqrt(len(known)) if len(known) else math.nan
    return UnitMatch(float(match.mean()), float(score.mean()), combined)


def _match_block(similarity: Matrix) -> UnitMatch:
    units = len(similarity)
    if units < 2:
        return UnitMatch(math.nan, math.nan, math.nan)
    own = np.diag(similarity)
    # A unit that is as near to another one as to its namesake counts as matched.
    nearest = similarity.max(1), similarity.max(0)
    best = float(np.mean([own >= each for each in nearest]))
    match = (best - 1 / units) / (1 - 1 / units)
    mean = float(similarity.mean())
    room = float(np.mean(nearest)) - mean
    score = (float(own.mean()) - mean) / room if room > 0 else math.nan
    centred = similarity - similarity.mean(0) - similarity.mean(1)[:, None] + mean
    spread = math.sqrt(float(np.square(centred).sum()) / (units - 1))
    deviations = float(own.sum() - units * mean) / spread if spread > 0 else math.nan
    return UnitMatch(match, score, deviations)
