"""The figure of a diagnosis shows what the table holds."""

from __future__ import annotations

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.mergeability.diagnosis.readings import DiagnosisTable
from repsim.plots.diagnosis import DIAGNOSIS, diagnosis_info
from tests.planted.evaluation_tables import diagnosis_table


def test_lines_are_those_of_the_table() -> None:
    info = diagnosis_info(diagnosis_table(3))
    norm, variance = info.panels["scale"]
    np.testing.assert_allclose(variance.value, norm.value**2)
    assert info.panels["restored"][0].place.tolist() == [0, 1, 2]
    assert "variance at block 2 (0.02)" in info.caption()
    scale = DIAGNOSIS(diagnosis_table(3)).axes[0]
    assert scale.get_yscale() == "log"
    assert np.asarray(scale.lines[0].get_ydata()).tolist() == norm.value.tolist()


def test_a_whole_merge_has_nothing_to_draw() -> None:
    rows = [{"reading": "retention", "part": "whole", "language": "eng_Latn", "value": 0.95}]
    with pytest.raises(UsageError, match="no readings by block"):
        diagnosis_info(DiagnosisTable(rows))
