"""A sweep that the machine cannot hold is refused with the numbers and what takes less."""

import numpy as np
import pytest
import torch

from repsim.core import ResourceError
from repsim.measures import Statistics, as_features, compare_arrays, get_measure
from repsim.measures.distance_grids import LayerTiles
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("repeated", [False, True])
def test_medians_are_counted_exactly_where_too_many_pairs_would_be_collected(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, repeated: bool
) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(1_100, 8)) for _ in range(2))
    if repeated:  # many distances of exactly 0
        x[:900] = x[0]
    layers = [as_features(torch.tensor(a, dtype=dtype)) for a in (x, y)]
    tiles = LayerTiles([layers[0]], [layers[1]], "euclidean")
    positions = [0, 302_225, 302_226, 604_449]
    collected = tiles.order_statistics(positions)
    monkeypatch.setattr("repsim.measures.distance_grids.COLLECTED", 1_000)
    assert tiles.order_statistics(positions) == collected
