"""A predictor declines to speak of what it does not know, and says why."""

import numpy as np
import pytest

from repsim.mergeability.domain import Domain, fit_domain, nearest_distance
from repsim.mergeability.part import fit_part
from repsim.testing.evidence import planted_evidence

FEATURES = ["distance", "quotient", "cosine"]


@pytest.fixture(scope="module")
def known():
    table = planted_evidence(models=16)
    return table.with_features(
        {"same_tokenizer_worst": np.ones(len(table))}, {"same_tokenizer_worst": "T0"}
    )


@pytest.fixture(scope="module")
def domain(known):
    return fit_domain(known, FEATURES)


def _ask(domain, known, table, **how):
    distance = nearest_distance(domain.points(table), domain.points(known))
    return domain.refusals(table, distance, **how)


def test_known_merges_are_inside(domain, known) -> None:
    refusals = _ask(domain, known, known)
    assert sum(bool(why) for why in refusals) <= 0.02 * len(known)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"distance": 5.0}, "distance is 5, known merges have"),
        ({"same_tokenizer_worst": 0.0}, "the parents have different tokenizers"),
        ({"distance": np.nan, "quotient": np.nan}, "2 of 3 features are not known"),
        ({"distance": 0.1, "quotient": 1.3, "cosine": 0.93}, "no known merge is near"),
    ],
)
def test_what_lies_outside_is_refused_in_words(domain, known, change, why) -> None:
    row = known.take(np.array([0]))
    asked = row.with_features({name: np.array([value]) for name, value in change.items()}, {})
    assert _ask(domain, known, asked)[0].startswith(why)


def test_an_unknown_method_is_refused_unless_it_is_the_question(domain, known) -> None:
    row = known.take(np.array([0]))
    asked = row.with_columns({"method": ["sce"]})
    assert _ask(domain, known, asked) == ["no known merge was made by 'sce'"]
    assert _ask(domain, known, asked, of_method=False) == [""]


def test_more_parents_than_known_are_refused(domain, known) -> None:
    row = known.take(np.array([0]))
    asked = row.with_columns({"parents": ["a + b + c"]})
    assert _ask(domain, known, asked) == ["3 parents, known merges have 2 at most"]


def test_it_survives_json(domain) -> None:
    assert Domain.from_json(domain.to_json()) == domain


def test_one_measured_feature_that_matters_must_not_be_missing(known) -> None:
    part, _ = fit_part(known, ("T1",), kind="additive", features=FEATURES)
    row = known.take(np.array([0]))
    assert part.forecast(row, known).refusals == ("",)
    asked = row.with_features({"distance": np.array([np.nan])}, {})
    why = part.forecast(asked, known).refusals[0]
    assert why.startswith("distance could not be measured in ")
    assert "forecasts of known merges move by" in why
