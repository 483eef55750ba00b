import itertools
import math

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.plots.appearance import ROLES
from repsim.plots.selection import MeasureFacts
from repsim.plots.space import SPACE, as_distance, embed, space_info
from repsim.testing.tables import synthetic_table
from tests.planted.figures import drawn_texts


@pytest.fixture(autouse=True)
def _few_starts(monkeypatch):
    monkeypatch.setattr("repsim.plots.space.N_INIT", 2)


def distances(xy):
    return np.linalg.norm(xy[:, None] - xy[None], axis=-1)


def test_points_of_a_plane_come_back_without_stress():
    truth = np.random.default_rng(3).normal(size=(7, 2))
    xy, stress = embed(distances(truth))
    np.testing.assert_allclose(distances(xy), distances(truth), atol=1e-3)
    assert stress < 1e-3


def test_stress_is_the_relative_error_of_the_distances():
    simplex = 1.0 - np.eye(5)
    xy, stress = embed(simplex)
    upper = np.triu_indices(5, 1)
    error = (simplex - distances(xy))[upper]
    assert stress == pytest.approx(math.sqrt((error**2).sum() / (simplex[upper] ** 2).sum()))
    assert 0.1 < stress < 0.5


def test_the_embedding_is_deterministic_and_oriented():
    matrix = distances(np.random.default_rng(1).normal(size=(6, 3)))
    first, second = embed(matrix, 0)[0], embed(matrix, 0)[0]
    np.testing.assert_array_equal(first, second)
    assert (first[0] > 0).all()
    assert np.ptp(first[:, 0]) >= np.ptp(first[:, 1]) - 1e-9


@pytest.mark.parametrize(
    ("name", "direction", "value", "distance"),
    [
        ("cka", "similarity", 0.5, math.acos(0.5)),
        ("cka", "similarity", -0.1, math.acos(-0.1)),
        ("cka", "similarity", 1.0000001, 0.0),
        ("svcca", "similarity", 0.7, 0.3),
        ("procrustes", "distance", 0.4, 0.4),
    ],
)
def test_measures_become_distances(name, direction, value, distance):
    identity = 1.0 if direction == "similarity" else 0.0
    facts = MeasureFacts(name, name, direction, None, None, identity, True, "L2")
    assert as_distance(value, facts) == pytest.approx(distance)


def test_three_models_are_points_averaged_over_languages(four_roles):
    data = space_info(four_roles, at=3)
    panel = data.panels[0]
    assert panel.labels == ("mono-en", "mono-fi", "mixed", "merged-linear")
    values = [
        math.acos(four_roles.grid("mono-en", "mixed", measure="cka", language_a=lang).values[3, 3])
        for lang in ("eng_Latn", "fin_Latn")
    ]
    assert panel.distances[0, 2] == pytest.approx(np.mean(values))
    assert "mean over 2 languages" in data.note
    assert "layer 3" in data.note


def test_models_not_compared_across_languages_get_a_plane_each(two_encoders):
    data = space_info(two_encoders)
    assert [panel.title for panel in data.panels] == ["multilingual-e5-small", "minilm-l6"]
    assert data.panels[0].labels == ("eng", "deu", "fra", "fin", "ell", "rus")


def test_models_compared_across_languages_share_a_plane():
    table = synthetic_table(
        {"a": 2, "b": 2}, languages=("eng_Latn", "deu_Latn"), measures=("cka",), cross_language=True
    )
    (panel,) = space_info(table).panels
    assert list(zip(panel.groups, panel.labels, strict=True)) == list(
        itertools.product("ab", ("eng", "deu"))
    )


def test_two_points_make_no_plane():
    table = synthetic_table({"a": 1, "b": 1}, languages=("eng_Latn",), measures=("cka",))
    with pytest.raises(UsageError, match="needs at least three points, and the table compares 2"):
        space_info(table)


def test_missing_distances_are_named(table_of):
    rows = [{"model_a": a, "model_b": b, "value": 0.5} for a, b in ("ab", "bc")]
    with pytest.raises(UsageError, match="1 of the distances .* for example c and a"):
        space_info(table_of(rows), by="model")


def test_an_unknown_kind_of_point_is_refused(two_encoders):
    with pytest.raises(UsageError, match="unknown kind of point 'language'"):
        space_info(two_encoders, by="language")


def test_points_stand_where_they_were_embedded_on_one_scale(four_roles):
    data = space_info(four_roles)
    ax = SPACE.draw(data).axes[0]
    drawn = np.array([[line.get_xdata()[0], line.get_ydata()[0]] for line in ax.lines])
    np.testing.assert_allclose(drawn, data.panels[0].xy)
    assert ax.get_aspect() == 1.0
    frame = ax.get_window_extent()
    per_unit = frame.width / np.ptp(ax.get_xlim()), frame.height / np.ptp(ax.get_ylim())
    assert per_unit[0] == pytest.approx(per_unit[1])
    assert not ax.get_xticks().size
    assert not ax.get_yticks().size


def test_all_planes_share_one_scale(two_encoders):
    axes = SPACE(two_encoders).axes
    scales = [np.ptp(ax.get_xlim()) / ax.get_window_extent().width for ax in axes]
    assert scales[0] == pytest.approx(scales[1])


def test_roles_have_their_colour_marker_and_key(four_roles):
    figure = SPACE(four_roles)
    found = [(line.get_markerfacecolor(), line.get_marker()) for line in figure.axes[0].lines]
    assert found == [ROLES[r] for r in ("monolingual", "monolingual", "mixed", "merged")]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["monolingual", "mixed", "merged"]


def test_every_point_is_named_and_stress_is_printed(two_encoders):
    data = space_info(two_encoders)
    texts = [text.string for text in drawn_texts(SPACE.draw(data))]
    assert all(texts.count(code) == 2 for code in data.panels[0].labels)
    assert any("stress-1 = " in text for text in texts)


def test_the_caption_names_the_nearest_points(table_of):
    values = {"ab": 0.9, "bc": 0.5, "ac": 0.4}
    rows = [{"model_a": a, "model_b": b, "value": value} for (a, b), value in values.items()]
    caption = space_info(table_of(rows)).caption()
    assert f"Nearest: a and b ({math.acos(0.9):.2f})" in caption
    assert "arccos of CKA" in caption
