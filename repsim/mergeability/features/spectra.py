"""Singular subspaces and spectra of weight matrices, on a sample that is always the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from repsim.mergeability.features.layout import Place
from repsim.mergeability.features.units import spaced_slices

if TYPE_CHECKING:
    import torch

#: Most rows and columns of a piece.
MOST_SIDE = 512
#: Blocks of a shallow model, of which all are taken.
SHALLOW = 6
#: Share of the squared norm that the leading subspace holds, unless that needs more than one in
#: `FEWEST` directions: larger subspaces overlap by chance alone.
ENERGY, FEWEST = 0.9, 8


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Leading singular subspaces of one piece of a matrix, and two numbers of its spectrum."""

    left: torch.Tensor
    right: torch.Tensor
    stable_rank: float
    effective_rank: float


def sampled_layers(layers: int) -> frozenset[int]:
    """Blocks whose matrices are taken: all of a shallow model, else the middle of each third."""
    if layers <= SHALLOW:
        return frozenset(range(layers))
    return frozenset(int(layers * centre) for centre in (1 / 6, 1 / 2, 5 / 6))


def piece_of(place: Place, tensor: torch.Tensor) -> torch.Tensor:
    """Evenly spaced rows and columns of a matrix, in float32."""
    for axis in range(len(place.shape)):
        tensor = spaced_slices(tensor, axis, MOST_SIDE)
    return tensor


def spectrum(matrix: torch.Tensor) -> Spectrum | None:
    """Leading subspaces and ranks of a matrix; None if it is zero."""
    import torch

    wide = matrix.shape[0] <= matrix.shape[1]
    short = matrix if wide else matrix.T
    values, vectors = torch.linalg.eigh(short @ short.T)
    values, vectors = values.double().clamp_min(0).flip(0), vectors.flip(1)
    energy = float(values.sum())
    if energy == 0:
        return None
    shares = values / energy
    side = len(values)
    needed = int((shares.cumsum(0) < ENERGY).sum()) + 1
    # Directions that carry nothing but rounding have no subspace on the other side.
    real = int((shares > 1e-6).sum())
    kept = max(1, min(needed, side // FEWEST, real))
    inner = vectors[:, :kept]
    outer = torch.linalg.qr(short.T @ inner)[0]
    positive = shares[shares > 0]
    entropy = float(-(positive * positive.log()).sum())
    left, right = (inner, outer) if wide else (outer, inner)
    return Spectrum(left, right, 1 / float(shares[0]) / side, math.exp(entropy) / side)


def subspace_overlap(a: Spectrum, b: Spectrum) -> float:
    """Overlap of the leading subspaces beyond chance, mean over both sides of the matrix."""
    sides = []
    for one, other in ((a.left, b.left), (a.right, b.right)):
        small, large = sorted((one.shape[1], other.shape[1]))
        shared = float((one.T @ other).double().square().sum()) / small
        chance = large / one.shape[0]
        sides.append((shared - chance) / (1 - chance) if chance < 1 else math.nan)
    return sum(sides) / 2


def gap(values: Sequence[float]) -> float:
    """Absolute difference of the logarithms of two numbers."""
    return abs(math.log(values[0] / values[1]))
