import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.plots.colours import ColourScale
from repsim.plots.drawing.matrix import ink_on
from repsim.plots.heatmap import HEATMAP, heatmap_info
from repsim.plots.selection import MeasureFacts
from repsim.testing.tables import synthetic_table
from tests.planted.figures import drawn_texts

CKA = MeasureFacts("cka", "CKA", "similarity", None, 1.0, 1.0, True, "L2")
ANGLE = MeasureFacts("procrustes", "angle", "distance", 0.0, np.pi / 2, 0.0, True, "L2")


@pytest.mark.parametrize("depths", [(12, 6), (6, 12)])
def test_rows_are_a_and_columns_b_whichever_is_deeper(depths):
    table = synthetic_table(
        dict(zip(("a", "b"), depths, strict=True)), languages=("fra_Latn",), measures=("cka",)
    )
    panel = heatmap_info(table).panels[0]
    np.testing.assert_allclose(panel.values, table.grid("a", "b", measure="cka").values)
    assert panel.values.shape == (depths[0] + 1, depths[1] + 1)
    assert (panel.label_a, panel.label_b) == ("a", "b")
    ax = HEATMAP.draw(heatmap_info(table)).axes[0]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer of a", "layer of b")


def test_the_best_layer_of_a_row_is_the_largest_similarity_or_smallest_distance(two_encoders):
    for measure, pick in (("cka", np.argmax), ("procrustes", np.argmin)):
        panel = heatmap_info(two_encoders, measure=measure).panels[0]
        np.testing.assert_array_equal(panel.best, pick(panel.values, axis=1))


def test_cells_within_the_null_are_marked(table_of):
    rows = [
        {"layer_b": 0, "value": 0.05, "null_q95": 0.1},
        {"layer_b": 1, "value": 0.50, "null_q95": 0.1},
        {"layer_b": 2, "value": 0.50},
    ]
    panel = heatmap_info(table_of(rows)).panels[0]
    assert panel.at_null.tolist() == [[True, False, False]]
    ax = HEATMAP.draw(heatmap_info(table_of(rows))).axes[0]
    marks = [c for c in ax.collections if c.get_label() == "not beyond the null"]
    np.testing.assert_allclose(marks[0].get_offsets(), [[0, 0]])


def test_similarities_are_magma_from_zero_to_one():
    scale = ColourScale.of(CKA, np.array([0.2, 0.4]))
    assert (scale.cmap, scale.low, scale.high, scale.extend) == ("magma", 0.0, 1.0, "neither")


def test_distances_are_reversed_so_that_bright_is_similar():
    scale = ColourScale.of(ANGLE, np.array([0.2, 0.4]))
    assert scale.cmap == "magma_r"
    assert scale.high == pytest.approx(np.pi / 2)


def test_values_beyond_the_scale_are_said_and_not_clipped_in_silence():
    scale = ColourScale.of(CKA, np.array([-0.04, -0.01, 0.5]))
    assert scale.extend == "min"
    assert scale.note == "2 of 3 cells below 0 (least −0.040)"
    assert ColourScale.of(CKA, np.array([0.1, 0.5]), (0.2, 0.4)).extend == "both"


def test_the_colour_bar_has_an_arrow_and_states_direction():
    table = synthetic_table({"a": 4, "b": 4}, languages=("eng_Latn",), offset=-0.5)
    figure = HEATMAP(table)
    texts = " ".join(text.string for text in drawn_texts(figure)).replace("\xa0", " ")
    assert "CKA (debiased) (↑ more similar)" in texts
    assert "cells below 0" in texts
    assert figure.axes[-1].get_ylabel().startswith("CKA")


def test_rings_stand_on_the_best_cells(two_encoders):
    data = heatmap_info(two_encoders, languages=["eng_Latn"])
    ax = HEATMAP.draw(data).axes[0]
    rings = next(c for c in ax.collections if c.get_label() == "best")
    assert len(rings.get_facecolors()) == 0
    panel = data.panels[0]
    np.testing.assert_allclose(rings.get_offsets(), np.column_stack([panel.best, np.arange(13)]))


def test_the_image_holds_the_values_with_layer_zero_below(two_encoders):
    data = heatmap_info(two_encoders, languages=["eng_Latn"])
    image = HEATMAP.draw(data).axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), data.panels[0].values)
    assert image.origin == "lower"
    assert image.get_clim() == (0.0, 1.0)


def test_several_languages_share_one_colour_bar(two_encoders):
    figure = HEATMAP(two_encoders)
    assert len(figure.axes) == 6 + 1


def test_missing_cells_are_hatched_and_named():
    table = synthetic_table({"m": 3}, languages=("eng_Latn", "deu_Latn"), measures=("cka",))
    data = heatmap_info(table)
    assert "hatched = not computed" in data.note
    ax = HEATMAP.draw(data).axes[0]
    assert ax.patches[0].get_hatch()
    assert np.ma.count_masked(ax.images[0].get_array()) == 12


def test_another_column_is_named_on_the_scale(two_encoders):
    data = heatmap_info(two_encoders, column="calibrated", measure="procrustes")
    assert data.facts.label == "angular Procrustes, calibrated"
    assert data.scale.cmap == "magma"


def test_a_column_without_numbers_is_refused(two_encoders):
    with pytest.raises(UsageError, match="column 'note' holds no number"):
        heatmap_info(two_encoders, column="note")


def test_many_pairs_of_models_are_cut_to_the_first_and_it_is_said():
    table = synthetic_table(
        {f"m{i}": 1 for i in range(5)}, languages=("eng_Latn", "deu_Latn"), measures=("cka",)
    )
    data = heatmap_info(table)
    assert len(data.panels) == 2
    assert data.note[0] == "first of 10 pairs of models"


def test_ink_is_light_on_dark_and_dark_on_bright():
    ink = ink_on(np.array([[0.0, 1.0]]), ColourScale.of(CKA, np.zeros(1)))
    assert ink.tolist() == [["#FEFEFE", "#15181D"]]


def test_the_caption_names_the_most_similar_layers(table_of):
    rows = [{"layer_a": a, "layer_b": b, "value": 0.9 if (a, b) == (1, 2) else 0.1}
            for a in range(3) for b in range(3)]  # fmt: skip
    caption = heatmap_info(table_of(rows)).caption()
    assert "Most similar layers: 1 and 2 (0.90)" in caption
    assert "n = 100 sentences" in caption
