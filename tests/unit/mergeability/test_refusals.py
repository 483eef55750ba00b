"""What the predictor that ships must decline to forecast, and in which words."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.core.forecast import MergeForecast
from repsim.mergeability import measuring, predict_merge, shipped_predictor
from repsim.mergeability.domain import nearest_distance
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import forecasting_sets
from repsim.mergeability.gates import Gate, gate_method, gate_models
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.reasons import label_of
from repsim.models.inspect import locate
from repsim.testing.tiny_models import write_provenance, write_tiny_model


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return shipped_predictor()


@pytest.fixture
def weights_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any tier after the first fails the test."""

    def fail(tier: str, *_: object) -> None:
        raise AssertionError(f"{tier} was measured")

    monkeypatch.setattr(measuring, "_measure", fail)


def assert_refused(found: MergeForecast) -> None:
    """No number is given, and what was read is laid out all the same."""
    assert found.verdict == "cannot say"
    assert found.advice == f"cannot say: {found.refusal}"
    assert not found.in_domain
    assert (found.retention, found.worst) == ({}, None)
    assert (found.p_collapse, found.p_useful) == (None, None)
    assert found.tiers == ("T0",)
    assert math.isfinite(found.evidence["k"])


def zoo_copy(name: str, target: Path) -> Path:
    """A model of the zoo in a folder of its own."""
    shutil.copytree(locate(f"zoo:{name}").folder, target)
    return target


@pytest.mark.usefixtures("weights_are_not_read")
def test_tokens_in_another_order(shipped: Predictor, tmp_path: Path) -> None:
    """Two tokens have changed places: rows of the embeddings stand for different tokens."""
    other = zoo_copy("deu-fork", tmp_path / "other")
    file = other / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    found = predict_merge(["zoo:eng-fork", other], predictor=shipped)
    assert_refused(found)
    assert "token" in found.refusal
    assert found.evidence["same_tokenizer"] == 0.0


@pytest.mark.usefixtures("weights_are_not_read")
def test_a_tokenizer_of_another_size(shipped: Predictor, tmp_path: Path) -> None:
    tiny = write_tiny_model("llama", tmp_path / "tiny", head=True)
    found = predict_merge(["zoo:eng-1", tiny], languages=["eng_Latn"], predictor=shipped)
    assert_refused(found)
    assert found.evidence["same_tokenizer"] == 0.0
    assert found.evidence["token_overlap"] < 1.0


@pytest.mark.usefixtures("weights_are_not_read")
def test_an_encoder(shipped: Predictor, tmp_path: Path) -> None:
    encoders = [write_tiny_model("bert", tmp_path / name, seed=i) for i, name in enumerate("ab")]
    found = predict_merge(encoders, languages=["eng_Latn"], predictor=shipped)
    assert_refused(found)
    assert found.refusal == (
        "'a' does not predict the next token (an encoder), and retention is defined by that"
    )


@pytest.mark.usefixtures("weights_are_not_read")
def test_seven_billion_parameters(shipped: Predictor, tmp_path: Path) -> None:
    """The config alone decides: no weights are there to be read."""
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        write_provenance(tmp_path / name, languages=["eng_Latn"])
    found = predict_merge([tmp_path / "a", tmp_path / "b"], predictor=shipped)
    assert_refused(found)
    assert found.refusal.startswith("the models have 6.7 billion parameters, known merges")
    assert "million, and a forecast goes no further than 3 times beyond" in found.refusal


def test_the_domain_speaks_of_features_by_their_labels(shipped: Predictor) -> None:
    """No name of a column is shown to a person, where a value lies outside or is missing."""
    part = shipped.parts_["T0+T1+T2"]
    known = shipped.evidence_
    row = known.take(np.array([0]))
    points = part.domain.points(known)

    def ask(asked: EvidenceTable) -> str:
        distance = nearest_distance(part.domain.points(asked), points)
        return part.domain.refusals(asked, distance)[0]

    far = row.with_features({"weight_cosine": np.array([-4.0])}, {})
    low, high = part.domain.ranges["weight_cosine"]
    said = ask(far)
    assert said.startswith(f"{label_of('weight_cosine')} is −4, known merges have ")
    assert "-" not in said.partition(" is ")[2]
    assert f"{high:.3g}" in said
    assert low < high
    unknown = row.with_features({name: np.array([np.nan]) for name in part.domain.features}, {})
    said = ask(unknown)
    assert "features are not known" in said
    assert "_" not in said
    assert label_of(part.domain.usual[0]) in said


def test_no_forecast_rests_on_a_trial_of_the_merge(shipped: Predictor) -> None:
    """The oracle evaluates a merge: it may be held against forecasts, and is in none."""
    used = {use.name for part in shipped.parts_.values() for use in part.uses}
    assert not {name for name in used if name.startswith("oracle")}
    assert "oracle_retention_as_merged" in shipped.evidence_.features
    rows = [{"merge": "m", "alignment": "none"}, {"merge": "n", "alignment": "none"}]
    features = {"oracle_retention_as_merged": [0.1, 0.9]}
    alone = EvidenceTable.from_rows(rows, features, {"oracle_retention_as_merged": "oracle"})
    with pytest.raises(UsageError, match="a trial of the merge, which is no forecast"):
        forecasting_sets(alone)


