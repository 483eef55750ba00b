"""The forecast: what is measured when, what is refused at which cost, and what is said."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import InputError, UsageError
from repsim.core.forecast import Interval, MergeForecast
from repsim.mergeability import measuring
from repsim.mergeability.candidate import Candidate, Doubt, Prediction
from repsim.mergeability.forecast import Options, forecast_of, predict_merge, rank_methods
from repsim.mergeability.matrix import predict_matrix
from repsim.mergeability.measuring import Settings, measure_parents
from repsim.mergeability.reasons import evidence_of, reasons_of
from repsim.mergeability.verdict import decide
from repsim.mergeability.words import gain_text, markdown
from repsim.testing.predictors import planted_predictor
from repsim.testing.tiny_models import write_provenance, write_tiny_model

FORKS = ["zoo:eng-fork", "zoo:deu-fork"]
#: Known sizes that leave no gap up to a million parameters.
SMALL = (3.0, 3.9, 4.8, 5.7)


@pytest.fixture
def weights_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any tier after the first fails the test."""

    def fail(tier: str, *_: object) -> None:
        raise AssertionError(f"{tier} was measured")

    monkeypatch.setattr(measuring, "_measure", fail)


def only_metadata(models: list[Any], **options: Any) -> Any:
    return predict_merge(models, tiers=["T0"], predictor=planted_predictor(), **options)


def test_a_pair_that_lives_and_one_that_collapses() -> None:
    lives = only_metadata(FORKS)
    assert lives.verdict == "merge"
    assert lives.models == ("eng-fork", "deu-fork")
    assert set(lives.retention) == {"eng_Latn", "deu_Latn"}
    assert lives.evidence["speakers@deu_Latn"] == 0.5
    dies = only_metadata(["zoo:eng-1", "zoo:deu-1"])
    assert dies.verdict == "do not merge"
    assert "no alignment (permutation, orthogonal)" in dies.advice


def test_with_a_base_the_gain_kept_is_a_second_outcome_that_answers_for_itself() -> None:
    def asked(base: str | None = "zoo:mixed", **changes: Any) -> MergeForecast:
        gain = planted_predictor(outcome="gain_kept", **changes)
        return predict_merge(
            FORKS, base=base, tiers=["T0"], predictor=[planted_predictor(methods=("ties",)), gain]
        )

    found = asked()
    # Of linear merges only that one knows any: retention is refused, the gain kept is not.
    assert "no known merge was made by 'linear'" in found.refusal
    assert found.gain is not None
    assert (found.gain.base, found.gain.refusal) == ("zoo:mixed", "")
    assert found.gain.kept["eng_Latn"].low < found.gain.kept["eng_Latn"].value
    assert found.gain.p_half < 0.5 < found.gain.worst.value
    assert MergeForecast.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert "gain kept over zoo:mixed" in found._repr_html_()
    old = dataclasses.replace(only_metadata(FORKS), gain=None)
    document = json.loads(json.dumps({**old.to_dict(), "oracle": {}}))
    del document["gain"]
    for known in document["nearest"]:
        known["retention"] = known.pop("kept")
    assert MergeForecast.from_dict(document) == old
    assert "| language | gain kept over zoo:mixed | 90 % interval" in markdown([found])
    # Sizes are known one by one: nothing is told of what lies between two that are far apart.
    refused = asked(sizes=(4.0, 8.0)).gain
    assert refused.kept == {}
    assert "known merges 10.0 thousand or 100.0 million, and a forecast goes" in refused.refusal
    assert "cannot say: the models have 1.3 million" in gain_text(refused)
    with pytest.raises(UsageError, match="forecasts the gain kept over a base, and none is given"):
        asked(base=None)


def test_no_gain_is_forecast_over_a_model_that_is_not_the_base() -> None:
    both = [planted_predictor(), planted_predictor(outcome="gain_kept")]
    found = predict_merge(FORKS, base="zoo:eng-1", tiers=["T0", "T1"], predictor=both)
    assert found.verdict == "merge"  # a linear merge reads no base
    assert found.gain.refusal.startswith("the base does not fit")


