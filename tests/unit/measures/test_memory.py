"""A sweep that the machine cannot hold is refused with the numbers and what takes less."""

import numpy as np
import pytest

from repsim.core import ResourceError
from repsim.measures import Statistics, compare_arrays, get_measure
from repsim.measures.memory import unit_bytes

RNG = np.random.default_rng(0)


def test_only_nulls_over_pairs_grow_with_the_square_of_the_rows() -> None:
    for name in ("cka", "procrustes", "svcca", "mutual_knn", "rsa", "cka_rbf"):
        sizes = [
            unit_bytes(n, [64] * 4, [get_measure(name)], Statistics.off())[0]
            for n in (100_000, 200_000)
        ]
        assert sizes[1] <= 2.01 * sizes[0], name
    assert unit_bytes(100_000, [64] * 4, [get_measure("stress")], Statistics.off())[0] > 1e11


def test_what_does_not_fit_is_refused_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = {name: [RNG.normal(size=(1500, 8)).astype(np.float32)] for name in "ab"}
    monkeypatch.setattr("repsim.measures.memory.memory_left", lambda: 30_000_000)
    with pytest.raises(ResourceError, match="'rsa' at 1,500 rows and 2 layers takes about") as told:
        compare_arrays(arrays, ["unit_correlation", "rsa"], permutations=20)
    assert "0.0 GB are left" in str(told.value)
    assert "--limit" in str(told.value)
    assert told.value.exit_code == 5
    table = compare_arrays(arrays, ["unit_correlation"], permutations=0)
    assert len(table) == 1
