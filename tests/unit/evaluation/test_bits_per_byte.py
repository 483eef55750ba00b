"""Bits per byte and the unigram floor in closed form."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.core.errors import InputError
from repsim.evaluation import floor
from repsim.evaluation.bits_per_byte import HeldOut, evaluate_bits_per_byte
from repsim.evaluation.floor import count_tokens, training_counts, unigram_bits, unigram_floor
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


def test_training_counts_are_those_of_all_text_and_remembered_while_its_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    tokenizer, file = tiny_tokenizer(), tmp_path / "text" / "eng_Latn.train.txt"
    file.parent.mkdir()
    texts = [f"the cat {number} sat" for number in range(200)]
    file.write_text("\n\n".join(texts))
    (file.parent / "eng_Latn.heldout.txt").write_text("a dog")
    first = training_counts(str(file.parent), "eng_Latn", tokenizer)
    np.testing.assert_array_equal(first.counts, count_tokens(tokenizer, texts))
    assert first.n_bytes == sum(map(len, texts))
    with monkeypatch.context() as patched:
        patched.setattr(floor, "count_tokens", None)
        again = training_counts(str(file.parent), "eng_Latn", tokenizer)
        np.testing.assert_array_equal(again.counts, first.counts)
        assert again.n_bytes == first.n_bytes
    (kept,) = (tmp_path / "cache" / "floors").iterdir()
    some = training_counts(str(file.parent), "eng_Latn", tokenizer, limit=500)
    assert 0 < some.n_bytes <= 500
    assert 0 < some.counts.sum() < first.counts.sum()
    kept.write_bytes(kept.read_bytes()[:-30])  # damaged: counted anew
    damaged = training_counts(str(file.parent), "eng_Latn", tokenizer)
    np.testing.assert_array_equal(damaged.counts, first.counts)
    file.write_text("\n\n".join(texts[:100]))
    os.utime(file, (1, 1))
    assert (
        training_counts(str(file.parent), "eng_Latn", tokenizer).counts.sum() < first.counts.sum()
    )


@pytest.mark.parametrize(("limit", "least", "most"), [(500, 400, 500), (5, 2890, 2890)])
def test_a_floor_rests_on_documents_of_a_long_text_unless_none_is_so_short(
    limit: int, least: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(floor, "LEAST_BYTES", limit)
    monkeypatch.setattr(floor, "BYTES_PER_ENTRY", 0)
    texts = [f"the cat {number} sat" for number in range(200)]
    (tmp_path / "eng_Latn.train.txt").write_text("\n\n".join(texts))
    (tmp_path / "eng_Latn.heldout.txt").write_text("a dog")
    found = training_counts(str(tmp_path), "eng_Latn", tiny_tokenizer())
    assert least <= found.n_bytes <= most