def test_alignment_that_would_rescue_a_merge_is_named() -> None:
    # In one language the planted predictor finds no merge useful.
    found = only_metadata(["zoo:eng-1", "zoo:eng-2"])
    assert (found.verdict, found.align_with) == ("do not merge", "")
    assert "after orthogonal alignment <1 %, but that the merge then beats" in found.advice
    asked = only_metadata(["zoo:eng-1", "zoo:eng-2"], alignment="orthogonal")
    assert asked.p_collapse is not None
    assert asked.p_collapse < 0.2
    assert (asked.verdict, asked.align_with) == ("keep one parent", "")


def test_one_model_twice_is_that_model() -> None:
    found = only_metadata(["zoo:eng-1", "zoo:eng-1"])
    assert found.advice == "keep one parent: the parents are the same model"
    weighed = predict_merge(
        ["zoo:eng-1", "zoo:eng-1"], tiers=["T0", "T1"], predictor=planted_predictor()
    )
    assert weighed.verdict == "keep one parent"


def test_a_forecast_is_json_without_nan() -> None:
    document = only_metadata(FORKS).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False))["verdict"] == "merge"


@pytest.mark.usefixtures("weights_are_not_read")
def test_an_encoder_is_refused_from_its_config(tmp_path: Path) -> None:
    encoders = [write_tiny_model("bert", tmp_path / name, seed=i) for i, name in enumerate("ab")]
    found = predict_merge(encoders, predictor=planted_predictor())
    assert found.verdict == "cannot say"
    assert "an encoder" in found.refusal
    assert not found.in_domain
    assert found.p_collapse is None
    assert found.retention == {}
    assert found.tiers == ("T0",)


@pytest.mark.usefixtures("weights_are_not_read")
def test_different_shapes_and_positions_are_refused_from_headers(tmp_path: Path) -> None:
    a = write_tiny_model("llama", tmp_path / "a", head=True)
    b = write_tiny_model("llama", tmp_path / "b", head=True, intermediate_size=64)
    found = predict_merge([a, b], predictor=planted_predictor(sizes=SMALL))
    assert "hidden units" in found.refusal
    c = write_tiny_model("llama", tmp_path / "c", head=True, rope_theta=5e5)
    found = predict_merge([a, c], predictor=planted_predictor(sizes=SMALL))
    assert found.refusal.startswith("rotary positions")


