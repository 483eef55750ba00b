import numpy as np
import pytest

from repsim.plots.appearance import ROLES
from repsim.plots.layers import LAYERS, layers_info, null_envelope
from repsim.testing.tables import synthetic_table
from tests.planted.figures import check_figure


def lines(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


def test_each_language_of_a_pair_has_a_panel_on_matched_depth(two_encoders):
    data = layers_info(two_encoders)
    assert [panel.title for panel in data.panels] == ["eng", "deu", "fra", "fin", "ell", "rus"]
    curve = data.panels[0].curves[0]
    assert curve.layers == tuple((2 * k, k) for k in range(7))
    np.testing.assert_allclose(curve.x, np.arange(7) / 6)
    grid = two_encoders.grid(
        "multilingual-e5-small", "minilm-l6", measure="cka", language_a="eng_Latn"
    )
    np.testing.assert_allclose(curve.value, grid.values[::2].diagonal())


def test_models_of_equal_depth_are_read_by_layer(four_roles):
    data = layers_info(four_roles, languages=["eng_Latn"])
    assert not data.relative
    assert data.curves[0].x.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_parallel_text_is_averaged_over_language_pairs(two_encoders):
    data = layers_info(two_encoders, pairing="parallel text")
    assert [curve.label for curve in data.curves] == ["multilingual-e5-small", "minilm-l6"]
    curve = data.curves[1]
    assert curve.members.shape == (15, 7)
    np.testing.assert_allclose(curve.value, curve.members.mean(axis=0))
    assert "mean over 15 language pairs" in data.note


def test_intervals_null_and_partial_are_those_of_the_table(table_of):
    row = {"value": 0.6, "ci_low": 0.5, "ci_high": 0.7, "null_q95": 0.1, "partial": 0.4}
    curve = layers_info(table_of([row])).curves[0]
    got = [float(getattr(curve, name)[0]) for name in ("value", "low", "high", "null", "partial")]
    assert got == [0.6, 0.5, 0.7, 0.1, 0.4]


def test_what_the_table_lacks_is_neither_drawn_nor_named(table_of):
    data = layers_info(table_of([{"value": 0.6}, {"value": 0.5, "layer_a": 1, "layer_b": 1}]))
    assert not any("interval" in piece or "band" in piece for piece in data.note)
    ax = LAYERS.draw(data).axes[0]
    assert not ax.collections
    assert "grey band" not in data.caption()


def test_more_than_six_curves_become_small_multiples():
    table = synthetic_table(
        {f"m{i}": 2 for i in range(5)}, languages=("eng_Latn",), measures=("cka",)
    )
    data = layers_info(table)
    assert len(data.panels) == 10
    assert all(len(panel.curves) == 1 for panel in data.panels)


def test_the_null_band_covers_the_widest_null(two_encoders):
    curves = layers_info(two_encoders, languages=["eng_Latn"]).curves
    higher = curves[0]._replace(null=curves[0].null + np.linspace(-0.1, 0.1, 7))
    _, edge = null_envelope([*curves, higher], similarity=True)
    np.testing.assert_allclose(edge, np.maximum(curves[0].null, higher.null))
    _, edge = null_envelope([*curves, higher], similarity=False)
    np.testing.assert_allclose(edge, np.minimum(curves[0].null, higher.null))


def test_the_null_of_a_distance_lies_above(two_encoders):
    data = layers_info(two_encoders, measure="procrustes", languages=["eng_Latn"])
    band = LAYERS.draw(data).axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(1.18)
    assert band[:, 1].max() == pytest.approx(data.limits[1])


def test_values_bands_and_dashed_lines_are_drawn_as_prepared(four_roles):
    data = layers_info(four_roles, models=["mono-en", "mixed"], pairing="parallel text")
    ax = LAYERS.draw(data).axes[0]
    for curve in data.curves:
        (line,) = lines(ax, curve.label)
        np.testing.assert_allclose(line.get_ydata(), curve.value)
        dashed = [other for other in ax.lines if other.is_dashed()]
        assert any(np.allclose(other.get_ydata(), curve.partial) for other in dashed)
        edges = [path.vertices[:, 1] for bands in ax.collections for path in bands.get_paths()]
        assert any(np.isclose(band.max(), curve.high.max()) for band in edges)


def test_colour_and_marker_tell_the_role(four_roles):
    figure = LAYERS(four_roles, pairing="parallel text")
    (line,) = lines(figure.axes[0], "merged-linear")
    assert (line.get_markerfacecolor(), line.get_marker()) == ROLES["merged"]


def test_few_series_are_labelled_at_their_ends_and_have_no_legend(four_roles):
    ax = LAYERS(four_roles, pairing="parallel text").axes[0]
    assert {text.get_text() for text in ax.texts} == {
        "mono-en", "mono-fi", "mixed", "merged-linear", "shuffled pairs",
    }  # fmt: skip
    assert ax.get_legend() is None


def named_in_key(figure):
    """Label -> artist of the key of a figure."""
    legend = figure.legends[0]
    labels = [text.get_text() for text in legend.get_texts()]
    return dict(zip(labels, legend.legend_handles, strict=True))


def test_the_key_names_the_interval_the_null_and_the_grey_lines(two_encoders):
    figure = LAYERS(two_encoders)
    key = named_in_key(figure)
    assert set(key) == {
        "95 % interval", "shuffled pairs (null)", "covariates removed", "the other panels",
    }  # fmt: skip
    ax = figure.axes[0]
    null, interval = ax.collections
    assert key["95 % interval"].get_facecolor()[:3] == tuple(interval.get_facecolor()[0][:3])
    assert key["shuffled pairs (null)"].get_facecolor()[:3] == tuple(null.get_facecolor()[0][:3])
    (curve,) = lines(ax, "multilingual-e5-small – minilm-l6")
    others = [line for line in ax.lines if line.get_color() == key["the other panels"].get_color()]
    assert len(others) == 1 + 5  # the edge of the null, and the five other languages
    assert curve.get_color() != key["the other panels"].get_color()


def test_the_key_names_what_was_averaged_and_nothing_that_is_not_there(four_roles, table_of):
    average = LAYERS(four_roles, average=True, models=["mono-en", "mixed"])
    assert "each language" in named_in_key(average)
    assert not LAYERS(table_of([{"value": 0.6}])).legends


def test_limits_are_those_asked_for(four_roles):
    ax = LAYERS(four_roles, pairing="parallel text", limits=(0.2, 0.9)).axes[0]
    assert ax.get_ylim() == (0.2, 0.9)


def test_the_caption_states_what_n_interval_and_reading(two_encoders):
    caption = layers_info(two_encoders).caption()
    for words in ("CKA (debiased)", "n = 686 sentences", "95 % jackknife", "100 shuffles",
                  "Higher is more similar", "above the grey band"):  # fmt: skip
        assert words in caption
    lower = layers_info(two_encoders, measure="procrustes").caption()
    assert "Lower is more similar; only what lies below the grey band" in lower


def test_negative_values_are_not_clipped():
    table = synthetic_table({"a": 3, "b": 3}, offset=-0.9, measures=("cka",))
    data = layers_info(table, average=True)
    assert data.limits[0] < data.curves[0].value.min() < 0


def test_direct_labels_of_lines_that_end_together_stay_apart():
    table = synthetic_table(
        {f"model-{i}": 4 for i in range(4)}, languages=("eng_Latn",), measures=("cka",)
    )
    same = [row | {"value": 0.5, "partial": None} for row in table.rows()]
    check_figure(LAYERS(type(table)(same, table.info)))
