"""Figures inside a figure of the caller, of a size and in a theme of the caller's choice."""

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from repsim.core.errors import UsageError
from repsim.plots import FIGURES
from repsim.plots.appearance import luminance
from repsim.plots.drawing.hover import spots
from repsim.testing.tables import synthetic_table
from tests.planted.evaluation_tables import barrier_table
from tests.planted.figures import check_figure, drawn_texts

OF_ONE_PANEL = ("heatmap", "layers", "ladder", "space", "languages")


@pytest.fixture(scope="module")
def pair():
    return synthetic_table(
        {"model-a": 6, "model-b": 4}, languages=("eng_Latn",), measures=("cka", "svcca")
    )


@pytest.fixture(scope="module")
def one_model():
    return synthetic_table({"m": 4}, languages=("eng_Latn", "deu_Latn", "fin_Latn"))


def drawn(name, pair, one_model, **options):
    chosen = {} if name == "ladder" else {"measure": "cka"}
    table = one_model if name in ("languages", "space") else pair
    return FIGURES[name](table, **chosen, **options)


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
@pytest.mark.parametrize("name", ["heatmap", "languages"])
def test_the_colour_bar_stays_off_the_neighbour(name, layout, pair, one_model):
    figure = Figure(figsize=(7, 3), layout=layout)
    left, right = figure.subplots(1, 2)
    right.set_ylabel("something else")
    drawn(name, pair, one_model, ax=left)
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    bar = next(ax for ax in figure.axes if ax not in (left, right))
    assert bar.get_tightbbox(renderer).x1 <= right.get_tightbbox(renderer).x0
    assert left.get_window_extent().width > 0.2 * figure.bbox.width


@pytest.mark.parametrize("name", OF_ONE_PANEL)
def test_texts_stay_off_the_neighbour(name, pair, one_model):
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert drawn(name, pair, one_model, ax=left) is figure
    check_figure(figure)
    assert not right.has_data()


