"""Parallel-sentence retrieval in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from repsim.core.activations import Activations, ArraysInMemory
from repsim.core.errors import InputError
from repsim.core.model_ref import ModelRef
from repsim.evaluation import retrieval


def test_a_permutation_finds_its_fixed_points_whatever_the_block() -> None:
    x = np.random.default_rng(0).normal(size=(10, 4))
    y = x[[0, 1, 2, 3, 4, 5, 6, 8, 9, 7]] * 3
    for block in (1, 3, 1024):
        found = retrieval(x, y, block=block)
        assert (found.forward.value, found.backward.value, found.chance) == (0.7, 0.7, 0.1)
        assert found.both.low < 0.7 < found.both.high


def test_directions_differ_where_one_vector_attracts_all() -> None:
    x = np.eye(3) + 0.1
    y = np.array([[1.0, 1, 1], [0, 1, 0], [0, 0, 1]])
    found = retrieval(x, y)
    assert found.forward.value == 1.0
    y = np.array([[1.0, 1, 1], [1, -1, 0], [1, 0, -1]])
    assert retrieval(x, y).forward.value == pytest.approx(1 / 3)


def test_vectors_that_are_all_alike_give_chance() -> None:
    found = retrieval(np.ones((5, 3)), np.ones((5, 3)))
    assert found.both.value == pytest.approx(found.chance)


def test_centring_takes_the_language_off() -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    shifted = x + 20.0 * np.eye(8)[0]
    assert retrieval(x, shifted, centre=True).both.value == 1.0
    assert retrieval(x, shifted).both.value < 0.9


def test_activations_must_be_of_the_same_sentences() -> None:
    def of(ids: tuple[str, ...]) -> Activations:
        arrays = ArraysInMemory({("resid", 0): np.eye(2)})
        ref = ModelRef("m", "m")
        return Activations(ref, "eng_Latn", ids, {"resid": (0,)}, "mean", "h", arrays)

    assert retrieval(of(("a", "b")), of(("a", "b"))).both.value == 1.0
    with pytest.raises(InputError, match="of different sentences"):
        retrieval(of(("a", "b")), of(("a", "c")))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3), r"shape \(3,\), not \[sentences, width\]"),
        (np.array([[1.0], [np.nan]]), "NaN or infinite"),
        (np.array([[1.0], [0.0]]), "row 1 of the first side is zero"),
        (np.ones((3, 1)), r"shape \(3, 1\) and \(2, 1\)"),
    ],
)
def test_what_has_no_direction_is_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        retrieval(x, np.ones((2, 1)))
    with pytest.raises(InputError, match="two sentences or more"):
        retrieval(np.ones((1, 1)), np.ones((1, 1)))
