"""RegMean and Fisher averaging equal closed forms, and solve the problems that define them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsim.core.errors import InputError, UsageError
from repsim.merging.base import Gram, TensorContext
from repsim.merging.methods.data_aware import fisher, regmean

Array = np.ndarray


def draw(
    seed: int, count: int = 3, out: int = 4, width: int = 6
) -> tuple[list[Array], list[Array]]:
    """Weights `[out, in]` and inputs `[token, in]`."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(out, width)) for _ in range(count)]
    mixing = [rng.normal(size=(width, width)) for _ in range(count)]
    return weights, [rng.normal(size=(50, width)) @ m for m in mixing]


def about(inputs: list[Array], axis: int = 1, name: str = "w") -> TensorContext:
    grams = [Gram(torch.tensor(x.T @ x / len(x)), axis) for x in inputs]  # type: ignore[arg-type]
    return TensorContext(name=name, statistics=grams)


def tensors(arrays: list[Array]) -> list[torch.Tensor]:
    return [torch.tensor(a) for a in arrays]


# -- RegMean -------------------------------------------------------------------------------------


def test_regmean_minimises_the_change_of_the_outputs() -> None:
    weights, inputs = draw(0)
    merged = regmean(tensors(weights), context=about(inputs), reduction=1.0, ridge=0.0)
    stacked = np.vstack(inputs)
    outputs = np.vstack([x @ w.T for x, w in zip(inputs, weights, strict=True)])
    best = np.linalg.lstsq(stacked, outputs, rcond=None)[0].T
    assert np.allclose(merged.numpy(), best, rtol=1e-9)


@pytest.mark.parametrize("reduction", [0.0, 0.5, 0.9])
def test_regmean_shrinks_what_is_off_the_diagonal(reduction: float) -> None:
    weights, inputs = draw(1)
    grams = [x.T @ x / len(x) for x in inputs]
    shrunk = [reduction * g + (1 - reduction) * np.diag(np.diag(g)) for g in grams]
    right = sum(g @ w.T for g, w in zip(shrunk, weights, strict=True))
    expected = np.linalg.inv(sum(shrunk)) @ right
    merged = regmean(tensors(weights), context=about(inputs), reduction=reduction, ridge=0.0)
    assert np.allclose(merged.numpy(), expected.T, rtol=1e-9)


def test_the_ridge_of_regmean_draws_to_the_plain_mean() -> None:
    weights, inputs = draw(2)
    mean = np.mean(weights, 0)
    grams = [0.9 * g + 0.1 * np.diag(np.diag(g)) for g in (x.T @ x / len(x) for x in inputs)]
    r = 0.3 * np.mean(np.diag(sum(grams)))
    right = sum(g @ w.T for g, w in zip(grams, weights, strict=True)) + r * mean.T
    expected = np.linalg.solve(sum(grams) + r * np.eye(6), right).T
    context = about(inputs)
    merged = regmean(tensors(weights), context=context, ridge=0.3)
    assert np.allclose(merged.numpy(), expected, rtol=1e-9)
    assert context.values["condition"] == pytest.approx(np.linalg.cond(sum(grams) + r * np.eye(6)))
    far = regmean(tensors(weights), context=about(inputs), ridge=1e9)
    assert np.allclose(far.numpy(), mean, atol=1e-7)


def test_regmean_of_a_weight_stored_as_in_by_out_is_the_transpose() -> None:
    weights, inputs = draw(3, out=6)
    usual = regmean(tensors(weights), context=about(inputs))
    stored = [torch.tensor(w.T.copy()) for w in weights]
    transposed = regmean(stored, context=about(inputs, axis=0))
    assert torch.allclose(transposed, usual.T)
    assert not torch.allclose(regmean(stored, context=about(inputs)), usual.T)


def test_regmean_takes_a_bare_matrix_for_that_of_a_linear_layer() -> None:
    weights, inputs = draw(4)
    context = about(inputs)
    bare = TensorContext(statistics=[g.matrix for g in context.statistics])  # type: ignore[union-attr]
    assert torch.equal(
        regmean(tensors(weights), context=bare), regmean(tensors(weights), context=context)
    )


