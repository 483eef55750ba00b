import numpy as np
import pytest
import torch

from repsim.activations.pooling import check_pooling, plan_rows, token_weights
from repsim.activations.tokens import Encoded
from repsim.core import UsageError


def sentence(tokens: int, kept: list[int]) -> Encoded:
    return Encoded(list(range(tokens)), np.array(kept), np.array(kept), len(kept), False, False)


BATCH = [sentence(5, [1, 2, 4]), sentence(3, [2])]
HIDDEN = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))


def test_mean_is_the_mean_of_kept_tokens():
    rows = plan_rows(BATCH, "mean").apply(HIDDEN)
    torch.testing.assert_close(rows[0], HIDDEN[0, [1, 2, 4]].mean(0))
    torch.testing.assert_close(rows[1], HIDDEN[1, 2])


def test_position_weighted_weighs_the_ith_kept_token_by_i():
    rows = plan_rows(BATCH, "position-weighted").apply(HIDDEN)
    expected = (HIDDEN[0, 1] + 2 * HIDDEN[0, 2] + 3 * HIDDEN[0, 4]) / 6
    torch.testing.assert_close(rows[0], expected)


def test_last_is_the_last_kept_token_bit_for_bit():
    assert torch.equal(plan_rows(BATCH, "last").apply(HIDDEN), HIDDEN[[0, 1], [4, 2]])


def test_tokens_are_the_kept_tokens_in_order():
    rows = plan_rows(BATCH, "tokens").apply(HIDDEN)
    assert torch.equal(rows, HIDDEN[[0, 0, 0, 1], [1, 2, 4, 2]])


@pytest.mark.parametrize("pooling", ["mean", "last", "position-weighted", "tokens"])
def test_what_is_left_out_cannot_leak_in(pooling):
    spoilt = HIDDEN.clone()
    spoilt[0, [0, 3]] = float("nan")
    spoilt[1, [0, 1, 3, 4]] = float("inf")
    plan = plan_rows(BATCH, pooling)
    assert torch.equal(plan.apply(spoilt), plan.apply(HIDDEN))


@pytest.mark.parametrize("pooling", ["mean", "position-weighted"])
def test_weights_sum_to_one(pooling):
    assert token_weights(9, pooling).sum() == pytest.approx(1)


def test_rows_are_float32_whatever_the_model_computes_in():
    assert plan_rows(BATCH, "last").apply(HIDDEN.bfloat16()).dtype == torch.float32
    assert plan_rows(BATCH, "mean").apply(HIDDEN.bfloat16()).dtype == torch.float32


def test_an_unknown_pooling_is_refused():
    with pytest.raises(UsageError, match="unknown pooling 'mena' .*did you mean 'mean'"):
        check_pooling("mena")
