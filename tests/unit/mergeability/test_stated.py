"""What parents state counts beside what is measured of them, and its absence changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from repsim.mergeability.candidate import Candidate
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import (
    STATED_SETS,
    at_hand,
    feature_uses,
    forecasting_sets,
    stated_in,
    with_derived,
)
from repsim.mergeability.features.catalogue import specs
from repsim.mergeability.features.recipe import recipe_features
from repsim.mergeability.made_alike import spread_of_alike
from repsim.mergeability.predictor import Predictor
from repsim.testing.evidence import planted_evidence

STATED = [spec.name for spec in specs("T0") if spec.use in ("languages", "history")]


def told() -> EvidenceTable:
    """Planted evidence: weights tell one half of what is kept, the statements of parents more."""
    table = planted_evidence(models=14)
    rng = np.random.default_rng(1)
    distance, hidden = table["distance"], rng.uniform(0, 1, len(table))
    named = {name: rng.uniform(0, 1, len(table)) for name in STATED} | {"speakers": hidden}
    features = {"weight_cosine": -distance, "k": np.full(len(table), 2.0), **named}
    tiers = {"weight_cosine": "T1", **dict.fromkeys((*named, "k"), "T0")}
    kept = table["retention"] - 0.5 + hidden
    plain = table.with_columns({"retention": kept}).to_pandas()
    return EvidenceTable.from_rows(
        plain[list(EvidenceTable.COLUMNS)].drop(columns=["gain_kept", "parameters"])
        .to_dict("records"), features, tiers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def known() -> EvidenceTable:
    return told()


@pytest.fixture(scope="module")
def predictor(known: EvidenceTable) -> Predictor:
    return Predictor(regressor="additive", blocks=3).fit(known)


def ask(known: EvidenceTable, row: int, *, without: tuple[str, ...] = ()) -> Candidate:
    """One known row as a merge that might be made."""
    values = {name: float(found[row]) for name, found in known.features.items()}
    values |= dict.fromkeys(without, float("nan"))
    return Candidate(("a", "b"), "linear", "none", "", {"deu": values}, ("T0", "T1"))


def test_statements_are_at_hand_only_where_all_parents_make_them(known: EvidenceTable) -> None:
    assert stated_in(known) == {"languages", "history"}
    assert at_hand(known) == {"T0", "T1", "languages", "history"}
    some = np.where(np.arange(len(known)) == 3, np.nan, known["fork_fraction"])
    assert stated_in(known.with_features({"fork_fraction": some}, {})) == {"languages"}
    silent = np.where(np.arange(len(known)) == 3, np.nan, known["speakers"])
    assert stated_in(known.with_features({"speakers": silent}, {})) == set()
    assert set(forecasting_sets(known)) == {"T0", "T0+T1", "T0+T1+languages", "T0+T1+history"}


def test_sets_with_statements_use_them_and_others_do_not(known: EvidenceTable) -> None:
    used = {
        name: {use.name for use in feature_uses(known, tiers)}
        for name, tiers in {"T0+T1": ("T0", "T1"), **STATED_SETS}.items()
    }
    assert not used["T0+T1"] & set(STATED)
    assert used["T0+T1+languages"] & set(STATED) == {"speakers", "language_overlap"}
    assert set(STATED) <= used["T0+T1+history"]


def test_what_is_stated_makes_forecasts_better(known: EvidenceTable, predictor: Predictor) -> None:
    error = {
        name: np.abs(part.predict(with_derived(known)) - known["retention"]).mean()
        for name, part in predictor.parts_.items()
    }
    assert error["T0+T1+languages"] < 0.7 * error["T0+T1"]


def test_a_candidate_is_answered_by_what_it_states(
    known: EvidenceTable, predictor: Predictor
) -> None:
    full = predictor.answer(ask(known, 0))
    languages = predictor.answer(ask(known, 0, without=("exposure",)))
    nothing = predictor.answer(ask(known, 0, without=("speakers",)))
    assert [one.refusal for one in (full, languages, nothing)] == ["", "", ""]
    assert full.stated == ("languages", "history")
    assert languages.stated == ("languages",)
    assert nothing.stated == ()
    assert "speakers" in full.effects
    assert "speakers" not in nothing.effects


def test_a_history_unlike_all_known_ones_leaves_what_was_measured(
    known: EvidenceTable, predictor: Predictor
) -> None:
    asked = ask(known, 0)
    asked.features["deu"]["update_budget"] = 40.0  # type: ignore[index]
    found = predictor.answer(asked)
    assert found.refusal == ""
    assert found.stated == ("languages",)


@pytest.mark.parametrize(
    ("method", "parameters", "k", "scale", "density"),
    [
        ("linear", {"weight": (0.3, 0.7)}, 2, 1.0, 1.0),
        ("slerp", {}, 2, 1.0, 1.0),
        ("task_arithmetic", {}, 3, 3.0, 1.0),
        ("task_arithmetic", {"weight": 0.5, "lambda": 0.8}, 2, 0.8, 1.0),
        ("ties", {"weight": (0.5, 0.5), "density": (0.2, 0.2)}, 2, 1.0, 0.2),
        ("dare_ties", {}, 2, 2.0, 0.5),
        ("dare_ties", {"normalize": (1.0, 1.0), "density": (0.8,)}, 2, 1.0, 0.8),
    ],
)
def test_parameters_tell_scale_and_density(method, parameters, k, scale, density) -> None:
    found = recipe_features(method, parameters, k)
    assert found["update_scale"] == pytest.approx(scale)
    assert found["density"] == pytest.approx(density)


def test_parameters_that_nobody_stated_are_not_known() -> None:
    """Not even as defaults: a table of others may mean something else by the name."""
    rows = [
        {"merge": "m", "parents": "a + b", "method": "ties", "parameters": text}
        for text in ("", "{}", json.dumps({"density": 0.2}))
    ]
    table = with_derived(EvidenceTable.from_rows(rows, {"k": [2.0, 2.0, 2.0]}, {"k": "T0"}))
    assert np.isnan(table["density"][0])
    assert table["density"][1:].tolist() == [0.5, 0.2]
    assert np.isnan(recipe_features("made up", {}, 2)["density"])
    foreign = EvidenceTable.from_rows(rows, {"x": [1.0, 2.0, 3.0]}, {"x": "table"})
    assert set(with_derived(foreign).features) == {"x"}


def test_merges_made_alike_are_held_against_those_of_other_parents() -> None:
    kept = {"a + b": (0.2, 0.4), "c + d": (0.5, 0.7), "e + f": (0.9, 0.9)}
    rows = [
        {"merge": f"{parents} | {number}", "parents": parents, "method": "ties", "retention": value,
         "parameters": json.dumps({"density": 0.2 if parents == "e + f" else 0.5})}
        for parents, values in kept.items() for number, value in enumerate(values)
    ]  # fmt: skip
    shares = [0.301, 0.301, 0.302, 0.302, 0.3, 0.3]
    table = EvidenceTable.from_rows(rows, {"fork_fraction": shares}, {"fork_fraction": "T0"})
    # The two first groups differ by 0.4, 0.2, 0.2 and 0.4 from the mean of the other; the last has
    # another density, and nobody to be held against.
    assert spread_of_alike(table) == (pytest.approx(0.3), 4)
    assert spread_of_alike(table.take(np.array([0, 1, 4]))) == (None, 0)


def test_a_value_that_all_known_merges_have_is_held_beside_none(predictor: Predictor) -> None:
    asked = Candidate(("a", "b"), "linear", "none", "", {"deu": {}}, ("T0", "T1"))
    assert predictor.beside("k", 2.0, asked) is None
    found = predictor.beside("weight_cosine", 0.0, asked)
    assert found is not None
    assert found.below == 1.0
