"""Every figure keeps the contract: numbers first, explicit options, one name."""

import inspect

import pytest
from matplotlib.figure import Figure as Drawing

from repsim.core.errors import UsageError
from repsim.plots import FIGURES, Figure, TablePlots


@pytest.fixture
def plots(four_roles):
    return TablePlots(four_roles)


@pytest.mark.parametrize("name", FIGURES.names())
def test_every_option_is_stated(name):
    figure = FIGURES[name]
    parameters = inspect.signature(figure).parameters
    assert figure.name == name
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    assert "size" in parameters
    assert all(f"\n    {option}: " in figure.__doc__ for option in parameters)
    assert "Returns:" in figure.__doc__


def test_a_table_lists_the_figures_that_read_similarities(plots):
    assert {"layers", "heatmap", "languages", "space", "ladder"} <= set(dir(plots))
    assert "barrier" not in dir(plots)
    with pytest.raises(UsageError, match="unknown plot 'barrier'"):
        _ = plots.barrier


def test_a_method_of_a_table_shows_its_options_and_no_table(plots):
    shown = inspect.signature(plots.heatmap).parameters
    assert "table" not in shown
    assert {"measure", "column", "ax", "size"} <= set(shown)
    assert "ax: Axes to draw into" in plots.heatmap.__doc__
    assert "table:" not in plots.heatmap.__doc__


def test_an_option_that_a_figure_lacks_is_an_error(plots):
    with pytest.raises(TypeError, match="mesure"):
        plots.heatmap(mesure="cka")


def test_a_figure_of_ones_own_is_a_function_of_numbers_and_one_that_draws(monkeypatch, plots):
    def rows_info(table, *, measure="cka"):
        """How many rows.

        Args:
            table: The similarities.
            measure: Name of a measure.
        """
        return len(table.where(measure=measure))

    def draw_rows(info, *, ax=None, size="wide"):
        drawing = Drawing()
        drawing.suptitle(f"{info} rows")
        return drawing

    monkeypatch.setitem(
        FIGURES._entries, "rows", Figure("rows", "similarity", rows_info, draw_rows)
    )
    assert "rows" in dir(plots)
    assert plots.rows(measure="nothing", size="single").get_suptitle() == "0 rows"
