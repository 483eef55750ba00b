"""Task arithmetic, TIES, DARE, DELLA and breadcrumbs equal float64 formulas written in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsim.core.errors import UsageError
from repsim.merging.base import TensorContext
from repsim.merging.methods import METHODS
from repsim.merging.methods.task_vectors import (
    breadcrumbs,
    breadcrumbs_ties,
    dare_linear,
    della,
    della_linear,
    task_arithmetic,
    ties,
)

Array = np.ndarray


def draw(seed: int, count: int = 3, shape: tuple[int, ...] = (6, 11)) -> tuple[Array, list[Array]]:
    """Base and deltas."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), [rng.normal(size=shape) for _ in range(count)]


def given(base: Array, deltas: list[Array]) -> dict[str, object]:
    return {"tensors": [torch.tensor(base + d) for d in deltas], "base": torch.tensor(base)}


def close(merged: torch.Tensor, expected: Array, tolerance: float = 1e-12) -> bool:
    assert tuple(merged.shape) == expected.shape
    return bool(np.abs(merged.numpy() - expected).max() <= tolerance * (1 + np.abs(expected).max()))


# -- reference formulas --------------------------------------------------------------------------


def trim(delta: Array, density: float) -> Array:
    """The k largest magnitudes, ties by index, found by a full sort."""
    flat, k = delta.ravel(), max(1, int(density * delta.size))
    order = np.lexsort((np.arange(flat.size), -np.abs(flat)))
    out = np.zeros_like(flat)
    out[order[:k]] = flat[order[:k]]
    return out.reshape(delta.shape)


def elect(deltas: list[Array], a: list[float], *, normalize: bool) -> Array:
    """mergekit's order: weights first; entry by entry."""
    out = np.zeros(deltas[0].size)
    for j in range(out.size):
        x = [w * d.ravel()[j] for w, d in zip(a, deltas, strict=True)]
        sign = 1.0 if sum(x) >= 0 else -1.0
        agree = [i for i, v in enumerate(x) if np.sign(v) == sign]
        divisor = sum(a[i] for i in agree) if normalize else 1.0
        out[j] = sum(x[i] for i in agree) / divisor if agree else 0.0
    return out.reshape(deltas[0].shape)


def peft_order(deltas: list[Array], a: list[float]) -> Array:
    """PEFT: the sign of the unweighted sum; weighted sum over the number that agree."""
    stacked = np.stack(deltas)
    sign = np.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agree = np.sign(stacked) == sign
    weighted = (stacked * np.reshape(a, (-1, 1, 1)) * agree).sum(0)
    return weighted / np.maximum(agree.sum(0), 1)


def crumbs(delta: Array, density: float, gamma: float) -> Array:
    n, kept = delta.size, int(density * delta.size)
    bottom = max(0, n - kept - int(gamma * n))
    order = np.argsort(np.abs(delta.ravel()), kind="stable")
    out = np.zeros(n)
    chosen = order[bottom : bottom + kept]
    out[chosen] = delta.ravel()[chosen]
    return out.reshape(delta.shape)


def total(deltas: list[Array], a: list[float], *, normalize: bool) -> Array:
    return sum(w * d for w, d in zip(a, deltas, strict=True)) / (sum(a) if normalize else 1.0)


A = [0.2, 1.3, 0.7]


@pytest.mark.parametrize("normalize", [True, False])
def test_task_arithmetic_adds_weighted_deltas(normalize: bool) -> None:
    base, deltas = draw(0)
    merged = task_arithmetic(
        **given(base, deltas), weight=A, normalize=normalize, **{"lambda": 0.6}
    )
    assert close(merged, base + 0.6 * total(deltas, A, normalize=normalize))


