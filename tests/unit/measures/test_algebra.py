import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from repsim.measures.algebra import (
    average_ranks,
    cosine,
    double_centred,
    inner,
    order_statistics,
    symmetric_product,
    triangle,
    u_centred,
)


def symmetric(seed: int, n: int) -> torch.Tensor:
    a = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, n)))
    return a + a.mT


@pytest.mark.parametrize("n", [1, 5, 256, 300, 600])
def test_symmetric_product_is_the_full_product_and_exactly_symmetric(n: int) -> None:
    a = torch.from_numpy(np.random.default_rng(n).normal(size=(n, 7))).float()
    product = symmetric_product(a)
    torch.testing.assert_close(product, a @ a.mT, atol=1e-5, rtol=1e-5)
    assert torch.equal(product, product.mT)


def test_double_centred_is_the_product_with_centering_matrices() -> None:
    matrix, h = symmetric(0, 9), torch.eye(9, dtype=torch.float64) - 1 / 9
    torch.testing.assert_close(double_centred(matrix), h @ matrix @ h)


def test_u_centred_follows_the_definition_entry_by_entry() -> None:
    matrix, n = symmetric(1, 6).numpy(), 6
    np.fill_diagonal(matrix, 0)
    expected = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                expected[i, j] = (
                    matrix[i, j]
                    - matrix[i].sum() / (n - 2)
                    - matrix[:, j].sum() / (n - 2)
                    + matrix.sum() / ((n - 1) * (n - 2))
                )
    centred = u_centred(torch.from_numpy(matrix) + 5 * torch.eye(n))
    np.testing.assert_allclose(centred.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(centred.sum(dim=1).numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_are_those_of_scipy_with_ties_averaged(dtype: torch.dtype) -> None:
    values = np.random.default_rng(2).integers(0, 40, size=300).astype(float)
    ranks = average_ranks(torch.from_numpy(values).to(dtype))
    np.testing.assert_array_equal(ranks.numpy(), rankdata(values))


def test_ranks_of_continuous_values_take_the_sorting_route_to_the_same_end() -> None:
    values = np.random.default_rng(3).exponential(size=500)
    np.testing.assert_array_equal(average_ranks(torch.from_numpy(values)), rankdata(values))


def test_values_that_differ_by_rounding_are_tied() -> None:
    assert average_ranks(torch.tensor([1.0, 1.0 + 1e-15, 2.0]).double()).tolist() == [1.5, 1.5, 3]


def test_one_huge_value_does_not_tie_all_others() -> None:
    values = np.append(np.random.default_rng(4).uniform(1, 2, size=300), 1e5).astype(np.float32)
    ranks = average_ranks(torch.from_numpy(values))
    assert np.corrcoef(ranks.numpy(), rankdata(values))[0, 1] == pytest.approx(1, abs=1e-6)


def test_triangle_and_order_statistics_agree_with_numpy() -> None:
    matrix = symmetric(5, 8)
    upper = matrix.numpy()[np.triu_indices(8, 1)]
    np.testing.assert_array_equal(triangle(matrix).numpy(), upper)
    assert order_statistics(triangle(matrix), [3, 20]) == np.sort(upper)[[3, 20]].tolist()


def test_inner_products_of_float32_are_summed_in_float64() -> None:
    a = torch.full((3000, 100), 0.1, dtype=torch.float32)
    assert inner(a, a) == pytest.approx(3e5 * float(a[0, 0]) ** 2, rel=1e-12)


def test_cosine_with_nothing_is_undefined() -> None:
    assert np.isnan(cosine(torch.zeros(3), torch.ones(3)))
