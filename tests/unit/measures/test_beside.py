import dataclasses

import numpy as np
import pytest

from repsim import compare_arrays
from repsim.core import InputError, SimilarityTable, UsageError
from repsim.measures import (
    Features,
    Statistics,
    assess,
    between_models,
    blocks,
    difference,
    get_measure,
)
from repsim.measures.ceiling import split_halves
from repsim.measures.serial import lag_one, serial_note

CHEAP = Statistics(permutations=39, groups=8, groups_expensive=5, permutations_expensive=9)


def topics(seed: int, documents: int = 40, size: int = 4, own: float = 1.0) -> np.ndarray:
    """Rows around the meaning of their document, `[documents * size, 6]`."""
    rng = np.random.default_rng(seed)
    meaning = np.repeat(rng.normal(size=(documents, 6)), size, axis=0)
    return meaning + own * rng.normal(size=meaning.shape)


def test_one_value_gets_everything_that_a_sweep_gives_it() -> None:
    x = topics(0)
    y = x + np.random.default_rng(1).normal(size=x.shape)
    documents = np.arange(160) // 4
    length = np.random.default_rng(2).normal(size=160)
    found = assess(x, y, documents=documents, covariates=length, statistics=CHEAP)
    table = compare_arrays({"x": [x], "y": [y]}, documents=documents, permutations=39)
    row = next(table.rows())
    for name in ("value", "null_q95", "ci_low", "ci_high", "p_value", "ceiling", "across_halves"):
        assert getattr(found, name) == pytest.approx(row[name], abs=1e-5), name
    assert found.partial_ci_low < found.partial < found.partial_ci_high
    assert found.partial_p_value == pytest.approx(1 / 40)
    assert float(found) == found.value


def test_partial_null_holds_where_only_the_covariate_is_shared() -> None:
    rejected = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        length = rng.normal(size=(100, 1))
        x, y = (rng.normal(size=(100, 5)) + 2 * length for _ in range(2))
        found = assess(x, y, covariates=length, statistics=CHEAP)
        assert found.p_value < 0.05
        rejected.append(found.partial_p_value <= 0.05)
    assert np.mean(rejected) <= 0.15


def test_the_ceiling_is_what_models_that_see_the_same_reach_between_halves() -> None:
    noisy, clear = topics(0, own=2.0), topics(0, own=0.2)
    documents = np.arange(160) // 4
    low, high = (assess(x, 2 * x, documents=documents, statistics=CHEAP) for x in (noisy, clear))
    assert low.ceiling < 0.7 < 0.9 < high.ceiling
    for found in (low, high):
        # Equal sides reach their ceiling, although their value is 1.
        assert found.across_halves == pytest.approx(found.ceiling, abs=0.02)
        assert found.value == pytest.approx(1.0)
    others = assess(clear, topics(9, own=0.2), documents=documents, statistics=CHEAP)
    assert others.across_halves < 0.2 < others.ceiling


def test_halves_are_of_documents_of_two_rows_or_more() -> None:
    halves = split_halves(np.array([0, 1, 1, 1, 2, 2, 3]), seed=0)
    assert (halves == -1).tolist() == [True, False, False, False, False, False, True]
    assert sorted(halves[1:4] // 2) == [0, 0, 0]
    assert set(halves[4:6]) == {2, 3}


def test_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 8))
    y = x + 0.8 * rng.normal(size=x.shape)
    z = y + 0.25 * rng.normal(size=x.shape)
    found = difference((x, y), (x, z))
    apart = [assess(x, other, statistics=CHEAP) for other in (y, z)]
    widths = [one.ci_high - one.ci_low for one in apart]
    assert found.value == pytest.approx(apart[0].value - apart[1].value)
    assert found.high - found.low < 0.7 * float(np.hypot(*widths))
    same = difference((x, y), (x, y))
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_paired_difference_keeps_its_level() -> None:
    """A-B and A-C are equally alike: 5 % of intervals may miss 0."""
    missed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(80, 6))
        y, z = (x + rng.normal(size=x.shape) for _ in range(2))
        found = difference((x, y), (x, z))
        missed += not found.low <= 0 <= found.high
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
    assert missed <= 12


