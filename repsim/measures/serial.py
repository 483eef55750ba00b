"""Rows that follow on one another although no documents are known: noticed, and said.

In random order the sum of products of neighbours has a mean and variance that follow from the Gram
matrix; beyond them on both sides, shuffles of single rows reject a true null far too often.
"""

from __future__ import annotations

import math

import torch

from repsim.measures.features import Features

#: So many rows are looked at.
MOST_ROWS = 2000
#: A lag-1 correlation under this does not matter, however significant.
LEAST_CORRELATION = 0.1
#: Standard deviations beyond what a random order gives.
BEYOND = 4.0
#: Blocks are so many times as long as the time in which the dependence decays.
DECAYS = 4


def lag_one(x: Features) -> tuple[float, float]:
    """Correlation of each row with the next one, and its distance from a random order in sds."""
    rows = x.rows_at(slice(MOST_ROWS))
    rows = rows - rows.mean(dim=0)
    n, squares = len(rows), rows.square().sum(dim=1)
    total = float(squares.sum())
    if total == 0 or n < 5:
        return 0.0, 0.0
    found = float((rows[1:] * rows[:-1]).sum()) / total
    covariance = rows.mT @ rows if x.d < n else rows @ rows.mT
    apart = float(covariance.square().sum() - squares.square().sum()) / (n * (n - 1))
    spread = math.sqrt(n * apart) / total
    return found, (found + 1 / n) / spread if spread > 0 else 0.0


def runs_on(x: Features, y: Features) -> bool:
    """Whether documents are equal blocks across whose ends rows of both sides are alike."""
    if x.documents is None or not bool((x.documents.diff() >= 0).all()):
        return False
    sizes = torch.bincount(x.documents)
    if len(sizes) < 2 or not bool((sizes[:-1] == sizes[0]).all() and sizes[-1] <= sizes[0]):
        return False
    return all(
        r > LEAST_CORRELATION and beyond > BEYOND
        for r, beyond in (side.remember("across blocks", _across) for side in (x, y))
    )


def _across(x: Features) -> tuple[float, float]:
    """Correlation of the last row of a document with the first of the next; sds beyond chance."""
    assert x.documents is not None
    last = torch.nonzero(x.documents.diff() != 0).squeeze(1)
    rows, squares = x.centered, x.gram_diagonal
    found = float((rows[last].double() * rows[last + 1]).sum(dim=1).mean() / squares.mean())
    covariance = rows.double() @ rows.double().mT if x.d >= x.n else sum(
        (part.mT @ part for part in map(torch.Tensor.double, rows.split(MOST_ROWS))),
        squares.new_zeros(x.d, x.d),
    )  # fmt: skip
    apart = float(covariance.square().sum() - squares.square().sum()) / (x.n * (x.n - 1))
    spread = math.sqrt(apart / len(last)) / float(squares.mean())
    return found, found / spread if spread > 0 else 0.0


def serial_note(x: Features, y: Features) -> str:
    """What to say where rows of both sides depend on the rows before them; else empty."""
    found = [side.remember("lag one", lag_one) for side in (x, y)]
    if not all(r > LEAST_CORRELATION and beyond > BEYOND for r, beyond in found):
        return ""
    strongest = min(max(r for r, _ in found), 0.98)
    length = math.ceil(DECAYS * (1 + strongest) / (1 - strongest))
    shown = " and ".join(f"{r:.2f}" for r, _ in found)
    return (
        f"each row is like the one before it on both sides (lag-1 correlation {shown}): p is too "
        f"small and the interval too narrow; give documents, or blocks(n, {length}) as documents"
    )
