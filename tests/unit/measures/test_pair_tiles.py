"""Sums over tiles are the sums over all pairs, whatever the tiles, and ranks and medians exact."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from repsim.measures import Features, compute_grid, get_measure
from repsim.measures.algebra import double_centred, u_centred
from repsim.measures.distance_grids import LayerTiles, rank_grid
from repsim.measures.pair_tiles import DistanceTiles, gram_tiles, pair_sums

RNG = np.random.default_rng(0)
LAYERS = [torch.from_numpy(RNG.normal(size=(61, d)) + 2) for d in (3, 9)]


@pytest.fixture(params=[(256, 512, 64), (16, 8, 5), (7, 100, 3)])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("ROWS", "COLUMNS", "PIECE"), request.param, strict=True):
        monkeypatch.setattr(f"repsim.measures.pair_tiles.{name}", value)


@pytest.mark.usefixtures("tiles")
def test_sums_over_tiles_are_sums_over_pairs() -> None:
    sums = pair_sums(gram_tiles(LAYERS), 2, torch.arange(61))
    grams = [(x @ x.mT).fill_diagonal_(0) for x in LAYERS]
    for i, a in enumerate(grams):
        torch.testing.assert_close(sums.rows[i], a.sum(dim=1))
        for j, b in enumerate(grams):
            assert sums.products[i, j] == pytest.approx(float((a * b).sum()) / 2)
            debiased = float((u_centred(a) * u_centred(b)).sum())
            assert sums.hollow()[i, j] == pytest.approx(debiased)
            full = [x.clone().fill_diagonal_(d) for x, d in ((a, 2.0 + i), (b, 2.0 + j))]
            biased = float((double_centred(full[0]) * double_centred(full[1])).sum())
            assert sums.centred(torch.tensor([2.0, 3.0]).double())[i, j] == pytest.approx(biased)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_distances_come_twice_whether_kept_or_not(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.measures.pair_tiles.KEPT_BYTES", kept)
    tiles = DistanceTiles(LAYERS, [x.square().sum(dim=1) for x in LAYERS])
    for _ in range(2):
        found = torch.zeros(61, 61).double()
        for tile in tiles:
            found[tile.rows, tile.columns] = tile.values[1]
            tile.values.fill_(-1)
        expected = torch.cdist(LAYERS[1], LAYERS[1]).square()
        torch.testing.assert_close(found.triu(1), expected.triu(1))


@pytest.mark.parametrize("bracket", [0.08, 0.0])
def test_order_statistics_are_exact_also_where_the_sample_misleads(
    bracket: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.measures.distance_grids.BRACKET", bracket)
    monkeypatch.setattr("repsim.measures.distance_grids.SAMPLE", 4)
    layers = LayerTiles([Features(x) for x in LAYERS], [], "euclidean")
    found = layers.order_statistics([914, 915])
    for x, values in zip(LAYERS, found, strict=True):
        np.testing.assert_allclose(values, (torch.pdist(x) ** 2).sort().values[914:916])


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("counted", [50, 1 << 20])
def test_counted_ranks_give_spearman(counted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsim.measures.distance_grids.COUNTED", counted)
    xs = [Features(x, dtype=torch.float32) for x in LAYERS]
    found = rank_grid(xs, xs[:1], "euclidean")
    expected = spearmanr(torch.pdist(LAYERS[1]), torch.pdist(LAYERS[0])).statistic
    assert found[1, 0] == pytest.approx(expected, abs=1e-5)
    assert found[0, 0] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_all_equally_far_have_no_correlation(dtype: torch.dtype) -> None:
    same = Features(np.eye(30) * 3, dtype=dtype)
    other = Features(RNG.normal(size=(30, 4)), dtype=dtype)
    for name in ("rsa", "rsa_euclidean_pearson"):
        assert np.isnan(compute_grid(get_measure(name), [same], [other])[0, 0])
