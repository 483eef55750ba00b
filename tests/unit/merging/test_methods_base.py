"""What every merge method does before its own formula: types, shapes, parameters, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from repsim.core.errors import InputError, UsageError
from repsim.merging.arrays import is_finite
from repsim.merging.base import TensorContext, check_tensors, merge_method
from repsim.merging.methods import METHODS
from repsim.merging.methods.averaging import linear, passthrough
from repsim.merging.methods.spherical import karcher, slerp
from repsim.merging.methods.task_vectors import task_arithmetic, ties
from repsim.merging.parameters import per_model

ONE, TWO = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])


def test_a_declaration_is_read_from_the_signature() -> None:
    assert ties.defaults == {
        "lambda": 1.0,
        "normalize": True,
        "scope": "tensor",
        "weighting": "before",
        "rescale": "none",
    }
    assert ties.model_defaults == {"weight": 1.0, "density": 0.5}
    assert METHODS["ties"] is ties


def test_a_method_can_be_declared_without_being_registered() -> None:
    @merge_method(name="mine", label="m", definition="-", reference="-", register=False)
    def mine(tensors, *, base, context, weight=per_model(2.0), power=1.0):  # type: ignore[no-untyped-def]
        return weight[0] * tensors[0] ** power + weight[1] * tensors[1]

    assert "mine" not in METHODS
    assert mine([ONE, TWO]).tolist() == [8.0, 14.0]
    assert mine([ONE, TWO], power=2.0, weight=[1, 0]).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("method", "name", "value", "wanted"),
    [
        (slerp, "t", "0.5", "a finite number"),
        (slerp, "t", float("nan"), "a finite number"),
        (slerp, "t", True, "a finite number"),
        (linear, "normalize", 1, "true or false"),
        (linear, "weight", [1.0, "2"], "a finite number"),
        (linear, "weight", None, "a finite number"),
        (linear, "weight", [1.0, float("inf")], "a finite number"),
        (karcher, "max_iter", 2.5, "a whole number"),
        (ties, "scope", 3, "a word"),
    ],
)
def test_a_value_of_another_type_is_refused(method, name: str, value: object, wanted: str) -> None:  # type: ignore[no-untyped-def]
    base = ONE if method is ties else None
    with pytest.raises(UsageError, match=f"parameter '{name}' must be {wanted}, got "):
        method([ONE, TWO], base=base, **{name: value})


def test_one_value_per_model_is_wanted() -> None:
    with pytest.raises(UsageError, match="parameter 'weight' has 3 values for 2 models"):
        linear([ONE, TWO], weight=[1, 2, 3])
    assert linear.resolve({"weight": (1, 2)}, 2)["weight"] == [1.0, 2.0]


def test_tensors_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"'w' has different shapes: \(2,\), \(3,\).*repsim check"):
        check_tensors([ONE, torch.zeros(3)], "w")
    with pytest.raises(InputError, match="'w' holds torch.int64, and only floating-point"):
        check_tensors([torch.arange(2)] * 2, "w")
    for value in (float("nan"), float("inf"), -float("inf")):
        bad = torch.tensor([value, 1.0])
        with pytest.raises(InputError, match="'w' of model 2 holds 1 values that are NaN"):
            check_tensors([ONE, bad], "w")
        with pytest.raises(InputError, match="'w' of model 'b' holds 1 values"):
            linear([ONE, bad], context=TensorContext(name="w", models=["a", "b"]))
    with pytest.raises(InputError, match="model 3 holds"):
        task_arithmetic([ONE, TWO], base=torch.tensor([float("nan"), 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_finite_numbers_are_finite_although_their_sum_is_not(dtype: torch.dtype) -> None:
    assert is_finite(torch.full((8,), torch.finfo(dtype).max, dtype=dtype))
    both = torch.tensor([float("inf"), -float("inf")], dtype=dtype)
    assert not is_finite(both)


def test_gradients_are_not_followed() -> None:
    merged = linear([ONE.clone().requires_grad_(), TWO])
    assert not merged.requires_grad


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (lambda: linear([ONE]), "'linear' needs at least 2 models besides a base, 1"),
        (lambda: slerp([ONE, TWO, ONE]), "'slerp' needs at least 2 and at most 2 models"),
        (lambda: passthrough([ONE, TWO]), "'passthrough' needs at least 1 and at most 1"),
        (lambda: ties([ONE, TWO]), "'ties' merges differences to a base.*--base"),
        (lambda: slerp([ONE, TWO], weight=1.0), r"no parameter 'weight' \(hint: it has: t\)"),
        (lambda: slerp([ONE, TWO], t=1.1), r"t must lie in \[0, 1\]"),
        (lambda: ties([ONE], base=ONE, density=0.0), r"must lie in \(0, 1\], got .* leave it out"),
        (lambda: ties([ONE, TWO], base=ONE, scope="x"), r"'scope' cannot be 'x' \(hint: use one"),
    ],
)
def test_refusals_say_what_is_possible(merge: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        merge()
