"""Every registered measure keeps what it declares; the kit notices one that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from repsim.core import Invariance, Measure, Rung
from repsim.measures import get_measure, list_measures
from repsim.testing.measure_checks import check_measure, measure_checks

ALL = [(m, name, check) for m in list_measures() for name, check in measure_checks(m)]


@pytest.mark.parametrize(
    ("measure", "name", "check"), ALL, ids=[f"{m.name}-{name}" for m, name, _ in ALL]
)
def test_measure_keeps_its_contract(measure: Measure, name: str, check: Callable[[], None]) -> None:
    check()


def lying(name: str, **fields: object) -> Measure:
    return dataclasses.replace(get_measure(name), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("liar", "complaint"),
    [
        (
            lying(
                "cka", invariances=get_measure("cka").invariances | {Invariance.INVERTIBLE_LINEAR}
            ),
            "blind to invertible linear: declared, but changes the value",
        ),
        (
            lying("cca", invariances=get_measure("cca").invariances - {Invariance.ORTHOGONAL}),
            "sees orthogonal: not declared, but changes the value",
        ),
        (lying("cka", identity_value=0.9), "identity: .* declared 0.9"),
        (lying("cka", range=(0.5, 1.0)), "range: .* is under 0.5"),
        (lying("r2", symmetric=True), "symmetry: declared symmetric"),
        (lying("cka", symmetric=False), "symmetry: declared asymmetric"),
        (lying("cka_biased", null_value=0.0), "null: independent data give"),
        (lying("cka", direction="distance"), "noise: rising noise gives"),
        (lying("hard_match", rung=Rung.L2), "rung: rung Rung.L2 is blind to"),
        (lying("cka", min_samples=3), "least rows"),
        (lying("unit_correlation", needs_equal_width=False), "widths"),
        (lying("mutual_knn", undefined_on_constant=True), "degenerate input: constant input gives"),
        (lying("cka", grid=get_measure("cka_biased").grid), "grid equals pairs: the grid has"),
        (lying("procrustes", cost="cheap"), "cost: declared cheap, but every pair needs .*svd"),
        (lying("hard_match", cost="cheap"), "cost: declared cheap, but .* an assignment"),
        (
            lying("cka", pair_matrix=get_measure("cka_biased").pair_matrix),
            "fast paths: the fast null is off",
        ),
        (
            lying("cka_biased", left_out=get_measure("cka").left_out),
            "fast paths: the closed jackknife is off",
        ),
        (lying("cka", function=lambda x, y: x.n / (x.d + y.d)), "identity"),
        (lying("cka", definition=""), "description: 'definition' is empty"),
    ],
)
def test_the_kit_notices_a_wrong_declaration(liar: Measure, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_measure(liar)


def test_the_kit_passes_an_honest_measure_that_is_not_registered() -> None:
    check_measure(dataclasses.replace(get_measure("cka"), name="mine"))


def test_a_square_root_is_no_decomposition() -> None:
    honest = get_measure("cka")
    rooted = dataclasses.replace(
        honest, function=lambda x, y: honest.function(x, y) + 0 * float(x.gram_diagonal.sqrt()[0])
    )
    check_measure(dataclasses.replace(rooted, grid=None, pair_matrix=None, left_out=None))
