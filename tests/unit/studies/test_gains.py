"""The table of gains kept, held against the merges of a real model that lie in the gallery."""

from __future__ import annotations

from pathlib import Path

import pytest

from repsim.core.atlas import Atlas
from repsim.studies.report_tables import study_tables

SMOLLM2 = Path(__file__).parents[3] / "figures" / "smollm2" / "atlas"


def test_the_worse_language_of_each_merge_counts_once_by_method_and_training() -> None:
    atlas = Atlas.load(SMOLLM2)
    merges = atlas.merges.to_pandas()
    worst = merges.groupby("merge").gain_kept.min()
    tables = {block.name: block for block in study_tables(atlas)}
    rows = list(tables["gains"].table.rows())
    assert sum(row["merges"] for row in rows) == len(worst) == 78
    ties = merges[merges.method.eq("ties") & ~merges.parents.str.contains("lr4|dose2|lora")]
    (row,) = [r for r in rows if r["method"] == "TIES" and r["training"] == "dose1-lr1"]
    assert row["median"] == pytest.approx(worst[ties["merge"].unique()].median())
    assert (row["merges"], row["parameters"]) == (6, "density 0.5")
    assert min(r["least"] for r in rows) == pytest.approx(worst.min())
