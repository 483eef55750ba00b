"""A sweep that the machine cannot hold is refused with the numbers and what takes less."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim import compare_arrays
from repsim.core import Activations, ResourceError
from repsim.core.activations import ArraySource
from repsim.measures import (
    FeatureCache,
    Features,
    Statistics,
    as_features,
    get_measure,
    plan_sweep,
    unit_rows,
)
from repsim.measures.cka_by_units import cheaper_by_units
from repsim.measures.cka_jackknife import cka_replicates
from repsim.measures.distance_grids import LayerTiles
from repsim.measures.layer_blocks import OPEN_BYTES, in_blocks
from repsim.measures.limits import HELD_BYTES
from repsim.measures.memory import unit_bytes

RNG = np.random.default_rng(0)


def test_only_nulls_over_pairs_grow_with_the_square_of_the_rows() -> None:
    for name in ("cka", "procrustes", "svcca", "mutual_knn", "rsa", "cka_rbf"):
        sizes = [
            unit_bytes(n, [64] * 4, [get_measure(name)], Statistics.off())[0]
            for n in (100_000, 200_000)
        ]
        assert sizes[1] <= 2.01 * sizes[0], name
    assert unit_bytes(100_000, [64] * 4, [get_measure("cka")], Statistics())[0] < 8e9
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


def layered(name: str, seed: int, shared: np.ndarray, *, documents: bool) -> Activations:
    rng = np.random.default_rng(seed)
    n, d = shared.shape
    layers = [shared + (1 + i) * rng.normal(size=(n, d)) + 3 for i in range(3)]
    return Activations.from_arrays(
        name,
        [layer.astype(np.float32) for layer in layers],
        documents=[str(i // 5) for i in range(n)] if documents else (),
        covariates={"log_length": rng.normal(size=n)},
    )


@dataclasses.dataclass(frozen=True)
class Copies:
    """A source that gives memory of its own each time, as files do."""

    source: ArraySource

    def read(self, point: str, layer: int) -> np.ndarray:
        return self.source.read(point, layer).copy()


@pytest.mark.parametrize("documents", [False, True])
def test_layers_that_are_read_again_give_what_layers_in_memory_give(
    monkeypatch: pytest.MonkeyPatch, documents: bool
) -> None:
    monkeypatch.setattr("repsim.measures.cells.FLOAT64_ROWS", 100)
    shared = np.random.default_rng(0).normal(size=(160, 16))
    sides = [layered(name, i, shared, documents=documents) for i, name in enumerate("ab", 1)]
    names = ["cka", "unit_correlation", "procrustes", "mutual_knn"]
    names += [] if documents else ["permutation", "svcca", "r2", "rsa", "cka_rbf"]
    few = Statistics(permutations=5, permutations_expensive=2, groups=5, groups_expensive=5)
    (unit,) = plan_sweep(sides, names, point="", statistics=few)
    # Three of six layers at a time: two rows and a column.
    held, paged = (
        FeatureCache(),
        FeatureCache(max_bytes=3 * 160 * 16 * 8 * HELD_BYTES // OPEN_BYTES),
    )
    whole = unit_rows(unit, held)
    if not documents:  # as of files; the user's own arrays are left as they are
        a, b = (dataclasses.replace(side, source=Copies(side.source)) for side in (unit.a, unit.b))
        unit = dataclasses.replace(unit, a=a, b=b)
    for row, same in zip(unit_rows(unit, paged), whole, strict=True):
        assert set(row) == set(same)
        for key, value in same.items():
            if isinstance(value, float):
                assert row[key] == pytest.approx(value, abs=1e-6, nan_ok=True), (same, key)
            else:
                assert row[key] == value
    assert sum(f.held_bytes for f in held._kept.values()) > 12 * 160 * 16 * 4
    assert all(f.held_bytes < 4 * 160 * 16 for f in paged._kept.values())


def test_only_a_few_layers_are_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsim.measures.layer_blocks.OPEN_BYTES", 3 * 50 * 4 * 8)
    arrays = [RNG.normal(size=(50, 4)) for _ in range(8)]
    layers = [Features(array).paged(lambda array=array: array) for array in arrays]
    most = 0

    def watched(xs: Sequence[Features], ys: Sequence[Features], mask: object) -> np.ndarray:
        nonlocal most
        values = np.array([[float((x.centered * y.centered).sum()) for y in ys] for x in xs])
        most = max(most, sum(f.kept_bytes > 50 * 4 for f in layers))
        return values

    measure, half = get_measure("procrustes"), (layers[:4], layers[4:])
    found = in_blocks(measure, watched, *half)
    centred = [array - array.mean(axis=0) for array in arrays]
    np.testing.assert_allclose(
        found, [[(a * b).sum() for b in centred[4:]] for a in centred[:4]], atol=1e-9
    )
    assert most == 3
    assert np.isnan(in_blocks(measure, watched, *half, np.eye(4, dtype=bool))[0, 3])


@pytest.mark.parametrize("documents", [False, True])
def test_replicates_of_cka_by_units_are_those_by_pairs_of_rows(
    monkeypatch: pytest.MonkeyPatch, documents: bool
) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), rng.integers(1, 7, 40)) if documents else None
    n = 150 if labels is None else len(labels)
    shared = rng.normal(size=(n, 6))
    xs, ys = (
        [Features(shared[:, :d] + rng.normal(size=(n, d)) + 5, documents=labels) for d in widths]
        for widths in ((6, 4), (5, 6))
    )
    wanted = np.array([[True, False], [True, True]])
    found = []
    for by_units in (True, False):
        monkeypatch.setattr(
            "repsim.measures.cka_jackknife.cheaper_by_units", lambda *_, by=by_units: by
        )
        found.append(cka_replicates(xs, ys, wanted))
    np.testing.assert_allclose(*found, atol=1e-10)
    assert np.isnan(found[0][:, 0, 1]).all()
    assert cheaper_by_units(xs, ys, 4)


LIMITED = """
import resource, sys
import numpy as np
from repsim import compare_arrays
from repsim.core import RepsimError
from repsim.core.machine import memory_left
from repsim.measures import Statistics, get_measure
from repsim.measures.memory import unit_bytes

