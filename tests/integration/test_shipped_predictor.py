"""The predictor that ships is the one that its table gives, in every stored number."""

import pytest
from sklearn.base import clone

from repsim.mergeability.predictor import (
    Predictor,
    shipped_predictor,
)


@pytest.mark.slow
def test_the_shipped_predictor_is_the_one_its_table_gives(tmp_path) -> None:
    shipped = shipped_predictor()
    assert shipped.identity == "predictor 2026.8 (3,891 merges)"
    assert set(shipped.parts_) >= {"T0", "T0+T1", "T0+T1+T2"}
    again = clone(shipped).fit(shipped.evidence_)
    again.version = shipped.version
    again.save(tmp_path)
    assert Predictor.load(tmp_path).to_json() == shipped.to_json()
