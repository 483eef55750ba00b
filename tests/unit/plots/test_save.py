import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

import repsim.plots
from repsim.core.errors import UsageError
from repsim.plots import FIGURES, save_figure
from repsim.plots.drawing.dark import turned
from repsim.testing.tables import synthetic_table
from tests.planted.figures import check_figure


@pytest.fixture(scope="module")
def figure():
    table = synthetic_table({"a": 3, "b": 3}, languages=("eng_Latn",), measures=("cka",))
    return FIGURES["layers"](table, size="single")


def test_files_are_written_whole_and_nothing_is_left_beside_them(figure, tmp_path):
    paths = save_figure(figure, tmp_path / "sub" / "layers-0.5", ("png", "svg", "pdf"))
    assert [path.name for path in paths] == ["layers-0.5.png", "layers-0.5.svg", "layers-0.5.pdf"]
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == sorted(
        path.name for path in paths
    )


def test_the_same_figure_is_the_same_bytes(tmp_path):
    table = synthetic_table({"a": 2, "b": 2}, languages=("eng_Latn",), measures=("cka",))
    written = [
        [path.read_bytes() for path in save_figure(FIGURES["layers"](table), tmp_path / name)]
        for name in ("one", "two")
    ]
    assert written[0] == written[1]


def test_svg_keeps_text_as_text_and_carries_no_date(figure, tmp_path):
    (path,) = save_figure(figure, tmp_path / "a", ("svg",))
    text = path.read_text(encoding="utf-8")
    assert "shuffled" in text
    assert "<dc:date>" not in text


def test_an_svg_turns_its_inks_where_the_reader_is_dark(figure, tmp_path):
    (path,) = save_figure(figure, tmp_path / "a", ("svg",))
    text = path.read_text(encoding="utf-8")
    assert "@media (prefers-color-scheme:dark)" in text
    assert f'[style*="fill: #ffffff"]{{fill:{turned("#ffffff")}!important}}' in text


def test_png_has_two_hundred_dots_per_inch(figure, tmp_path):
    (path,) = save_figure(figure, tmp_path / "a", ("png",))
    width = int.from_bytes(path.read_bytes()[16:20], "big")
    assert width == round(3.4 * 200)


def test_an_unknown_format_is_refused_before_anything_is_written(figure, tmp_path):
    with pytest.raises(UsageError, match="unknown figure format 'gif'"):
        save_figure(figure, tmp_path / "a", ("png", "gif"))
    assert not list(tmp_path.iterdir())


def test_saving_ignores_and_keeps_the_users_settings(figure, tmp_path):
    (plain,) = save_figure(figure, tmp_path / "plain", ("svg",))
    with mpl.rc_context({"svg.fonttype": "path", "font.family": "serif"}):
        (other,) = save_figure(figure, tmp_path / "other", ("svg",))
        assert mpl.rcParams["svg.fonttype"] == "path"
    assert plain.read_bytes() == other.read_bytes()


def test_figures_show_themselves_in_notebooks(figure):
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_every_registered_kind_is_drawn_from_the_table():
    table = synthetic_table({"a": 2, "b": 2}, languages=("eng_Latn", "deu_Latn", "fra_Latn"))
    assert dir(table.plot) >= ["checkpoints", "heatmap", "ladder", "languages", "layers", "space"]
    for kind in {*dir(table.plot)} - {"checkpoints"}:  # which needs steps
        assert isinstance(getattr(table.plot, kind)(size="medium"), Figure)


def test_every_public_name_is_there():
    for name in repsim.plots.__all__:
        assert hasattr(repsim.plots, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = repsim.plots.nothing


def test_the_check_finds_what_is_wrong():
    blank, over = Figure(), Figure()
    with pytest.raises(AssertionError, match="blank"):
        check_figure(blank)
    over.text(0.5, 0.5, "one text")
    over.text(0.51, 0.5, "another text")
    with pytest.raises(AssertionError, match="overlap: 'another text' and 'one text'"):
        check_figure(over)
