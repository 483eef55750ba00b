"""Long tables keep their columns and say what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repsim.core.errors import InputError, UsageError
from repsim.core.table import Table


class Heights(Table):
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
    parquet, csv, _ = table.export(tmp_path)
    assert list(Heights.load(parquet).rows()) == list(table.rows())
    assert csv.read_text().splitlines()[0] == '"who","height","n"'
    assert len(table.where(n=[3, 4])) == 1


def test_infinity_becomes_null_unless_it_is_kept(tmp_path: Path) -> None:
    class Infinite(Heights):
        INFINITE: ClassVar = True

    rows = [{"height": np.inf}, {"height": np.nan}]
    assert [row["height"] for row in Heights(rows).rows()] == [None, None]
    for table in (Infinite(rows), Infinite.from_columns({"height": np.array([np.inf, np.nan])})):
        again = Infinite.load(table.save(tmp_path))
        assert [row["height"] for row in again.rows()] == [np.inf, None]


def test_columns_are_replaced_and_added_and_arrays_stay_as_they_are() -> None:
    table = Heights([{"who": "a", "height": 1.0}], {"unit": "m", "by": "hand"})
    more = table.with_columns({"height": np.array([np.nan]), "who": ["b"]}, {"unit": "cm"})
    assert list(more.rows()) == [{"who": "b", "height": None, "n": None}]
    assert (more.info, table.info["unit"]) == ({"unit": "cm", "by": "hand"}, "m")
    assert table["height"] is table["height"]
    with pytest.raises(ValueError, match="read-only"):
        table["height"][0] = 2.0
    with pytest.raises(UsageError, match="unknown column"):
        table.with_columns({"weight": [1.0]})


def test_a_data_frame_remembers_what_its_rows_rest_on() -> None:
    table = Heights([{"who": who, "n": 1} for who in "abc"], {"unit": "m"})
    again = Heights(table.to_pandas().iloc[[2, 0]])
    assert (again["who"].tolist(), again.info) == (["c", "a"], {"unit": "m"})


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown column of a table of heights 'heigth'.*height"):
        Heights([{"heigth": 1.0}])
    with pytest.raises(InputError, match=r"heights.parquet' does not exist"):
        Heights.load(tmp_path)
    (tmp_path / "heights.parquet").write_text("no")
    with pytest.raises(InputError, match="is not a readable parquet file"):
        Heights.load(tmp_path)


def test_columns_that_were_added_later_read_as_null_and_further_ones_are_left_out(
    tmp_path: Path,
) -> None:
    class Later(Heights):
        COLUMNS: ClassVar = Heights.COLUMNS | {"weight": ("float", "kilograms")}

    Heights([{"who": "a", "height": 1.5}]).save(tmp_path)
    (row,) = Later.load(tmp_path).rows()
    assert row == {"who": "a", "height": 1.5, "n": None, "weight": None}
    Later([{"who": "b", "weight": 70.0}]).save(tmp_path)
    assert Heights.load(tmp_path).columns == ["who", "height", "n"]


def test_the_version_before_is_read_and_a_later_one_refused(tmp_path: Path) -> None:
    class Second(Heights):
        SCHEMA = "test/heights/2"
        COLUMNS: ClassVar = {"name": ("string", "name"), "height": ("float", "metres")}
        UPGRADES: ClassVar = {
            "test/heights/1": lambda old: old.rename_columns(["name", "height", "n"])
        }

    Heights([{"who": "a", "height": 1.5}]).save(tmp_path)
    assert list(Second.load(tmp_path).rows()) == [{"name": "a", "height": 1.5}]
    Second([{"name": "b"}]).save(tmp_path)
    with pytest.raises(InputError, match="written by a later version"):
        Heights.load(tmp_path)


def test_damage_inside_a_stored_table_is_noticed(tmp_path: Path) -> None:
    path = Heights([{"who": f"model {i}", "height": i / 7} for i in range(5000)]).save(tmp_path)
    whole = path.read_bytes()
    for place in (2000, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
        with pytest.raises(InputError, match="not a readable parquet file"):
            Heights.load(tmp_path)


def test_a_table_goes_to_pandas_and_back_and_through_the_arrow_protocol() -> None:
    pytest.importorskip("pandas")
    table = Heights([{"who": "a", "height": 1.5, "n": 2}, {"who": "b"}])
    frame = table.to_pandas()
    assert frame["who"].tolist() == ["a", "b"]
    assert frame["height"].isna().tolist() == [False, True]
    assert list(Heights(frame.convert_dtypes()).rows()) == list(table.rows())
    assert pa.table(table).column_names == ["who", "height", "n"]
    assert table.__dataframe__().num_columns() == 3


def test_a_table_goes_to_polars_and_back() -> None:
    polars = pytest.importorskip("polars")
    table = Heights([{"who": "a", "height": 1.5, "n": 2}, {"who": "b"}])
    frame = polars.DataFrame(table)
    assert frame["height"].to_list() == [1.5, None]
    assert list(Heights(frame).rows()) == list(table.rows())
    shorter = frame.filter(polars.col("who") == "b")
    assert Heights(shorter)["who"].tolist() == ["b"]


def test_open_columns_are_numbers_that_rows_may_add(tmp_path: Path) -> None:
    class Open(Heights):
        OPEN = "feature:"

    table = Open([{"who": "a", "feature:x": 1.0}, {"who": "b"}])
    assert Open.load(table.save(tmp_path))["feature:x"].tolist()[0] == 1.0
    with pytest.raises(UsageError, match="unknown column"):
        Open([{"other:x": 1.0}])
    both = Open.concat([table, Open([{"who": "c", "feature:y": 2.0}])])
    assert np.isnan(both["feature:y"]).tolist() == [True, True, False]


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "who": st.one_of(st.none(), st.sampled_from(["", "a", "b", "ü"])),
                "height": st.one_of(st.none(), st.floats()),
                "n": st.one_of(st.none(), st.integers(-5, 5)),
            },
        ),
        max_size=8,
    ),
    st.sampled_from([None, "", "a", "ü", "not there"]),
    st.lists(st.integers(-5, 5), max_size=3),
)
def test_filters_agree_with_plain_loops(
    rows: list[dict[str, object]], who: str | None, numbers: list[int]
) -> None:
    table = Heights(rows)
    stored = list(table.rows())
    chosen = [row for row in stored if (row["who"] or "") == (who or "")]
    assert list(table.where(who=who).rows()) == chosen
    assert list(table.where(n=numbers).rows()) == [row for row in stored if row["n"] in numbers]
    both = [row for row in chosen if row["n"] in numbers]
    assert list(table.where(who=who, n=numbers).rows()) == both
    mask = np.array([row["n"] is not None for row in stored], dtype=bool)
    assert list(table.take(mask).rows()) == [row for row in stored if row["n"] is not None]
    assert list(table.head(2).rows()) == stored[:2]
    assert table.unique("who") == list(
        dict.fromkeys(row["who"] for row in stored if row["who"] is not None)
    )
