"""Barrier and retention figures show what the tables hold."""

from __future__ import annotations

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.evaluation.path import BarrierTable
from repsim.evaluation.table import EvaluationTable
from repsim.plots.barrier import BARRIER, barrier_info
from repsim.plots.retention import COLLAPSE, retention_info
from tests.planted.evaluation_tables import barrier_table, retention_table


def test_chord_arrow_and_numbers_are_those_of_the_table() -> None:
    ax = BARRIER(barrier_table(("eng_Latn",), {"none": 1.2})).axes[0]
    (chord,) = [line for line in ax.lines if line.get_label() == "chord"]
    assert chord.is_dashed()
    assert np.asarray(chord.get_ydata()).tolist() == [1.5, 3.0]
    (arrow,) = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert arrow.xy == pytest.approx((0.5, 3.45))
    assert arrow.xyann == pytest.approx((0.5, 2.25))
    assert "barrier 1.20 bits/byte" in [text.get_text() for text in ax.texts]


def test_a_barrier_of_nothing_has_no_arrow_and_is_said() -> None:
    ax = BARRIER(barrier_table(("eng_Latn",), {"none": 0.0})).axes[0]
    assert not [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert "barrier 0.00 bits/byte" in [text.get_text() for text in ax.texts]


def test_the_caption_states_every_barrier() -> None:
    caption = barrier_info(barrier_table()).caption()
    assert "eng: 1.20 naive, 0.30 permutation-aligned; deu: 1.20 naive" in caption


def test_merges_are_sorted_by_their_worst_language() -> None:
    data = retention_info(retention_table())
    assert [(row.label, row.worst < COLLAPSE) for row in data.rows] == [
        ("lives", False), ("collapses", True)
    ]  # fmt: skip
    assert "1 of 2 collapse" in data.caption()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="one pair of models, the table has 0"):
        barrier_info(BarrierTable([]))
    with pytest.raises(UsageError, match="13 languages are more than 12 panels"):
        barrier_info(barrier_table([f"l{i:02}_Latn" for i in range(13)]))
    with pytest.raises(UsageError, match="no retention to draw"):
        retention_info(EvaluationTable([]))
    rows = [
        {"model": str(i), "language": "x", "metric": "retention", "value": 1.0} for i in range(41)
    ]
    with pytest.raises(UsageError, match="41 models are more than 40 rows"):
        retention_info(EvaluationTable(rows))