@pytest.mark.usefixtures("weights_are_not_read")
def test_a_7b_config_is_refused_without_weights(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        write_provenance(tmp_path / name, languages=["eng_Latn"])
    found = predict_merge([tmp_path / "a", tmp_path / "b"], predictor=planted_predictor())
    assert (
        found.refusal == "the models have 6.7 billion parameters, known merges 1.0 to 2.0 million, "
        "and a forecast goes no further than 3 times beyond"
    )
    assert found.evidence["parameters_log10"] == pytest.approx(math.log10(6.74e9), abs=0.01)
    tiny = write_tiny_model("llama", tmp_path / "c", head=True)
    (tiny / "model.safetensors").unlink()
    known = planted_predictor(sizes=SMALL)
    assert "no safetensors" in predict_merge([tiny, tiny], predictor=known).refusal


@pytest.mark.usefixtures("weights_are_not_read")
def test_a_method_that_nobody_knows_is_refused_at_once() -> None:
    found = predict_merge(FORKS, "sce", base="zoo:mixed", predictor=planted_predictor())
    assert found.refusal == "no known merge was made by 'sce' (known: linear, ties)"
    found = predict_merge(FORKS, "ties", "orthogonal", base="x", predictor=planted_predictor())
    assert "alignment by orthogonal" in found.refusal


def test_refused_parents_are_measured_if_asked(tmp_path: Path) -> None:
    encoders = [write_tiny_model("bert", tmp_path / name, seed=i) for i, name in enumerate("ab")]
    found = predict_merge(encoders, tiers=["T0", "T1"], predictor=planted_predictor(), insist=True)
    assert found.tiers == ("T0", "T1")
    assert "weight_distance" in found.evidence or any("T1 could not" in n for n in found.notes)
    assert found.verdict == "cannot say"


def test_evidence_stands_beside_a_refusal_by_the_predictor() -> None:
    found = predict_merge(
        ["zoo:eng-1", "zoo:deu-1"], tiers=["T0"], predictor=planted_predictor(farthest=0.5)
    )
    assert found.verdict == "cannot say"
    assert found.refusal == "fork_fraction is lower than in any known merge"
    texts = [reason.text for reason in found.reasons]
    assert texts[0] == "same initial weights (stated): yes"
    assert all(reason.effect is None for reason in found.reasons)
    assert not any("the forecast by" in text for text in texts)


@pytest.mark.parametrize(
    ("models", "options", "error", "what"),
    [
        (["zoo:eng-1"], {}, UsageError, "two models or more"),
        (FORKS, {"method": "liner"}, UsageError, "did you mean 'linear'"),
        (FORKS, {"alignment": "rotation"}, UsageError, "unknown alignment"),
        (FORKS, {"method": "ties"}, UsageError, "none is given"),
        ([*FORKS, "zoo:mixed"], {"method": "slerp"}, UsageError, "at most 2"),
        (FORKS, {"tiers": ["T1"]}, UsageError, "cannot stand alone"),
        (FORKS, {"tiers": ["T0", "T9"]}, UsageError, "unknown tier"),
        (["zoo:eng-1", "./nowhere"], {}, InputError, "does not exist"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_read(
    models: list[str], options: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        predict_merge(models, predictor=planted_predictor(), **options)


def test_every_verb_of_forecasts_takes_the_same_options() -> None:
    taken = {field.name for field in dataclasses.fields(Settings)}
    assert set(Options.__annotations__) == taken | {"base", "predictor", "say"}
    for verb in (predict_merge, rank_methods, predict_matrix):
        with pytest.raises(TypeError, match="unexpected keyword argument 'langauges'"):
            verb(FORKS, langauges=["eng_Latn"])  # type: ignore[operator]


def test_models_without_a_language_need_one(tmp_path: Path) -> None:
    tiny = [write_tiny_model("llama", tmp_path / n, head=True, seed=i) for i, n in enumerate("ab")]
    known = planted_predictor(sizes=SMALL)
    with pytest.raises(UsageError, match="-l eng_Latn"):
        predict_merge(tiny, tiers=["T0"], predictor=known)
    found = predict_merge(tiny, tiers=["T0"], predictor=known, languages=["eng_Latn"])
    assert found.refusal == "fork_fraction was not measured"


def test_measured_once_asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Candidate] = []
    predictor = planted_predictor()
    original = type(predictor).answer

    def remember(self: Any, candidate: Candidate) -> Prediction:
        asked.append(candidate)
        return original(self, candidate)

    monkeypatch.setattr(type(predictor), "answer", remember)
    measured = measure_parents(FORKS, {"retention": predictor}, Settings(tiers=("T0",)))
    forecast_of(measured, {"retention": predictor})
    assert [(c.method, c.alignment) for c in asked] == [
        ("linear", "none"), ("linear", "permutation"), ("linear", "orthogonal"),
    ]  # fmt: skip
    features = asked[0].features["eng_Latn"]
    assert features["exposure_worst"] == pytest.approx(0.425, abs=0.005)
    assert features["k"] == 2.0


def of(p_collapse: float, p_useful: float | None, doubt: Doubt | None = None) -> Prediction:
    return Prediction(
        p_collapse=p_collapse, p_useful=p_useful, worst=Interval(0.6), doubt=doubt or Doubt()
    )


def test_the_verdict_rule_at_its_edges() -> None:
    assert decide(of(0.2, 0.5)).verdict == "merge"
    assert decide(of(0.2, None)).verdict == "merge"
    assert decide(of(0.2, 0.49)).verdict == "keep one parent"
    assert decide(of(0.2, 0.49)).advice.startswith("keep one parent: the merge survives")
    assert decide(of(0.21, 0.9)).advice.endswith("too close to call; try the merge (--trial)")
    assert decide(of(0.49, 0.9)).verdict == "cannot say"
    assert decide(of(0.5, 0.9)).verdict == "do not merge"
    assert decide(of(0.9, 0.1), {"permutation": of(0.21, 0.9)}).verdict == "cannot say"
    assert decide(of(0.9, 0.1), {"permutation": of(0.5, 0.9)}).verdict == "do not merge"
    assert decide(of(0.9, 0.1), {"permutation": of(0.2, 0.9)}).align_with == "permutation"
    assert decide(Prediction()).verdict == "cannot say"
    assert decide(of(0.1, 0.9), same=True).verdict == "keep one parent"


def test_what_fewer_tiers_cannot_know_is_left_open() -> None:
    weights = Doubt(0.03, 0.8, "T2")
    assert decide(of(0.2, 0.9, weights)).advice.endswith("until activations are read (--tier T2)")
    assert decide(of(0.03, 0.9, weights)).verdict == "merge"
    found = decide(of(0.05, 0.9, weights), {"permutation": of(0.02, 0.9, weights)})
    assert (found.verdict, found.align_with) == ("merge or align first", "permutation")
    assert "the plain merge suffices is open until activations are read" in found.advice
    measured = decide(of(0.3, 0.9), {"permutation": of(0.02, 0.9)})
    assert measured.verdict == "align first"
    dies, unsure = of(0.97, 0.0, weights), of(0.7, 0.4, weights)
    found = decide(dies, {"permutation": of(0.9, 0.0, weights), "orthogonal": unsure})
    assert found.verdict == "cannot say"
    assert "whether alignment rescues the merge is open" in found.advice
    assert "orthogonal 70 %" in found.advice
    assert decide(dies, {"orthogonal": of(0.9, 0.0, weights)}).verdict == "do not merge"


def test_no_alignment_is_advised_that_is_advised_against() -> None:
    chances = (0.0, 0.2, 0.35, 0.5, 1.0)
    for risk, after, other, use in itertools.product(chances, repeat=4):
        aligned = {"permutation": of(after, use), "orthogonal": of(other, 1 - use)}
        found = decide(of(risk, 0.6), aligned)
        own = {way: decide(prediction).verdict for way, prediction in aligned.items()}
        if found.verdict == "align first":
            assert own[found.align_with] == "merge"
        if found.verdict == "do not merge":
            assert risk >= 0.5
            assert "merge" not in own.values()


def test_reasons_are_the_strongest_of_the_worst_language() -> None:
    asked = Candidate(
        ("a", "b"), "linear", "none", "",
        {"eng_Latn": {"k": 2.0, "speakers": 1.0}, "deu_Latn": {"k": 2.0, "speakers": 0.25}}, ("T0",)
    )  # fmt: skip
    prediction = Prediction(
        kept={"eng_Latn": Interval(0.9), "deu_Latn": Interval(0.2)},
        effects={"k": 0.005, "speakers": -0.1, "speakers_worst": -0.2, "made_up": 0.4, "absent": 1},
        values={"made_up": -3.5e-4, "speakers_worst": 0.25},  # of two parents: the only pair
    )
    found = reasons_of(prediction, asked, planted_predictor())
    assert [(r.feature, r.value) for r in found] == [("made_up", -3.5e-4), ("speakers", 0.25)]
    assert found[0].text == (
        "made_up is −3.5e−04, which raises the forecast by 0.40 from the average merge"
    )
    lowered = "share of parents of the language is 0.25, which lowers the forecast by 0.30 from the"
    assert found[1].text.startswith(lowered)
    assert evidence_of(asked, planted_predictor()) == ()


@pytest.mark.parametrize(
    ("value", "effect", "said"),
    [
        (0.9, 0.4, "high (82 % of known merges made the same way have less), which raises the "
         "forecast by 0.40 from the average merge; known merges with a similar value: median "
         "retention 0.50, of all made the same way 0.30"),
        (0.1, -0.4, "low (83 % of known merges made the same way have as much or more), which "
         "lowers the forecast by 0.40 from the average merge; known merges with a similar value: "
         "median retention −0.30, of all made the same way 0.30"),
        (0.5, 0.4, "middling (49 % of known merges made the same way have less), which raises the "
         "forecast by 0.40 from the average merge"),
    ],
)  # fmt: skip
def test_a_reason_says_how_high_against_what_and_what_it_did(value, effect, said) -> None:
    """What merges with a similar value kept is left out where it argues against the effect."""
    asked = Candidate(("a", "b"), "linear", "none", "", {"deu_Latn": {}}, ("T0",))
    known = planted_predictor()
    prediction = Prediction(
        kept={"deu_Latn": Interval(0.2)}, effects={known.feature: effect},
        values={known.feature: value},
    )  # fmt: skip
    (found,) = reasons_of(prediction, asked, known)
    assert found.text == f"share of training in common is {value:.2f}, {said}"
