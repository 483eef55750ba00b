"""Bits per byte and the unigram floor by their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repsim.core.errors import InputError, UsageError
from repsim.corpora.tokenizers import Tokenizer, train_tokenizer
from repsim.evaluation.bits_per_byte import (
    HeldOut,
    cut,
    evaluate_bits_per_byte,
    score,
)
from repsim.evaluation.floor import unigram_floor
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import build_model, hf_config
from repsim.pretraining.distributed import World

TEXTS = ["the cat sat", "Straße und Häuser, viele davon", "ok"]
CONTEXT = 8


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer({"x": TEXTS * 5}, vocab_size=270)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> torch.nn.Module:
    shape = ArchitectureConfig(hidden=16, layers=2, heads=2, context=64).resolved()
    return build_model(hf_config(shape, tokenizer.vocab_size), 3)


def by_hand(model: torch.nn.Module, tokenizer: Tokenizer, text: str, context: int) -> float:
    """One document, token by token."""
    ids = [tokenizer.bos_id, *tokenizer.encode(text).tolist()]
    bits = 0.0
    for i in range(1, len(ids)):
        begin = (i - 1) // context * context
        logits = model(input_ids=torch.tensor([ids[begin:i]])).logits[0, -1]
        bits -= torch.log_softmax(logits.double(), dim=-1)[ids[i]].item() / math.log(2)
    return bits


@pytest.mark.parametrize("rows", [None, 1, 2])
def test_bits_per_byte_follow_the_definition(
    model: torch.nn.Module, tokenizer: Tokenizer, rows: int | None
) -> None:
    result = evaluate_bits_per_byte(model, tokenizer, TEXTS, CONTEXT, rows=rows)
    expected = [by_hand(model, tokenizer, text, CONTEXT) for text in TEXTS]
    np.testing.assert_allclose(result.bits, expected, rtol=1e-5)
    assert result.sizes.tolist() == [len(text.encode()) for text in TEXTS]
    assert float(result) == pytest.approx(sum(expected) / sum(result.sizes), rel=1e-5)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(
    model: torch.nn.Module, tokenizer: Tokenizer
) -> None:
    def uniform(windows: torch.Tensor) -> torch.Tensor:
        return torch.full((len(windows), windows.shape[1] - 1), math.log(256.0))

    documents = tuple(tokenizer.encode(text) for text in TEXTS)
    held_out = HeldOut(documents, np.array([len(text.encode()) for text in TEXTS]))
    alone = World(0, 1, torch.device("cpu"))
    for options in ({}, {"overlap": 3}, {"fixed_shape": True, "rows": 2}):
        result = score(uniform, held_out, CONTEXT, 0, world=alone, **options)  # type: ignore[arg-type]
        np.testing.assert_allclose(result.bits, [8.0 * len(d) for d in documents])


def test_windows_score_every_token_once_whatever_the_overlap() -> None:
    documents = [np.arange(10, 10 + n) for n in (1, 7, 8, 9, 30)]
    for overlap in (0, 1, 7):
        windows = cut(documents, 8, bos=1, overlap=overlap)
        for number, document in enumerate(documents):
            mine = windows.owner == number
            targets = windows.tokens[mine][:, 1:][windows.scored[mine]]
            assert targets.tolist() == document.tolist()
    with pytest.raises(UsageError, match="an overlap of 8 does not fit a context of 8"):
        cut(documents, 8, bos=1, overlap=8)


def test_more_context_by_overlap_changes_the_score_and_not_the_text(
    model: torch.nn.Module, tokenizer: Tokenizer
) -> None:
    apart = evaluate_bits_per_byte(model, tokenizer, TEXTS, CONTEXT)
    overlapping = evaluate_bits_per_byte(model, tokenizer, TEXTS, CONTEXT, overlap=4)
    assert apart.sizes.tolist() == overlapping.sizes.tolist()
    assert apart.bits[1] != overlapping.bits[1]
    assert apart.bits[2] == pytest.approx(overlapping.bits[2], rel=1e-6)


def test_a_transformers_tokenizer_gives_the_same_score(
    model: torch.nn.Module, tokenizer: Tokenizer, tmp_path: object
) -> None:
    from transformers import AutoTokenizer

    from repsim.corpora.tokenizers import save_tokenizer

    theirs = AutoTokenizer.from_pretrained(save_tokenizer(tokenizer, str(tmp_path)))
    ours = evaluate_bits_per_byte(model, tokenizer, TEXTS, CONTEXT)
    assert float(evaluate_bits_per_byte(model, theirs, TEXTS, CONTEXT)) == float(ours)


def test_what_cannot_be_scored_is_refused(model: torch.nn.Module, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="no documents to score"):
        evaluate_bits_per_byte(model, tokenizer, [], CONTEXT)
    with pytest.raises(InputError, match="document 1 is empty"):
        evaluate_bits_per_byte(model, tokenizer, ["a", ""], CONTEXT)


class WordTokenizer:
    """A tokenizer that does not know every word."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = None
    unk_token_id = 2

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        known = {"the": 3, "cat": 4}
        return {"input_ids": [[known.get(w, 2) for w in text.split()] for text in texts]}


def test_unknown_characters_would_be_bytes_for_nothing(model: torch.nn.Module) -> None:
    words = WordTokenizer()
    assert float(evaluate_bits_per_byte(model, words, ["the cat"], CONTEXT)) > 0
    with pytest.raises(InputError, match="document 1 holds characters that the tokenizer does"):
        evaluate_bits_per_byte(model, words, ["the cat", "the dog"], CONTEXT)
    words.bos_token_id = None
    with pytest.raises(UsageError, match="neither BOS nor EOS"):
        evaluate_bits_per_byte(model, words, ["the cat"], CONTEXT)


def test_the_floor_is_an_add_one_unigram_model() -> None:
    counts = np.array([2, 0, 5])
    held_out = HeldOut((np.array([2, 2, 0]), np.array([1])), np.array([4, 2]))
    p = np.array([3, 1, 6]) / 10
    expected = -np.log2(p[2] * p[2] * p[0] * p[1]) / 6
    assert unigram_floor(counts, held_out) == pytest.approx(expected, rel=1e-12)


def test_a_limit_in_bytes_keeps_whole_documents() -> None:
    held_out = HeldOut(tuple(np.zeros(2) for _ in range(3)), np.array([5, 5, 5]))
    assert len(held_out.first_bytes(0).documents) == 3
    assert len(held_out.first_bytes(11).documents) == 2
    assert len(held_out.first_bytes(1).documents) == 1