def test_interval_over_models_and_texts_is_wider_than_over_texts_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))

    def kind(spread: list[float]) -> list[np.ndarray]:
        return [x + s * rng.normal(size=x.shape) for s in spread]

    alike = between_models(kind([0.6] * 5), kind([0.6] * 5))
    mixed = between_models(kind([0.1, 0.3, 0.6, 1.2, 2.0]), kind([0.6] * 5))
    assert mixed.high - mixed.low > 2 * (alike.high - alike.low)
    with pytest.raises(UsageError, match="2 and 5 models: too few"):
        between_models(kind([1.0, 1.0]), kind([0.6] * 5))
    with pytest.raises(UsageError, match="'identity_match' has no interval"):
        difference((x, x), (x, x), "identity_match")
    with pytest.raises(InputError, match="120 and 120 rows, 3 documents"):
        assess(x, x, documents=["a", "b", "c"])


def autoregression(seed: int, n: int = 600, r: float = 0.8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=5)]
    for _ in range(n - 1):
        rows.append(r * rows[-1] + np.sqrt(1 - r * r) * rng.normal(size=5))
    return np.array(rows)


def test_serial_rows_are_noticed_and_the_blocks_that_are_offered_keep_the_level() -> None:
    x, y = autoregression(0), autoregression(1)
    found = assess(x, y, statistics=CHEAP)
    assert "each row is like the one before it on both sides (lag-1 correlation 0.79" in found.note
    length = int(found.note.split("blocks(n, ")[1].split(")")[0])
    rejected = {"rows": 0, "blocks": 0}
    only_null = dataclasses.replace(CHEAP, groups=0, ceiling=False)
    for seed in range(40):
        x, y = autoregression(2 * seed), autoregression(2 * seed + 1)
        for kind, documents in (("rows", ()), ("blocks", blocks(600, length))):
            p = assess(x, y, documents=documents, statistics=only_null).p_value
            rejected[kind] += p <= 0.05
    assert rejected["rows"] >= 30
    assert rejected["blocks"] <= 6


def test_independent_rows_are_not_called_serial() -> None:
    scores = []
    for seed in range(100):
        x = Features(np.random.default_rng(seed).normal(size=(200, 4)) + 5)
        scores.append(lag_one(x)[1])
        assert serial_note(x, x) == ""
    assert np.std(scores) == pytest.approx(1.0, abs=0.2)
    one_sided = (
        Features(autoregression(0)),
        Features(np.random.default_rng(0).normal(size=(600, 4))),
    )
    assert serial_note(*one_sided) == ""


def test_false_discovery_rate_is_over_the_cells_of_one_measure() -> None:
    rng = np.random.default_rng(0)
    arrays = {name: [rng.normal(size=(60, 4)) for _ in range(3)] for name in "ab"}
    arrays["b"][0] = arrays["a"][0] + 0.1
    table = compare_arrays(arrays, ["cka", "mutual_knn"], permutations=99)
    assert "Benjamini-Hochberg" in table.info["statistics"]["family"]
    for measure in ("cka", "mutual_knn"):
        cells = table.where(measure=measure)
        p, q = cells.column("p_value"), cells.column("q_value")
        order = np.argsort(p)
        expected = np.minimum.accumulate((p[order] * 9 / np.arange(1, 10))[::-1])[::-1]
        np.testing.assert_allclose(q[order], np.minimum(expected, 1))
    null = compare_arrays(arrays, ["cka"], permutations=0)
    assert np.isnan(null.column("q_value")).all()


def test_distances_and_texts_without_documents_have_no_ceiling() -> None:
    x = topics(0)
    documents = np.arange(160) // 4
    assert np.isnan(assess(x, x, "procrustes", documents=documents, statistics=CHEAP).ceiling)
    assert np.isnan(assess(x, x, statistics=CHEAP).ceiling)
    assert get_measure("procrustes").direction == "distance"


def test_tables_of_version_1_are_read(tmp_path: object) -> None:
    row = {"model_a": "a", "model_b": "b", "layer_a": 0, "layer_b": 0, "measure": "cka",
           "value": 0.5}  # fmt: skip
    path = f"{tmp_path}/similarity.parquet"
    old = type("Old", (SimilarityTable,), {"SCHEMA": "repsim/similarity/1"})
    old([row]).save(path)
    table = SimilarityTable.load(path)
    assert table.column("value").tolist() == [0.5]
    assert np.isnan(table.column("ceiling")).all()
