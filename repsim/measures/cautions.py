"""What a value must be read with: too few rows for it, rows that outweigh the others, repeats.

From the shape alone: measures that are lifted by width, and neighbourhoods that are most of the
data. From the rows: a few long ones decide every sum of products, on unrelated data too if they are
long on both sides; repeated ones are neighbours whatever the representations, and are not
independent.
"""

from __future__ import annotations

import torch

from repsim.core.measure import Measure, Rung
from repsim.measures.features import Features

#: Share of the variance at which one row is too much, and the same as a multiple of its fair share.
HEAVY, HEAVY_TIMES_FAIR = 0.05, 10
#: Share of rows that may repeat others in silence.
REPEATS = 0.01


def caution(chosen: Measure, n: int, d1: int, d2: int) -> str:
    """Why a value at this shape says little, or an empty string."""
    limit, width, least = chosen.width_limit, max(d1, d2), chosen.least_rows
    if least is not None and n < least:
        return (
            f"'{chosen.name}' says little at n={n} rows: with k={chosen.params['k']} neighbours it "
            f"needs {least} (k is at most n - 2), or unrelated data look alike too"
        )
    if limit is None or width <= limit * n:
        return ""
    return (
        f"'{chosen.name}' says little at n={n} rows of width {width}: d/n = {width / n:.2g} "
        f"exceeds {limit:g}, so unrelated data look alike too"
    )


def row_cautions(chosen: Measure, x: Features, y: Features) -> list[str]:
    """Rows of this data that decide the value, or make it look more certain than it is."""
    found = []
    if chosen.rung is not Rung.L4:
        sides = [_heavy(side) for side in (x, y)]
        rows = torch.cat([heavy for heavy, _ in sides]).unique()
        if len(rows):
            shares = " and ".join(f"{100 * share:.0f} %" for _, share in sides)
            found.append(
                f"{len(rows)} of {x.n} rows (the first is {int(rows[0])}) hold {shares} of the "
                "variance of the two sides: the value is theirs; leave them out, or use mutual_knn"
            )
    codes = torch.stack([x.row_codes, y.row_codes], dim=1)
    repeats = x.n - len(torch.unique(codes, dim=0))
    if repeats > max(1.0, REPEATS * x.n):
        found.append(
            f"{repeats} of {x.n} rows repeat another on both sides: p and interval take them for "
            "independent; leave repeats out"
        )
    return found


def _heavy(x: Features) -> tuple[torch.Tensor, float]:
    """Rows that hold too much of the variance, and how much they hold together."""
    shares = x.gram_diagonal / x.gram_diagonal.sum().clamp(min=1e-300)
    rows = torch.nonzero(shares > max(HEAVY, HEAVY_TIMES_FAIR / x.n)).squeeze(1)
    return rows, float(shares[rows].sum())
