import numpy as np
import pytest

from repsim.core import Activations, ArraysInMemory, ModelRef, UsageError
from repsim.measures import measure, partial
from repsim.measures.cells import _shared_covariates as shared_covariates


def confounded(seed: int, share: float, n: int = 1012, d: int = 64) -> tuple:
    """Two unrelated sides of which one scalar carries a share of the variance each."""
    rng = np.random.default_rng(seed)
    scalar = rng.normal(size=(n, 1))
    sides = []
    for _ in range(2):
        direction = rng.normal(size=(1, d))
        direction *= np.sqrt(share / (1 - share) * d) / np.linalg.norm(direction)
        sides.append(rng.normal(size=(n, d)) + scalar * direction)
    return sides[0], sides[1], scalar[:, 0]


@pytest.mark.parametrize(("share", "d"), [(0.05, 200), (0.1, 64), (0.1, 200)])
def test_a_shared_scalar_fakes_similarity_and_its_removal_shows_none(share: float, d: int) -> None:
    x, y, scalar = confounded(0, share, d=d)
    # Population value: covariances I + c uu' and I + c vv', cross-covariance c uv'.
    c = share / (1 - share) * d
    faked = c**2 / ((1 + c) ** 2 + d - 1)
    assert measure(x, y, "cka") == pytest.approx(faked, abs=0.05)
    assert abs(partial("cka", x, y, scalar)) < 0.01


def test_the_faked_value_at_a_tenth_of_the_variance_is_as_large_as_a_finding() -> None:
    x, y, _ = confounded(1, share=0.1, d=200)
    assert measure(x, y, "cka") > 0.6


def test_similarity_that_is_not_the_covariates_survives_its_removal() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8))
    y = x + rng.normal(size=(400, 8))
    unrelated = rng.normal(size=400)
    assert partial("cka", x, y, unrelated) == pytest.approx(measure(x, y, "cka"), abs=0.01)


def side(covariates: dict[str, np.ndarray], language: str = "eng_Latn") -> Activations:
    x = np.zeros((3, 2), dtype=np.float32)
    return Activations(
        ModelRef("m", "m"), language, ("a", "b", "c"), {"resid": (0,)}, "mean", "h",
        ArraysInMemory({("resid", 0): x}), covariates,
    )  # fmt: skip


def test_both_lengths_are_removed_on_parallel_text_and_one_on_the_same_text() -> None:
    a = side({"log_length": np.array([1.0, 2, 3])})
    b = side({"log_length": np.array([2.0, 2, 5])}, "deu_Latn")
    assert shared_covariates(a, a, ["log_length"]).tolist() == [[1], [2], [3]]
    assert shared_covariates(a, b, ["log_length"]).tolist() == [[1, 2], [2, 2], [3, 5]]
    assert shared_covariates(a, b, []).shape == (3, 0)


def test_a_covariate_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="m on eng_Latn carry no covariate 'log_length'"):
        shared_covariates(side({}), side({}), ["log_length"])
