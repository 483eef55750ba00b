"""Outputs of parents: divergence by its definition, headroom against the scores of evaluation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.corpora import load_corpus
from repsim.evaluation.bits_per_byte import HeldOut, score_held_out, tokenized
from repsim.mergeability.features.opened import OpenedParents, Parent
from repsim.mergeability.features.outputs import (
    OUTPUT_SENTENCES,
    compare_outputs,
    output_features,
    unigram_floor,
)
from repsim.mergeability.features.speaker import Speaker
from repsim.testing.tiny_models import tiny_model, write_tiny_model

ENGLISH = "eng_Latn"
HELD_OUT = HeldOut((np.arange(5, 45), np.array([7, 9, 7])), np.array([40, 3]))


@pytest.fixture(scope="module")
def parents() -> list[Parent]:
    return OpenedParents(["zoo:eng-1", "zoo:deu-1"], device="cpu").loaded


def test_divergence_and_agreement_are_those_of_the_definition() -> None:
    a, b = (tiny_model("llama", seed=seed, head=True) for seed in (0, 1))
    found = compare_outputs([Speaker(a), Speaker(b)], HELD_OUT, bos=0, context=64)
    kl, same, bits = 0.0, 0, 0.0
    for document in HELD_OUT.documents:
        ids = torch.tensor([[0, *document]])
        with torch.no_grad():
            p, q = (m(input_ids=ids[:, :-1]).logits[0].double().softmax(-1) for m in (a, b))
        kl += float(((p * (p / q).log2()).sum() + (q * (q / p).log2()).sum()) / 2)
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        bits -= float(p.gather(1, ids[0, 1:, None]).log2().sum())
    assert found.tokens == 43
    assert found.divergence[0, 1] == pytest.approx(kl, rel=1e-4)
    assert found.agreement[0, 1] == same / 43
    assert found.bits[0] == pytest.approx(bits, rel=1e-5)


def test_windows_and_batches_do_not_change_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [tiny_model("gpt2", seed=seed, head=True) for seed in (0, 1)]
    speakers = [Speaker(model) for model in models]
    whole = compare_outputs(speakers, HELD_OUT, bos=0, context=64)
    monkeypatch.setattr("repsim.mergeability.features.outputs.LOGITS_AT_ONCE", 1)
    single = compare_outputs(speakers, HELD_OUT, bos=0, context=64)
    assert single.divergence[0, 1] == pytest.approx(whole.divergence[0, 1], rel=1e-5)
    short = compare_outputs(speakers, HELD_OUT, bos=0, context=8)
    expected = float(score_held_out(models[0], HELD_OUT, 0, 8).bits.sum())
    assert short.bits[0] == pytest.approx(expected, rel=1e-5)


def test_headroom_is_what_a_parent_saves_against_unigrams(parents: list[Parent]) -> None:
    corpus = load_corpus("bible-heldout", languages=[ENGLISH], limit=20)
    values, own, notes = output_features(parents, corpus, text="bible", context=128, seed=0)
    found = {value.feature: value.value for value in values}
    held_out, bos = tokenized(parents[0].tokenizer, corpus[ENGLISH])
    floor = float(unigram_floor(parents[0], "bible", ENGLISH, held_out))
    scores = [float(score_held_out(parent.head, held_out, bos, 128)) for parent in parents]
    shares = [(floor - score) / floor for score in scores]
    assert found["parent_headroom"] == pytest.approx(max(shares), rel=1e-5)
    assert found["partner_headroom"] == pytest.approx(min(shares), rel=1e-5)
    assert found["headroom_gap"] == pytest.approx(max(shares) - min(shares), rel=1e-5)
    # The German parent is worse than unigrams in English and calls no language of these its own.
    assert own == {"eng-1": ENGLISH}
    assert notes == []


def test_a_language_without_training_text_has_no_headroom(parents: list[Parent]) -> None:
    corpus = load_corpus("kolibri", languages=["ind_Latn"], limit=5)
    values, own, notes = output_features(parents, corpus, text="bible", context=128, seed=0)
    found = {value.feature: value.value for value in values}
    assert math.isnan(found["parent_headroom"])
    assert found["output_kl"] > 0
    assert own == {}
    assert "headroom in ind_Latn is not known" in notes[0]


def test_models_of_other_tokenizers_have_headroom_but_no_divergence(tmp_path: Path) -> None:
    llama = write_tiny_model("llama", tmp_path / "llama", head=True)
    corpus = load_corpus("bible-heldout", languages=[ENGLISH], limit=5)
    strangers = OpenedParents([llama, "zoo:eng-1"], device="cpu").loaded
    values, _, notes = output_features(strangers, corpus, text="bible", context=128, seed=0)
    found = {value.feature: value.value for value in values}
    for name in ("output_kl", "output_kl_worst", "output_kl_relative", "output_agreement"):
        assert math.isnan(found[name])
    assert found["partner_headroom"] < 0 < found["parent_headroom"]
    assert any("different tokenizers" in note for note in notes)


def test_no_more_sentences_are_read_than_stated(parents: list[Parent]) -> None:
    large = load_corpus("bible-heldout", languages=[ENGLISH], limit=OUTPUT_SENTENCES + 40)
    some = large.sample(OUTPUT_SENTENCES, 3)
    first, second = (
        output_features(parents, corpus, text=None, context=128, seed=3)[0]
        for corpus in (large, some)
    )
    read = [value.value for value in first if not math.isnan(value.value)]
    assert len(read) == 4
    assert read == [value.value for value in second if not math.isnan(value.value)]