# -- TIES ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], A, [0.2, -0.9, 0.8]])
def test_ties_is_trim_elect_merge(weights: list[float], normalize: bool) -> None:
    base, deltas = draw(1)
    q = [0.2, 0.5, 1.0]
    trimmed = [trim(d, share) for d, share in zip(deltas, q, strict=True)]
    expected = base + 0.8 * elect(trimmed, weights, normalize=normalize)
    merged = ties(
        **given(base, deltas), weight=weights, density=q, normalize=normalize, **{"lambda": 0.8}
    )
    assert close(merged, expected)


def test_ties_of_peft_weighs_after_the_election() -> None:
    base, deltas = draw(2)
    trimmed = [trim(d, 0.5) for d in deltas]
    after = ties(**given(base, deltas), weight=A, weighting="after")
    assert close(after, base + peft_order(trimmed, A))
    before = ties(**given(base, deltas), weight=A)
    assert not torch.allclose(before, after)
    one = [ties(**given(base, deltas), weighting=order) for order in ("before", "after")]
    assert torch.allclose(*one, rtol=1e-12)


def test_ties_of_the_paper_trims_by_the_threshold_of_the_whole_model() -> None:
    base, deltas = draw(3)
    cuts = [0.3, 1.0, 2.0]
    trimmed = [d * (np.abs(d) >= c) for d, c in zip(deltas, cuts, strict=True)]
    merged = ties(**given(base, deltas), scope="model", context=TensorContext(surveyed=cuts))
    assert close(merged, base + elect(trimmed, [1.0] * 3, normalize=True))
    with pytest.raises(UsageError, match="scope 'model' needs the thresholds"):
        ties(**given(base, deltas), scope="model")


def test_ties_elects_plus_where_votes_cancel_and_nothing_where_none_is_cast() -> None:
    base = torch.zeros(3, dtype=torch.float64)
    votes = [torch.tensor([2.0, 0, -1]).double(), torch.tensor([-2.0, 0, -3]).double()]
    assert ties(votes, base=base, density=1.0).tolist() == [2.0, 0.0, -2.0]


@pytest.mark.parametrize("density", [0.01, 0.1, 0.333, 0.5, 0.999, 1.0])
def test_trimming_keeps_the_exact_count_among_equal_magnitudes_of_bfloat16(density: float) -> None:
    rng = np.random.default_rng(4)
    base = torch.tensor(rng.normal(size=(64, 50))).bfloat16()
    tuned = (base.float() + torch.tensor(1e-2 * rng.normal(size=(64, 50))).float()).bfloat16()
    delta = tuned.float() - base.float()
    delta[delta == 0] = 2.0**-9
    assert len(delta.abs().unique()) < delta.numel() / 4, "magnitudes repeat"
    kept = ties([delta], base=torch.zeros_like(delta), density=density)
    assert int(kept.count_nonzero()) == max(1, int(density * delta.numel()))
    assert np.array_equal(kept.numpy(), trim(delta.numpy(), density).astype(np.float32))


def test_the_largest_are_chosen_by_index_where_all_are_equal() -> None:
    kept = ties([torch.ones(2, 3)], base=torch.zeros(2, 3), density=4 / 6)
    assert kept.tolist() == [[1, 1, 1], [1, 0, 0]]


# -- breadcrumbs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("density", "gamma"), [(0.9, 0.01), (0.5, 0.2), (0.3, 0.0), (0.8, 0.2)])
def test_breadcrumbs_drop_both_ends(density: float, gamma: float) -> None:
    base, deltas = draw(5)
    thin = [crumbs(d, density, gamma) for d in deltas]
    options = {"weight": A, "density": density, "gamma": gamma}
    merged = breadcrumbs(**given(base, deltas), **options)
    assert close(merged, base + total(thin, A, normalize=False))
    merged = breadcrumbs_ties(**given(base, deltas), **options)
    assert close(merged, base + elect(thin, A, normalize=False))


