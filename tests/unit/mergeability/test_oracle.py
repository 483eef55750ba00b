"""The cheap oracle looks at the average and finds what a full evaluation finds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from repsim.core.errors import InputError, UsageError
from repsim.corpora import load_corpus
from repsim.evaluation import judge
from repsim.evaluation.bits_per_byte import score_held_out, tokenized
from repsim.mergeability.features.catalogue import FEATURES
from repsim.mergeability.features.opened import OpenedParents
from repsim.mergeability.features.oracle import oracle_features
from repsim.mergeability.features.outputs import unigram_floor
from repsim.merging.align import build_model
from repsim.merging.align.twins import planted_twin
from repsim.models.causal import CausalModel, load_causal_lm
from repsim.testing.tiny_models import write_tiny_model

BOTH = ("eng_Latn", "deu_Latn")
FORKS = ("zoo:eng-fork", "zoo:deu-fork")


def test_retention_is_that_of_the_mean_of_the_weights() -> None:
    found = oracle_features(FORKS, languages=BOTH, sentences=12, seed=5, device="cpu").as_dict()
    parents = OpenedParents(FORKS, device="cpu").loaded
    states = [parent.head.state_dict() for parent in parents]
    average = load_causal_lm(FORKS[0], device="cpu").model
    average.load_state_dict({name: (states[0][name] + states[1][name]) / 2 for name in states[0]})
    corpus = load_corpus("bible-heldout", languages=BOTH, limit=12, seed=5)
    scores: list[dict[str, object]] = [{}, {}, {}]
    floors = {}
    for language in BOTH:
        held_out, bos = tokenized(parents[0].tokenizer, corpus[language])
        floors[language] = unigram_floor(parents[0], "bible", language, held_out)
        for score, model in zip(scores, [average, *(p.head for p in parents)], strict=True):
            score[language] = score_held_out(model, held_out, bos, 256)
    outcome = judge(scores[0], {"a": scores[1], "b": scores[2]}, floors)  # type: ignore[arg-type]
    for language in BOTH:
        expected = outcome.retention[language].estimate.value
        assert found[f"oracle_retention@{language}"] == pytest.approx(expected, abs=1e-5)
    assert found["oracle_worst_retention"] == pytest.approx(outcome.worst.value, abs=1e-5)
    assert found["oracle_advantage"] == pytest.approx(outcome.advantage.value, abs=1e-5)


def test_it_tells_what_lives_from_what_collapses() -> None:
    lives = oracle_features(FORKS, languages=BOTH, sentences=16, device="cpu").as_dict()
    collapses = oracle_features(
        ["zoo:eng-1", "zoo:deu-1"], languages=BOTH, sentences=16, device="cpu"
    ).as_dict()
    assert lives["oracle_worst_retention"] > 0.75
    assert lives["oracle_advantage"] > 0
    assert collapses["oracle_worst_retention"] < 0
    assert collapses["oracle_advantage"] < 0


def test_a_model_with_itself_loses_nothing() -> None:
    found = oracle_features(
        ["zoo:eng-1", "zoo:eng-1"], languages=["eng_Latn"], sentences=8, device="cpu"
    ).as_dict()
    assert found["oracle_retention@eng_Latn"] == pytest.approx(1.0, abs=1e-5)
    assert found["oracle_advantage"] == pytest.approx(0.0, abs=1e-5)


def test_a_permuted_twin_lives_if_it_is_aligned_and_only_then() -> None:
    model, tokenizer, ref = load_causal_lm("zoo:eng-1", device="cpu")
    spaces = ["residual_permutation", "mlp_units"]
    state, _ = planted_twin(model.config, model.state_dict(), spaces, seed=1)
    twin = CausalModel(build_model(model.config, state), tokenizer, type(ref)("twin", "memory"))
    found = oracle_features(
        ["zoo:eng-1", twin], languages=["eng_Latn"], sentences=8,
        alignments=("none", "permutation"), device="cpu",
    ).as_dict()  # fmt: skip
    assert found["oracle_retention@eng_Latn"] < 0.5
    assert found["oracle_retention_permutation@eng_Latn"] == pytest.approx(1.0, abs=1e-3)


def test_rotation_rescues_two_seeds_of_one_language() -> None:
    found = oracle_features(
        ["zoo:eng-1", "zoo:eng-2"], languages=["eng_Latn"], sentences=8,
        alignments=("none", "orthogonal"), device="cpu",
    ).as_dict()  # fmt: skip
    assert found["oracle_retention@eng_Latn"] < 0.5
    assert found["oracle_retention_orthogonal@eng_Latn"] > 0.75


def test_values_are_declared_as_an_evaluation_and_not_as_a_forecast() -> None:
    result = oracle_features(FORKS, languages=["eng_Latn"], sentences=4, device="cpu")
    assert result.tier == "oracle"
    assert "not a forecast" in result.notes[0]
    for value in result.values:
        spec = FEATURES[value.feature]
        assert spec.tier == "oracle"
        assert "not a forecast" in spec.definition
        assert spec.per_language == bool(value.language)


def test_where_there_is_no_average_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    tiny = write_tiny_model("llama", tmp_path / "tiny", head=True)
    result = oracle_features(
        [tiny, "zoo:eng-1"], languages=["eng_Latn"], alignments=("none", "permutation"),
        device="cpu",
    )  # fmt: skip
    assert len(result.values) == 6
    assert all(math.isnan(value.value) for value in result.values)
    assert "different tokenizers" in result.notes[0]


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown alignment"):
        oracle_features(FORKS, languages=["eng_Latn"], alignments=["affine"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="no language"):
        oracle_features(FORKS, languages=[])
    with pytest.raises((InputError, UsageError), match="ind_Latn"):
        oracle_features(FORKS, corpus="kolibri", languages=["ind_Latn"], sentences=4)