@pytest.mark.parametrize("part", ["list", "subfigure"])
@pytest.mark.parametrize("name", ["heatmap", "layers", "languages", "barrier"])
def test_several_panels_go_into_several_axes_of_the_caller(name, part, pair, one_model):
    table = {"heatmap": one_model, "layers": synthetic_table({"a": 3, "b": 3}),
             "languages": synthetic_table({"a": 2, "b": 2}),
             "barrier": barrier_table()}[name]  # fmt: skip
    count = len(FIGURES[name].info(table).panels)
    figure = Figure(figsize=(11, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 1))
    right.subplots().set_ylabel("something else")
    columns = min(count, 3)
    where = left if part == "subfigure" else left.subplots(-(-count // columns), columns).ravel()
    assert FIGURES[name](table, ax=where if part == "subfigure" else where[:count]) is figure
    check_figure(figure)
    with pytest.raises(UsageError, match=f"{count} panels and does not fit into {count + 1} axes"):
        FIGURES[name](table, ax=Figure().subplots(1, count + 1))
    with pytest.raises(UsageError, match=f"{count} panels and does not fit into one axes"):
        FIGURES[name](table, ax=Figure().add_subplot())


def test_a_title_is_broken_within_the_axes(pair, one_model):
    figure = Figure(figsize=(6, 3))
    left, right = figure.subplots(1, 2)
    drawn("layers", pair, one_model, ax=left, title="a long heading that one axes cannot hold")
    texts = [text for text in drawn_texts(figure) if text.string.startswith("a long")]
    assert texts[0].box[2] < right.get_window_extent().x0


@pytest.mark.parametrize("name", OF_ONE_PANEL)
def test_a_figure_has_the_size_asked_for(name, pair, one_model):
    figure = drawn(name, pair, one_model, figsize=(6.5, 5.5))
    assert figure.get_size_inches().tolist() == [6.5, 5.5]
    check_figure(figure)


def test_a_size_that_cannot_be_is_refused(pair, one_model):
    with pytest.raises(UsageError, match="no width and height"):
        drawn("heatmap", pair, one_model, figsize=(5, 0))
    with pytest.raises(UsageError, match="no room below its heading"):
        drawn("heatmap", pair, one_model, figsize=(5, 0.5))
    with pytest.raises(UsageError, match="figure of its own"):
        drawn("heatmap", pair, one_model, figsize=(5, 3), ax=Figure().add_subplot())
    with pytest.raises(UsageError, match="theme is that of a figure of its own"):
        drawn("heatmap", pair, one_model, theme="dark", ax=Figure().add_subplot())


def test_a_theme_lies_over_that_of_repsim_and_stays_with_the_figure(pair, one_model):
    before = dict(mpl.rcParams)
    plain = drawn("layers", pair, one_model)
    themed = drawn("layers", pair, one_model, theme={"axes.facecolor": "#102030"})
    assert plain.axes[0].get_facecolor()[:3] == (1.0, 1.0, 1.0)
    assert themed.axes[0].get_facecolor()[:3] == pytest.approx((16 / 255, 32 / 255, 48 / 255))
    with mpl.rc_context({"axes.facecolor": "#00FF00"}):
        yours = drawn("layers", pair, one_model, theme="yours")
    assert yours.axes[0].get_facecolor()[:3] == (0.0, 1.0, 0.0)
    assert dict(mpl.rcParams) == before


def test_inks_are_turned_on_dark_paper_and_the_cells_of_a_matrix_are_not(pair, one_model):
    plain, dark = (drawn("heatmap", pair, one_model, theme=theme) for theme in ("repsim", "dark"))
    for figure in (plain, dark):
        FigureCanvasAgg(figure).draw()
    papers = [luminance(to_hex(figure.get_facecolor())) for figure in (plain, dark)]
    assert papers[0] > 0.9 > 0.05 > papers[1]
    for ours in (dark.axes[0].xaxis.label, *dark.axes[0].get_xticklabels(), *dark.texts):
        assert luminance(to_hex(ours.get_color())) > 0.25
    images = [figure.axes[0].images[0] for figure in (plain, dark)]
    assert images[0].get_cmap() == images[1].get_cmap()
    rings = [figure.axes[0].collections[0].get_edgecolors().tolist() for figure in (plain, dark)]
    assert rings[0] == rings[1]


def test_cells_and_points_say_their_values_where_they_lie(pair, one_model):
    figure = drawn("heatmap", pair, one_model)
    found = spots(figure)
    panel = FIGURES["heatmap"].info(pair, measure="cka").panels[0]
    assert len(found) == panel.values.size
    assert found[0].text == f"layers emb and emb: {panel.values[0, 0]:.3f}"
    box, dpi = figure.axes[0].get_window_extent(), figure.dpi
    assert found[0].x == pytest.approx(box.x0 / dpi * 72, abs=0.1)
    high = figure.get_size_inches()[1] * 72
    assert found[0].y + found[0].height == pytest.approx(high - box.y0 / dpi * 72, abs=0.1)
    curves = spots(drawn("layers", pair, one_model))
    assert any(spot.text.startswith("model-a – model-b: relative depth 0.500") for spot in curves)


@pytest.mark.parametrize(
    ("theme", "said"), [("nice", "unknown theme 'nice'"), ({"no.such": 1}, "no setting.*no.such")]
)
def test_an_unknown_theme_is_named(theme, said, pair, one_model):
    with pytest.raises(UsageError, match=said):
        drawn("layers", pair, one_model, theme=theme)


@pytest.mark.parametrize("name", ["heatmap", "languages"])
def test_the_colours_are_those_asked_for(name, pair, one_model):
    figure = drawn(name, pair, one_model, cmap="cividis")
    assert figure.axes[0].images[0].get_cmap().name == "cividis"
    with pytest.raises(UsageError, match="unknown colour map 'rainbows'"):
        drawn(name, pair, one_model, cmap="rainbows")


def test_the_scale_of_a_ladder_ends_where_asked(pair, one_model):
    figure = drawn("ladder", pair, one_model, limits=(-0.5, 1.5))
    assert figure.axes[0].get_xlim() == (-0.5, 1.5)


def test_pairs_on_a_ladder_differ_in_colour_marker_and_dashes():
    table = synthetic_table(
        dict.fromkeys("abc", 3), languages=("eng_Latn",), measures=("cka", "unit_correlation"),
        roles=dict.fromkeys("abc", "monolingual"),
    )  # fmt: skip
    figure = FIGURES["ladder"](table)
    handles = figure.legends[0].legend_handles
    for looks in (
        {h.get_color() for h in handles},
        {h.get_marker() for h in handles},
        {str(h.get_linestyle()) + str(h._unscaled_dash_pattern) for h in handles},
    ):
        assert len(looks) == 3
    check_figure(figure)
