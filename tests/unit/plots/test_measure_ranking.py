import pytest

from repsim.core.errors import UsageError
from repsim.plots.measure_ranking import measure_ranking_info
from tests.planted.measure_scores import synthetic_scores

TESTS = ("layers", "noise", "seeds", "forks", "atlas_merging")


@pytest.fixture(scope="module")
def table():
    return synthetic_scores(TESTS)


def test_the_best_measure_comes_first_and_ties_are_filled(table):
    info = measure_ranking_info(table)
    assert [name for name, *_ in info.measures][-2:] == ["unit_correlation", "imd"]
    assert [column.heading for column in info.columns][1:3] == ["layers", "noise"]
    tied = {one.name: one.tied for one in info.columns[0].ranking.ranked}
    assert tied == {"cka": True, "procrustes": True, "unit_correlation": False, "imd": False}
    caption = info.caption()
    assert "CKA is right most often (0.95)" in caption
    assert "Not told from it: Procrustes." in caption


def test_a_measure_that_an_atlas_lacks_has_no_mark_there(table):
    rows = [r for r in table.rows() if r["measure"] != "imd" or r["test"] != "atlas_merging"]
    info = measure_ranking_info(type(table)(rows))
    assert "imd" not in info.columns[-1].by_name
    assert "imd" in info.columns[0].by_name


def test_a_table_without_tests_on_models_is_refused(table):
    with pytest.raises(UsageError, match="no test on models"):
        measure_ranking_info(table.where(test="atlas_merging"))
