"""Linear, passthrough and the spherical means equal float64 formulas written here in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsim.core.errors import UsageError
from repsim.merging.base import TensorContext
from repsim.merging.methods.averaging import linear, passthrough
from repsim.merging.methods.spherical import karcher, multislerp, nuslerp, slerp

Array = np.ndarray


def draw(seed: int, count: int, shape: tuple[int, ...] = (5, 7)) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for _ in range(count)]


def tensors(arrays: list[Array], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.tensor(a).to(dtype) for a in arrays]


def close(merged: torch.Tensor, expected: Array, tolerance: float = 1e-12) -> bool:
    assert tuple(merged.shape) == expected.shape
    difference = np.linalg.norm(merged.double().numpy() - expected)
    return bool(difference <= tolerance * max(1.0, np.linalg.norm(expected)))


# -- linear --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_the_weighted_average(normalize: bool) -> None:
    ws, a = draw(0, 3), [0.2, -0.5, 1.3]
    expected = a[0] * ws[0] + a[1] * ws[1] + a[2] * ws[2]
    merged = linear(tensors(ws), weight=a, normalize=normalize)
    assert close(merged, expected / sum(a) if normalize else expected)


def test_linear_refuses_an_average_with_weights_that_cancel() -> None:
    ws = tensors(draw(2, 2))
    with pytest.raises(UsageError, match=r"weights of tensor 'w' add up to 0.*normalize: false"):
        linear(ws, weight=[1.0, -1.0], context=TensorContext(name="w"))
    assert torch.equal(linear(ws, weight=[1.0, -1.0], normalize=False), ws[0] - ws[1])


def test_passthrough_scales() -> None:
    (w,) = draw(3, 1)
    assert close(passthrough(tensors([w])), w, 0)
    assert close(passthrough(tensors([w]), scale=0.3), 0.3 * w, 1e-15)


# -- spherical -----------------------------------------------------------------------------------


def slerp_of(a: Array, b: Array, t: float, limit: float) -> Array:
    """The formula, of vectors."""
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    if abs(cosine) > limit:
        return (1 - t) * a + t * b
    th = np.arccos(cosine)
    return (np.sin((1 - t) * th) * a + np.sin(t * th) * b) / np.sin(th)


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("near", [0.0, 0.9, 0.99, 0.999, 0.9999])
def test_slerp_is_the_formula_on_both_sides_of_the_threshold(t: float, near: float) -> None:
    a, b = draw(4, 2)
    b = 3 * (near * a + (1 - near) * b)
    expected = slerp_of(a.ravel(), b.ravel(), t, 0.9995).reshape(a.shape)
    assert close(slerp(tensors([a, b]), t=t), expected)
    assert close(slerp(tensors([a, b], torch.float32), t=t), expected, 1e-6)


def test_slerp_works_across_the_pieces_that_are_widened_at_a_time() -> None:
    a, b = draw(5, 2, (1 << 10, 1100))
    expected = slerp_of(a.ravel(), b.ravel(), 0.4, 0.9995).reshape(a.shape)
    assert close(slerp(tensors([a, b]), t=0.4), expected)


def test_slerp_keeps_the_length_between_tensors_of_one_length() -> None:
    a, b = (x / np.linalg.norm(x) for x in draw(6, 2))
    assert abs(float(slerp(tensors([a, b]), t=0.3).norm()) - 1) < 1e-12


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.2, 0.6]])
def test_nuslerp_of_tensor_rows_and_columns(weights: list[float]) -> None:
    a, b = draw(7, 2)
    t = weights[1] / sum(weights)
    whole = slerp_of(a.ravel(), b.ravel(), t, 1).reshape(a.shape)
    rows = np.stack([slerp_of(x, y, t, 1) for x, y in zip(a, b, strict=True)])
    columns = np.stack([slerp_of(x, y, t, 1) for x, y in zip(a.T, b.T, strict=True)]).T
    ts = tensors([a, b])
    assert close(nuslerp(ts, weight=weights), whole)
    assert close(nuslerp(ts, weight=weights, row_wise=True), rows)
    assert close(nuslerp(ts, weight=weights, column_wise=True), columns)


def test_nuslerp_with_a_base_turns_the_deltas() -> None:
    a, b, base = draw(8, 3)
    expected = base + slerp_of((a - base).ravel(), (b - base).ravel(), 0.75, 1).reshape(a.shape)
    merged = nuslerp(tensors([a, b]), base=tensors([base])[0], weight=[1.0, 3.0])
    assert close(merged, expected)


def test_nuslerp_columns_of_a_tensor_with_three_axes_run_along_the_first() -> None:
    a, b = draw(9, 2, (3, 2, 4))
    merged = nuslerp(tensors([a, b]), column_wise=True)
    expected = slerp_of(a[:, 1, 2], b[:, 1, 2], 0.5, 1)
    assert close(merged[:, 1, 2], expected)


def multislerp_of(ws: list[Array], a: Array) -> Array:
    norms = np.array([np.linalg.norm(w) for w in ws])
    units = np.stack([w.ravel() / n for w, n in zip(ws, norms, strict=True)])
    m = a @ units
    m /= np.linalg.norm(m)
    tangent = a @ (units - np.outer(units @ m, m))
    size = np.linalg.norm(tangent)
    point = m * np.cos(size) + tangent * np.sinc(size / np.pi)
    return (point * (a @ norms)).reshape(ws[0].shape)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_multislerp_is_one_step_from_the_mean_direction(count: int) -> None:
    ws, a = draw(10, count), np.linspace(0.3, 1.7, count)
    expected = multislerp_of(ws, a / a.sum())
    assert close(multislerp(tensors(ws), weight=list(a)), expected)
    as_given = multislerp(tensors(ws), weight=list(a), normalize_weights=False)
    assert close(as_given, multislerp_of(ws, a))
    base = draw(11, 1)[0]
    moved = multislerp([t + torch.tensor(base) for t in tensors(ws)],
                       base=torch.tensor(base), weight=list(a))  # fmt: skip
    assert close(moved, base + expected)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_karcher_is_a_point_where_the_logarithms_cancel(count: int) -> None:
    ws = [w + 1 for w in draw(12, count)]
    merged = karcher(tensors(ws), max_iter=100, tol=1e-13).numpy().ravel()
    length = np.linalg.norm(merged)
    assert abs(length - np.mean([np.linalg.norm(w) for w in ws])) < 1e-12 * length
    u = merged / length
    logs = []
    for w in ws:
        v = w.ravel() / np.linalg.norm(w)
        th = np.arccos(u @ v)
        logs.append(th / np.sin(th) * (v - (u @ v) * u))
    assert np.linalg.norm(np.mean(logs, 0)) < 1e-12
    assert all(np.arccos(u @ (w.ravel() / np.linalg.norm(w))) < np.pi / 2 for w in ws)


def test_karcher_of_two_is_the_middle_of_their_great_circle() -> None:
    a, b = (x / np.linalg.norm(x) for x in draw(13, 2))
    expected = slerp_of(a.ravel(), b.ravel(), 0.5, 1).reshape(a.shape)
    assert close(karcher(tensors([2 * a, 4 * b])), 3 * expected)


def test_karcher_stops_after_max_iter() -> None:
    ws = tensors(draw(14, 4))
    once, often = (karcher(ws, max_iter=n, tol=1e-14) for n in (1, 60))
    assert not torch.allclose(once, often, rtol=1e-9)
    assert torch.allclose(karcher(ws, max_iter=0), multislerp_start(ws), rtol=1e-9)


def multislerp_start(ws: list[torch.Tensor]) -> torch.Tensor:
    mean = torch.stack([w / w.norm() for w in ws]).mean(0)
    return mean / mean.norm() * torch.stack([w.norm() for w in ws]).mean()


# -- degenerate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [slerp, nuslerp])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_antipodal_tensors_take_the_straight_line_and_say_so(method, dtype) -> None:  # type: ignore[no-untyped-def]
    (a,) = tensors(draw(16, 1), dtype)
    context = TensorContext()
    choice = {"t": 0.3} if method is slerp else {"weight": [0.7, 0.3]}
    merged = method([a, -a], context=context, **choice)
    assert torch.allclose(merged, 0.4 * a, atol=1e-6)
    assert context.notes == [
        "antipodal tensors have no unique great circle: straight line taken, which passes near 0"
    ]


def test_one_antipodal_row_does_not_disturb_the_others() -> None:
    a, b = draw(17, 2)
    b[2] = -a[2]
    context = TensorContext()
    merged = nuslerp(tensors([a, b]), row_wise=True, context=context)
    assert close(merged[2], np.zeros(7))
    assert close(merged[3], slerp_of(a[3], b[3], 0.5, 1))
    assert "antipodal" in context.notes[0]


@pytest.mark.parametrize("method", [slerp, nuslerp])
def test_a_zero_tensor_takes_the_straight_line_and_says_so(method) -> None:  # type: ignore[no-untyped-def]
    (a,) = tensors(draw(18, 1))
    context = TensorContext()
    assert torch.equal(method([a, torch.zeros_like(a)], context=context), 0.5 * a)
    assert context.notes == ["a zero tensor has no direction: straight line taken"]


def test_nuslerp_weights_that_cancel_or_extrapolate_are_noted() -> None:
    ts, context = tensors(draw(19, 2)), TensorContext()
    half = nuslerp(ts, weight=[1.0, -1.0], context=context)
    assert torch.equal(half, nuslerp(ts))
    nuslerp(ts, weight=[-1.0, 2.0], context=context)
    assert [n.split(":")[0] for n in context.notes] == [
        "the weights add up to zero",
        "weights of both signs extrapolate beyond the models (t = 2)",
    ]
    with pytest.raises(UsageError, match="row_wise or column_wise, not both"):
        nuslerp(ts, row_wise=True, column_wise=True)


def test_multislerp_of_directions_that_cancel_is_the_weighted_sum() -> None:
    (a,) = tensors(draw(20, 1))
    context = TensorContext()
    assert torch.allclose(multislerp([a, -3 * a], context=context), -a)
    assert context.notes == ["directions cancel out: no mean direction, weighted sum taken"]
    with pytest.raises(UsageError, match="add up to zero: no mean direction"):
        multislerp([a, a], weight=[1.0, -1.0])


def test_zero_tensors_only_shorten_spherical_means() -> None:
    a, b = tensors(draw(21, 2))
    for method in (multislerp, karcher):
        context = TensorContext()
        merged = method([a, b, torch.zeros_like(a)], context=context)
        assert torch.allclose(merged, 2 / 3 * method([a, b]), rtol=1e-12)
        assert context.notes == ["a zero tensor has no direction: it only shortens the result"]
        nothing = method([torch.zeros_like(a)] * 2)
        assert not nothing.any()


def test_karcher_of_antipodal_tensors_starts_from_the_first_and_says_so() -> None:
    (a,) = tensors(draw(22, 1))
    context = TensorContext()
    assert torch.allclose(karcher([a, -a], context=context), a)
    assert [n.split(":")[0] for n in context.notes] == [
        "directions cancel out",
        "a direction is opposite to the mean",
    ]