def test_breadcrumbs_keep_the_density_if_gamma_asks_for_too_much_and_say_so() -> None:
    base, deltas = draw(6, count=1)
    context = TensorContext()
    merged = breadcrumbs(**given(base, deltas), density=0.9, gamma=0.3, context=context)
    assert close(merged, base + crumbs(deltas[0], 0.9, 0.3))
    assert context.notes == [
        "fewer large entries dropped than gamma asks for: density would not be kept"
    ]
    everything = breadcrumbs(**given(base, deltas), density=1.0, gamma=0.3)
    assert close(everything, base + deltas[0])


def test_breadcrumbs_of_a_tensor_too_small_for_the_density_keep_the_base_and_say_so() -> None:
    base, deltas = draw(8, shape=(1,))
    context = TensorContext()
    assert close(breadcrumbs(**given(base, deltas), density=0.5, context=context), base)
    assert context.notes == [
        "density keeps no entry of so small a tensor: that model adds nothing here"
    ]


# -- random thinning -----------------------------------------------------------------------------


def masks(context: TensorContext, shape: tuple[int, ...], keep: list[Array | float]) -> list[Array]:
    """What each model keeps, drawn from its own stream."""
    draws = [torch.rand(shape, generator=context.generator(i)).numpy() for i in range(len(keep))]
    return [d < q for d, q in zip(draws, keep, strict=True)]


def della_probability(delta: Array, q: float, epsilon: float) -> Array:
    rank = np.argsort(np.argsort(np.abs(delta), axis=-1, kind="stable"), axis=-1)
    return q - epsilon + 2 * epsilon * rank / (delta.shape[-1] - 1)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rescale", ["unbiased", "l1", "none"])
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della_linear", "della"])
def test_random_thinning_is_the_formula(name: str, rescale: str, normalize: bool) -> None:
    base, deltas = draw(9)
    q, epsilon = [0.3, 0.6, 0.8], [0.1, 0.05, 0.19]
    context = TensorContext(name="x", seed=3)
    keep: list[Array | float] = list(q)
    options: dict[str, object] = {"weight": A, "density": q, "rescale": rescale}
    if name.startswith("della"):
        keep = [della_probability(*each) for each in zip(deltas, q, epsilon, strict=True)]
        options["epsilon"] = epsilon
    thin = [d * m for d, m in zip(deltas, masks(context, base.shape, keep), strict=True)]
    if rescale == "unbiased":
        thin = [d / p for d, p in zip(thin, keep, strict=True)]
    elif rescale == "l1":
        thin = [t * np.abs(d).sum() / np.abs(t).sum() for t, d in zip(thin, deltas, strict=True)]
    merge = elect if name in ("dare_ties", "della") else total
    merged = METHODS[name](
        **given(base, deltas), context=context, normalize=normalize, **{**options, "lambda": 0.9}
    )
    assert close(merged, base + 0.9 * merge(thin, A, normalize=normalize))


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_the_papers_rescaling_is_unbiased(name: str) -> None:
    base, (delta,) = draw(10, count=1, shape=(8, 16))
    seeds, copies, q, epsilon = 15, 100, 0.3, 0.1
    options = {"density": q, **({"epsilon": epsilon} if name == "della_linear" else {})}
    # Entries are drawn independently, and ranks are within a row: copies are further draws.
    models = given(np.tile(base, (copies, 1)), [np.tile(delta, (copies, 1))])
    merged = np.concatenate(
        [
            METHODS[name](**models, context=TensorContext(seed=seed), **options)
            .numpy()
            .reshape(copies, *base.shape)
            - base
            for seed in range(seeds)
        ]
    )
    keep = della_probability(delta, q, epsilon) if name == "della_linear" else q
    error = np.abs(delta) * np.sqrt((1 - keep) / keep / len(merged))
    z = (merged.mean(0) - delta) / error
    assert np.abs(z).max() < 4, "128 entries: 4 standard errors are exceeded once in 120 seeds"
    assert 0.8 < z.std() < 1.2
    assert abs(z.mean()) < 4 / np.sqrt(z.size)