rng = np.random.default_rng(0)
arrays = {name: [rng.normal(size=(3000, 16)).astype(np.float32)] for name in "ab"}
few = Statistics(permutations=5, covariates=())
needed = unit_bytes(3000, [16, 16], [get_measure("rsa")], few)[0]
# Libraries that are loaded late take address space of their own.
compare_arrays({name: [own[0][:300]] for name, own in arrays.items()}, ["rsa"], permutations=5)
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for spare in (needed // 2, needed + (64 << 20)):
    resource.setrlimit(resource.RLIMIT_AS, (pages + spare, -1))
    try:
        print(len(compare_arrays(arrays, ["rsa"], permutations=5)), "row")
    except RepsimError as error:
        print(type(error).__name__, error.exit_code, error)
    except MemoryError as error:
        print(spare, needed, error)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
for name in "ab":  # 123 MB with centred rows
    layers = {f"layer_{i}": rng.normal(size=(3000, 64)).astype(np.float32) for i in range(40)}
    np.savez(f"{sys.argv[1]}/{name}.npz", **layers)
dumps = {name: f"{sys.argv[1]}/{name}.npz" for name in "ab"}
some = {"layers": "matched", "permutations": 0}
compare_arrays({name: [own[0][:300]] for name, own in arrays.items()}, ["procrustes"], **some)
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (100 << 20), -1))
for memory in (None, 8 << 20):
    try:
        print(len(compare_arrays(dumps, ["procrustes"], memory=memory, **some)), "rows")
    except RepsimError as error:
        print(type(error).__name__, error.exit_code, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_limit_of_the_shell_is_refused_with_numbers_and_the_plan_fits_what_it_states(
    tmp_path: Path,
) -> None:
    variables = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True,
        env=variables, timeout=300,
    )  # fmt: skip
    refused, computed, dumps, read_again = done.stdout.splitlines()
    assert refused.startswith("ResourceError 5 'rsa' at 3,000 rows and 2 layers takes about"), done
    assert "GB are left" in refused
    assert computed == "1 row", done.stderr
    assert dumps.startswith("ResourceError 5 'procrustes' at 3,000 rows and 80 layers"), done
    assert read_again == "40 rows"
