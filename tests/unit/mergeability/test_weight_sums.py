"""Streamed sums agree with plain float64, and what is built on them has the limits it states."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from repsim.mergeability.features import moments as moments_module
from repsim.mergeability.features.layout import Group, Place, places_of
from repsim.mergeability.features.moments import tensor_moments, total
from repsim.mergeability.features.spectra import (
    MOST_SIDE,
    Spectrum,
    piece_of,
    spectrum,
    subspace_overlap,
)
from repsim.mergeability.features.units import evenly_spaced, match_units
from repsim.merging.checkpoint import StateDict
from repsim.testing.tiny_models import tiny_model

MLP: Group = "mlp"


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sources(tensors: list[torch.Tensor]) -> list[StateDict]:
    return [StateDict(str(number), {"w": tensor}) for number, tensor in enumerate(tensors)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7, 5), (300, 700), (41, 9001)])
@pytest.mark.parametrize("group", ["mlp", "embedding"])
def test_sums_are_those_of_float64(
    dtype: torch.dtype, shape: tuple[int, int], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments_module, "BLOCK", 10_000)
    monkeypatch.setattr(moments_module, "SIGN_STRIDE", 1)
    tensors = [(normal(*shape, seed=seed) + 0.3).to(dtype) for seed in range(4)]
    *models, base = tensors
    place = Place("w", shape, group, 0, "early")  # type: ignore[arg-type]
    found = tensor_moments(place, sources(models), StateDict("base", {"w": base}))
    exact = [tensor.double() for tensor in tensors]
    assert found.size == math.prod(shape)
    assert found.base == pytest.approx(float(exact[3].square().sum()), rel=1e-5)
    for i, j in itertools.product(range(3), repeat=2):
        a, b = exact[i], exact[j]
        u, v = a - exact[3], b - exact[3]
        scale = float(a.norm() * b.norm())
        assert found.dots[i, j] == pytest.approx(float((a * b).sum()), abs=1e-5 * scale)
        assert found.squares[i, j] == pytest.approx(float((a - b).square().sum()), rel=1e-5)
        assert found.updates[i, j] == pytest.approx(float((u * v).sum()), abs=1e-5 * scale)
        if i != j:
            assert found.same_signs[i, j] == int((a * b > 0).sum())
            assert found.same_updates[i, j] == int((u * v > 0).sum())
        centred = float(((a - a.mean(0)) * (b - b.mean(0))).sum()) if group == "embedding" else 0.0
        assert found.centred[i, j] == pytest.approx(centred, abs=1e-5 * scale)


def test_signs_of_a_large_tensor_are_counted_in_every_eighth_block() -> None:
    size = 20 * moments_module.BLOCK
    a, b = normal(1, size, seed=0), normal(1, size, seed=1)
    found = tensor_moments(Place("w", (1, size), MLP, 0, "early"), sources([a, b]))
    assert found.signs[0, 1] == 3 * moments_module.BLOCK
    assert found.same_signs[0, 1] / found.signs[0, 1] == pytest.approx(0.5, abs=0.005)


def test_a_small_distance_is_not_lost_in_the_norms() -> None:
    a = normal(512, 512)
    b = a.clone()
    b[0, 0] += 2**-10
    found = tensor_moments(Place("w", (512, 512), MLP, 0, "early"), sources([a, b]))
    assert found.squares[0, 1] == pytest.approx(float((a - b).double().square().sum()), rel=1e-6)


def test_variance_and_mean_over_models() -> None:
    tensors = [normal(20, 30, seed=seed) for seed in range(5)]
    found = tensor_moments(Place("w", (20, 30), MLP, 0, "early"), sources(tensors))
    stacked = torch.stack(tensors).double()
    assert found.variance == pytest.approx(float(stacked.var(0, correction=0).sum()), rel=1e-6)
    assert found.mean_square == pytest.approx(float(stacked.mean(0).square().sum()), rel=1e-5)
    doubled = total([found, found], 5)
    assert doubled.variance == pytest.approx(2 * found.variance)
    assert doubled.cosine(0, 1) == pytest.approx(found.cosine(0, 1))


def test_zero_tensors_have_no_cosine_and_no_distance() -> None:
    zero = torch.zeros(3, 4)
    found = tensor_moments(Place("w", (3, 4), MLP, 0, "early"), sources([zero, zero]))
    assert math.isnan(found.cosine(0, 1))
    assert math.isnan(found.distance(0, 1))
    assert spectrum(zero) is None


def test_deviations_are_those_of_all_permutations() -> None:
    """The closed form against all 720 orders of six units."""
    similarity = np.random.default_rng(3).normal(size=(6, 6))
    similarity[np.arange(6), np.arange(6)] += 0.7
    traces = [
        similarity[np.arange(6), list(order)].sum() for order in itertools.permutations(range(6))
    ]
    expected = (np.trace(similarity) - np.mean(traces)) / np.std(traces)
    assert match_units([similarity]).deviations == pytest.approx(expected, rel=1e-9)


def test_deviations_of_unrelated_units_are_standard_normal() -> None:
    rng = np.random.default_rng(0)
    # Correlated entries, as a common direction of all units makes them.
    found = [
        match_units(
            [rng.normal(size=(40, 40)) + rng.normal(size=40) + rng.normal(size=(40, 1))]
        ).deviations
        for _ in range(300)
    ]
    assert abs(float(np.mean(found))) < 0.25
    assert 0.85 < float(np.std(found)) < 1.15
    assert max(map(abs, found)) < 4.5


def test_match_counts_both_ways_and_beyond_chance() -> None:
    order = np.roll(np.arange(10), 1)
    shifted = match_units([np.eye(10)[order]])
    assert shifted.match == pytest.approx((0 - 0.1) / 0.9)
    half = np.eye(10)
    half[:5] = half[:5][np.roll(np.arange(5), 1)]
    assert match_units([half]).match == pytest.approx((0.5 - 0.1) / 0.9)
    assert match_units([half]).score == pytest.approx((0.5 - 0.1) / (1 - 0.1))
    assert math.isnan(match_units([]).match)


def test_spectra_are_those_of_the_singular_values() -> None:
    for shape in ((40, 90), (90, 40)):
        matrix = normal(*shape, seed=1) @ torch.diag(torch.linspace(0.1, 3, shape[1]))
        values = torch.linalg.svdvals(matrix.double()).square()
        shares = values / values.sum()
        found = spectrum(matrix)
        assert found is not None
        assert found.stable_rank == pytest.approx(float(1 / shares[0]) / 40, rel=1e-4)
        entropy = float(-(shares * shares.log()).sum())
        assert found.effective_rank == pytest.approx(math.exp(entropy) / 40, rel=1e-4)
        u, _, vh = torch.linalg.svd(matrix)
        kept = found.left.shape[1]
        assert kept == 5  # an eighth of the shorter side
        for mine, theirs in ((found.left, u[:, :kept]), (found.right, vh[:kept].T)):
            assert float((mine.T @ theirs).square().sum()) == pytest.approx(kept, rel=1e-3)


def test_overlap_of_independent_subspaces_is_zero_on_average() -> None:
    found = [
        subspace_overlap(*(_spectrum(normal(64, 160, seed=2 * n + m)) for m in (0, 1)))
        for n in range(40)
    ]
    assert abs(float(np.mean(found))) < 0.02
    low = normal(64, 3, seed=1) @ normal(3, 160, seed=2)
    assert subspace_overlap(_spectrum(low), _spectrum(-5 * low)) == pytest.approx(1.0, abs=1e-4)
    assert _spectrum(low).left.shape[1] <= 3


def _spectrum(matrix: torch.Tensor) -> Spectrum:
    found = spectrum(matrix)
    assert found is not None
    return found


def test_large_matrices_are_cut_alike() -> None:
    matrix = normal(1500, 8)
    piece = piece_of(Place("w", (1500, 8), MLP, 0, "early"), matrix)
    rows = evenly_spaced(1500, MOST_SIDE)
    assert torch.equal(piece, matrix[rows])
    assert (rows[0], rows[-1], len(set(rows))) == (0, 1499, MOST_SIDE)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", {"attention": 8, "mlp": 6}),
        ("gpt2", {"attention": 6, "mlp": 6}),
        ("t5", {"attention": 24, "mlp": 8}),
        ("bloom", {"attention": 4, "mlp": 4}),
        ("distilbert", {"attention": 8, "mlp": 4}),
        ("opt", {"attention": 8, "mlp": 4}),
        ("bert", {"attention": 8, "mlp": 4}),
        ("gemma2", {"attention": 8, "mlp": 6}),
    ],
)
def test_matrices_of_every_family_are_recognised(kind: str, expected: dict[str, int]) -> None:
    model = tiny_model(kind)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    places = places_of(shapes, model.config)
    counts = {
        group: sum(place.is_body and place.group == group for place in places) for group in expected
    }
    assert counts == expected
    assert [place for place in places if place.group == "embedding"]