def test_regmean_leaves_directions_without_input_at_the_mean_and_says_so() -> None:
    weights, inputs = draw(5)
    for x in inputs:
        x[:, 2] = 0
    context = about(inputs)
    merged = regmean(tensors(weights), context=context, ridge=1e-12)
    assert np.allclose(merged.numpy()[:, 2], np.mean(weights, 0)[:, 2])
    (note,) = context.notes
    assert note.startswith("normal equations are ill-conditioned (")
    assert context.values["condition"] > 1e11
    with pytest.raises(
        UsageError, match="Gram matrices of tensor 'w' are singular and ridge is 0.*more text"
    ):
        regmean(tensors(weights), context=about(inputs), ridge=0.0)


def test_regmean_without_inputs_is_the_plain_mean_and_says_so() -> None:
    weights, inputs = draw(6)
    mean = np.mean(weights, 0)
    context = TensorContext()
    assert np.allclose(regmean(tensors(weights), context=context).numpy(), mean)
    assert context.notes == ["no Gram matrices: plain mean"]
    context = about([0 * x for x in inputs])
    assert np.allclose(regmean(tensors(weights), context=context).numpy(), mean)
    assert context.notes == ["no input ever reached this layer: plain mean"]


def test_regmean_refuses_statistics_that_do_not_fit() -> None:
    weights, inputs = draw(7)
    context = about(inputs)
    with pytest.raises(InputError, match="Gram matrices for 2 of 3 models.*its own text"):
        regmean(
            tensors(weights),
            context=TensorContext(name="w", statistics=[*context.statistics[:2], None]),  # type: ignore[index]
        )
    with pytest.raises(InputError, match=r"tensor 'w' have shapes \[\(5, 5\)\] along axes \[1\]"):
        regmean(tensors(weights), context=about([x[:, :5] for x in inputs]))
    mixed = [Gram(g.matrix, i % 2) for i, g in enumerate(context.statistics)]  # type: ignore[arg-type,union-attr]
    with pytest.raises(InputError, match=r"along axes \[0, 1\]"):
        regmean(tensors(weights), context=TensorContext(statistics=mixed))


# -- Fisher --------------------------------------------------------------------------------------


def information(seed: int, count: int = 3) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.exponential(size=(4, 6)) for _ in range(count)]


def test_fisher_weighs_entry_by_entry() -> None:
    weights, _ = draw(8)
    f, a = information(8), [0.5, 1.0, 2.0]
    top = sum(x * y * z for x, y, z in zip(a, f, weights, strict=True))
    expected = top / sum(x * y for x, y in zip(a, f, strict=True))
    merged = fisher(tensors(weights), context=TensorContext(statistics=tensors(f)), weight=a)
    assert np.allclose(merged.numpy(), expected, rtol=1e-12)


def test_fisher_does_not_depend_on_the_size_of_the_information() -> None:
    weights, _ = draw(9)
    f = tensors(information(9))
    small = [1e-30 * x for x in f]
    merged = [fisher(tensors(weights), context=TensorContext(statistics=s)) for s in (f, small)]
    assert torch.allclose(*merged, rtol=1e-12)


def test_entries_that_no_output_depends_on_get_the_plain_mean() -> None:
    weights, _ = draw(10)
    f = information(10)
    for x in f:
        x[1] = 0
    f[0][2] = 0
    merged = fisher(tensors(weights), context=TensorContext(statistics=tensors(f))).numpy()
    assert np.allclose(merged[1], np.mean(weights, 0)[1])
    only = f[1][2] * weights[1][2] + f[2][2] * weights[2][2]
    assert np.allclose(merged[2], only / (f[1][2] + f[2][2]))
    context = TensorContext(statistics=[0 * x for x in tensors(f)])
    assert np.allclose(fisher(tensors(weights), context=context).numpy(), np.mean(weights, 0))
    assert context.notes == ["no output depends on this tensor: plain mean"]


def test_fisher_refuses_information_that_is_none() -> None:
    weights, inputs = draw(11)
    f = tensors(information(11))

    def merge(statistics: object, **options: object) -> torch.Tensor:
        context = TensorContext(name="w", statistics=statistics)  # type: ignore[arg-type]
        return fisher(tensors(weights), context=context, **options)

    with pytest.raises(InputError, match="tensor 'w' has no Fisher information.*collect_fisher"):
        merge(None)
    with pytest.raises(InputError, match="has Fisher information for 2 of 3 models"):
        merge([f[0], None, f[2]])
    for wrong in ([x[:2] for x in f], about(inputs).statistics):
        with pytest.raises(InputError, match=r"does not have its shape \(4, 6\)"):
            merge(wrong)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="negative or not finite"):
            merge([f[0], f[1], torch.full((4, 6), bad)])
