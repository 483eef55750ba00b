"""What a value must be read with: too few rows for it, rows that outweigh the others, repeats.

A few long rows decide every sum of products, on unrelated data too if they are long on both sides;
repeated ones are neighbours whatever the representations, and are not independent.
"""

from __future__ import annotations

import numpy as np
import torch

from repsim.core.measure import Measure, Rung
from repsim.measures.documents import staying
from repsim.measures.features import Features

#: Share of the variance at which one row is too much, and the same as a multiple of its fair share.
HEAVY, HEAVY_TIMES_FAIR = 0.05, 10
#: Share of rows that may repeat others in silence.
REPEATS = 0.01
#: Share of rows in documents that cannot change places, beyond which shuffles are no null.
MOST_STAYING = 0.75


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


def document_cautions(chosen: Measure, labels: np.ndarray) -> list[str]:
    """What documents do to a measure whose null moves them, or that counts pairs within them."""
    if chosen.by_document is not None:
        return []
    found = []
    count, share = staying(labels)
    if share > MOST_STAYING:
        found.append(
            f"no null: documents with {100 * share:.0f} % of the rows have none of like length "
            "to change places with; use cka or unit_correlation"
        )
    elif count:
        found.append(
            f"{count} documents ({100 * share:.0f} % of the rows) have none of like length and "
            "stay in place in the shuffles: the null is too high rather than too low"
        )
    pairs = chosen.matrix is not None or chosen.rung is Rung.L4
    if pairs and not chosen.leaves_out_documents:
        found.append(
            "pairs of sentences of one document count: likeness within documents lifts the value "
            "(cka and rsa leave them out)"
        )
    return found


def statistics_cautions(chosen: Measure, x: Features, ends: np.ndarray | None) -> list[str]:
    """What is only approximate beside a tested value, and why an interval is missing."""
    documents = 0 if x.documents is None else len(torch.unique(x.documents))
    found = [chosen.approximate(documents)] if chosen.approximate else []
    if chosen.no_interval:
        found.append(f"no interval: {chosen.no_interval}")
    elif ends is None:
        found.append(f"no interval: too few rows or documents ({x.n} and {documents or 'none'})")
    elif not np.isfinite(ends).all():
        found.append(
            f"no interval: without one of {documents} documents of unlike length (or of {x.n} rows)"
            " the rest has no value"
        )
    return [note for note in found if note]


def row_cautions(chosen: Measure, x: Features, y: Features) -> list[str]:
    """Rows of this data that decide the value, or make it look more certain than it is."""
    found = []
    if chosen.rung is not Rung.L4:
        sides = [side.remember("heavy rows", _heavy) for side in (x, y)]
        rows = sorted({row for heavy, _ in sides for row in heavy})
        if rows:
            shares = " and ".join(f"{100 * share:.0f} %" for _, share in sides)
            found.append(
                f"{len(rows)} of {x.n} rows (the first is {rows[0]}) hold {shares} of "
                "the variance of the two sides: the value is theirs, so leave them out or use "
                "mutual_knn"
            )
    repeats = _repeats_of_both(x, y)
    if repeats > max(1.0, REPEATS * x.n):
        found.append(
            f"{repeats} of {x.n} rows repeat another on both sides: p and interval take them for "
            "independent, so leave repeats out"
        )
    return found


def _repeats_of_both(x: Features, y: Features) -> int:
    """How many rows repeat another on both sides; none where one side repeats none."""
    if not all(side.remember("repeats", _repeats) for side in (x, y)):
        return 0
    return x.n - len(torch.unique(torch.stack([x.row_codes, y.row_codes], dim=1), dim=0))


def _repeats(x: Features) -> int:
    return x.n - len(torch.unique(x.row_codes))


def _heavy(x: Features) -> tuple[list[int], float]:
    """Rows that hold too much of the variance, and how much they hold together."""
    shares = x.gram_diagonal / x.gram_diagonal.sum().clamp(min=1e-300)
    rows = torch.nonzero(shares > max(HEAVY, HEAVY_TIMES_FAIR / x.n)).squeeze(1)
    return rows.tolist(), float(shares[rows].sum())
