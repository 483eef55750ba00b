"""Minimal pairs: formats, scoring, and the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.core.errors import InputError, UsageError
from repsim.evaluation import builtin_minimal_pairs, read_minimal_pairs, score_minimal_pairs
from repsim.evaluation.minimal_pairs import FOLDER, MinimalPair
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer


def test_blimp_and_multiblimp_are_read(tmp_path: Path) -> None:
    blimp = tmp_path / "a.jsonl"
    blimp.write_text(
        '{"sentence_good": "He eats.", "sentence_bad": "He eat.", "UID": "agreement"}\n\n',
        encoding="utf-8",
    )
    multi = tmp_path / "b.tsv"
    multi.write_text('verb\tsen\twrong_sen\nx\tSie "isst.\tSie "essen.\n', encoding="utf-8")
    assert read_minimal_pairs(blimp) == [MinimalPair("He eats.", "He eat.", "agreement")]
    assert read_minimal_pairs(multi) == [MinimalPair('Sie "isst.', 'Sie "essen.')]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "holds no minimal pairs"),
        ("a.jsonl", b"{", "'.*', line 1 is not JSON"),
        ("a.jsonl", b"\n[1]", "'.*', line 2 is not a JSON object"),
        ("a.jsonl", b'{"sentence_good": "x"}', "line 1 of '.*' has no pair"),
        ("a.tsv", b"sen\twrong_sen\nx\tx\n", "line 2 of '.*': both sentences are the same"),
        ("a.tsv", b"\xff\xfe", "UTF-"),
        ("a.tsv", None, "does not exist"),
    ],
)
def test_what_holds_no_pairs_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_minimal_pairs(tmp_path / name)


def test_the_sample_has_forty_balanced_pairs_per_language() -> None:
    languages = [path.stem for path in FOLDER.glob("*.jsonl")]
    assert sorted(languages) == ["deu_Latn", "eng_Latn", "fra_Latn", "spa_Latn"]
    for language in languages:
        pairs = builtin_minimal_pairs(language)
        assert len(pairs) == len(set(pairs)) == 40
        for one, other in zip(pairs[::2], pairs[1::2], strict=True):
            ends = {one.good.split()[-1], other.good.split()[-1]}
            assert one.bad != one.good
            assert {one.bad.split()[-1], other.bad.split()[-1]} == ends
    with pytest.raises(UsageError, match="built-in minimal pairs 'xxx'"):
        builtin_minimal_pairs("xxx")


def test_scores_are_summed_log_probabilities() -> None:
    model, tokenizer = tiny_model("llama", head=True), tiny_tokenizer()
    pairs = [MinimalPair("the cat", "the dog", "a"), MinimalPair("in there", "in", "b")]
    found = score_minimal_pairs(model, tokenizer, pairs)

    def bits(text: str) -> float:
        ids = tokenizer(text).input_ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        logs = torch.log_softmax(logits.double(), dim=-1)
        return -sum(float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1)) / float(np.log(2))

    expected = [bits(pair.bad) - bits(pair.good) for pair in pairs]
    np.testing.assert_allclose(found.margins, expected, rtol=1e-4)
    assert found.accuracy.value == np.mean(np.array(expected) > 0)
    assert set(found.by_phenomenon) == {"a", "b"}


def test_a_model_without_preference_is_at_chance() -> None:
    model = tiny_model("llama", head=True)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = score_minimal_pairs(model, tiny_tokenizer(), [MinimalPair("ab cd", "ab ce")] * 4)
    assert found.accuracy.value == found.accuracy_per_byte.value == 0.5
    with pytest.raises(InputError, match="no minimal pairs to score"):
        score_minimal_pairs(model, tiny_tokenizer(), [])
