"""Arrays of whatever origin compared: nothing is invented, what is malformed is named."""

import numpy as np
import pytest
import torch

from repsim import compare_arrays
from repsim.core import InputError, UsageError
from repsim.reports.comparison_findings import _notes


def test_arrays_from_anywhere_are_compared_with_nothing_invented() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    arrays = {"a": [x, x + rng.normal(size=x.shape)], "b": [torch.tensor(2 * x)]}
    table = compare_arrays(arrays, ["cka", "procrustes"], permutations=19)
    first = next(table.rows())
    assert first["value"] == pytest.approx(1.0)
    unknown = ("language_a", "language_b", "point", "partial")
    assert [first[key] for key in unknown] == [None] * 4
    assert all(row["p_value"] is not None and row["ci_low"] is not None for row in table.rows()
               if row["measure"] == "cka")  # fmt: skip
    assert table.grid("a", "b", measure="cka").values.shape == (2, 1)
    assert table.plot.heatmap(measure="cka") is not None
    by_document = compare_arrays(
        arrays, ["cka"], permutations=19, documents=[str(i // 4) for i in range(60)]
    )
    assert by_document.info["statistics"]["interval_unit"] == "documents"
    assert list(by_document.rows())[1]["ci_low"] != list(table.rows())[1]["ci_low"]


def test_malformed_arrays_are_refused_by_name() -> None:
    x = np.ones((6, 2))
    with pytest.raises(InputError, match=r"'b' needs layers of shape \[rows, units\].*\[6\]"):
        compare_arrays({"a": [x], "b": [x[:, 0]]})
    with pytest.raises(InputError, match="'a' has 6 rows in layer 0 and 5 in layer 1"):
        compare_arrays({"a": [x, x[:5]], "b": [x]})
    with pytest.raises(InputError, match="a and b hold 6 and 5 sentences"):
        compare_arrays({"a": [x], "b": [x[:5]]})
    with pytest.raises(InputError, match="a, layer 0, are NaN .* the first is 'third'"):
        compare_arrays(
            {"a": [np.where(np.arange(6)[:, None] == 2, np.nan, x)], "b": [x]},
            names=["first", "second", "third", "fourth", "fifth", "sixth"],
        )
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_arrays({})


def test_one_model_alone_is_compared_with_itself() -> None:
    rng = np.random.default_rng(0)
    table = compare_arrays({"a": [rng.normal(size=(40, 6)) for _ in range(3)]}, permutations=0)
    grid = table.grid("a", "a", measure="cka").values
    assert grid.shape == (3, 3)
    assert np.allclose(np.diag(grid), 1)
    assert np.allclose(grid, grid.T)
    assert table.plot.heatmap(measure="cka") is not None


def test_warnings_that_differ_in_numbers_alone_are_told_once() -> None:
    x = np.random.default_rng(0).normal(size=(60, 8))
    layers = [x.copy() for _ in range(3)]
    for layer, size in zip(layers, (10, 20, 40), strict=True):
        layer[7] *= size
    table = compare_arrays({"a": layers, "b": layers}, ["cka"], permutations=0)
    (told,) = [note for note in _notes(table) if "rows hold" in note]
    assert told.startswith("1 of 60 rows hold up to 9")
    assert told.endswith(
        "of the two sides: the value is theirs, so leave them out or use mutual_knn"
    )
    assert _notes(table)[told] == [("CKA (debiased)", 9)]
