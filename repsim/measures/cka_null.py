"""Null of debiased CKA over all shuffles of rows: its moments in closed form, in O(n d^2).

Debiased CKA is the cosine of two U-centered matrices, and the rows of one are shuffled: a quadratic
assignment (Mantel 1967, Cancer Research 27). Rows that sum to zero make its mean 0 and its variance
`2 / (n (n - 3))`, whatever the data. The third moment follows from two sums of each side: over
triangles `a_ij a_jk a_ki` and over cubes `a_ij^3`; all other patterns of three pairs reduce to
them. The tail is that of the Pearson III (gamma) distribution with these three moments, as for the
RV coefficient (Kazi-Aoual, Hitier, Sabatier, Lebreton 1995, Computational Statistics and Data
Analysis 20; Josse, Pagès, Husson 2008, the same 53); it is exact for kernels of rank one.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.cka_by_units import effects_apart, sums_with_itself
from repsim.measures.features import Features, Side

#: Rows over which cubes are summed; of more, so many are drawn, the long ones more often.
CUBED = 2048
#: Sums over ordered triples of pairs, by how the pairs meet, out of half the cubes and the
#: triangles: three times one pair, twice one and one that touches it or not, triangle, star, path,
#: two that touch and one apart, three apart.
PATTERNS = np.array([[1, 0], [-6, 0], [3, 0], [0, 1], [4, 0], [6, -3], [-12, 3], [4, -1]])


def cka_moments(xs: Side, ys: Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and skewness of debiased CKA over all shuffles, `[xs, ys]` each."""
    n = xs[0].n
    spread = np.sqrt(2 / (n * (n - 3)))
    left, right = (
        np.stack([PATTERNS @ f.remember("third moments", _thirds) for f in side])
        for side in (xs, ys)
    )
    ways = _ways(n)
    third = 8 * (left[:, ways > 0] / ways[ways > 0]) @ right[:, ways > 0].T
    return np.zeros_like(third), np.full_like(third, spread), third / spread**3


def _ways(n: int) -> np.ndarray:
    """In how many ways three ordered pairs of n rows make each pattern."""
    two, three, four, five, six = (
        float(np.prod([n - i for i in range(count)], dtype=float)) for count in range(2, 7)
    )
    return np.array([two / 2, 3 * three, 3 * four / 4, three, four, 3 * four, 1.5 * five, six / 8])


def _thirds(x: Features) -> np.ndarray:
    """Half the cubes, and the triangles, of the U-centered matrix scaled to norm 1, `[2]`."""
    with x.opened():
        effects = effects_apart(x)
        own = sums_with_itself(x)
        diagonal = x.gram_diagonal - 2 * effects
        # The kernel without its row effects is A + diagonal.
        narrow = _narrow(x, effects)
        cube = ((narrow @ narrow) * narrow.mT).sum()
        triangles = cube - 3 * diagonal @ own - (diagonal**3).sum()
        return np.array([_cubes(x, effects) / 2, float(triangles)]) / float(own.sum()) ** 1.5


def _narrow(x: Features, effects: Tensor) -> Tensor:
    """A matrix whose powers have the traces of the kernel's without row effects, float64."""
    if x.n <= x.d + 2:
        return x.gram.double() - (rearrange(effects, "i -> i 1") + effects)
    rows, d = x.centered.double() if x.has_long_rows else x.centered, x.d
    # F M F' of the columns F = [rows, effects, 1] has the traces of M F'F.
    inner = effects.new_zeros(d + 2, d + 2)
    inner[:d, :d] = rows.mT @ rows
    inner[:d, d] = (rows.mT @ effects.to(rows.dtype)).double()
    inner[d + 1, :d] = -inner[:d, d]
    inner[d, d] = inner[d + 1, d + 1] = -effects.sum()
    inner[d, d + 1], inner[d + 1, d] = -x.n, -(effects @ effects)
    return inner


def _cubes(x: Features, effects: Tensor) -> float:
    """Sum of the cubes of the U-centered matrix; of many rows, unbiased from some of them."""
    generator = torch.Generator().manual_seed(0)
    if x.n <= CUBED:
        index, weight, pairs = torch.arange(x.n), effects.new_ones(x.n), 1
    else:
        share = (x.gram_diagonal / x.gram_diagonal.sum()).cpu()
        index = torch.multinomial(share, CUBED, replacement=True, generator=generator)
        weight, pairs = (1 / share[index]).to(effects), CUBED * (CUBED - 1)
    rows, some = x.centered[index.to(x.device)], effects[index.to(x.device)]
    kernel = (rows @ rows.mT).double() - (rearrange(some, "i -> i 1") + some)
    kernel[rearrange(index, "i -> i 1") == index] = 0
    return float(weight @ kernel**3 @ weight) / pairs
