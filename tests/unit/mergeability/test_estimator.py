"""The predictor as an estimator of scikit-learn, on evidence that ships."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict

from repsim.core.errors import InputError, UsageError
from repsim.mergeability import shipped_predictor
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.regressors import outcome
from repsim.studies.atlases import load_atlas
from repsim.testing.evidence import planted_evidence

READ = ("weight_cosine", "unit_correlation_late", "sign_agreement")


@pytest.fixture(scope="module")
def known() -> EvidenceTable:
    """Plain averages of the arms of one shipped atlas."""
    evidence = shipped_predictor().evidence_.where(
        method="linear", alignment="none", arm=["A", "B", "C", "E"]
    )
    return evidence.take(np.arange(0, len(evidence), 2))


@pytest.fixture(scope="module")
def estimator() -> Predictor:
    return Predictor("additive", features=READ, blocks=3)


def test_its_parameters_are_read_set_and_cloned(estimator) -> None:
    assert estimator.get_params() == {
        "regressor": "additive", "features": READ, "tiers": None, "blocks": 3, "seed": 0,
        "outcome": "retention",
    }  # fmt: skip
    again = clone(estimator).set_params(seed=7)
    assert (again.seed, estimator.seed, again.features) == (7, 0, READ)
    with pytest.raises(NotFittedError):
        again.predict(shipped_predictor().evidence_.head())
    fresh = clone(shipped_predictor())
    assert not hasattr(fresh, "parts_")
    assert fresh.version == ""


def test_a_frame_says_what_the_table_says(known, estimator) -> None:
    frame = known.to_pandas()
    fitted = clone(estimator).fit(known)
    assert fitted.to_json() == clone(estimator).fit(frame, known["retention"]).to_json()
    some = frame.sample(20, random_state=0)
    assert np.array_equal(fitted.predict(some), fitted.predict(known)[some.index])
    low, high = fitted.predict_interval(some)
    assert (low <= high).all()
    found = fitted.forecast(some)
    assert np.array_equal(found.low, low)
    unread = frame.drop(columns=[name for name in frame if name.startswith("feature:")])
    with pytest.raises(UsageError, match="are needed"):
        fitted.predict(unread)


def test_outcomes_are_those_that_are_given(known, estimator) -> None:
    fitted = clone(estimator).fit(known, np.full(len(known), 0.5))
    assert fitted.predict(known) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(InputError, match="retention of the merge .* is not known"):
        clone(estimator).fit(known, np.full(len(known), np.nan))


def test_folds_searches_and_importances_of_scikit_learn_apply(known, estimator) -> None:
    frame, y = known.to_pandas(), outcome(known)
    kept = [*known.COLUMNS, *(f"feature:{name}" for name in READ)]
    frame = frame[kept].assign(**{"feature:noise": np.random.default_rng(0).normal(size=len(y))})
    folds, groups = GroupKFold(3), frame["parents"]
    predicted = cross_val_predict(estimator, frame, y, groups=groups, cv=folds)
    assert np.corrcoef(predicted, y)[0, 1] > 0.8
    search = GridSearchCV(estimator, {"features": [READ[:1], READ]}, cv=folds)
    search.fit(frame, y, groups=groups)
    assert search.best_params_ == {"features": READ}
    drop = permutation_importance(search.best_estimator_, frame, y, n_repeats=2, random_state=0)
    by_name = pd.Series(drop.importances_mean, index=frame.columns)
    read = [f"feature:{name}" for name in READ]
    assert by_name.idxmax() in read
    assert (by_name.drop([*read, "method", "alignment"]) == 0).all()


def test_a_part_of_the_tiers_is_fitted_alone(known) -> None:
    fitted = Predictor("additive", tiers=("T0", "T1"), blocks=3).fit(known)
    assert list(fitted.parts_) == ["T0+T1"]
    assert {known.tiers[use.name] for use in fitted.parts_["T0+T1"].uses} <= {"T0", "T1"}


def test_gain_kept_is_an_outcome_of_merges_whose_base_is_known() -> None:
    """Fine-tuned copies of one model of the shipped atlas."""
    table = EvidenceTable.from_atlas(load_atlas("cpu_atlas"))
    made = Predictor("additive", tiers=["T0", "T1"], outcome="gain_kept", blocks=4).fit(table)
    assert 500 < len(made.evidence_) < len(table)
    assert np.array_equal(made.evidence_["retention"], made.evidence_["gain_kept"])
    low, high = made.predict_interval(made.evidence_)
    kept = np.clip(made.evidence_["gain_kept"], -1, 1.2)
    assert ((low <= kept) & (kept <= high)).mean() > 0.85
    with pytest.raises(InputError, match="of no merge is it known what was kept of the gain"):
        Predictor(outcome="gain_kept").fit(planted_evidence(models=12))
