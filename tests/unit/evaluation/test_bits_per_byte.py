"""Bits per byte and the unigram floor in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repsim.core.errors import InputError
from repsim.evaluation.bits_per_byte import HeldOut, evaluate_bits_per_byte
from repsim.evaluation.floor import count_tokens, unigram_bits, unigram_floor
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer

TEXTS = ["the cat sat", "Straße und Häuser, viele davon", "ok"]


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary_per_token() -> None:
    model, tokenizer = tiny_model("llama", head=True), tiny_tokenizer()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    score = evaluate_bits_per_byte(model, tokenizer, TEXTS, 8)
    tokens = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in TEXTS]
    np.testing.assert_allclose(
        score.bits, math.log2(model.config.vocab_size) * np.array(tokens), rtol=1e-6
    )
    assert score.sizes.tolist() == [len(text.encode()) for text in TEXTS]


def test_batches_and_the_models_mode_do_not_matter() -> None:
    model, tokenizer = tiny_model("gpt2", head=True), tiny_tokenizer()
    model.train()
    one, all_of_them = (
        evaluate_bits_per_byte(model, tokenizer, TEXTS, 8, rows=rows) for rows in (1, None)
    )
    np.testing.assert_allclose(one.bits, all_of_them.bits, rtol=1e-5)
    assert model.training


def test_the_floor_is_the_cross_entropy_with_add_one_counts() -> None:
    held_out = HeldOut((np.array([2, 2, 0]), np.array([1])), np.array([4, 2]))
    p = np.array([3, 1, 6]) / 10
    expected = np.array([-np.log2(p[2] * p[2] * p[0]), -np.log2(p[1])])
    np.testing.assert_allclose(unigram_bits(np.array([2, 0, 5]), held_out).bits, expected)
    assert unigram_floor(np.array([2, 0, 5]), held_out) == pytest.approx(expected.sum() / 6)


def test_tokens_are_counted_without_specials() -> None:
    tokenizer = tiny_tokenizer()
    texts = ["the cat", "</s> the"] * 200
    counts = count_tokens(tokenizer, iter(texts))
    ids = [i for text in texts for i in tokenizer(text, add_special_tokens=False).input_ids]
    assert counts.sum() == sum(i > 3 for i in ids)
    assert len(counts) == len(tokenizer)
    with pytest.raises(InputError, match="no training text to count tokens in"):
        count_tokens(tokenizer, [])
