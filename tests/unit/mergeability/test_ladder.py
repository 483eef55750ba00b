"""The ladder tells coordinates from content: controls with a known answer, and the zoo."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from repsim.core.errors import InputError, UsageError
from repsim.measures import Statistics
from repsim.mergeability.features.activations import (
    activation_features,
    by_section,
    chosen_layers,
)
from repsim.mergeability.features.catalogue import FEATURES, LADDER, SECTIONS
from repsim.mergeability.features.spec import TierResult
from repsim.merging.align import build_model
from repsim.merging.align.twins import planted_twin
from repsim.models.causal import CausalModel, load_causal_lm
from repsim.testing.tiny_models import write_tiny_model

ENGLISH = "eng_Latn"
BOTH = (ENGLISH, "deu_Latn")
Measure = Callable[..., TierResult]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("activations")


@pytest.fixture(scope="module")
def measured(cache: Path) -> Measure:
    """Features of models on 60 verses; activations are extracted once per model."""
    few = Statistics(permutations=20, permutations_expensive=3, groups=0, covariates=())

    def measure(*models: object, languages: tuple[str, ...] = (ENGLISH,)) -> TierResult:
        return activation_features(
            models,  # type: ignore[arg-type]
            languages=languages, limit=60, text=None, device="cpu", cache=cache, statistics=few,
        )  # fmt: skip

    return measure


def english(result: TierResult) -> dict[str, float]:
    return {value.feature: value.value for value in result.values if value.language == ENGLISH}


@pytest.fixture(scope="module")
def lives(measured: Measure) -> dict[str, float]:
    """Late forks of one trunk, whose average keeps nine tenths."""
    return english(measured("zoo:eng-fork", "zoo:deu-fork"))


@pytest.fixture(scope="module")
def seeds(measured: Measure) -> dict[str, float]:
    """English twice from different seeds: the average collapses, a rotated one lives."""
    return english(measured("zoo:eng-1", "zoo:eng-2"))


@pytest.fixture(scope="module")
def strangers(measured: Measure) -> dict[str, float]:
    """English and German from one initialisation: no alignment rescues their average."""
    return english(measured("zoo:eng-1", "zoo:deu-1"))


def test_a_model_is_at_the_top_of_every_rung_with_itself(measured: Measure) -> None:
    values = english(measured("zoo:eng-1", "zoo:eng-1"))
    rungs = [f"{name}_{section}" for name in LADDER for section in SECTIONS]
    assert {name: values[name] for name in rungs} == pytest.approx(dict.fromkeys(rungs, 1.0))
    gaps = {name: value for name, value in values.items() if name.startswith("gap_")}
    assert gaps == pytest.approx(dict.fromkeys(gaps, 0.0), abs=1e-9)


@pytest.mark.parametrize("section", SECTIONS)
def test_only_l0_tells_the_pair_that_lives_from_the_pairs_that_collapse(
    lives: dict[str, float],
    seeds: dict[str, float],
    strangers: dict[str, float],
    section: str,
) -> None:
    for name in (f"unit_correlation_{section}", f"identity_match_{section}"):
        assert lives[name] > 0.75
        assert max(seeds[name], strangers[name]) < 0.15
    # Two collapses, yet one of them looks to CKA like the pair that lives.
    assert abs(seeds[f"cka_{section}"] - lives[f"cka_{section}"]) < 0.15
    assert strangers[f"cka_{section}"] < seeds[f"cka_{section}"] - 0.3


def test_the_gap_between_rungs_says_which_collapse_alignment_may_mend(
    lives: dict[str, float], seeds: dict[str, float], strangers: dict[str, float]
) -> None:
    gap = "gap_l2_l0_middle"
    assert abs(lives[gap]) < 0.15 < strangers[gap] < 0.6 < seeds[gap]
    middle = {name: seeds[f"{name}_middle"] for name in ("cka", "unit_correlation")}
    assert seeds[gap] == pytest.approx(middle["cka"] - middle["unit_correlation"])


def permuted_twin(space: str) -> CausalModel:
    """The same function with its units in another order."""
    model, tokenizer, ref = load_causal_lm("zoo:eng-1", device="cpu")
    state, _ = planted_twin(model.config, model.state_dict(), [space], seed=1)
    twin = build_model(model.config, state).requires_grad_(False)
    return CausalModel(
        twin, tokenizer, type(ref)(f"twin of {space}", "memory", layers=4, width=128)
    )


def test_a_permuted_twin_is_seen_by_l0_and_by_no_rung_above(measured: Measure) -> None:
    values = english(measured("zoo:eng-1", permuted_twin("residual_permutation")))
    for section in SECTIONS:
        assert abs(values[f"unit_correlation_{section}"]) < 0.2
        assert values[f"identity_match_{section}"] < 0.1
        blind = ("permutation", "cka", "procrustes", "svcca", "mutual_knn")
        assert [values[f"{name}_{section}"] for name in blind] == pytest.approx([1.0] * 5, abs=2e-3)
    assert values["output_kl"] == pytest.approx(0.0, abs=1e-6)
    assert values["output_agreement"] > 0.999


def test_only_hidden_units_show_that_hidden_units_were_permuted(measured: Measure) -> None:
    values = english(measured("zoo:eng-1", permuted_twin("mlp_units")))
    for section in SECTIONS[1:]:
        assert values[f"unit_correlation_{section}"] == pytest.approx(1.0, abs=1e-3)
        assert abs(values[f"hidden_unit_correlation_{section}"]) < 0.2
        assert values[f"hidden_cka_{section}"] == pytest.approx(1.0, abs=1e-3)


def test_of_three_parents_the_mean_and_the_worst_pair_are_told(
    measured: Measure, seeds: dict[str, float], strangers: dict[str, float]
) -> None:
    trio = english(measured("zoo:eng-1", "zoo:eng-2", "zoo:deu-1"))
    third = english(measured("zoo:eng-2", "zoo:deu-1"))
    pairs = [found["cka_middle"] for found in (seeds, strangers, third)]
    assert trio["cka_middle"] == pytest.approx(sum(pairs) / 3)
    assert trio["cka_middle_worst"] == pytest.approx(min(pairs))
    assert seeds["cka_middle"] == seeds["cka_middle_worst"]


def test_across_translations_models_of_one_trunk_are_closest(measured: Measure) -> None:
    def across(*models: str) -> dict[str, float]:
        result = measured(*models, languages=BOTH)
        return {value.feature: value.value for value in result.values if not value.language}

    near = across("zoo:eng-fork", "zoo:deu-fork")
    far = across("zoo:eng-1", "zoo:deu-1")
    assert near["parallel_cka"] > far["parallel_cka"] + 0.1
    assert near["parallel_mutual_knn"] > far["parallel_mutual_knn"] > 0
    one = measured("zoo:eng-fork", "zoo:deu-fork").as_dict()
    assert math.isnan(one["parallel_cka"])


def test_the_same_seed_gives_the_same_numbers_and_every_number_is_declared(
    measured: Measure, seeds: dict[str, float]
) -> None:
    again = measured("zoo:eng-1", "zoo:eng-2")
    assert again.tier == "T2"
    assert again.seconds > 0
    # Outputs come from the pass that extracts, or from their own: sums in another order.
    known = {k: v for k, v in seeds.items() if math.isfinite(v)}
    assert {k: v for k, v in english(again).items() if math.isfinite(v)} == pytest.approx(
        known, rel=1e-6
    )
    inside = {k: v for k, v in known.items() if not k.startswith("output")}
    assert inside == {k: v for k, v in english(again).items() if k in inside}
    for value in again.values:
        spec = FEATURES[value.feature]
        assert spec.tier == "T2"
        assert spec.per_language == bool(value.language)


def test_the_same_passes_give_the_same_bits(tmp_path: Path) -> None:
    few = Statistics(permutations=20, permutations_expensive=3, groups=0, covariates=())
    first, second = (
        activation_features(
            ["zoo:eng-1", "zoo:deu-1"], languages=[ENGLISH], limit=30, text=None, device="cpu",
            cache=tmp_path / name, statistics=few,
        ).as_dict()
        for name in ("one", "two")
    )  # fmt: skip
    assert {k: v for k, v in first.items() if math.isfinite(v)} == {
        k: v for k, v in second.items() if math.isfinite(v)
    }


def test_models_of_other_widths_are_compared_without_their_units(
    tmp_path: Path, cache: Path
) -> None:
    narrow = write_tiny_model("llama", tmp_path / "narrow", head=True)
    wide = write_tiny_model("llama", tmp_path / "wide", head=True, seed=1, hidden_size=64)
    result = activation_features(
        [narrow, wide], languages=[ENGLISH], limit=60, text=None, device="cpu", cache=cache
    )
    values = english(result)
    for name in LADDER:
        unit_by_unit = name in ("unit_correlation", "identity_match", "permutation")
        assert math.isnan(values[f"{name}_late"]) == unit_by_unit
    assert math.isnan(values["gap_l2_l0_late"])
    assert math.isfinite(values["gap_l3_l2_late"])
    assert any("different widths" in note for note in result.notes)


def test_encoders_get_the_ladder_and_a_note(tmp_path: Path, cache: Path) -> None:
    models = [write_tiny_model("bert", tmp_path / f"{i}", seed=i) for i in (0, 1)]
    result = activation_features(
        models, languages=[ENGLISH], limit=40, text=None, device="cpu", cache=cache
    )
    values = english(result)
    assert -0.3 < values["unit_correlation_late"] < 0.3
    assert "output_kl" not in values
    assert any("the ladder only" in note for note in result.notes)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="two models or more"):
        activation_features(["zoo:eng-1"], languages=[ENGLISH], limit=10)
    with pytest.raises(UsageError, match="no language"):
        activation_features(["zoo:eng-1", "zoo:eng-2"], languages=[])
    with pytest.raises(InputError, match="'nowhere'|nowhere"):
        activation_features(["zoo:eng-1", "/nowhere"], languages=[ENGLISH], limit=10)


def test_length_is_regressed_out_unless_other_statistics_are_asked_for(
    seeds: dict[str, float], cache: Path
) -> None:
    result = activation_features(
        ["zoo:eng-1", "zoo:eng-2"], languages=[ENGLISH], limit=60, text=None, device="cpu",
        cache=cache,
    )  # fmt: skip
    assert 0.3 < english(result)["cka_partial_middle"] < 1.0
    assert "cka_partial_middle" not in seeds


def test_blocks_fall_into_thirds_and_the_embedding_stands_apart() -> None:
    layers = list(range(7))
    assert by_section(layers, [9.0, 1, 1, 2, 2, 6, 6]) == {
        "embed": 9.0, "early": 1.0, "middle": 2.0, "late": 6.0
    }  # fmt: skip
    # Two blocks have no middle third: those nearest to it stand for it.
    assert by_section([0, 1, 2], [0.0, 1.0, 3.0])["middle"] == 2.0
    assert math.isnan(by_section([1, 2, 3], [1.0, 2.0, 3.0])["embed"])
    assert math.isnan(by_section([0, 1], [0.0, math.nan])["late"])


def test_deep_models_are_thinned_out_to_points_with_both_ends() -> None:
    assert chosen_layers(12, "auto") is None
    chosen = chosen_layers(80, "auto")
    assert chosen is not None
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 80, 13)
    assert chosen_layers(80, "all") is None
