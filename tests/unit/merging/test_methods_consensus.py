"""Model stock, SCE, TSV-M, Iso-C and KnOTS equal float64 formulas written in numpy and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch

from repsim.merging.base import TensorContext
from repsim.merging.methods.consensus import model_stock, sce
from repsim.merging.methods.spectral import iso_c, knots, tsv_m

Array = np.ndarray


def draw(
    seed: int, count: int = 3, shape: tuple[int, ...] = (6, 9), common: float = 0.0
) -> tuple[Array, list[Array]]:
    """Base and deltas, which have a part in common."""
    rng = np.random.default_rng(seed)
    shared = common * rng.normal(size=shape)
    return rng.normal(size=shape), [shared + rng.normal(size=shape) for _ in range(count)]


def given(base: Array, deltas: list[Array]) -> dict[str, object]:
    return {"tensors": [torch.tensor(base + d) for d in deltas], "base": torch.tensor(base)}


def close(merged: torch.Tensor, expected: Array, tolerance: float = 1e-11) -> bool:
    assert tuple(merged.shape) == expected.shape
    return bool(np.abs(merged.numpy() - expected).max() <= tolerance * (1 + np.abs(expected).max()))


# -- model stock ---------------------------------------------------------------------------------


def stock_ratio(deltas: list[Array]) -> tuple[float, float]:
    pairs = list(itertools.combinations(deltas, 2))
    cosines = [(x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()) for x, y in pairs]
    c, n = float(np.mean(cosines)), len(deltas)
    return n * c / (1 + (n - 1) * c), c


@pytest.mark.parametrize("count", [2, 3, 5])
def test_model_stock_steps_by_the_mean_cosine(count: int) -> None:
    base, deltas = draw(0, count, common=1.0)
    t, c = stock_ratio(deltas)
    context = TensorContext()
    merged = model_stock(**given(base, deltas), context=context)
    assert close(merged, base + t * np.mean(deltas, 0))
    assert context.values == pytest.approx({"t": t, "cosine": c})
    assert context.notes == []


def test_model_stock_filter_wise_has_one_ratio_per_row() -> None:
    base, deltas = draw(1, common=1.5)
    merged = model_stock(**given(base, deltas), filter_wise=True, clamp=False)
    for row in range(len(base)):
        t, _ = stock_ratio([d[row] for d in deltas])
        assert close(merged[row], base[row] + t * np.mean([d[row] for d in deltas], 0))


@pytest.mark.parametrize("cosine", [-0.3, -0.6, -0.9])
def test_model_stock_clamps_a_negative_ratio_and_says_so(cosine: float) -> None:
    base = np.zeros((1, 2))
    deltas = [np.array([[1.0, 0.0]]), np.array([[cosine, np.sqrt(1 - cosine**2)]])]
    t = 2 * cosine / (1 + cosine)
    context = TensorContext()
    assert close(model_stock(**given(base, deltas), context=context), base)
    assert context.notes == [
        f"the deltas point apart (mean cosine {cosine:.2f}): t clamped to [0, 1], least {t:.3g}"
    ]
    assert context.values["t"] == pytest.approx(t)
    context = TensorContext()
    merged = model_stock(**given(base, deltas), clamp=False, context=context)
    assert close(merged, t * np.mean(deltas, 0))
    assert context.notes == [
        f"the deltas point apart (mean cosine {cosine:.2f}): t = {t:.3g} leads away from them"
    ]


def test_model_stock_of_deltas_that_cancel_or_vanish_is_the_base_and_says_so() -> None:
    base, (delta,) = draw(2, 1)
    context = TensorContext()
    merged = model_stock(**given(np.zeros((6, 9)), [delta, -delta]), clamp=False, context=context)
    assert close(merged, np.zeros((6, 9)))
    assert context.notes == ["the deltas cancel out: the base is kept"]
    context = TensorContext()
    assert close(model_stock(**given(base, [delta, 0 * delta]), context=context), base)
    assert context.notes == ["a delta is zero: its cosine is taken as 0"]


def test_model_stock_sees_the_cosine_of_tiny_deltas() -> None:
    base, deltas = np.zeros((6, 9)), [1e-9 * d for d in draw(3, common=2.0)[1]]
    t, _ = stock_ratio(deltas)
    assert t > 0.5
    merged = model_stock(**given(base, deltas))
    assert np.allclose(merged.numpy(), t * np.mean(deltas, 0), rtol=1e-9, atol=0)


# -- SCE -----------------------------------------------------------------------------------------


def sce_delta(deltas: list[Array], topk: float) -> Array:
    d = np.stack([x.ravel() for x in deltas])
    if topk < 1:
        variance = d.var(0)
        k = int(topk * np.count_nonzero(variance))
        chosen = np.argsort(-variance, kind="stable")[:k]
        d = d * np.isin(np.arange(d.shape[1]), chosen)
    a = (d**2).mean(1)
    a = a / a.sum()
    sign = np.where(d.sum(0) >= 0, 1, -1)
    m = np.sign(d) == sign
    share = (a[:, None] * m).sum(0)
    out = np.divide((a[:, None] * d * m).sum(0), share, where=share > 0, out=np.zeros_like(share))
    return out.reshape(deltas[0].shape)


@pytest.mark.parametrize("size", [1.0, 1e-4])
@pytest.mark.parametrize("topk", [1.0, 0.5, 0.1])
def test_sce_selects_calculates_erases(topk: float, size: float) -> None:
    _, deltas = draw(4)
    deltas = [size * scale * d for scale, d in zip([1.0, 2.0, 0.5], deltas, strict=True)]
    merged = sce(**given(np.zeros((6, 9)), deltas), select_topk=topk).numpy()
    assert np.allclose(merged, sce_delta(deltas, topk), rtol=1e-9, atol=0)


def test_sce_of_identical_models_takes_their_common_delta_and_says_so() -> None:
    base, (delta,) = draw(5, 1)
    context = TensorContext()
    assert close(sce(**given(base, [delta] * 3), select_topk=0.5, context=context), base + delta)
    assert context.notes == ["the models are identical here: their common delta is taken whole"]
    assert close(sce(**given(base, [delta] * 3)), base + delta)


def test_sce_of_few_entries_that_differ_keeps_the_base_and_says_so() -> None:
    base, deltas = draw(6, 2, shape=(3,))
    context = TensorContext()
    assert close(sce(**given(base, deltas), select_topk=0.2, context=context), base)
    assert context.notes == [
        "select_topk keeps no entry of so small a tensor: the base is kept"
    ]  # fmt: skip
    assert close(sce(**given(base, [0 * d for d in deltas])), base)


# -- TSV-M and Iso-C -----------------------------------------------------------------------------


def orthogonal_factor(x: Array) -> Array:
    """Polar factor of a full-rank matrix with at most as many columns as rows."""
    return np.asarray(scipy.linalg.polar(x)[0])


def tsv_delta(deltas: list[Array]) -> Array:
    r = min(deltas[0].shape) // len(deltas)
    us, ss, vs = [], [], []
    for d in deltas:
        # Left and right vectors from the two Gram matrices, signs from u = d v / s.
        value, v = np.linalg.eigh(d.T @ d)
        v, s = v[:, ::-1][:, :r], np.sqrt(value[::-1][:r])
        us.append(d @ v / s)
        ss.append(s)
        vs.append(v)
    u, v = orthogonal_factor(np.hstack(us)), orthogonal_factor(np.hstack(vs))
    return u @ np.diag(np.concatenate(ss)) @ v.T


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (9, 9)])
def test_tsv_m_makes_the_leading_singular_vectors_orthonormal(
    shape: tuple[int, int], count: int
) -> None:
    base, deltas = draw(8, count, shape)
    merged = tsv_m(**given(base, deltas), scale=0.7)
    assert close(merged, base + 0.7 * tsv_delta(deltas), 1e-9)


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (9, 9)])
def test_iso_c_flattens_the_spectrum_of_the_sum(shape: tuple[int, int]) -> None:
    base, deltas = draw(9, 3, shape)
    total = np.sum(deltas, 0)
    narrow = total if shape[0] >= shape[1] else total.T
    stretch = scipy.linalg.sqrtm(narrow.T @ narrow).real
    isotropic = narrow @ np.linalg.inv(stretch) * np.trace(stretch) / min(shape)
    expected = isotropic if shape[0] >= shape[1] else isotropic.T
    assert close(iso_c(**given(base, deltas), scale=0.7), base + 0.7 * expected, 1e-9)


@pytest.mark.parametrize("method", [tsv_m, iso_c])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("embedding", (6, 9)), ("head", (6, 9)), ("norm", (9,)), ("matrix", (2, 3, 4))],
)
def test_what_is_no_map_gets_the_mean_delta(method, kind: str, shape: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
    base, deltas = draw(10, 3, shape)
    merged = method(**given(base, deltas), scale=0.7, context=TensorContext(kind=kind))  # type: ignore[arg-type]
    assert close(merged, base + 0.7 * np.mean(deltas, 0))


def test_tsv_m_of_copies_is_their_truncated_delta_and_says_so() -> None:
    base, (delta,) = draw(11, 1, (8, 8))
    context = TensorContext()
    merged = tsv_m(**given(base, [delta, delta]), context=context)
    u, s, vt = np.linalg.svd(delta)
    assert close(merged, base + (u[:, :4] * s[:4]) @ vt[:4])
    assert context.notes == ["models share singular vectors here: each such direction counts once"]


def test_tsv_m_is_not_turned_by_a_model_that_did_not_move() -> None:
    base, (delta,) = draw(12, 1, (8, 8))
    merged = tsv_m(**given(base, [delta, 0 * delta]))
    u, s, vt = np.linalg.svd(delta)
    assert close(merged, base + (u[:, :4] * s[:4]) @ vt[:4])
    context = TensorContext()
    assert close(tsv_m(**given(base, [0 * delta] * 2), context=context), base)
    assert context.notes == ["no model differs from the base here: it is kept"]


def test_iso_c_of_a_sum_that_lacks_rank_adds_no_arbitrary_directions() -> None:
    rng = np.random.default_rng(13)
    base, delta = rng.normal(size=(7, 6)), rng.normal(size=(7, 2)) @ rng.normal(size=(2, 6))
    context = TensorContext()
    merged = iso_c(**given(base, [delta, delta]), context=context)
    u, s, vt = np.linalg.svd(2 * delta)
    assert close(merged, base + s.sum() / 6 * u[:, :2] @ vt[:2])
    assert context.notes == ["the sum of the deltas has rank 2 of 6: stays so"]
    context = TensorContext()
    assert close(
        iso_c(**given(np.zeros((7, 6)), [delta, -delta]), context=context), np.zeros((7, 6))
    )
    assert context.notes == ["the deltas are zero or cancel out here: the base is kept"]


# -- KnOTS -----------------------------------------------------------------------------------------


def knotted(base: Array, models: list[Array], density: float, weights: list[float]) -> Array:
    """From a whole SVD of the deltas side by side, and TIES entry by entry."""
    deltas = [model - base for model in models]
    u, s, vt = np.linalg.svd(np.concatenate(deltas, 1), full_matrices=False)
    there = s > 1e-9 * s[0]
    parts = np.split((s[:, None] * vt)[there], len(models), axis=1)
    kept = max(1, int(density * parts[0].size))
    for part in parts:
        part[abs(part) < np.sort(abs(part), axis=None)[-kept]] = 0
    parts = [weight * part for weight, part in zip(weights, parts, strict=True)]
    sign = np.where(sum(parts) >= 0, 1, -1)
    agrees = [part * sign > 0 for part in parts]
    mass = sum(w * a for w, a in zip(weights, agrees, strict=True))
    total = sum(part * a for part, a in zip(parts, agrees, strict=True))
    return base + u[:, there] @ (total / np.where(mass > 0, mass, 1))


@pytest.mark.parametrize("shape", [(12, 10), (40, 6)], ids=["wide", "tall"])
@pytest.mark.parametrize("density", [1.0, 0.4])
def test_knots_is_ties_in_the_common_directions(shape: tuple[int, int], density: float) -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(size=shape)
    # Two adapters of rank 2: their directions are four.
    models = [
        base + rng.normal(size=(shape[0], 2)) @ rng.normal(size=(2, shape[1])) for _ in range(2)
    ]
    merged = knots(
        [torch.from_numpy(model) for model in models], base=torch.from_numpy(base),
        density=density, weight=[1.0, 0.5],
    )  # fmt: skip
    assert close(merged, knotted(base, models, density, [1.0, 0.5]))


def test_knots_leaves_out_what_rounding_makes_of_a_sum_of_base_and_adapter() -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(size=(30, 20)).astype(np.float32)
    exact = [base + rng.normal(size=(30, 1)) @ rng.normal(size=(1, 20)) for _ in range(2)]
    models = [torch.from_numpy(model.astype(np.float32)) for model in exact]
    merged = knots(models, base=torch.from_numpy(base), density=0.5)
    assert np.abs(merged.numpy() - knotted(base.astype(float), exact, 0.5, [1.0, 1.0])).max() < 1e-5
