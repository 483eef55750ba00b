"""NearSwap, Arcee Fusion, RAM, RAM+ and WIDEN against formulas written down entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from repsim.core.errors import UsageError
from repsim.merging import merge_state_dicts
from repsim.merging.base import TensorContext
from repsim.merging.methods.disentangled import widen
from repsim.merging.methods.selective import arcee_fusion, nearswap, ram, ramplus, ramplus_tl

Array = Any


def draw(count: int, shape: tuple[int, ...] = (12, 10), seed: int = 0) -> tuple[Array, list[Array]]:
    """A base and models that changed half of its entries."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape)
    return base, [
        base + 0.1 * rng.normal(size=shape) * (rng.random(shape) < 0.5) for _ in range(count)
    ]


def tensors(models: list[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(model) for model in models]


def softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# -- one model moved towards another ---------------------------------------------------------------


def test_nearswap_takes_what_is_near_and_a_step_of_the_rest() -> None:
    base = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    model = np.array([0.05, -0.3, 0.1, 0.0, 0.5])
    merged = nearswap(tensors([model]), base=torch.from_numpy(base), t=0.1)
    assert np.allclose(merged.numpy(), [0.05, -0.1, 0.1, 0.0, 0.9], rtol=1e-12)
    # Below 1e-6 it is the share that is bounded, as in mergekit.
    tiny = nearswap([torch.tensor([5e-7])], base=torch.zeros(1), t=5e-7)
    assert tiny.item() == pytest.approx(2.5e-7)
    with pytest.raises(UsageError, match="t must be at least 0"):
        nearswap(tensors([model]), base=torch.from_numpy(base), t=-1.0)


def test_arcee_fusion_takes_what_stands_out() -> None:
    base, (model,) = draw(1, (40, 30))
    p, q = softmax(model) + 1e-8, softmax(base) + 1e-8
    importance = abs(model - base) * (p * np.log(p / q)).sum(-1, keepdims=True)
    ordered = np.sort(importance.ravel())
    lower, median, upper = (ordered[int(share * 1199)] for share in (0.25, 0.5, 0.75))
    chosen = importance >= median + 1.5 * (upper - lower)
    assert 0.02 < chosen.mean() < 0.4
    expected = np.where(chosen, model, base)
    for kind in (np.float64, np.float32):
        merged = arcee_fusion(
            tensors([model.astype(kind)]), base=torch.from_numpy(base.astype(kind))
        )
        assert np.allclose(merged.numpy(), expected, atol=1e-6)


def test_arcee_fusion_sees_small_changes_in_float32() -> None:
    # A sum of p log(p / q) in float32 leaves only noise of such divergences.
    rng = np.random.default_rng(1)
    base = (0.02 * rng.normal(size=(64, 512))).astype(np.float32)
    model = base + (1e-4 * rng.normal(size=base.shape) * rng.random((64, 1))).astype(np.float32)
    exact = arcee_fusion(tensors([model.astype(np.float64)]), base=torch.from_numpy(base).double())
    merged = arcee_fusion(tensors([model]), base=torch.from_numpy(base))
    agree = (exact.numpy() != base) == (merged.numpy() != base)
    assert agree.mean() > 0.9999


def test_arcee_fusion_without_importance_takes_the_model_and_says_so() -> None:
    context = TensorContext()
    merged = arcee_fusion([torch.ones(5, 1)], base=torch.zeros(5, 1), context=context)
    assert merged.tolist() == [[1.0]] * 5
    assert context.notes == ["no change stands out here: the other model's tensor is taken whole"]


# -- reinforced agents -----------------------------------------------------------------------------


def rams(base: Array, models: list[Array], scales: list[float], epsilon: float = 1e-5) -> Array:
    """Entry by entry."""
    merged = base.copy()
    for place in np.ndindex(base.shape):
        own = [(m[place] - base[place], s) for m, s in zip(models, scales, strict=True)
               if abs(m[place] - base[place]) > epsilon]  # fmt: skip
        if len(own) == 1:
            merged[place] += own[0][0] * own[0][1]
        elif own:
            merged[place] += sum(delta for delta, _ in own) / len(own)
    return merged


def ratios(pairs: list[tuple[Array, list[Array]]]) -> list[float]:
    """Per model, shared over unique entries of some tensors."""
    found = []
    for model in range(len(pairs[0][1])):
        shared = unique = 0
        for base, models in pairs:
            changed = np.array([abs(m - base) > 1e-5 for m in models])
            count = changed.sum(0)
            shared += int((changed[model] & (count > 1)).sum())
            unique += int((changed[model] & (count == 1)).sum())
        found.append(shared / unique)
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ram_averages_over_those_that_changed_an_entry(count: int) -> None:
    base, models = draw(count)
    merged = ram(tensors(models), base=torch.from_numpy(base))
    assert np.allclose(merged.numpy(), rams(base, models, [1.0] * count), rtol=1e-12)
    wide = ram(tensors(models), base=torch.from_numpy(base), epsilon=0.1)
    assert np.allclose(wide.numpy(), rams(base, models, [1.0] * count, 0.1), rtol=1e-12)


def test_ramplus_scales_what_one_model_alone_changed() -> None:
    base, models = draw(3)
    options = {"r": 0.7, "alpha": 3.0}
    scales = [1 + 0.7 * min(ratio, 3.0) for ratio in ratios([(base, models)])]
    assert len(set(scales)) > 1
    expected = rams(base, models, scales)
    for method in (ramplus, ramplus_tl):
        merged = method(tensors(models), base=torch.from_numpy(base), **options)
        assert np.allclose(merged.numpy(), expected, rtol=1e-12)
    # Without unique entries nothing is scaled; the bound holds where there is one.
    same = ramplus_tl(tensors([models[0]] * 2), base=torch.from_numpy(base))
    assert np.allclose(same.numpy(), models[0])


def test_ramplus_counts_over_the_whole_model() -> None:
    parts = [draw(2, shape, seed) for seed, shape in enumerate([(8, 6), (5,), (30, 4)])]
    scales = [1 + 2.0 * min(ratio, 9.0) for ratio in ratios(parts)]
    base = {f"t{i}": torch.from_numpy(part[0]) for i, part in enumerate(parts)}
    states = [
        {f"t{i}": torch.from_numpy(part[1][m]) for i, part in enumerate(parts)} for m in range(2)
    ]
    options = {"r": 2.0, "alpha": 9.0}
    merged = merge_state_dicts(states, "ramplus", base=base, parameters=options)
    local = merge_state_dicts(states, "ramplus_tl", base=base, parameters=options)
    for i, (own, models) in enumerate(parts):
        # State dicts are merged in float32.
        assert np.allclose(merged[f"t{i}"].numpy(), rams(own, models, scales), atol=1e-6)
    assert not np.allclose(merged["t2"].numpy(), local["t2"].numpy(), atol=1e-4)
    with pytest.raises(UsageError, match="'r' holds for the whole model"):
        filters = [{"filter": "t0", "value": 0.2}, {"value": 0.1}]
        merge_state_dicts(states, "ramplus", base=base, parameters={"r": filters})


# -- WIDEN -----------------------------------------------------------------------------------------


def widened(base: Array, models: list[Array], t: float, s: float) -> Array:
    """As the paper has it, for a matrix `[out, in]`: whole directions, and their cosines."""
    deltas = np.stack([model - base for model in models])
    norm = np.linalg.norm(base, axis=0)
    changes: list[list[Array]] = [[], []]
    for model in models:
        own = np.linalg.norm(model, axis=0)
        changes[0].append(abs(own - norm))
        changes[1].append(1 - ((model / own) * (base / norm)).sum(0))
    scores = []
    for change in map(np.stack, changes):
        ranks = np.empty_like(change)
        for row, order in zip(ranks, np.argsort(change, axis=1, kind="stable"), strict=True):
            row[order] = np.arange(len(order)) / len(order)
        score = np.exp(ranks) / np.exp(ranks).sum(0)
        score[ranks > t * ranks.mean(1, keepdims=True)] = s
        scores.append(score)
    return base + (deltas * ((scores[0] + scores[1]) / 2)[:, None, :]).sum(0)


@pytest.mark.parametrize(("t", "s"), [(1.0, 1.0), (1.6, 0.4)])
def test_widen_scores_columns_by_rank(t: float, s: float) -> None:
    base, models = draw(3, (20, 14))
    options = {"above_average": t, "calibration": s}
    merged = widen(tensors(models), base=torch.from_numpy(base), **options)
    assert np.allclose(merged.numpy(), widened(base, models, t, s), rtol=1e-10)
    rows = widen(
        [each.T for each in tensors(models)], base=torch.from_numpy(base).T, **options,
        context=TensorContext(kind="embedding"),
    )  # fmt: skip
    assert np.allclose(rows.numpy().T, merged.numpy(), rtol=1e-10)


def test_widen_scores_vectors_entry_by_entry() -> None:
    base, models = draw(2, (50,))
    size = abs(np.stack(models) - base)
    score = np.exp(size) / np.exp(size).sum(0)
    score[size > 1.2 * size.mean(1, keepdims=True)] = 0.8
    merged = widen(tensors(models), base=torch.from_numpy(base), above_average=1.2, calibration=0.8)
    expected = base + ((np.stack(models) - base) * score).sum(0)
    assert np.allclose(merged.numpy(), expected, rtol=1e-12)


def test_widen_ranks_small_changes_in_float32_as_in_float64() -> None:
    rng = np.random.default_rng(2)
    base = (0.02 * rng.normal(size=(300, 40))).astype(np.float32)
    steps = 1e-5 * (1 + np.arange(40)) / 40
    models = [base + (steps * rng.normal(size=base.shape)).astype(np.float32) for _ in range(2)]
    single = widen(tensors(models), base=torch.from_numpy(base))
    wide = [model.astype(np.float64) for model in models]
    double = widened(base.astype(np.float64), wide, 1.0, 1.0)
    assert np.abs(single.numpy() - double).max() < 4e-9, "more than the last place of the weights"


def test_widen_of_a_zero_column_stays_finite_and_says_so() -> None:
    base, models = draw(2, (6, 4))
    base[:, 1] = 0
    models[0][:, 1] = 0
    context = TensorContext()
    merged = widen(tensors(models), base=torch.from_numpy(base), context=context)
    assert bool(merged.isfinite().all())
    assert context.notes == ["a column is zero: its change counts as one of norm alone"]
