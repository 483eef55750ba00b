"""Every measure reproduces the reference values on every pair, alone and as part of a grid."""

from __future__ import annotations

import functools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.measures import Features, MeasureWarning, compute_grid, get_measure, measure

HERE = Path(__file__).parent / "similarity"
REFERENCE = json.loads((HERE / "values.json").read_text(encoding="utf-8"))["measures"]
PAIRS = sorted(next(iter(REFERENCE.values()))["values"])

#: No definition that is not random; needs persistent homology.
NOT_OFFERED = {"svcca_platonic_dim10", "rtd"}
#: The reference has no value, the measure has: its closed form is tested in the unit tests.
NO_REFERENCE = {"rsa_sqeuclidean_whitened_pearson"}
NAMES = sorted(set(REFERENCE) - NOT_OFFERED - NO_REFERENCE)

#: Distances of arrays that a rotation maps onto each other: exactly 0, where the reference's
#: `sqrt(a + b - 2 nuc)` leaves the root of its rounding.
EXACTLY_ZERO = {
    ("procrustes_size_and_shape", "p05_rotated_300x40"),
    ("procrustes_uncentered", "p17_identical_200x24"),
    ("permutation_procrustes_raw", "p17_identical_200x24"),
}


@functools.cache
def features(side: str, pair: str, dtype: torch.dtype = torch.float64) -> Features:
    with np.load(HERE / "pairs.npz") as arrays:
        return Features(arrays[f"{side}/{pair}"], dtype=dtype)


#: The reference has no value where rows do not fill the batches; here the last batch is smaller.
SMALLER_BATCH = {("cka_minibatch50", "p03_wide_60x300_200"), ("cka_minibatch50", "p12_tiny_5x3_4")}


def agrees(value: float, reference: float | None, tolerance: float) -> bool:
    if reference is None:
        return math.isnan(value)
    return abs(value - reference) <= tolerance * max(1.0, abs(reference))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_reference(name: str, pair: str) -> None:
    x, y = features("X", pair), features("Y", pair)
    reference = REFERENCE[name]["values"][pair]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasureWarning)  # p03 has n < d on purpose
        value = measure(x, y, name)
    if (name, pair) in SMALLER_BATCH:
        assert reference is None
        assert math.isfinite(value)
        return
    if (name, pair) in EXACTLY_ZERO:
        assert reference < 1e-5
        reference = 0.0
    assert agrees(value, reference, 1e-6), f"{value!r}, reference {reference!r}"


@pytest.mark.parametrize("name", [n for n in NAMES if get_measure(n).grid is not None])
def test_fast_path_over_all_pairs_gives_the_reference(name: str) -> None:
    for pair in PAIRS:
        if (name, pair) in SMALLER_BATCH:
            continue
        x, y = features("X", pair), features("Y", pair)
        value = compute_grid(get_measure(name), [x], [y])[0, 0]
        reference = REFERENCE[name]["values"][pair]
        assert agrees(value, reference, 1e-6), f"{pair}: {value!r}, reference {reference!r}"


@pytest.mark.parametrize(
    "name", ["cka", "cka_biased", "cka_rbf_median_offdiag", "bures", "svcca_099", "mutual_knn"]
)
def test_float32_agrees_to_single_precision(name: str) -> None:
    reference = REFERENCE[
        {
            "cka": "cka_linear_debiased",
            "cka_biased": "cka_linear",
            "bures": "procrustes_similarity",
            "mutual_knn": "mutual_knn_cosine_k10",
        }.get(name, name)
    ]["values"]
    for pair in PAIRS:
        x, y = (features(side, pair, torch.float32) for side in "XY")
        value = get_measure(name)(x, y)
        # A neighbour may change places with another that is equally near in single precision.
        assert agrees(value, reference[pair], 1e-4 if name == "mutual_knn" else 1e-5), pair


def test_every_other_name_of_the_reference_is_offered() -> None:
    assert len(NAMES) == 51
    for name in [*NAMES, *NO_REFERENCE]:
        assert get_measure(name).definition
