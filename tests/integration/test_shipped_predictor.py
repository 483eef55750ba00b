"""The predictor that ships is the one that its table gives, to the byte."""

import dataclasses

import pytest

from repsim.mergeability.predictor import (
    PREDICTOR_FILE,
    Predictor,
    shipped_folder,
    shipped_predictor,
)


@pytest.mark.slow
def test_the_shipped_predictor_is_the_one_its_table_gives(tmp_path) -> None:
    shipped = shipped_predictor()
    assert shipped.identity == "predictor 2026.2 (2,080 merges)"
    assert set(shipped.parts) >= {"T0", "T0+T1", "T0+T1+T2"}
    again = Predictor.fit(shipped.evidence, **shipped.settings)
    dataclasses.replace(again, version=shipped.version).save(tmp_path)
    assert (tmp_path / PREDICTOR_FILE).read_bytes() == (
        shipped_folder() / PREDICTOR_FILE
    ).read_bytes()