def test_rescaling_to_the_l1_norm_is_biased_against_large_entries() -> None:
    base, (delta,) = draw(11, count=1, shape=(64,))
    kept = [
        dare_linear(**given(base, [delta]), density=0.1, rescale="l1",
                    context=TensorContext(seed=seed)).numpy() - base
        for seed in range(600)
    ]  # fmt: skip
    for each in kept[:20]:
        assert np.isclose(np.abs(each).sum(), np.abs(delta).sum())
    top = np.abs(delta).argmax()
    assert np.mean([k[top] for k in kept]) / delta[top] < 0.8


def test_draws_belong_to_seed_tensor_and_model() -> None:
    base, deltas = draw(12, shape=(40,))
    context = TensorContext(name="x", seed=1)
    drawn = masks(context, (40,), [0.5] * 3)
    assert not any(np.array_equal(drawn[0], other) for other in drawn[1:])
    # A stream must not change between versions: merges are reproducible from their recipe.
    first = torch.rand(3, generator=TensorContext(name="x", seed=1).generator(0))
    assert torch.allclose(first, torch.tensor([0.31666249, 0.23696995, 0.61114770]))
    again = dare_linear(**given(base, deltas), context=TensorContext(name="x", seed=1))
    assert torch.equal(again, dare_linear(**given(base, deltas), context=context))


# -- degenerate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ties", "dare_ties", "breadcrumbs_ties"])
def test_density_one_keeps_everything(name: str) -> None:
    base, deltas = draw(14)
    merged = METHODS[name](**given(base, deltas), density=1.0, normalize=True)
    assert close(merged, base + elect(deltas, [1.0] * 3, normalize=True))


@pytest.mark.parametrize("method", [della, della_linear])
def test_della_refuses_probabilities_outside_the_open_interval(method) -> None:  # type: ignore[no-untyped-def]
    for density, epsilon in ((0.9, 0.15), (0.1, 0.15), (0.5, 0.5), (0.5, -0.6)):
        with pytest.raises(UsageError, match=r"della needs 0 < density ± epsilon < 1"):
            method(**given(*draw(15)), density=density, epsilon=epsilon)
    base, deltas = draw(15)
    assert close(method(**given(base, deltas[:1]), density=1.0), base + deltas[0])


def test_della_rows_of_one_entry_are_kept_with_probability_density_and_noted() -> None:
    base, (delta,) = draw(16, count=1, shape=(2000, 1))
    context = TensorContext()
    merged = della_linear(**given(base, [delta]), density=0.4, rescale="none", context=context)
    kept = float(np.mean(np.abs(merged.numpy() - base) > 1e-12))
    assert abs(kept - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 2000)
    assert context.notes == ["rows of one entry have no rank: kept with probability density"]


def test_a_delta_of_which_nothing_is_left_is_noted() -> None:
    base, deltas = draw(17, count=1, shape=(2,))
    for rescale in ("unbiased", "l1", "none"):
        context = TensorContext()
        merged = dare_linear(**given(base, deltas), density=1e-9, rescale=rescale, context=context)
        assert close(merged, base)
        assert context.notes == [
            "every entry of a delta was dropped at random: that model adds nothing here"
        ]


def test_weights_that_cancel_are_noted_and_not_divided_by() -> None:
    base, deltas = draw(18, count=2)
    context = TensorContext()
    merged = task_arithmetic(
        **given(base, deltas), weight=[1.0, -1.0], normalize=True, context=context
    )
    assert close(merged, base + deltas[0] - deltas[1])
    assert context.notes == ["the weights add up to zero: deltas added up, not averaged"]
    # Entries of opposite sign with opposite weights vote alike, and their weights cancel.
    context = TensorContext()
    merged = ties([torch.ones(2), -torch.ones(2)], base=torch.zeros(2), weight=[1.0, -1.0],
                  density=1.0, context=context)  # fmt: skip
    assert merged.tolist() == [2.0, 2.0]
    assert context.notes == [
        "the weights that agree add up to zero in places: added up there, no average"
    ]
