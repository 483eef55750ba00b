"""Every measure says the same in the precision of a sweep as in float64, on data that is hard.

Hard: rows that are nearly parallel because all units have a common mean, or one has; one unit that
spreads more than all others, a few rows that are longer, rows that repeat, arrays that were stored
in fewer bits. What is translation-blind must not see the offset at all.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsim.core import Invariance, Measure
from repsim.measures import Features, compute_grid, list_measures
from repsim.measures.cells import FLOAT64_ROWS

TOLERANCE = 1e-6
ROWS = FLOAT64_ROWS + 50


def arrays(n: int, d: int, *, offset: float, rogue: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Two noisy views of four latent dimensions, on a grid of 2^-12 so that an offset is exact."""
    rng = np.random.default_rng(n + d)
    latent = rng.normal(size=(n, 4))
    made = []
    for _ in range(2):
        x = 0.7 * latent @ rng.normal(size=(4, d)) + rng.normal(size=(n, d))
        if rogue == "mean":
            x[:, 3] += 5000
        if rogue == "spread":
            x[:, 3] *= 50
        if rogue == "rows":
            x[:2] *= 100
        if rogue == "repeats":
            x[n // 2 : n // 2 + n // 10] = x[: n // 10]
        made.append(torch.from_numpy(np.round(x * 4096) / 4096 + offset).to(dtype))
    return made


def values(measure: Measure, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> list[float]:
    """Of the pair alone, and as a grid of a sweep."""
    left, right = Features(x, dtype=dtype), Features(y, dtype=dtype)
    return [measure(left, right), float(compute_grid(measure, [left], [right])[0, 0])]


def agree(a: float, b: float) -> bool:
    return bool(abs(a - b) <= TOLERANCE * max(1.0, abs(a)) or (np.isnan(a) and np.isnan(b)))


CASES = [
    (0.0, "", torch.bfloat16),
    (0.0, "", torch.float16),
    (1e2, "spread", torch.float32),
    (1e3, "rows", torch.float64),
    (1e4, "", torch.float32),
    (1e4, "mean", torch.float64),
    (0.0, "mean", torch.float32),
    (1e3, "repeats", torch.float32),
]


@pytest.mark.parametrize(("offset", "rogue", "stored"), CASES)
def test_a_sweep_agrees_with_float64(offset: float, rogue: str, stored: torch.dtype) -> None:
    x, y = arrays(ROWS, 12, offset=offset, rogue=rogue, dtype=stored)
    wrong = {}
    for measure in list_measures():
        exact = measure(Features(x), Features(y))
        found = values(measure, x, y, torch.float32)
        if not all(agree(exact, value) for value in found):
            wrong[measure.name] = (exact, *found)
    assert not wrong, f"float64, pair, grid: {wrong}"


#: Undetermined by definition where units outnumber rows.
ARBITRARY_WHEN_WIDE = {"cca_cv"}


@pytest.mark.parametrize("d", [12, 200])
@pytest.mark.parametrize("rogue", ["", "spread", "rows", "repeats"])
def test_float64_does_not_see_an_offset_that_a_measure_is_blind_to(d: int, rogue: str) -> None:
    near = arrays(90, d, offset=0.0, rogue=rogue, dtype=torch.float64)
    far = arrays(90, d, offset=2.0**14, rogue=rogue, dtype=torch.float64)
    for measure in list_measures():
        arbitrary = measure.name in ARBITRARY_WHEN_WIDE and d > 90
        if Invariance.TRANSLATION in measure.invariances and not arbitrary:
            for a, b in zip(
                values(measure, *near, torch.float64),
                values(measure, *far, torch.float64),
                strict=True,
            ):
                assert agree(a, b), f"{measure.name}: {a} and, off the origin, {b}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_cosine_neighbours_are_those_of_extended_precision(
    offset: float, dtype: torch.dtype
) -> None:
    x = arrays(300, 64, offset=offset, rogue="", dtype=torch.float64)[0]
    rows = x.numpy().astype(np.longdouble)
    assert np.finfo(np.longdouble).nmant > 60, "this machine has no extended precision"
    rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True))
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.sort(np.argsort(-cosines, axis=1)[:, :10], axis=1)
    found = Features(x, dtype=dtype).neighbours(10)
    assert found.weight is None
    np.testing.assert_array_equal(np.sort(found.near, axis=1), expected)


#: Batches or folds of neighbouring rows.
BY_ROW_ORDER = {
    "cka_minibatch",
    "stitch_permutation",
    "stitch_orthogonal",
    "stitch_linear",
    "cca_cv",
}


@pytest.mark.parametrize("name", [m.name for m in list_measures()])
def test_the_order_of_rows_does_not_matter_where_rows_tie(name: str) -> None:
    measure = next(m for m in list_measures() if m.name == name)
    if name in BY_ROW_ORDER:
        pytest.skip("takes consecutive rows together by definition")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, size=(2, 80, 4)) + 0.5
    orders = [rng.permutation(80) for _ in range(3)]
    found = [measure(x, y), *(measure(x[order], y[order]) for order in orders)]
    assert all(agree(found[0], value) for value in found), found
