"""The long table: columns, views, summary, storage."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repsim.core import (
    Activations,
    InputError,
    ModelRef,
    ParallelCorpus,
    SimilarityTable,
    UsageError,
)
from repsim.core.similarity_table import COLUMNS, Grid


def row(layer_a: int, layer_b: int, value: float, **changes: object) -> dict[str, object]:
    return dict.fromkeys(COLUMNS) | {
        "model_a": "a", "model_b": "b", "language_a": "eng_Latn", "language_b": "eng_Latn",
        "layer_a": layer_a, "layer_b": layer_b, "point": "resid", "pairing": "same text",
        "measure": "cka", "params": "{}", "value": value, "n": 10, "seed": 0, "note": "",
    } | changes  # fmt: skip


@pytest.fixture
def table() -> SimilarityTable:
    rows = [row(i, j, 1.0 - 0.1 * abs(2 * i - j)) for i in range(3) for j in range(5)]
    info = {"measures": {"cka": {"direction": "similarity"}}, "corpus": {"name": "c"}}
    return SimilarityTable(rows, info)


def test_a_grid_is_a_view_and_can_be_read_from_either_side(table: SimilarityTable) -> None:
    grid = table.grid("a", "b", measure="cka")
    assert grid.values.shape == (3, 5)
    assert grid.values[1, 2] == pytest.approx(1.0)
    assert grid.label_a == "a · eng_Latn"
    np.testing.assert_array_equal(table.grid("b", "a", measure="cka").values, grid.values.T)


def test_a_grid_that_is_not_there_lists_what_is(table: SimilarityTable) -> None:
    with pytest.raises(UsageError, match=r"no 'rsa'.*measures: \['cka'\]"):
        table.grid("a", "b", measure="rsa")


def test_missing_numbers_are_null_and_read_as_nan(table: SimilarityTable) -> None:
    assert np.isnan(table.column("ci_low")).all()
    assert SimilarityTable([row(0, 0, float("nan"))]).to_json()["rows"][0]["value"] is None


def test_where_takes_values_and_lists(table: SimilarityTable) -> None:
    assert len(table.where(layer_a=1)) == 5
    assert len(table.where(layer_a=[0, 2], layer_b=[0])) == 2
    assert len(table.where(measure="none")) == 0
    with pytest.raises(UsageError, match="unknown column .*'layer_c'"):
        table.where(layer_c=1)


def test_the_summary_gives_best_middle_and_matched_depth(table: SimilarityTable) -> None:
    (summary,) = table.summary()
    assert summary["best"] == pytest.approx(1.0)
    assert (summary["best_layer_a"], summary["best_layer_b"]) in {(0, 0), (1, 2), (2, 4)}
    assert summary["matched_mean"] == pytest.approx(1.0)
    assert summary["middle"] == pytest.approx(1.0)
    distances = SimilarityTable(
        [row(0, 0, 0.2), row(1, 1, 0.9)], {"measures": {"cka": {"direction": "distance"}}}
    )
    assert distances.summary()[0]["best"] == pytest.approx(0.2)


def test_a_pair_without_any_value_has_an_empty_summary() -> None:
    (summary,) = SimilarityTable([row(0, 0, float("nan"))]).summary()
    assert summary["best"] is None
    assert summary["n"] == 10


def test_saving_and_loading_gives_the_same(table: SimilarityTable, tmp_path: Path) -> None:
    table.save(tmp_path / "similarity.parquet")
    again = SimilarityTable.load(tmp_path)
    assert again.to_json() == table.to_json()
    text = table.save(tmp_path / "t.csv").read_text()
    assert text.splitlines()[0].startswith('"model_a","language_a"')
    assert len(text.splitlines()) == 16


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist.*repsim compare"):
        SimilarityTable.load(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a readable parquet file"):
        SimilarityTable.load(tmp_path / "x.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="is not a table of similarity"):
        SimilarityTable.load(tmp_path / "y.parquet")
    with pytest.raises(UsageError, match="unknown column of a table of similarity 'x'"):
        SimilarityTable(pa.table({"x": [1]}))


def test_a_grid_becomes_an_xarray_where_that_is_installed(table: SimilarityTable) -> None:
    pytest.importorskip("xarray")
    array = table.grid("a", "b", measure="cka").to_xarray()
    assert float(array.sel(layer_a=1, layer_b=2)) == pytest.approx(1.0)


def test_tables_stack_and_their_info_is_merged(table: SimilarityTable) -> None:
    other = SimilarityTable([row(0, 0, 0.5, measure="rsa")], {"measures": {"rsa": {}}})
    both = SimilarityTable.concat([table, other])
    assert len(both) == 16
    assert set(both.info["measures"]) == {"cka", "rsa"}
    assert both.unique("measure") == ["cka", "rsa"]
    with pytest.raises(UsageError, match="no tables"):
        SimilarityTable.concat([])


def test_every_noun_is_shown_in_a_notebook() -> None:
    corpus = ParallelCorpus("<two>", ("1", "2"), {"eng_Latn": ("One.", "Two.")})
    acts = Activations.from_arrays("a", [np.ones((2, 3))])
    grid = Grid(np.array([[0.25]]), (0,), (7,), "a · ", "b", "cka")
    assert "&lt;two&gt;" in corpus._repr_html_()
    assert "<td>sentences</td><td>2</td>" in corpus._repr_html_()
    assert "documents" not in acts._repr_html_()
    assert "<th>a ↓, b →</th><th>7</th>" in grid._repr_html_()
    assert "<td>0.250</td>" in grid._repr_html_()
    assert "<td>path</td>" in ModelRef("m", "m")._repr_html_()


def test_html_escapes_names() -> None:
    table = SimilarityTable([row(0, 0, 0.5, model_a="<b>")])
    assert "&lt;b&gt;" in table._repr_html_()
    assert "empty" in SimilarityTable([])._repr_html_()


def test_plots_are_looked_up_by_kind(table: SimilarityTable) -> None:
    assert "layers" in dir(table.plot)
    with pytest.raises(UsageError, match="unknown plot 'pie'"):
        table.plot.pie()