def test_parameters_that_no_known_merge_had_are_refused() -> None:
    known = shipped_predictor()
    assert gate_method("task_arithmetic", "none", known, {"weight": (0.7, 0.7)}) == ""
    assert gate_method("task_arithmetic", "none", known) == ""
    assert gate_method("task_arithmetic", "none", known, {"weight": (1.4, 1.4)}) == (
        "known merges by 'task_arithmetic' were made with weight 0.35 or 0.5 or 0.7 or 1, this one "
        "has 1.4, and none tells what that changes"
    )
    assert gate_method("linear", "none", known, {"weight": (0.5, 0.5)}) == ""  # in proportion
    assert "this one has 0.6, 1.4" in gate_method("linear", "none", known, {"weight": (0.3, 0.7)})
    assert "density 0.2 or 0.5 or 0.8, this one has 0.05" in gate_method(
        "ties", "none", known, {"density": (0.05,)}
    )


def test_a_parameter_is_refused_that_is_far_from_each_of_several_known_values() -> None:
    rows = [
        {"merge": str(weight), "method": "task_arithmetic", "parameters": f'{{"weight": {weight}}}'}
        for weight in (0.5, 1.0)
    ]
    known = Predictor()
    known.evidence_ = EvidenceTable.from_rows(rows, {}, {})
    assert known.known_parameters("task_arithmetic")["weight"] == (0.5, 1.0)
    assert gate_method("task_arithmetic", "none", known) == ""
    assert gate_method("task_arithmetic", "none", known, {"weight": (0.5, 0.5)}) == ""
    assert gate_method("task_arithmetic", "none", known, {"weight": (0.5, 1.0)}) == (
        "known merges by 'task_arithmetic' had one weight for all models, this one has 0.5, 1"
    )
    assert "with weight 0.5 or 1, this one has 0.75" in gate_method(
        "task_arithmetic", "none", known, {"weight": (0.75,)}
    )


def test_a_parameter_between_several_known_values_is_no_reason_to_refuse() -> None:
    rows = [
        {"merge": str(density), "method": "ties", "parameters": f'{{"density": {density}}}'}
        for density in (0.2, 0.5, 0.8)
    ]
    known = Predictor()
    known.evidence_ = EvidenceTable.from_rows(rows, {}, {})
    assert gate_method("ties", "none", known, {"density": (0.6, 0.6)}) == ""
    assert "this one has 0.95" in gate_method("ties", "none", known, {"density": (0.95, 0.95)})
    assert "this one has 0.1" in gate_method("ties", "none", known, {"density": (0.1, 0.1)})


def test_a_family_that_no_known_merge_is_of_is_refused(tmp_path: Path) -> None:
    pair = [write_tiny_model("gpt_neox", tmp_path / name, head=True, seed=i) for i, name in
            enumerate("ab")]  # fmt: skip
    found = predict_merge(pair, languages=["eng_Latn"], tiers=["T0"], limit=20)
    assert found.refusal == (
        "'a' is of the family gpt_neox, and every known merge is of gpt2 or llama models: nothing "
        "tells how far off a forecast is"
    )


@pytest.mark.usefixtures("weights_are_not_read")
@pytest.mark.parametrize("family", ["phi3", "gpt_oss"])
def test_random_models_of_families_that_nobody_merged_here_get_no_number(
    family: str, tmp_path: Path
) -> None:
    pair = [write_tiny_model(family, tmp_path / name, head=True, seed=i) for i, name in
            enumerate("ab")]  # fmt: skip
    found = predict_merge(pair, languages=["eng_Latn"], limit=20)
    assert_refused(found)
    why = f"'a' is of the family {family}, and every known merge is of gpt2 or llama models"
    assert why in found.refusal


def test_gates_open_with_the_evidence(tmp_path: Path) -> None:
    """A family counts from ten groups of parents on; of a text that is not known a note says so."""
    pair = [locate(write_tiny_model("gpt2", tmp_path / name, head=True, seed=i)) for i, name in
            enumerate("ab")]  # fmt: skip
    known = Predictor()

    def gate(groups: int, text: str = "") -> Gate:
        rows = [{"merge": f"{family} {number}", "parents": f"{family} {number}", "family": family,
                 "text": "bible"} for family, count in (("llama", 12), ("gpt2", groups))
                for number in range(count)]  # fmt: skip
        known.evidence_ = EvidenceTable.from_rows(rows, {}, {})
        return gate_models(pair, {}, {"retention": known}, text=text)

    assert "every known merge is of llama models" in gate(0).refusals["retention"]
    assert gate(4).refusals["retention"] == (
        "'a' is of the family gpt2, of which merges of 4 groups of parents are known: 10 or more "
        "tell what errors to expect"
    )
    opened = gate(10, "bible")
    assert (opened.refusals["retention"], opened.measurable) == ("", True)
    assert not any("trained on" in note for note in opened.notes)
    assert (
        "known merges are of models trained on bible (22 groups of parents): of forecasts on "
        "'help' it is measured how well each parent knows it, and not known whether intervals hold"
    ) in gate(10, "texts/help").notes
