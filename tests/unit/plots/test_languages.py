import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import squareform

from repsim.core.errors import UsageError
from repsim.plots.languages import LANGUAGES, cluster, languages_info
from repsim.testing.tables import synthetic_table

#: Leaves 0-1 join at 1, 2-3 at 2, both at 6: an ultrametric, which average linkage gives back.
TREE = np.array([[0, 1, 6, 6], [1, 0, 6, 6], [6, 6, 0, 2], [6, 6, 2, 0.0]])


def language_rows(values, languages=("aaa_Latn", "bbb_Latn", "ccc_Latn")):
    """Rows of one model on one layer from {(i, j): value}."""
    return [
        {"model_a": "m", "model_b": "m", "pairing": "parallel text", "value": value,
         "language_a": languages[i], "language_b": languages[j]}
        for (i, j), value in values.items()
    ]  # fmt: skip


def test_the_known_tree_comes_back():
    linkage, order = cluster(TREE)
    np.testing.assert_allclose(squareform(cophenet(linkage)), TREE)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 1}), frozenset({2, 3})}


def test_similarities_are_clustered_by_one_minus_themselves(table_of):
    values = {(0, 1): 0.2, (0, 2): 0.9, (1, 2): 0.3}
    panel = languages_info(table_of(language_rows(values))).panels[0]
    np.testing.assert_allclose(panel.linkage[:, 2], [0.1, 0.75])


def test_distances_are_clustered_as_they_are(table_of):
    declared = {"d": {"label": "d", "direction": "distance", "range": [0, 2.0],
                      "identity_value": 0.0}}  # fmt: skip
    values = {(0, 1): 0.2, (0, 2): 0.9, (1, 2): 0.7}
    rows = [row | {"measure": "d"} for row in language_rows(values)]
    panel = languages_info(table_of(rows, declared)).panels[0]
    np.testing.assert_allclose(panel.linkage[:, 2], [0.2, 0.8])


def test_matrix_order_and_leaves_agree(two_encoders):
    panel = languages_info(two_encoders).panels[0]
    assert len(set(panel.languages)) == 6
    i, j = panel.languages.index("eng"), panel.languages.index("deu")
    rows = two_encoders.where(
        model_a="multilingual-e5-small", language_a="eng_Latn", language_b="deu_Latn",
        measure="cka", layer_a=panel.layer, pairing="parallel text",
    )  # fmt: skip
    assert panel.values[i, j] == panel.values[j, i] == next(rows.rows())["value"]
    assert np.isnan(panel.values.diagonal()).all()


def test_the_layer_shown_is_that_of_the_highest_mean(table_of):
    rows = [
        row | {"layer_a": layer, "layer_b": layer, "value": row["value"] + rise}
        for layer, rise in ((0, 0.0), (1, 0.2), (2, 0.1))
        for row in language_rows({(0, 1): 0.2, (0, 2): 0.3, (1, 2): 0.4})
    ]
    data = languages_info(table_of(rows))
    assert (data.panels[0].layer, data.panels[0].title) == (1, "m, layer 1 of 2")
    assert "at the layer where languages agree most" in data.note
    assert languages_info(table_of(rows), layer=2).panels[0].layer == 2
    with pytest.raises(UsageError, match=r"layer 9 of 'm' is not in the table.*\[0, 1, 2\]"):
        languages_info(table_of(rows), layer=9)


def test_both_orders_of_an_asymmetric_measure_are_averaged(table_of):
    declared = {"r2": {"label": "R2", "symmetric": False, "range": [None, 1.0]}}
    values = {(0, 1): 0.2, (1, 0): 0.4}
    rows = [row | {"measure": "r2"} for row in language_rows(values)]
    assert languages_info(table_of(rows, declared)).panels[0].values[0, 1] == pytest.approx(0.3)


def test_a_missing_pair_is_hatched_and_joined_at_the_mean(table_of):
    data = languages_info(table_of(language_rows({(0, 1): 0.8, (1, 2): 0.4})))
    assert "hatched = not computed, joined at the mean distance" in data.note
    assert np.isnan(data.panels[0].values).sum() == 3 + 2
    assert np.isfinite(data.panels[0].linkage).all()


def test_models_of_one_language_each_share_a_panel(table_of):
    rows = [
        {"model_a": f"m{i}", "model_b": f"m{j}", "pairing": "parallel text", "value": 0.5,
         "language_a": f"l{i}_Latn", "language_b": f"l{j}_Latn"}
        for i in range(3) for j in range(i)
    ]  # fmt: skip
    data = languages_info(table_of(rows))
    assert data.panels[0].title == "one model for each language, layer 0 of 0"
    assert sorted(data.panels[0].languages) == ["l0", "l1", "l2"]
    rows.append(rows[0] | {"model_a": "m9"})
    with pytest.raises(UsageError, match=r"language 'l1_Latn' was read by several models"):
        languages_info(table_of(rows))


def test_a_table_without_parallel_text_is_refused():
    table = synthetic_table({"a": 1, "b": 1}, languages=("eng_Latn",))
    with pytest.raises(UsageError, match="no 'cka' between different models or languages"):
        languages_info(table)


def test_too_many_models_are_refused():
    table = synthetic_table(
        {f"m{i}": 1 for i in range(13)}, languages=("eng_Latn", "deu_Latn"), measures=("cka",)
    )
    with pytest.raises(UsageError, match="13 panels, more than 12"):
        languages_info(table)


def test_the_dendrogram_is_glued_to_the_columns(two_encoders):
    data = languages_info(two_encoders, models=["minilm-l6"])
    figure = LANGUAGES.draw(data)
    figure.canvas.draw()
    ax = figure.axes[0]
    (tree,) = ax.child_axes
    assert tree.get_xlim() == (0, 60)
    matrix, above = ax.get_window_extent(), tree.get_window_extent()
    assert above.x0 == pytest.approx(matrix.x0)
    assert above.x1 == pytest.approx(matrix.x1)
    assert above.y0 >= matrix.y1
    heights = sorted(max(line.get_ydata()) for line in tree.lines)
    np.testing.assert_allclose(heights, sorted(data.panels[0].linkage[:, 2]))


def test_the_lower_triangle_carries_hundredths(two_encoders):
    data = languages_info(two_encoders, models=["minilm-l6"])
    ax = LANGUAGES.draw(data).axes[0]
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert len(texts) == 15
    panel = data.panels[0]
    for (j, i), text in texts.items():
        assert i > j
        assert int(text) == round(100 * panel.values[i, j])


def test_crowded_matrices_carry_no_numbers_and_say_none():
    languages = tuple(f"l{i:02}_Latn" for i in range(20))
    table = synthetic_table({"m": 1}, languages=languages, measures=("cka",))
    data = languages_info(table)
    assert not data.annotated
    assert "numbers × 100" not in data.note
    assert not LANGUAGES.draw(data).axes[0].texts


def test_the_caption_names_the_nearest_languages(table_of):
    values = {(0, 1): 0.2, (0, 2): 0.9, (1, 2): 0.3}
    caption = languages_info(table_of(language_rows(values))).caption()
    assert "mean 0.47, most similar" in caption
    assert "(0.90)" in caption
    assert "n = 100 sentence pairs" in caption
