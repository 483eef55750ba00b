"""Long tables keep their columns and say what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from repsim.core.errors import InputError, UsageError
from repsim.core.long_table import LongTable


class Heights(LongTable):
    SCHEMA = "test/heights/1"
    STEM = "heights"
    COLUMNS: ClassVar = {
        "who": ("string", "name"), "height": ("float", "metres"), "n": ("int", "times")
    }  # fmt: skip


def test_missing_and_nan_are_null_and_come_back(tmp_path: Path) -> None:
    table = Heights([{"who": "a", "height": np.float32(1.5)}, {"height": np.nan, "n": 3}])
    assert list(table.rows())[1] == {"who": None, "height": None, "n": 3}
    assert table.column("n").tolist() == [-1, 3]
    assert table.unique("who") == ["a"]
    parquet, csv, _ = table.save(tmp_path)
    assert list(Heights.load(parquet).rows()) == list(table.rows())
    assert csv.read_text().splitlines()[0] == '"who","height","n"'
    assert len(table.where(n=[3, 4])) == 1


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown column of a table of heights 'heigth'.*height"):
        Heights([{"heigth": 1.0}])
    with pytest.raises(InputError, match=r"heights.parquet' does not exist"):
        Heights.load(tmp_path)
    (tmp_path / "heights.parquet").write_text("no")
    with pytest.raises(InputError, match="is not a readable parquet file"):
        Heights.load(tmp_path)
