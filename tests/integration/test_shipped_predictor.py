"""The predictor that ships is the one that its table gives, in every stored number."""

import dataclasses

import numpy as np
import pytest

from repsim.mergeability.predictor import (
    Predictor,
    shipped_predictor,
)


@pytest.mark.slow
def test_the_shipped_predictor_is_the_one_its_table_gives(tmp_path) -> None:
    shipped = shipped_predictor()
    assert shipped.identity == "predictor 2026.2 (2,080 merges)"
    assert set(shipped.parts) >= {"T0", "T0+T1", "T0+T1+T2"}
    again = Predictor.fit(shipped.evidence, **shipped.settings)
    dataclasses.replace(again, version=shipped.version).save(tmp_path)
    refit, stored = Predictor.load(tmp_path).to_json()["parts"], shipped.to_json()["parts"]
    assert refit.keys() == stored.keys()
    for tiers in refit.keys() - {"T0"}:
        assert refit[tiers] == stored[tiers]
    # The shipped part centres two features by the columns of evidence that bear their names.
    weights = [part["T0"]["regressor"]["weights"] for part in (refit, stored)]
    np.testing.assert_allclose(*weights, atol=0.02)
